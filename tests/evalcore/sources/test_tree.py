"""A tree answers as the folder does that it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evalcore.completeness import check_complete
from evalcore.sources.tree import Tree
from tiny_folder import write_checkpoint


def tree_of(folder: Path) -> Tree:
    files = {str(f.relative_to(folder)): f.stat().st_size for f in folder.rglob("*") if f.is_file()}

    def read(name: str, start: int, length: int) -> bytes:
        return (folder / name).read_bytes()[start : start + length]

    return Tree("hf://org/repo@step1", files, read)


def test_it_answers_as_its_folder_does(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c.bin").write_bytes(bytes(range(256)) * 100)
    (tmp_path / "ab").write_bytes(b"")
    tree = tree_of(tmp_path)
    assert [(f.name, f.is_dir(), f.is_file()) for f in tree.iterdir()] == [
        ("a", True, False),
        ("ab", False, True),
    ]
    assert [f.name for f in (tree / "a").iterdir()] == ["b"]
    file = tree / "a" / "b" / "c.bin"
    assert (str(file), file.stat().st_size) == ("hf://org/repo@step1/a/b/c.bin", 25600)
    assert file.read_bytes() == (tmp_path / "a" / "b" / "c.bin").read_bytes()
    with file.open() as stream:
        assert stream.read(3) + stream.read() == file.read_bytes()
        assert stream.read(1) == b""
    assert (tree / "ab").read_bytes() == b""
    assert not (tree / "nothing").is_file()


def test_a_checkpoint_in_it_is_read_by_its_headers(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "step-1", shards=2)
    (folder / "tokenizer.model").write_bytes(b"\x0a")
    tree: Any = tree_of(folder)
    assert check_complete(tree) == "hf"
