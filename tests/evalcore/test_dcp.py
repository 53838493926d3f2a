"""Which tensors share a file; all else needs torch, which is not among what tests have."""

from __future__ import annotations

import pytest

from evalcore import dcp


@pytest.mark.parametrize(
    ("sizes", "files"),
    [
        ({}, []),
        ({"a": 1}, [["a"]]),
        ({"a": 6, "b": 4, "c": 1}, [["a", "b"], ["c"]]),
        ({"a": 1, "b": 30, "c": 10}, [["a", "b"], ["c"]]),
    ],
)
def test_a_file_ends_with_the_tensor_that_fills_it(
    sizes: dict[str, int], files: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dcp, "_FILE", 10)
    assert list(dcp._dealt(sizes)) == files
