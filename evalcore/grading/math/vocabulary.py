"""The names that answers use: functions, Greek letters, units, commands and signs."""

from __future__ import annotations

# fmt: off
FUNCTIONS = frozenset({
    "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "arccot", "asin", "acos", "atan",
    "sinh", "cosh", "tanh", "coth", "arsinh", "arcosh", "artanh", "ln", "log", "lg", "exp", "sqrt", "cbrt", "abs",
    "min", "max", "gcd", "lcm", "det", "floor", "ceil", "sgn", "re", "im", "arg",
})
GREEK = frozenset({
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu",
    "xi", "omicron", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega",
})
NAMED = {"pi": "pi", "infty": "infty", "infinity": "infty", "inf": "infty", "oo": "infty", "cdot": "cdot"}
UNITS = frozenset({
    "mm", "cm", "dm", "km", "ft", "yd", "mi", "kg", "mg", "lb", "lbs", "oz", "ml", "kph", "mph", "hr", "hrs", "min",
    "mins", "sec", "secs", "ms", "am", "pm", "pct", "hz", "khz", "rad", "deg", "cc", "sq", "mol", "pa", "kpa", "kj",
    "mw", "kw", "per",
})
"""What two or three letters may stand for behind a number, where ``2ab`` is a product."""

UNIT_NAMES = {
    "dollar": "$", "usd": "$", "buck": "$", "euro": "€", "degree": "deg", "centimeter": "cm", "centimetre": "cm",
    "meter": "m", "metre": "m", "kilometer": "km", "kilometre": "km", "millimeter": "mm", "inch": "in", "inche": "in",
    "feet": "ft", "foot": "ft", "mile": "mi", "gram": "g", "kilogram": "kg", "pound": "lb", "lb": "lb", "hour": "h",
    "hr": "h", "minute": "min", "second": "s", "sec": "s", "liter": "l", "litre": "l", "day": "day", "week": "week",
    "yard": "yd", "month": "month", "year": "year",
}
"""One name for each unit, from its singular."""

_SI_UNITS = {
    "meter": "m", "gram": "g", "second": "s", "liter": "l", "newton": "n", "joule": "j", "watt": "w", "volt": "v",
    "amp": "a", "ohm": "ohm", "hertz": "hz", "pascal": "pa", "electronvolt": "ev", "coulomb": "c", "tesla": "t",
    "farad": "f", "kelvin": "k", "calorie": "cal", "mole": "mol", "byte": "b", "bit": "bit",
}
_SI_PREFIXES = {
    "pico": "p", "nano": "n", "micro": "u", "milli": "m", "centi": "c", "kilo": "k", "mega": "mega", "giga": "g",
    "tera": "t",
}
UNIT_NAMES |= {"ampere": "amp", "ev": "electronvolt", "hz": "hertz", "mol": "mole", "radian": "rad"}
UNIT_NAMES |= {
    prefixed: UNIT_NAMES.get(prefix + unit, prefix + unit)
    for unit, symbol in _SI_UNITS.items()
    for prefix, letter in _SI_PREFIXES.items()
    for prefixed in (prefix + unit, letter + symbol)
    if prefixed not in UNIT_NAMES and prefixed not in UNIT_NAMES.values()
}
"""A prefix and a unit, or the letters of both; ``mega`` is written out, as its letter is that of ``milli``."""

SHORT_UNITS = {"mph": "mi/h", "kph": "km/h", "cc": "cm3"}

CAPITALS = {
    "N": "newton", "J": "joule", "W": "watt", "V": "volt", "A": "amp", "C": "coulomb", "T": "tesla", "F": "farad",
    "K": "kelvin", "M": "molar",
}
"""What these letters are as units, where small ones are others or none."""

MEASURES = frozenset(UNIT_NAMES.values()) | _SI_UNITS.keys() | {
    "%", "cent", "am", "pm", "ton", "rpm", "molar",
}
"""Units that contradict each other, where other words behind a number only describe it."""

_OPPOSITES = {
    "compass": ("north", "south", "east", "west"),
    "side": ("left", "right"),
    "height": ("up upward", "down downward"),
    "turn": ("clockwise", "counterclockwise anticlockwise"),
    "way": ("inward", "outward"),
    "change": ("increase gain profit rise", "decrease loss drop decline"),
    "more": ("more greater above over", "less fewer below under"),
    "most": ("maximum maxima max largest greatest", "minimum minima min smallest least"),
    "time": ("ago before earlier", "later after"),
    "parity": ("even", "odd"),
    "sign": ("positive", "negative"),
    "heat": ("absorbed", "released"),
    "month": (
        "january", "february", "march", "april", "may", "june", "july", "august", "september", "october",
        "november", "december",
    ),
}
DIRECTIONS = {
    word.rstrip("s"): (axis, side)
    for axis, sides in _OPPOSITES.items()
    for side, words in enumerate(sides)
    for word in words.split()
}
"""Words behind a number, without an s at their end, that say of what kind it is: the axis, and the side on it."""

MULTIPLIERS = {"dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}

PERCENT = frozenset({"percent", "percents", "percentage", "pct"})
CURRENCY = {"$": "$", "\\$": "$", "€": "€", "£": "£", "¥": "¥"}

OPERATORS = {
    "leq": "<=", "le": "<=", "leqslant": "<=", "lt": "<", "geq": ">=", "ge": ">=", "geqslant": ">=", "gt": ">",
    "neq": "!=", "ne": "!=", "approx": "~", "simeq": "~", "in": "in", "equiv": "=", "times": "×", "cdot": "*",
    "ast": "*", "div": "/", "pm": "+-", "mp": "-+", "cup": "cup", "cap": "cap", "setminus": "minus",
    "backslash": "minus", "lbrace": "\\{", "rbrace": "\\}", "langle": "(", "rangle": ")", "lvert": "|", "rvert": "|",
    "vert": "|", "mid": "|", "lbrack": "[", "rbrack": "]", "lparen": "(", "rparen": ")", "lor": "or", "vee": "or",
    "land": "and", "wedge": "and", "lfloor": "lfloor", "rfloor": "rfloor", "lceil": "lceil", "rceil": "rceil",
    "to": "to", "rightarrow": "to", "colon": ":", "degree": "°",
}
"""Commands that are operators or brackets."""

SYMBOLS = {
    "−": "-", "–": "-", "×": "×", "·": "*", "⋅": "*", "∗": "*", "÷": "/", "≤": "<=", "≥": ">=", "≠": "!=",
    "≈": "~", "∈": "in", "±": "+-", "∓": "-+", "∪": "cup", "∩": "cap", "∖": "minus", "⟨": "(", "⟩": ")",
    "≡": "=", "∨": "or", "∧": "and", "→": "to", "º": "°", "°": "°", "²": "^2", "³": "^3", "（": "(", "）": ")",
    "，": ",", "€": "€", "£": "£", "¥": "¥", "…": "...",
}
"""The same as characters."""

LETTERS = {
    "π": "pi", "∞": "infty", "√": "sqrt", "∛": "cbrt", "∠": "angle", "△": "triangle", "∅": "emptyset", "θ": "theta",
    "α": "alpha", "β": "beta", "γ": "gamma", "λ": "lambda", "μ": "mu", "φ": "phi", "ω": "omega",
}
"""Characters that are names of letters, constants or functions."""

TEXT_COMMANDS = frozenset({
    "text", "mbox", "textbf", "textit", "textrm", "textnormal", "textsf", "hbox", "mathrm", "rm", "operatorname",
    "mathsf",
})
MATRICES = frozenset({"matrix", "pmatrix", "bmatrix", "Bmatrix", "vmatrix", "Vmatrix", "smallmatrix", "array"})
PLAIN = frozenset({
    "mathbf", "mathit", "boldsymbol", "bm", "mathcal", "mathfrak", "displaystyle", "textstyle", "boxed", "fbox",
})
"""Commands whose argument means the same without them."""

DECORATED = {
    "vec": "vec", "overrightarrow": "vec", "hat": "hat", "widehat": "hat", "bar": "bar", "overline": "bar",
    "tilde": "tilde", "widetilde": "tilde", "dot": "dot", "ddot": "ddot", "underline": "underline",
}
"""Commands that make another name of a letter; the wide ones are the same."""

SILENT = frozenset({"angle", "measuredangle", "triangle", "therefore", "because", "nolimits"})
DELTA = frozenset({"Delta", "partial", "nabla"})
INVERSE = {"sin": "arcsin", "cos": "arccos", "tan": "arctan", "cot": "arccot"}
SAME_NAME = {"asin": "arcsin", "acos": "arccos", "atan": "arctan"}
