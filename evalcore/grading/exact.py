r"""Grade by exact match: ``\boxed{\text{Paris}}`` against ``Paris``.

Case counts; the amount of white space, how an accent is encoded, and what is wrapped around the whole
(bold, quotes, dollars, a final full stop) do not.
"""

from __future__ import annotations

import re
import unicodedata

from evalcore.grading.verdict import Equality, Options

_FONT = re.compile(r"\\(?:text(?:bf|it|rm|sf|tt)?|math(?:bf|it|rm|sf|tt)|mbox)\s*\{([^{}]*)\}")
_WRAPPED = re.compile(
    r"\*\*(.+)\*\*|\*(.+)\*|\$(.+)\$|`(.+)`|\"(.+)\"|'(.+)'|“(.+)”|‘(.+)’|\\\((.+)\\\)|(.*[^.\s])\s*\.",
    re.DOTALL,
)


def quick(answer: str, expected: str, options: Options) -> Equality:
    """Whether the texts are the same."""
    return Equality(_bare(answer) == _bare(expected), "text")


def _bare(text: str) -> str:
    r"""The text without what is wrapped around it: ``**"New  York".**`` → ``New York``."""
    bare = " ".join(unicodedata.normalize("NFC", _FONT.sub(r"\1", text)).split())
    for _ in range(4):  # bold, quotes, a full stop within, dollars
        wrapped = _WRAPPED.fullmatch(bare)
        if not wrapped:
            break
        bare = next(group for group in wrapped.groups() if group).strip()
    return bare
