"""What every regular expression in the sources keeps to."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest

import evalcore
from evalcore import grading

ROOT = Path(evalcore.__file__).parents[1]
LAYERS = ("evalcore", "plugins", "include", "dags")

WRITTEN = re.compile(r"(?<!\\)(?:\\\\)*\)(?:[*+?]|\{{1,2}\d*,?\d*\}{1,2})\+")
ONE_CHARACTER = {"LITERAL", "NOT_LITERAL", "ANY", "IN"}


def is_read(pattern: str | bytes, flags: int = 0) -> bool:
    """Whether Python reads more than one character in it as repeated possessively."""

    def is_wrong(node: Any) -> bool:
        if isinstance(node, re._parser.SubPattern):  # type: ignore[attr-defined]
            node = node.data
        if not isinstance(node, tuple | list):
            return False
        match node:
            case (operation, (_, _, repeated)) if str(operation) == "POSSESSIVE_REPEAT":
                if len(repeated) > 1 or str(repeated[0][0]) not in ONE_CHARACTER:
                    return True
        return any(map(is_wrong, node))

    return is_wrong(re._parser.parse(pattern, flags))  # type: ignore[attr-defined]


# Python before 3.11.5 is wrong there (cpython#106052), as Debian 12 has it. (?>(?:…)*) is right everywhere.
@pytest.mark.parametrize(
    "wrong", ["(?:ab?c)*+", "x|(?=(?:ab?c){0,5}+)", "(?:ab){3}+", r"(?:a\\)?+", "(?>(ab)++)"]
)
def test_a_group_that_is_repeated_possessively_is_seen(wrong: str) -> None:
    assert is_read(wrong)
    assert WRITTEN.search(wrong)


@pytest.mark.slow
def test_no_group_is_repeated_possessively() -> None:
    files = [file for layer in LAYERS for file in (ROOT / layer).rglob("*.py")]
    assert [f"{file}: {found[0]}" for file in files for found in WRITTEN.finditer(file.read_text())] == []
    # Nor in what is put together of parts.
    assert not is_read(r"(?>(?:[ab]++|\)*+)*).*+\d{3}+")
    patterns = {
        f"{module.name}.{name}": value
        for module in pkgutil.walk_packages(grading.__path__, "evalcore.grading.")
        for name, value in vars(importlib.import_module(module.name)).items()
        if isinstance(value, re.Pattern)
    }
    assert "evalcore.grading.extract._NUMBER" in patterns
    assert [name for name, it in patterns.items() if is_read(it.pattern, it.flags)] == []
