"""A checkpoint has a run, a name and a step, which are safe as names of folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from evalcore.checkpoints import load_checkpoint, path_component
from evalcore.errors import CheckpointError
from tiny_folder import write_checkpoint


@pytest.mark.parametrize("shards", [1, 2])
def test_a_complete_checkpoint(tmp_path: Path, shards: int) -> None:
    folder = write_checkpoint(tmp_path / "run-a" / "iter_0001500", shards)
    checkpoint = load_checkpoint(folder)
    assert (checkpoint.run, checkpoint.name, checkpoint.step) == ("run-a", "iter_0001500", 1500)
    assert load_checkpoint(folder, run="other run", step=7).run == "other-run"
    assert load_checkpoint(folder, step=7).step == 7
    named = load_checkpoint(folder, name="night 3")
    assert (named.name, named.step, named.digest) == ("night-3", 1500, checkpoint.digest)
    stamped = write_checkpoint(tmp_path / "run-20261121020000123456", shards)
    assert load_checkpoint(stamped).step is None, "no database's integer is that long"
    below = write_checkpoint(tmp_path / "run-b" / "checkpoints" / "step-1", shards)
    assert load_checkpoint(below).run == "run-b"


def test_no_such_folder() -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        load_checkpoint(Path("/nowhere/step-1"))


@pytest.mark.parametrize("name", ["", "..", "/", "  "])
def test_a_name_that_is_no_folder_name_is_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match="cannot be used as a folder name"):
        path_component(name, "training run")


def test_a_name_too_long_for_a_folder_is_refused_before_anything_is_written() -> None:
    assert path_component("n" * 200, "training run") == "n" * 200
    with pytest.raises(CheckpointError, match=r"training run: 'nnn.*has 201 characters.*at most 200"):
        path_component("n" * 201, "training run")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("~nobody-of-this-name/ckpt", "~nobody-of-this-name/ckpt: there is no such user's home"),
        (os.fsdecode(b"/ckpt-\xff"), "the path is not UTF-8; rename"),
    ],
)
def test_a_path_that_cannot_be_used_is_one_line(path: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(Path(path))
    assert len(str(caught.value).splitlines()) == 1


def test_results_below_a_home_that_is_not_there(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(write_checkpoint(tmp_path / "run" / "step-1"))
    with pytest.raises(CheckpointError, match="there is no such user's home"):
        checkpoint.folder("~nobody-of-this-name/results")


def test_a_hostile_name_stays_one_component() -> None:
    assert path_component("../../etc/$(reboot)", "run") == "..-..-etc-reboot"
