"""What every regular expression in the sources keeps to."""

from __future__ import annotations

import re
from pathlib import Path

import evalcore


def test_no_group_is_repeated_possessively() -> None:
    # Python before 3.11.5 is wrong there (cpython#106052), as Debian 12 has it. (?>(?:…)*) is right everywhere.
    repeated = re.compile(r"(?<!\\)\)(?:[*+?]|\{{1,2}\d*,?\d*\}{1,2})\+")
    for wrong in ("(?:ab?c)*+", "(?:ab?c){{0,5}}+", "(?:a){3}+"):
        assert repeated.search(wrong)
    files = Path(evalcore.__file__).parent.rglob("*.py")
    assert [f"{file}: {found[0]}" for file in files for found in repeated.finditer(file.read_text())] == []
