"""What may stand in a converter's file, and what tells checkpoints apart that need one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distributed_checkpoint import write_converter, write_distributed
from evalcore import checkpoints, model_folder
from evalcore.checkpoints import digest, load_checkpoint
from evalcore.converters import Conversion, conversion, load_converter
from evalcore.errors import CheckpointError, ConfigError
from tiny_folder import write_checkpoint

PLAIN = "command: [a, '{checkpoint}', '{target}']\n"
CONVERSION = Conversion(name="c", command=("convert",), copy_from=None, digest="d")


@pytest.fixture
def include(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVALCORE_INCLUDE", str(tmp_path / "include"))
    return tmp_path / "include"


def now(folder: Path) -> str:
    return digest(folder, CONVERSION)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{PLAIN}copyfrom: /a", "unknown key 'copyfrom'; valid: command, copy_from, description"),
        ("description: nothing else", "command: Field required"),
        ("command: []", "command: Tuple should have at least 1 item"),
        ("command: a {checkpoint} {target}", r"command: Input should be a valid tuple \(got 'a {check"),
        ("command: [a, '{checkpoint}', 8]", r"command\.2: Input should be a valid string \(got 8\)"),
        ("command: [a, '{checkpoint}', '{traget}']", "command: {target} is in none of its arguments"),
        ("command: [a, '{target}']", "command: {checkpoint} is in none of its arguments"),
        (
            f"{PLAIN}copy_from: models/llama",
            "copy_from: String should match",
        ),
        ("command: [", "is unreadable: "),
        ("- command", "holds no mapping"),
    ],
)
def test_a_mistake_is_one_line_that_names_file_and_key(include: Path, content: str, message: str) -> None:
    file = write_converter(include, "team/a", "")
    file.write_text(content)
    with pytest.raises(ConfigError, match=message) as error:
        load_converter("team/a")
    assert str(error.value).startswith(f"converter team/a: {file}")
    assert "\n" not in str(error.value)


def test_a_path_is_no_name_of_a_converter(include: Path, tmp_path: Path) -> None:
    # Whoever can start a run could run any command by a file of their own.
    file = write_converter(tmp_path / "elsewhere", "a", "")
    for name in (str(file), "../../elsewhere/converters/a", f"./{os.path.relpath(file)}"):
        with pytest.raises(ConfigError, match=r"unknown converter .*; valid: dcp$"):
            load_converter(name)


def test_another_conversion_is_another_command_or_another_file_that_is_copied(
    include: Path, tmp_path: Path
) -> None:
    model = write_checkpoint(tmp_path / "model")
    file = write_converter(include, "a", "print(1)", copy_from=model)
    first = conversion("a").digest
    file.write_text(file.read_text().replace("{", '{"description": "Words.", ', 1))
    assert conversion("a").digest == first
    (model / "model.safetensors").write_bytes(b"")
    model.rename(tmp_path / "moved")
    with pytest.raises(
        ConfigError, match=rf"converter a: {file}: copy_from: there is no folder {model} here"
    ):
        conversion("a")
    model.touch()
    with pytest.raises(ConfigError, match="copy_from: there is no folder"):
        conversion("a")
    write_converter(include, "b", "print(1)", copy_from=tmp_path / "moved")
    assert conversion("b").digest == first
    write_converter(include, "c", "print(2)", copy_from=tmp_path / "moved")
    (tmp_path / "moved" / "chat_template.jinja").write_text("{{ messages }}")
    assert len({first, conversion("b").digest, conversion("c").digest}) == 3
    # The same words under another name are read as something else.
    before = conversion("c").digest
    (tmp_path / "moved" / "chat_template.jinja").rename(tmp_path / "moved" / "another.jinja")
    assert conversion("c").digest != before


def test_what_is_no_hugging_face_folder_needs_a_converter(include: Path, tmp_path: Path) -> None:
    folder = write_distributed(tmp_path / "run" / "iter_0000100")
    with pytest.raises(CheckpointError, match=r"a distributed checkpoint, .*converter=NAME .*; valid: dcp$"):
        load_checkpoint(folder)
    checkpoint = load_checkpoint(folder, converter="dcp")
    assert (checkpoint.run, checkpoint.name, checkpoint.step) == ("run", "iter_0000100", 100)
    assert checkpoint.conversion == conversion("dcp")
    (folder / "__0_0.distcp").write_bytes(b"")
    with pytest.raises(CheckpointError, match="truncated"):
        load_checkpoint(folder, converter="dcp")


def test_a_hugging_face_folder_stays_what_it_is_whatever_the_converter(include: Path, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "run" / "step-1")
    assert load_checkpoint(folder, converter="dcp") == load_checkpoint(folder)
    # Which the history, and what was converted, know it by: of what changes the answers, and nothing else.
    (folder / "trainer_state.json").write_text("{}")
    assert load_checkpoint(folder).digest == model_folder.digest(folder)


def test_every_file_of_a_checkpoint_counts_by_place_size_and_content(tmp_path: Path) -> None:
    folder = write_distributed(tmp_path / "a" / "step-1")
    write_distributed(folder / "optim")
    digests = [now(folder)]
    assert now(folder.rename(tmp_path / "b")) == digests[0]
    folder = tmp_path / "b"
    (folder / "optim" / "__0_0.distcp").write_bytes(b"\1" + bytes(3153))
    digests.append(now(folder))
    (folder / "optim").rename(folder / "optimizer")
    digests.append(now(folder))
    (folder / "common.pt").touch()
    digests.append(now(folder))
    (tmp_path / "elsewhere").mkdir()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "in-a-circle").symlink_to(folder)
    (tmp_path / "elsewhere" / os.fsdecode(b"\xff")).touch()
    digests.append(now(folder))
    assert len(set(digests)) == len(digests)


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    folder = write_distributed(tmp_path / "run" / "step-1")
    before = now(folder)
    (folder / "latest-run").symlink_to("nosuch")
    os.mkfifo(folder / "pipe")
    assert now(folder) == before


def test_which_of_two_ways_to_a_folder_is_taken_does_not_depend_on_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_distributed(tmp_path / "run" / "step-1")
    (folder / "model" / "part").mkdir(parents=True)
    (folder / "model" / "part" / "file").touch()
    (folder / "same").symlink_to("model")
    walk, digests = os.walk, []
    for backwards in (False, True):

        def walked(*given: Any, backwards: bool = backwards, **more: Any) -> Iterator[Any]:
            for here, folders, files in walk(*given, **more):
                folders.sort(reverse=backwards)
                yield here, folders, files

        monkeypatch.setattr(os, "walk", walked)
        digests.append(now(folder))
    assert len(set(digests)) == 1


def test_a_folder_that_cannot_be_looked_into_is_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_distributed(tmp_path / "step-1")
    write_distributed(folder / "optim")
    listed = os.scandir

    def refused(path: str) -> Any:
        if os.path.basename(path) == "optim":
            raise PermissionError(path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(PermissionError):
        now(folder)


def test_a_large_file_is_read_at_its_ends_and_between_and_metadata_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "_READ_WHOLE", 1 << 10)
    monkeypatch.setattr(checkpoints, "_BLOCK", 64)
    content = bytearray(1 << 14)
    for name, places in (
        ("__0_0.distcp", (0, (len(content) - 64) // 3, len(content) - 1)),
        (".metadata", (0, 100, 9000)),
    ):
        (tmp_path / name).write_bytes(content)
        digests = {now(tmp_path)}
        for place in places:
            changed = content.copy()
            changed[place] = 1
            (tmp_path / name).write_bytes(changed)
            digests.add(now(tmp_path))
        (tmp_path / name).write_bytes(content + b"\0")
        digests.add(now(tmp_path))
        assert len(digests) == 2 + len(places), name


def test_a_conversion_is_read_back_from_a_manifest(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(write_distributed(tmp_path / "run" / "step-1"), converter="dcp")
    written = json.loads(checkpoint.model_dump_json())
    assert written["conversion"]["command"] == list(load_converter("dcp").command)
    assert checkpoints.Checkpoint.model_validate(written) == checkpoint
    del written["conversion"]  # as earlier versions wrote
    assert checkpoints.Checkpoint.model_validate(written).conversion is None
