"""What is found, in which order, and that a checkpoint has one run id however it is come by."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from distributed_checkpoint import write_distributed
from evalcore.discovery import (
    ClusterFolder,
    Folder,
    Found,
    at_path,
    find,
    main,
    missing,
    newest,
    request,
    run_id,
    step_of,
)
from evalcore.errors import CheckpointError, JobError
from evalcore.profiles import SlurmProfile
from evalcore.slurm.cluster import Cluster
from evalcore.slurm.shell import Here
from evalcore.tracked import Tracked
from tiny_folder import write_checkpoint

AIRFLOWS_PATTERN = r"[A-Za-z0-9_.~:+-]{1,250}"


def tracked(path: Path = Path("/ckpt"), **fields: Any) -> Tracked:
    source = {"path": str(path), **fields.pop("source", {})}
    return Tracked.model_validate({"training_run": "run", "source": source, "suite": "tiny", **fields})


def write(folder: Path) -> Path:
    write_checkpoint(folder)
    (folder / "tokenizer.json").write_text("{}")
    return folder


def names(training_run: Tracked, **options: Any) -> list[str]:
    place = Folder(str(training_run.source.path))
    return [f.name for f in find(training_run, place, **{"unknown": set, "limit": 100, **options}).found]


def test_complete_ones_the_oldest_step_first(tmp_path: Path) -> None:
    for name in (
        "step-1000",
        "step-200",
        "final",
        "step-30",
        "step-300.tmp",
        "step-301.TMP",
        "tmp-checkpoint-5",
        ".step-7",
    ):
        write(tmp_path / name)
    (write(tmp_path / "step-40") / "model.safetensors").unlink()
    (tmp_path / "step-50").write_text("a file")
    (tmp_path / "logs").mkdir()
    training_run = tracked(tmp_path)
    findings = find(training_run, Folder(str(tmp_path)), unknown=set, limit=100)
    assert [(f.name, f.step) for f in findings.found] == [
        ("step-30", 30),
        ("step-200", 200),
        ("step-1000", 1000),
        ("final", None),
    ]
    assert findings.found[0].checkpoint == str(tmp_path / "step-30")
    assert len(findings.waiting) == 2
    assert re.search(r"step-40: no weights", findings.waiting[0])
    assert re.search(r"logs: no config\.json, no \.metadata", findings.waiting[1])
    assert names(training_run, limit=2) == ["step-30", "step-200"]
    assert names(tracked(tmp_path, source={"from_step": 200})) == ["step-200", "step-1000"]


def test_what_is_known_is_not_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in range(50):
        write(tmp_path / f"step-{step}")
    looked: list[str] = []

    def missing(self: Folder, found: list[Found]) -> list[str]:
        looked.extend(f.name for f in found)
        return [""] * len(found)

    monkeypatch.setattr(Folder, "missing", missing)
    training_run = tracked(tmp_path)
    late = {run_id(training_run, at_path(str(tmp_path / f"step-{step}"))) for step in (47, 49)}
    assert names(training_run, unknown=late.intersection) == ["step-47", "step-49"]
    assert looked == ["step-47", "step-49"]
    looked.clear()
    assert len(names(training_run, limit=5)) == 5
    assert len(looked) == 20, "one request's worth"
    looked.clear()
    assert len(names(training_run, limit=20)) == len(looked) == 20


def test_names_that_could_become_one_are_left_out(tmp_path: Path) -> None:
    for name in ("step 1", "step-2", "--", "a\nb"):
        write(tmp_path / name)
    findings = find(tracked(tmp_path), Folder(str(tmp_path)), unknown=set, limit=9)
    assert [f.name for f in findings.found] == ["step-2"]
    assert sorted(findings.waiting) == [
        f"{name!r} is left out: letters, digits and . _ + = - make a name"
        for name in ("--", "a\nb", "step 1")
    ]
    with pytest.raises(CheckpointError, match="'step 1' is left out"):
        at_path(str(tmp_path / "step 1"))


def test_a_link_to_the_newest_is_no_other_checkpoint(tmp_path: Path) -> None:
    training = tmp_path / "training"
    write(training / "step-1")
    write(tmp_path / "elsewhere" / "step-2")
    (training / "latest").symlink_to("step-1")
    (training / "step-2").symlink_to(tmp_path / "elsewhere" / "step-2")
    (tmp_path / "link").symlink_to(training)
    assert names(tracked(training)) == names(tracked(tmp_path / "link")) == ["step-1", "step-2"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        names(tracked(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("step-1500", 1500),
        ("step_1500", 1500),
        ("iter_0001500", 1500),
        ("checkpoint-1500", 1500),
        ("global_step1500", 1500),
        ("step1000-tokens4B", 1000),
        ("stage2-ingredient1-step3000-tokens7B", 3000),
        ("epoch_0_step_100", 100),
        ("iter_2-step_300", 300),
        ("1500", 1500),
        ("run7", 7),
        ("final", None),
        ("run-20261121020000123456", None),
        ("step-99999999999999999999", None),
        ("", None),
    ],
)
def test_steps(name: str, step: int | None) -> None:
    assert step_of(name) == step


def found(**fields: Any) -> Found:
    return Found(**{"name": "step-1", "step": 1, "place": "/p/step-1", "checkpoint": "/p/step-1", **fields})


def test_a_run_id_stays_as_it_is() -> None:
    # Another one for the same checkpoint would evaluate all of them again.
    assert run_id(tracked(), found()) == "ckpt__run__step-1__08fae6bc4f492ab2"


def test_a_run_id_follows_from_run_name_place_and_suite_alone() -> None:
    first = run_id(tracked(), found())
    others = [
        run_id(tracked(training_run="run2"), found()),
        run_id(tracked(suite="nightly"), found()),
        run_id(tracked(), found(name="step-2")),
        run_id(tracked(), found(place="/q/step-1")),
    ]
    assert len({first, *others}) == 5
    assert run_id(tracked(overrides=["a=b"], cluster="x"), found(step=9, checkpoint="/link/step-1")) == first


def test_run_ids_are_unambiguous_and_such_as_airflow_takes() -> None:
    ids = {
        run_id(tracked(training_run=training_run), found(name=name))
        for training_run, name in [
            ("a", "b__c"),
            ("a__b", "c"),
            ("x=1", "b"),
            ("x-1", "b"),
            ("r" * 200, "n" * 200),
            ("r" * 200, "n" * 199),
        ]
    }
    assert len(ids) == 6
    assert all(re.fullmatch(AIRFLOWS_PATTERN, i) for i in ids)


def test_one_place_has_one_run_whichever_way_leads_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "real" / "step-1")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "step-2").symlink_to("step-1")
    monkeypatch.chdir(tmp_path / "real")
    ways = [
        "step-1",
        "../link/step-1/",
        str(tmp_path / "real" / "." / "step-1"),
        str(tmp_path / "link" / "step-1"),
    ]
    [listed] = [f for f in Folder(str(tmp_path / "link")).list().found if f.name == "step-1"]
    ids = {run_id(tracked(), f) for f in (listed, *map(at_path, ways))}
    assert len(ids) == 1
    # A link of its own is a checkpoint of its own.
    assert at_path("step-2").place == str(tmp_path / "real" / "step-2")


def test_what_the_run_is_asked() -> None:
    training_run = tracked(overrides=["inference.seed=1"], benchmarks="gsm8k:4", cluster="there")
    asked = request(training_run, found())
    assert asked == {
        "trigger_run_id": run_id(training_run, found()),
        "conf": {
            "checkpoint": "/p/step-1",
            "training_run": "run",
            "step": 1,
            "suite": "tiny",
            "benchmarks": "gsm8k:4",
            "overrides": ["inference.seed=1"],
            "cluster": "there",
        },
    }
    plain = request(tracked(), found(step=0))["conf"]
    assert set(plain) == {"checkpoint", "training_run", "step", "suite", "cluster"}


def test_the_newest_is_the_complete_one_of_the_highest_step(tmp_path: Path) -> None:
    for name in ("step-30", "step-200", "final"):
        write(tmp_path / name)
    (write(tmp_path / "step-1000") / "model.safetensors").unlink()
    found = newest(Folder(str(tmp_path)))
    assert found is not None
    assert found.name == "step-200"
    write(tmp_path / "stepless" / "final")
    assert newest(Folder(str(tmp_path / "stepless"))) is None, "nobody knows whether it is newer"


NO_CONVERTER = "a distributed checkpoint, and no converter=NAME that makes a Hugging Face folder"


def test_without_a_converter_another_format_waits_to_become_a_model(tmp_path: Path) -> None:
    """Whose run could only fail, and would be the one of the model that comes later."""
    write_distributed(tmp_path / "step-2")
    write(tmp_path / "step-1")
    findings = find(tracked(tmp_path), Folder(str(tmp_path)), unknown=set, limit=9)
    assert [f.name for f in findings.found] == ["step-1"]
    assert findings.waiting == [f"checkpoint {tmp_path}/step-2: {NO_CONVERTER}"]
    nightly = newest(Folder(str(tmp_path)))
    assert nightly is not None
    assert nightly.name == "step-1"
    with_one = Folder(str(tmp_path), converted=True)
    assert [f.name for f in find(tracked(tmp_path), with_one, unknown=set, limit=9).found] == [
        "step-1",
        "step-2",
    ]
    for file in write(tmp_path / "model").iterdir():
        file.rename(tmp_path / "step-2" / file.name)
    assert missing(tmp_path / "step-2") == ""


def test_what_cannot_be_read_is_not_complete_and_no_accident(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(_: object) -> None:
        raise PermissionError(13, "Permission denied", "step-1")

    monkeypatch.setattr("evalcore.discovery.check_complete", refused)
    assert missing(tmp_path) == "[Errno 13] Permission denied: 'step-1'"
    monkeypatch.setattr(Folder, "list", refused)
    asked = io.TextIOWrapper(io.BytesIO(b'{"list": "/ckpt"}'))
    monkeypatch.setattr(sys, "stdin", asked)
    assert main() == 1
    assert capsys.readouterr().err == "evalcore: error: [Errno 13] Permission denied: 'step-1'\n"


def test_what_a_login_shell_says_is_no_answer() -> None:
    class Chatty:
        def run(self, *_: object, **__: object) -> bytes:
            return b'Welcome to the cluster!\n["no tokenizer yet"]'

    place = ClusterFolder("/ckpt", cast(Cluster, Chatty()))
    assert place.missing([found()]) == ["no tokenizer yet"]


@pytest.mark.slow
def test_a_cluster_finds_the_same(tmp_path: Path) -> None:
    training = tmp_path / "training"
    for name in ("step-2", "step-1", "step 3"):
        write(training / name)
    (write(training / "step-4") / "config.json").write_text("{")
    keys = {
        "name": "c",
        "executor": "slurm",
        "remote_job_dir": str(tmp_path / "jobs"),
        "python": sys.executable,
    }
    there = Cluster(SlurmProfile.model_validate(keys), Here())
    training_run = tracked(training)
    here = find(training_run, Folder(str(training)), unknown=set, limit=9)
    assert find(training_run, ClusterFolder(str(training), there), unknown=set, limit=9) == here
    assert [f.name for f in here.found] == ["step-1", "step-2"]
    assert len(here.waiting) == 2
    write_distributed(training / "iter_5")
    for converted, reasons in ((True, [""]), (False, [f"checkpoint {training}/iter_5: {NO_CONVERTER}"])):
        place = ClusterFolder(str(training), there, converted=converted)
        assert place.missing([at_path(str(training / "iter_5"))]) == reasons
    with pytest.raises(JobError, match="nowhere: no such folder"):
        ClusterFolder(str(tmp_path / "nowhere"), there).list()


def test_a_file_that_no_parser_can_read_is_one_checkpoint_s_trouble(tmp_path: Path) -> None:
    write(tmp_path / "step-1")
    (write(tmp_path / "step-2") / "tokenizer.json").write_text("[" * 100_000)
    found = find(tracked(tmp_path), Folder(str(tmp_path)), unknown=set, limit=9)
    assert [f.name for f in found.found] == ["step-1"]
    assert found.waiting == [f"checkpoint {tmp_path}/step-2: a JSON file in it is nested too deeply"]
