r"""Cut an answer into tokens: ``2\sqrt{x} \text{ cm}`` → number, command, brace, letter, brace, text.

One regular expression that takes a character a bounded number of times; nothing is looked up or evaluated.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from evalcore.grading.math.vocabulary import (
    CAPITALS,
    FUNCTIONS,
    GREEK,
    LETTERS,
    NAMED,
    OPERATORS,
    SYMBOLS,
    TEXT_COMMANDS,
    UNITS,
)

Kind = Literal["number", "symbol", "name", "function", "word", "text", "op", "end"]


class Token(NamedTuple):
    """spaced: whether white space precedes it."""

    kind: Kind
    text: str
    spaced: bool


class Unreadable(Exception):
    """The text is no formula that this grammar knows; says where it stopped."""


_NUMBER = r"\d+(?:\.\d*)?(?:[eE][+-]?\d+(?![\d.A-Za-z]))?|\.\d+(?:[eE][+-]?\d+(?![\d.A-Za-z]))?"
_TOKEN = re.compile(
    r"(?P<space>[\s~]+|\\[,;:!> ]|\\(?:q?quad|left|right|displaystyle|limits|[bB]igg?[lr]?)(?![A-Za-z])\.?)"
    r"|(?P<thousands>\d{1,3}(?:,\d{3})+(?![\d,])(?:\.\d+)?)"
    rf"|(?P<number>{_NUMBER})"
    r"|\\(?P<command>[A-Za-z]+)\*?"
    r"|\\(?P<escaped>[{}%$#&|\\_])"
    r"|(?P<letters>[A-Za-z]+)"
    r"|(?P<operator>\*\*|<=|>=|!=|==|=<|=>|\+-|\.\.\.|[-+*/^_=<>!()\[\]{}|,;:&'%$°€£¥])"
    r"|(?P<unicode>[^\x00-\x7f])",
    re.ASCII,
)
_UNIT_LETTERS = frozenset({"m", "s", "g", "h", "L", *CAPITALS})
_BARE = {"**": "^", "==": "=", "=<": "<=", "=>": ">=", "\\\\": "newline"}


def tokens(text: str) -> list[Token]:
    """All the tokens of a text, an ``end`` last.

    A comma between digits is a thousands separator where the digits are in threes and no bracket is open:
    ``1,234`` is a number, ``(1,234)`` a pair.

    Raises:
        Unreadable: a character that no formula has.
    """
    found: list[Token] = []
    position, depth, spaced = 0, 0, False
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise Unreadable(f"character {text[position]!r}")
        kind, value = str(match.lastgroup), match[match.lastgroup or 0]
        if kind == "thousands" and depth:
            match = re.compile(_NUMBER).match(text, position)
            assert match is not None
            kind, value = "number", match[0]
        position = match.end()
        if kind == "space":
            spaced = True
            continue
        if kind == "command" and value in TEXT_COMMANDS:
            content, position = _argument(text, position)
            found += _wordy(value, content, spaced, found)
        else:
            for token in _read(kind, value, spaced, found):
                depth += (token.text in ("(", "[", "\\{")) - (token.text in (")", "]", "\\}"))
                found.append(token)
        spaced = False
    return [*found, Token("end", "", spaced)]


def _read(kind: str, value: str, spaced: bool, before: list[Token]) -> list[Token]:
    if kind in ("number", "thousands"):
        return [Token("number", value.replace(",", ""), spaced)]
    if kind == "operator":
        return [Token("op", _BARE.get(value, value), spaced)]
    if kind == "escaped":
        value = {"{": "\\{", "}": "\\}", "|": "|", "\\": "newline", "_": "_"}.get(value, value)
        return [Token("op", value, spaced)]
    if kind == "unicode":
        if value in SYMBOLS:
            parts = SYMBOLS[value]
            return (
                [Token("op", "^", spaced), Token("number", parts[1], False)]
                if parts[0] == "^"
                else [Token("op", parts, spaced)]
            )
        if value in LETTERS:
            return [_name(LETTERS[value], spaced)]
        if value.isalpha():
            return [Token("symbol", value, spaced)]
        raise Unreadable(f"character {value!r}")
    if kind == "command":
        if value in OPERATORS:
            text = OPERATORS[value]
            return [Token("op", {"{": "\\{", "}": "\\}"}.get(text, text), spaced)]
        return [_name(value, spaced)]
    return _letters(value, spaced, before)


def _name(value: str, spaced: bool) -> Token:
    return Token("function" if value in FUNCTIONS else "name", value, spaced)


def _letters(run: str, spaced: bool, before: list[Token]) -> list[Token]:
    """A run of letters: a function's name, a word, or a product of variables."""
    if len(run) == 1:
        return [Token("symbol", run, spaced)]
    lower = run.lower()
    if lower in ("minus", "negative"):
        return [Token("op", "-", spaced)]
    after_number = bool(before) and (before[-1].kind == "number" or before[-1].text in (")", "}"))
    if after_number and lower in UNITS:
        return [Token("word", run, spaced)]
    if run in FUNCTIONS or run in GREEK:
        return [_name(run, spaced)]
    if lower in NAMED:
        return [_name(NAMED[lower], spaced)]
    if lower in ("and", "or") or len(run) > 3:
        for function in FUNCTIONS:
            if run.startswith(function) and len(run) - len(function) == 1:
                return [Token("function", function, spaced), Token("symbol", run[-1], False)]
        return [Token("op", lower, spaced) if lower in ("and", "or") else Token("word", run, spaced)]
    for function in ("sin", "cos", "tan", "log", "ln", "pi"):
        if run.startswith(function):
            rest = [Token("symbol", letter, False) for letter in run[len(function) :]]
            return [_name(function, spaced), *rest]
    return [Token("symbol", letter, spaced and i == 0) for i, letter in enumerate(run)]


def _argument(text: str, position: int) -> tuple[str, int]:
    """The text between the braces that follow, and where it ends; the next character if there are none."""
    while position < len(text) and text[position] in " ~":
        position += 1
    if position == len(text):
        return "", position
    if text[position] != "{":
        return text[position], position + 1
    depth = 0
    for end in range(position, len(text)):
        depth += (text[end] == "{") - (text[end] == "}")
        if depth == 0:
            return text[position + 1 : end], end + 1
    raise Unreadable("a brace that is not closed")


def _wordy(command: str, content: str, spaced: bool, before: list[Token]) -> list[Token]:
    r"""``\text{…}``: words; but ``\mathrm{E}`` is a letter, and ``\text{ and }`` stands between answers."""
    plain = re.sub(r"[\s~]+|\\[,;:! ]", " ", content).strip()
    lower = plain.lower().strip(" ,;.")
    if lower in ("and", "or"):
        return [Token("op", lower, spaced)]
    if lower in ("minus", "negative"):
        return [Token("op", "-", spaced)]
    behind = bool(before) and (before[-1].kind in ("number", "name") or before[-1].text in (")", "}"))
    degrees = any(token.text in ("circ", "°") for token in before[-2:])
    apart = (
        content[:1] in " ~" or degrees or (before and before[-1].kind == "number" and plain in _UNIT_LETTERS)
    )
    if behind and apart and (len(plain) == 1 or lower in UNITS):  # `5\text{ m}`
        return [Token("text", plain, spaced)]
    if plain in FUNCTIONS or (command == "operatorname" and plain.isalpha()):
        return [_name(plain, spaced)]
    if len(plain) == 1 and plain.isalpha():
        return [Token("symbol", plain, spaced)]
    if plain in (",", ";"):
        return [Token("op", plain, spaced)]
    if re.fullmatch(r"[-+]?[\d.,/ ]*\d", plain):  # \text{12}
        return list(tokens(plain)[:-1])
    return [Token("text", plain, spaced)] if plain else []


class Tokens:
    """The tokens of a text, and how far they have been read."""

    def __init__(self, text: str) -> None:
        self.tokens = tokens(text)
        self.position = 0

    @property
    def token(self) -> Token:
        return self.tokens[self.position]

    def next(self) -> Token:
        token = self.tokens[self.position]
        if token.kind == "end":
            raise Unreadable("it ends too early")
        self.position += 1
        return token

    def peek(self, ahead: int = 1) -> Token:
        return self.tokens[min(self.position + ahead, len(self.tokens) - 1)]

    def at(self, *texts: str) -> bool:
        return self.token.kind == "op" and self.token.text in texts

    def at_word(self) -> bool:
        return self.token.kind in ("word", "text")

    def at_name(self, *names: str) -> bool:
        return self.token.kind in ("name", "function") and self.token.text in names

    def take(self, *texts: str) -> bool:
        if self.at(*texts):
            self.position += 1
            return True
        return False

    def expect(self, *texts: str) -> str:
        if not self.at(*texts):
            raise Unreadable(f"{self.token.text!r} where {' or '.join(texts)} should be")
        return self.next().text
