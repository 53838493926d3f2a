from __future__ import annotations

import pytest

from evalcore.terminal import without_controls


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\tb\nc", "a\tb\nc"),
        ("grüße ±2% 数学", "grüße ±2% 数学"),
        ("\x1b[31;1mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[H\x1b[?25lhidden", "hidden"),
        ("20%\r40%\b\x07", "20%40%"),
        ("\x1b]0;title\x07x", "]0;titlex"),
        ("\x9b31mred\x7f", "31mred"),
    ],
)
def test_without_controls(text: str, expected: str) -> None:
    assert without_controls(text) == expected
