r"""Find the answer in a response: ``"… so it is $\boxed{\frac{1}{2}}$."`` → ``\frac{1}{2}``.

Every function here takes time linear in the text, whatever the text: each pattern scans a character a
bounded number of times, and braces are matched in one pass.

Repeated groups that give nothing back are atomic, ``(?>(?:…)*)``, and not possessive: Python before 3.11.5 gets those
wrong (cpython#106052).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

from evalcore.grading.verdict import Extraction, Options

OPTIONS: dict[str, tuple[str, ...]] = {"extract": ("boxed", "relaxed")}

_THINK, _END_THINK = "<think>", "</think>"
_OUTPUT, _END_OUTPUT = "```output\n", "```"

# \boxed, \fbox, and a command that ends in one of them, as in "\beginboxed{".
_BOX = r"\\[A-Za-z]*(?:boxed|fbox)"
# A box, a brace, or an escaped character, which is no brace. `\\boxed{` with two backslashes (a model
# that escapes as in JSON) is a box too: the escape must not swallow the second one.
# Without braces it holds the number, the letter or the command that follows, but no word: `\boxed 5`.
_BARE = (
    r"[-−]?\d++(?>(?:[.,]\d++)*)(?![\w/^])|[A-Za-z](?![\w'’(^]|\s+[A-Za-z])"
    rf"|(?!{_BOX})\\[A-Za-z]++(?>(?:\{{(?>(?:[^{{}}]++|\{{[^{{}}]*\}})*)\}})*)(?![{{(\[])"
)
_BRACES = re.compile(rf"{_BOX}\s*(?:(\{{)|({_BARE}))|\\(?!{_BOX}).|[{{}}]", re.DOTALL)
_BOX_OPENS = re.compile(_BOX + r"\s*\{")
# What a prompt leaves to be filled in: `\boxed{}`, `\boxed{...}`, `\boxed{?}`.
_BLANK = re.compile(r"(?>(?:[\s~.…?_]++|\\[,;:! ]|\\(?:q?quad|[lc]?dots)\b|\\text\{\s*\})*)")

# Formulas hold no blank line; and "$5 per apple, $6 each" holds no formula.
_DOLLARS = r"(?:[^$\n]|\n(?![ \t]*\n))+"
# Between \( and \) no other of them: each character is looked at once, however many stay open.
_FORMULA = re.compile(
    rf"\$\$({_DOLLARS})\$\$|\$(?![\d.,]+\s+[A-Za-z]{{2}})({_DOLLARS})\$(?!\d)"
    r"|\\\(((?:[^\\]|\\[^()\[\]])+)\\\)|\\\[((?:[^\\]|\\[^()\[\]])+)\\\]"
    r"|\\begin\{(?:align|equation|gather)\*?\}((?:[^\\]|\\(?!begin|end))+)\\end",
    re.DOTALL,
)
_ROWS = re.compile(r"\\(?:begin|end)\{(?:align|gather|split)[a-z]*\*?\}")
_JOINED = re.compile(r"\s*(?:[,;]\s*(?:(?:and|or)\b)?|(?:and|or)\b)\s*")
# Thousands may be set apart by a comma or a space, thin ones of LaTeX included: 1,234 and 1 234 and 1\\,234.
_NUMBER = re.compile(
    r"(?<![\w.^])[-−]?[$€£]?√?"
    r"(?:(?:\d+(?:,\d{3})+|\d{1,3}(?>(?:(?:[ \u00a0\u2009\u202f]|\\,|\{,\})\d{3})+)(?!\d)|\d+)(?:\.\d+)?"
    r"|\.\d+|[½⅓⅔¼¾])"
    r"(?:(?:\s\d+)?/\d+|(?::\d+| : \d+)+|e[-+]?\d+|(?:\s?(?:[x×*·]|\\times)\s?10)?(?:\^\{?[-−]?\d+\}?|⁻?[⁰¹²³⁴-⁹]+))?"
    r"[½⅓⅔¼¾]?(?:√\d+)?(?:\s?(?:\\?%|π))?"
)

# "The answer is 5", "the final answer to this question must be 5", "**Answer:** 5"; a heading
# "**Final Answer**"; "#### 5", but no "#### Step 2" or "#### 2. Check", unless nothing follows; "A: 5".
_ANNOUNCED = re.compile(
    r"""
      (?-i:(?=[aA\#答]|^))  # looked at first, for it is fast
      (?:
        (?:\b|(?<=["'<]final_))(?:answers?|ans)\b[.)"'*_]{0,3}
        (?:   (?P<json>(?<=["'])\s?:\s?)
          | (?P<colon>\s?[:：=]|(?<=[<_]answer)>)
          | (?:\s(?:to|for|of|in(?!\swhich))\s[^.:\n]{1,100}?
              | ,\s(?:to|for|in|as)\s[^.,:\n]{1,60},
              | \s\([^().:\n]{1,60}\)
            )?
            \s+(?:(?:probably|likely|then|therefore|thus|simply|clearly)\s+)?
            (?:is|are|equals|comes\s(?:out\s)?to|(?:should|must|would|will|might|may|could|to)\sbe)\b(?!\s+not\b) )
      | ^[#*_\s]{0,12}(?:the\s)?(?:final\s)?answer[*_\s]{0,6}$
      | 答案[*_]{0,3}(?:\s?[:：=]|是|为|為)
      | \#\#\#\#\s?+(?:(?!\d+[.)]\s|[*_]{0,3}[A-Za-z])|(?=[^\n]{0,200}+\Z))
      | ^A:(?=[ \t]*+\S++(?>(?:[ \t]\S++){0,5})[ \t]*+$)
      )
    """,
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
_MENTIONS = ("ans", "####", "\na:", "答案")  # each announcement has one of them
_BEFORE_MENTION = 40  # where it may begin: "### The final answer"
_ANNOUNCEMENTS = 8  # looked at, from the last one back, for one that says something
_LEADING = re.compile(
    r"[\s*_:：=`,}]{0,12}(?:(?:therefore|thus|hence|then|simply|just|indeed|clearly|probably|(?:most\s)?likely|actually"
    r"|given\sby|found\sto\sbe)\b[\s,:*]{0,3}){0,2}",
    re.IGNORECASE,
)
_TRAILING = " *_`,;(✅✔✓🎉\ufe0f"
# Where an answer ends: with its sentence (i.e., but not here), its line, its turn, or where its reason begins, what
# it is not, or about how much it is.
_END = re.compile(
    r"(?P<again>,?\s(?:i\.e\.|namely|which\s(?:is|equals|gives|makes))[\s,:*]*)"
    r"|(?<!\.[A-Za-z])\.(?:\s|$|<\|)|(?<=\.[A-Za-z])\.(?=\s+[A-Z]|\s*$)|!\s+(?=[A-Z])|。|\n|<\||</|<[a-z_]{3,}>|\[/"
    r"|\b(?:since|because|which)\b|[,(]\s?(?:and\s|but\s)?not\b|,?\s(?:or|\()\s?(?:about|approximately|roughly)\b"
    r"|;\s(?=[A-Za-z]{2,}\s[a-z])|,\s(?:with|where|so)\b|\s(?:if|when)\b|[,(]\s?see\b"
    r"|\s(?:at|for)\s(?=[a-z]\s?=)|\s[–—]\s(?=[A-Za-z]{3,}\s)(?!sin|cos|tan|log|sqrt)"
)
# What is said again has to be but a value: "the sum, which is 12."; and "5, which is 2 more than 3" has said it.
_VALUE_ALONE = re.compile(rf"[$\\]|(?:{_NUMBER.pattern})(?:\s[A-Za-z]+){{0,2}}[*_]{{0,3}}\s*(?:[.,;\n]|$)")
# "The answer is as follows:\\n$5$", "the answer is the point (2, 5)"; but not the number of $n$.
_INTRODUCTION = re.compile(
    r"(?:[A-Za-z,' ]{1,60}:[*_ ]*|(?:as\sfollows|(?:shown|given)\sbelow)\b[.:]?[*_ ]*)\n\s*"
    r"|the\s(?:(?!(?:of|in|on|as|except|than|all|not)\b)[a-z]+\s){1,3}(?=[(\[{$]|\\[({\[])"
)
_QUOTED = re.compile(r"[\"“]([^\"“”]+)[\"”]")
_FEW_WORDS = 4
_END_OF_PROOF = re.compile(r"(?:\$?\\(?:blacksquare|square|Box|qed)\$?|[∎■□]|\bQ\.?E\.?D\b\.?)\s*\Z")
_LONGEST_END_OF_PROOF = 20
# The value itself is `"5"`, `[1, 2]` or what ends with a comma, a brace or the line.
_JSON_VALUE = re.compile(r'"(?:[^"\\\n]|\\.)*"|\[[^\]\n]*\]|[^,}\n]+')
# "5 of the 12 apples", "$5 per hour": the number at the start is the answer.
_NUMBER_OF = re.compile(_NUMBER.pattern + r"(?=\s+(?:of|per|for|in|each|more|less|fewer)\s+[A-Za-z])")
_NUMBER_AND_WORD = re.compile(_NUMBER.pattern + r"(?=\s+[A-Za-z])")
_NUMBER_OF_THINGS = re.compile(_NUMBER.pattern + r"\s*(?:$|(?!times|plus|minus|divided)[A-Za-z])")
# `**5 apples**`, but not `**2. Check**`.
_BOLD_VALUE = re.compile(
    rf"\*\*\s?(?:({_NUMBER.pattern})(?![.):]\s?(?:[A-Za-z]|\*\*))[^*\n]{{0,40}}|(?:{_FORMULA.pattern}))\s?\*\*",
    re.DOTALL,
)
# "1 hour and 30 minutes"
_QUANTITIES = re.compile(rf"(?:(?:{_NUMBER.pattern})\s[A-Za-z]+(?:,?\s(?:and\s)?|$)){{2,}}")
_JOINT = re.compile(r"[,;]|\b(?:and|or)\b")
_EQUALS = re.compile(r"(?<![<>!=])=(?!=)")
_LETTER = re.compile(r"[A-Za-z]")
# Many a model leaves `"\\frac"` as it is in LaTeX, which would be a form feed.
_JSON_ESCAPE = re.compile(r'\\(["\\/])')
_PROSE = re.compile(r"[A-Z][a-z'’]*\s+[a-z]+\s")  # "He has 3 apples"
_OPEN_BOX = re.compile(_BOX + r"\s*\{?")

_LONGEST_ANSWER = 200
_COMMAND = re.compile(
    r"\\(?:text|mbox|mathrm)\s?\{[^{}]*\}|\\[A-Za-z]+|\b(?:and|or|percent|pct|pi|sin|cos|tan|log|ln|sqrt)\b"
)
_WORD = re.compile(r"[A-Za-z]{2,}(?!\()")
_LONGEST_SHORT_WORD = 3
_CAPITALIZED = re.compile(r"[A-Z][a-z]+\s")  # "So x = 5"
_LONGEST_LINE = 1000  # of an announced answer; what goes on for longer is no answer


def by_options(generation: str, options: Options) -> Extraction:
    """The answer of a response; options: ``extract: boxed`` (default) or ``relaxed``."""
    return extract(generation, options.get("extract", OPTIONS["extract"][0]))


def extract(text: str, mode: str) -> Extraction:
    """The answer of a response. mode ``boxed``: the last box; ``relaxed``: else what ``relaxed`` finds."""
    answer, reason = after_reasoning(text)
    if answer is None:
        return Extraction(None, reason)
    found = boxed(answer)
    if found.answer is None and mode == "relaxed":
        return relaxed(answer) or Extraction(None, f"{found.reason}, no number")
    return found


def after_reasoning(text: str) -> Extraction:
    """What follows ``</think>``: reasoning never counts, and an unclosed block leaves no answer.

    The opening tag may be missing: some chat templates put it into the prompt.
    """
    text = text[text.rfind(_END_THINK) + len(_END_THINK) :] if _END_THINK in text else text
    if _THINK in text:
        return Extraction(None, "reasoning not finished")
    if not text.strip():
        return Extraction(None, "empty response")
    return Extraction(text, "")


def boxed(text: str) -> Extraction:
    r"""The content of the last balanced ``\boxed{…}`` or ``\fbox{…}`` that holds anything.

    A malformed or empty last box falls back to the one before. Of nested boxes it is the innermost.
    """
    start, end = max(boxes(text), default=(-1, -1))
    if start >= 0:
        return Extraction(text[start:end].strip(), "boxed")
    return Extraction(None, "box empty or not closed" if _BOX_OPENS.search(text) else "no box")


def boxes(text: str) -> Iterator[tuple[int, int]]:
    """Where the contents of all balanced boxes that hold anything start and end, in the order of the ends."""
    first = text.find("box")
    if first < 0:
        return  # searching for a word is many times faster than for a pattern
    open_braces: list[tuple[int, bool]] = []  # (where its content starts, whether it is a box)
    for token in _BRACES.finditer(text, max(0, text.rfind("\\", 0, first))):
        if token[2]:
            yield token.span(2)
        elif token[0][-1] == "{" and (token[1] or len(token[0]) == 1):
            open_braces.append((token.end(), bool(token[1])))
        elif token[0] == "}" and open_braces:
            start, is_box = open_braces.pop()
            if is_box and not _BLANK.fullmatch(text, start, token.start()):
                yield start, token.start()


def relaxed(text: str) -> Extraction | None:
    """What is announced, else the whole if it is but an answer, else what a program printed, else the last value.

    Before a program's output nothing counts: programs have a variable called ``answer``.
    """
    output = None
    start = text.rfind(_OUTPUT)
    end = text.find(_END_OUTPUT, start + len(_OUTPUT))
    if 0 <= start < end:
        lines = text[start + len(_OUTPUT) : end].strip().splitlines()
        output, text = nothing_else(lines[-1]) if lines else None, text[end + len(_END_OUTPUT) :]
    if found := announced(text):
        return found
    text = _without_end_of_proof(text)
    if found := nothing_else(text):
        return found
    # Text that calculates goes beyond what was printed; a sentence only says what it is.
    if output and "=" not in text:
        return Extraction(output.answer, "program output")
    return final_value(text)


def _without_end_of_proof(text: str) -> str:
    end = _END_OF_PROOF.search(text, max(0, len(text) - _LONGEST_END_OF_PROOF))
    return text[: end.start()] if end else text


def announced(text: str) -> Extraction | None:
    """What the last ``answer is …``, ``Answer: …``, ``#### …`` says: its formulas, or its few words.

    Of a whole sentence (``Answer: the largest number of points is 19.``) its value.
    """
    text = text.rstrip()
    for start in _mentions(text):
        for marker in reversed(deque(_ANNOUNCED.finditer(text, start), maxlen=_ANNOUNCEMENTS)):
            answer = _said(text, marker)
            if answer and "box" in answer and not (answer := _OPEN_BOX.sub("", answer).strip()).strip("}$"):
                continue  # to be filled in
            if answer:
                return Extraction(answer, "announced")
    return None


def _mentions(text: str) -> Iterator[int]:
    """From where on there may be an announcement: near the end, where most are, and then anywhere.

    Searching for a word is many times faster than for a pattern.
    """
    lower = "\n" + text.lower()
    if len(lower) != len(text) + 1:  # İ becomes two characters
        yield 0
    elif (last := max(map(lower.rfind, _MENTIONS))) >= 0:
        yield max(0, last - _BEFORE_MENTION)
        first = min(at for word in _MENTIONS if (at := lower.find(word)) >= 0)
        if first < last:
            yield max(0, first - _BEFORE_MENTION)


def _said(text: str, marker: re.Match[str]) -> str | None:
    """The answer that follows an announcement."""
    if marker["json"]:
        return _json_value(text[marker.end() : marker.end() + _LONGEST_LINE])
    leading = _LEADING.match(text, marker.end())
    assert leading is not None
    if introduction := _INTRODUCTION.match(text, leading.end()):
        leading = introduction
    after = text[leading.end() : leading.end() + _LONGEST_LINE].partition("</answer>")[0]
    return _answer(after, sentences=bool(marker["colon"]))


def _json_value(text: str) -> str | None:
    """The value that a text of JSON, or of a Python dict, starts with."""
    value = _JSON_VALUE.match(text)
    if not value:
        return None
    if value[0][0] != '"':
        return value[0].strip().strip("'")
    return _JSON_ESCAPE.sub(r"\1", value[0][1:-1])


def _answer(text: str, sentences: bool) -> str | None:
    """The answer that a text starts with. sentences: where it is a sentence, others may lead to the value."""
    # Only formulas at the start are the answer: "5 apples, since $2+3=5$".
    if formula := _FORMULA.match(text):
        end = formula.end()
        while (joint := _JOINED.match(text, end)) and (other := _FORMULA.match(text, joint.end())):
            end = other.end()
        return _content(formula) if end == formula.end() else text[:end]
    stop = _END.search(text)
    sentence = (text[: stop.start()] if stop else text).rstrip(_TRAILING)
    if (
        stop
        and stop["again"]
        and not _NUMBER_OF_THINGS.match(sentence)
        and _VALUE_ALONE.match(text, stop.end())
    ):
        return _answer(text[stop.end() :], sentences)
    if quoted := _QUOTED.fullmatch(sentence):
        return quoted[1]
    if sentence[-1:] == ")" and "(" not in sentence and "[" not in sentence:  # (The answer is 5.)
        sentence = sentence[:-1]
    if number := _NUMBER_OF.match(sentence):
        return number[0]
    goes_on = bool(stop and text[stop.end() :].strip())
    if len(sentence.split()) <= _FEW_WORDS and not (goes_on and sentences and _PROSE.match(sentence)):
        return sentence
    if _is_formula(sentence) or _QUANTITIES.fullmatch(sentence):
        return sentence
    if "=" not in sentence and (number := _NUMBER_AND_WORD.match(sentence)):
        return number[0]
    if value := final_value(text.split("\n\n")[0] if sentences else sentence):
        return value.answer
    return None if goes_on else sentence


def _is_formula(sentence: str) -> bool:
    """Whether it holds no words and goes through no calculation: ``3 < x < 5``, ``x = 3 or x = -1``."""
    if _WORD.search(_COMMAND.sub(" ", sentence)):
        return False
    for part in _JOINT.split(sentence):
        left, *rights = _EQUALS.split(part)
        if len(rights) > 1 or (rights and not _LETTER.search(left)):
            return False
    return True


def nothing_else(text: str) -> Extraction | None:
    """The whole response, if it is but an answer: one short line that is no sentence."""
    line = text.strip().lstrip("# ")
    if len(line) > _LONGEST_ANSWER or "\n" in line:
        return None
    words = _WORD.findall(_COMMAND.sub(" ", line))
    if len(words) > 1 or _CAPITALIZED.match(line) or any(len(word) > _LONGEST_SHORT_WORD for word in words):
        return None
    return Extraction(line, "nothing else") if line else None


def final_value(text: str) -> Extraction | None:
    """The last formula of a response, or its last number if that comes after all formulas."""
    last_line = text[text.rstrip().rfind("\n") + 1 :]
    if "**" in last_line and (bold := _last(_BOLD_VALUE, last_line)):
        return Extraction(_content(bold), "final bold value")
    formula = _last(_FORMULA, text)
    if number := _last(_NUMBER, text, formula.end() if formula else 0):
        return Extraction(number[0], "final number")
    return Extraction(_content(formula), "final formula") if formula else None


def _content(formula: re.Match[str]) -> str:
    """What stands between its delimiters; of aligned rows that go on with ``&=``, the last."""
    content = next(group for group in formula.groups() if group).strip()
    if "&" in content:
        last = _ROWS.sub("", content).strip("\\ \n").rpartition("\\\\")[2].strip()
        if last.startswith("&") and "\\end" not in last:
            return last.replace("&", "").strip()
    return content


def _last(pattern: re.Pattern[str], text: str, start: int = 0) -> re.Match[str] | None:
    """The last match, in one pass and without a list of all."""
    matches = deque(pattern.finditer(text, start), maxlen=1)
    return matches[0] if matches else None
