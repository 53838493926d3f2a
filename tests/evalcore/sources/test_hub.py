"""A repository's revisions are checkpoints when they are complete, as the hub tells."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from evalcore.discovery import find
from evalcore.errors import CheckpointError
from evalcore.sources.hub import Revisions
from evalcore.tracked import Tracked
from hub import Hub, Model
from tiny_folder import write_checkpoint

pytestmark = pytest.mark.slow

NAME = "org/olmo"
TRACKED = Tracked.model_validate({"training_run": "olmo", "source": {"hub": NAME}, "suite": "tiny"})


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    folder = write_checkpoint(tmp_path / "c", shards=2)
    return {"tokenizer.json": b"{}"} | {f.name: f.read_bytes() for f in folder.iterdir()}


@pytest.fixture
def model(files: dict[str, bytes]) -> Model:
    return Model(
        branches={"main": files, "step1000-tokens2B": files, "step200-tokens1B": files, "a/step7": files},
        tags={"step3000": {n: c for n, c in files.items() if not n.startswith("model-00002")}, "v1": {}},
    )


@pytest.fixture
def hub(model: Model, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub({}, models={NAME: model}) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        yield hub


@pytest.mark.usefixtures("hub")
def test_revisions_named_after_steps(model: Model) -> None:
    findings = find(TRACKED, Revisions(NAME), unknown=set, limit=9)
    place = f"hf://{NAME}@step200-tokens1B"
    assert [(f.name, f.step) for f in findings.found] == [
        ("step200-tokens1B", 200),
        ("step1000-tokens2B", 1000),
    ]
    assert (findings.found[0].place, findings.found[0].checkpoint) == (place, place)
    slash, v1, torn = findings.waiting
    assert slash.startswith("'a/step7' is left out")
    assert v1.startswith(f"checkpoint hf://{NAME}@v1: no config.json")
    assert "hf://org/olmo@step3000: 1 of 2 shards missing, first model-00002" in torn


def test_of_weights_only_the_headers_are_fetched(
    hub: Hub, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[tuple[str, int]] = []
    read = Revisions._read

    def counting(self: Revisions, revision: str, name: str, start: int, length: int) -> bytes:
        fetched.append((name, length))
        return read(self, revision, name, start, length)

    monkeypatch.setattr(Revisions, "_read", counting)
    name = "model-00001-of-00002.safetensors"
    files = dict(model.branches["main"])
    # As long as its header says: 8 bytes, the header, and a megabyte.
    header = b'{"a":{"dtype":"U8","shape":[1000000],"data_offsets":[0,1000000]}}'
    files[name] = len(header).to_bytes(8, "little") + header + bytes(1_000_000)
    files["model.safetensors.index.json"] = b'{"weight_map":{"a":"%s"}}' % name.encode()
    model.branches = {"step1": files}
    model.tags = {}
    for ranges in (True, False):
        model.ranges = ranges
        fetched.clear()
        assert [f.name for f in find(TRACKED, Revisions(NAME), unknown=set, limit=9).found] == ["step1"]
        assert sum(length for file, length in fetched if file == name) < 20_000
    files[name] = files[name][:-1]
    [reason] = find(TRACKED, Revisions(NAME), unknown=set, limit=9).waiting
    assert "truncated or damaged" in reason


def test_a_repository_that_is_not_there_and_a_hub_that_is_away(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CheckpointError, match=r"hf://org/nothing: .*Repository Not Found"):
        Revisions("org/nothing").list()
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CheckpointError, match=f"hf://{NAME}: "):
        Revisions(NAME).list()
