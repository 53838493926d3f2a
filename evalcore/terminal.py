"""What processes and models print, made fit to show.

>>> without_controls("\\x1b[2J\\x1b[31mloading\\x1b[0m 20%\\r")
'loading 20%'
"""

from __future__ import annotations

import re

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def without_controls(text: str) -> str:
    """The text without colours and whatever else would steer the terminal that shows it; lines and tabs stay."""
    return _CONTROL.sub("", text)
