"""What lands in W&B, read back from the run's file with wandb's own reader (``wandb leet inspect``)."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import wandb_server
from evalcore.checkpoints import Checkpoint
from evalcore.errors import ResultsError
from evalcore.records import GREEDY
from evalcore.settings import Wandb
from evalcore.summarize import Scorecard, summarize
from evalcore.track import _load, metrics, run_id, track
from synthetic_results import CHECKPOINT, Sample, manifest, write
from waiting import LONG

# They start processes, and wait for them.
pytestmark = pytest.mark.slow

# A separate process: what W&B prints, where it writes and what it reads from the environment are all
# part of what is tested, and it keeps state in its process.
TRACK = """
import json, resource, sys
from pathlib import Path
from evalcore.settings import Wandb
from evalcore.errors import EvalError
from evalcore.track import track
folder, times, settings, largest_file = sys.argv[1:]
if int(largest_file):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest_file),) * 2)
try:
    for _ in range(int(times)):
        run = track(Path(folder), Wandb(**{"project": "evals", **json.loads(settings)}))
        print(run.offline, run.url, run.directory, run, sep="|")
except EvalError as error:
    sys.exit(f"one line: {error}")
"""


KEY = "0123456789abcdef" * 2 + "deadbeef"


def track_args(folder: Path, times: int = 1, *, largest_file: int = 0, **settings: str) -> list[str]:
    """Arguments of ``python`` that track a folder; largest_file: in bytes, 0 for any."""
    return ["-c", TRACK, str(folder), str(times), json.dumps(settings), str(largest_file)]


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str
    home: Path
    cwd: Path


def run_python(tmp: Path, *args: str, **environment: str) -> Done:
    home, cwd = tmp / "home", tmp / "cwd"
    for folder in (home, cwd):
        folder.mkdir(exist_ok=True)
    env = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    env |= {"HOME": str(home), "NETRC": str(home / "netrc"), **environment}
    done = subprocess.run(
        [sys.executable, *args], cwd=cwd, env=env, capture_output=True, text=True, timeout=LONG, check=False
    )
    return Done(done.returncode, done.stdout, done.stderr, home, cwd)


def results(folder: Path, checkpoint: Checkpoint = CHECKPOINT) -> Path:
    """A checkpoint's folder with two benchmarks."""
    right = {(p, s): (p + s) % 2 == 0 for p in range(4) for s in range(GREEDY, 2)}
    rows = [Sample(f"p{p}", s, "1" if correct else "2", correct) for (p, s), correct in right.items()]
    subsets = [row._replace(fields={"subset_for_metrics": f"s{row.problem}"}) for row in rows]
    for name, samples in (("toy", rows), ("parts", subsets)):
        summarize(
            write(folder / name, manifest(4, 2, name=name, greedy=True, checkpoint=checkpoint), samples)
        )
    return folder


class Tracked(NamedTuple):
    folder: Path
    done: Done
    directories: list[Path]
    records: dict[str, list[Any]]

    @property
    def summary(self) -> dict[str, Any]:
        return {key: value for it in self.records["summary"] for key, value in it["update"].items()}

    @property
    def table(self) -> list[dict[str, Any]]:
        """The rows of the table, by the names of its columns."""
        [file] = [
            path for update in self.records["files"] for path in update["files"] if "table" in path["path"]
        ]
        table = json.loads((self.directories[-1] / "files" / file["path"]).read_bytes())
        return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]


def read_back(tmp: Path, folder: Path, done: Done) -> Tracked:
    """What the last of the runs that were tracked holds."""
    assert done.returncode == 0, done.stderr
    directories = [Path(line.split("|")[2]) for line in done.stdout.splitlines()]
    [file] = directories[-1].glob("*.wandb")
    inspect = run_python(tmp, "-m", "wandb", "leet", "inspect", "--json", str(file), WANDB_MODE="offline")
    assert inspect.returncode == 0, inspect.stderr
    records = defaultdict(list)
    for line in inspect.stdout.splitlines():
        record = json.loads(line)
        records[record["type"]].append(record[record["type"]])
    return Tracked(folder, done, directories, records)


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    """A checkpoint tracked twice, without a key; the records are those of the second time."""
    tmp = tmp_path_factory.mktemp("track")
    folder = results(tmp / "results" / "tiny" / "step-1500")
    return read_back(tmp, folder, run_python(tmp, *track_args(folder, 2)))


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    """Two benchmarks that are not complete, of a checkpoint without a step, tracked with settings of their own."""
    tmp = tmp_path_factory.mktemp("unfinished")
    checkpoint = CHECKPOINT.model_copy(update={"step": None})
    folder = tmp / "results" / "tiny" / "final"
    rows = [
        Sample("a", 0, "1", True, True, tokens=10),
        Sample("a", 1, "2", False, True, tokens=20),
        Sample("b", 0, "2", False, False, tokens=30),
        Sample("b", 1, None, False, tokens=None),
    ]
    judged = manifest(2, 2, name="judged", judged=True, checkpoint=checkpoint)
    summarize(write(folder / "judged", judged, rows))
    needs_one = manifest(2, 2, name="needs", judged=True, checkpoint=checkpoint)
    summarize(write(folder / "needs", needs_one.model_copy(update={"judging": None}), rows))
    summarize(write(folder / "short", manifest(3, 2, name="short", checkpoint=checkpoint), rows))
    summarize(write(folder / "whole", manifest(2, 2, name="whole", checkpoint=checkpoint), rows))
    arguments = track_args(folder, entity="my-team", project="my-evals", mode="offline")
    # The setting counts, not the environment.
    return read_back(tmp, folder, run_python(tmp, *arguments, WANDB_MODE="disabled", WANDB_ENTITY="other"))


@pytest.mark.slow
def test_a_checkpoint_is_one_run_of_its_training_run(tracked: Tracked) -> None:
    [run] = tracked.records["run"]
    assert run["run_id"] == run_id(CHECKPOINT)
    assert (run["project"], run["run_group"]) == ("evals", "tiny")
    assert (run["display_name"], run["job_type"]) == ("step-1500", "evaluation")
    assert tracked.records["exit"][0]["exit_code"] == 0


def test_metrics_with_their_errors_over_checkpoint_step(tracked: Tracked) -> None:
    [history] = tracked.records["history"]
    item = history["item"]
    card = Scorecard.load(tracked.folder / "toy")
    greedy = card.subsets[0].modes[0].symbolic_correct
    assert greedy is not None
    assert item["checkpoint_step"] == 1500
    assert item["toy/greedy/symbolic_correct"] == greedy.value == 0.5
    assert item["toy/greedy/symbolic_correct_std_err"] == greedy.std_err
    assert item["toy/pass@1[2]/no_answer"] == 0
    assert item["parts-sp0/majority@2/symbolic_correct"] == 0.5
    assert item["parts/pass@2/symbolic_correct"] == 1.0
    expected = metrics([Scorecard.load(tracked.folder / name) for name in ("parts", "toy")])
    assert {name: item[name] for name in expected} == expected
    axes = {
        metric.get("glob_name") or metric["name"]: metric.get("step_metric")
        for metric in tracked.records["metric"]
    }
    assert axes == {"checkpoint_step": None, "*": "checkpoint_step"}


def test_the_summary_has_the_numbers_too(tracked: Tracked) -> None:
    assert tracked.summary["toy/pass@2/symbolic_correct"] == 1.0
    assert tracked.summary["toy/complete"] == tracked.summary["parts/complete"] == 1


def test_the_table_of_all_modes(tracked: Tracked) -> None:
    rows = tracked.table
    assert [(row["benchmark"], row["evaluation_mode"]) for row in rows if row["benchmark"] == "toy"] == [
        ("toy", "greedy"),
        ("toy", "majority@2"),
        ("toy", "pass@2"),
        ("toy", "pass@1[2]"),
    ]
    assert {row["benchmark"] for row in rows} == {
        "toy",
        "parts-all",
        "parts-sp0",
        "parts-sp1",
        "parts-sp2",
        "parts-sp3",
    }
    assert rows[-1]["num_entries"] == 4
    assert rows[-1]["symbolic_correct"] == 0.5
    assert rows[-1]["judge_correct"] is None
    assert all(row["complete"] for row in rows)


@pytest.mark.slow
def test_a_row_of_the_table_is_a_line_of_the_scorecard(unfinished: Tracked) -> None:
    [row] = [
        row
        for row in unfinished.table
        if (row["benchmark"], row["evaluation_mode"]) == ("judged", "pass@1[2]")
    ]
    [mode] = [
        mode
        for mode in Scorecard.load(unfinished.folder / "judged").subsets[0].modes
        if mode.evaluation_mode == "pass@1[2]"
    ]
    assert row["num_entries"] == mode.num_entries == 2
    for metric in (
        "symbolic_correct",
        "judge_correct",
        "both_correct",
        "any_correct",
        "no_answer",
        "avg_tokens",
    ):
        estimate = getattr(mode, metric)
        assert (row[metric], row[f"{metric}_std_err"]) == (estimate.value, estimate.std_err)
    assert (row["symbolic_correct"], row["symbolic_correct_std_err"]) == (0.25, 0.25)
    assert (row["judge_correct"], row["judge_correct_std_err"]) == (0.5, 0.5)
    # Tokens of b's second answer are unknown: the mean of 15 and 30.
    assert (row["avg_tokens"], row["avg_tokens_std_err"]) == (22.5, 7.5)


def test_what_is_incomplete_is_marked_and_named(unfinished: Tracked) -> None:
    marks = {"judged": 0, "needs": 0, "short": 0, "whole": 1}
    assert {name: unfinished.summary[f"{name}/complete"] for name in marks} == marks
    assert {row["benchmark"]: row["complete"] for row in unfinished.table} == marks
    assert unfinished.done.stderr == "incomplete, and marked so in W&B (complete = 0): judged, needs, short\n"


def test_entity_and_mode_of_the_settings(unfinished: Tracked) -> None:
    [run] = unfinished.records["run"]
    assert (run["entity"], run["project"]) == ("my-team", "my-evals")
    assert unfinished.done.stdout.startswith("True|None|")


def test_a_checkpoint_without_a_step_has_none(unfinished: Tracked) -> None:
    [history] = unfinished.records["history"]
    assert "checkpoint_step" not in history["item"]
    assert history["item"]["whole/pass@2/symbolic_correct"] == 0.5


def test_scorecards_and_manifests_are_an_artifact(tracked: Tracked) -> None:
    [artifact] = [record for record in tracked.records["artifact"] if record["type"] == "evaluation"]
    contents = {entry["path"]: Path(entry["local_path"]) for entry in artifact["manifest"]["contents"]}
    assert sorted(contents) == [
        "parts/manifest.json",
        "parts/scorecard.json",
        "toy/manifest.json",
        "toy/scorecard.json",
    ]
    for path, copy in contents.items():
        assert copy.read_bytes() == (tracked.folder / path).read_bytes()
        # A later summarize changes the file; what waits for its upload stays as it was, beside the run.
        assert copy.is_relative_to(tracked.folder / "wandb")


def test_the_settings_that_made_the_numbers_are_in_the_config(tracked: Tracked) -> None:
    config = [
        record["update"] for record in tracked.records["config"] if "benchmarks" in record.get("update", {})
    ][-1]
    assert config["checkpoint"]["digest"] == "c0ffee"
    assert config["benchmarks"]["toy"]["sampling"]["temperature"] == 0.7
    assert len(config["benchmarks"]["toy"]["fingerprint"]) == 12


def test_tracking_again_writes_beside_and_not_over(tracked: Tracked) -> None:
    first, second = tracked.directories
    assert first != second
    assert [next(directory.glob("*.wandb")).name for directory in tracked.directories] == [
        f"run-{run_id(CHECKPOINT)}.wandb"
    ] * 2


def test_offline_says_how_to_upload_and_nothing_else_is_printed_or_written(tracked: Tracked) -> None:
    assert tracked.done.stderr == ""
    assert tracked.done.stdout.splitlines() == [
        f"True|None|{directory}|W&B run kept on disk; upload it: wandb sync {directory}"
        for directory in tracked.directories
    ]
    assert all(directory.parent == tracked.folder / "wandb" for directory in tracked.directories)
    assert not list(tracked.done.cwd.iterdir())
    assert not [path for path in tracked.done.home.rglob("*") if path.is_file() and path.suffix != ".log"]


@pytest.mark.slow
def test_online_a_checkpoint_tracked_again_goes_on_with_its_run(tmp_path: Path) -> None:
    folder = results(tmp_path / "step-1500")
    with wandb_server.running() as server:
        done = run_python(tmp_path, *track_args(folder, 2), WANDB_BASE_URL=server.url, WANDB_API_KEY=KEY)
    assert (done.returncode, done.stderr) == (0, "")
    url = f"{server.url}/team/evals/runs/{run_id(CHECKPOINT)}"
    assert [line.split("|")[::3] for line in done.stdout.splitlines()] == [["False", f"W&B run: {url}"]] * 2
    assert server.unknown == []
    [(sent_id, run)] = server.runs.items()
    assert (sent_id, run.group) == (run_id(CHECKPOINT), "tiny")
    rows = [run.history[number] for number in sorted(run.history)]
    # W&B drops rows whose own step does not go on from the last one.
    assert [(row["_step"], row["checkpoint_step"]) for row in rows] == [(0, 1500), (1, 1500)]
    assert run.summary["toy/pass@2/symbolic_correct"] == 1.0
    assert server.artifacts.count(f"scorecards-{run_id(CHECKPOINT)}") == 2
    sent = server.files[f"scorecards-{run_id(CHECKPOINT)}/toy/scorecard.json"]
    assert sent == (folder / "toy" / "scorecard.json").read_bytes()


@pytest.mark.slow
def test_what_was_kept_offline_is_uploaded_by_the_command_in_the_message(tmp_path: Path) -> None:
    folder = results(tmp_path / "a folder" / "step-1500")
    done = run_python(tmp_path, *track_args(folder, 2))
    before = (folder / "toy" / "scorecard.json").read_bytes()
    (folder / "toy" / "scorecard.json").write_text("changed since")
    commands = [shlex.split(line.rpartition("upload it: wandb ")[2]) for line in done.stdout.splitlines()]
    with wandb_server.running() as server:
        for command in commands:
            sync = run_python(tmp_path, "-m", "wandb", *command, WANDB_BASE_URL=server.url, WANDB_API_KEY=KEY)
            assert sync.returncode == 0, sync.stderr
    run = server.runs[run_id(CHECKPOINT)]
    assert [row["toy/greedy/symbolic_correct"] for row in run.history.values()] == [0.5, 0.5]
    assert server.files[f"scorecards-{run_id(CHECKPOINT)}/toy/scorecard.json"] == before


@pytest.mark.slow
@pytest.mark.parametrize("source", ["environment", "netrc"])
def test_with_a_key_it_goes_online_and_a_server_that_is_gone_is_one_line(tmp_path: Path, source: str) -> None:
    folder = results(tmp_path / "step-1500")
    (tmp_path / "home").mkdir()
    environment = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_INIT_TIMEOUT": "2"}
    if source == "environment":
        environment["WANDB_API_KEY"] = KEY
    else:
        (tmp_path / "home" / "netrc").write_text(f"machine 127.0.0.1:9 login user password {KEY}\n")
    done = run_python(tmp_path, *track_args(folder), **environment)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith(f"one line: W&B did not take the numbers of {folder}: ")
    assert "wandb.mode=offline" in line
    written = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert not [text for text in written if KEY.encode() in text]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"WANDB_MODE": "disabled"}, "False|None|None|W&B is disabled: nothing was sent\n"),
        ({"WANDB_MODE": "offline", "WANDB_API_KEY": KEY}, "True|None|"),
    ],
)
def test_wandb_mode_is_honoured(tmp_path: Path, environment: Mapping[str, str], expected: str) -> None:
    folder = results(tmp_path / "step-1500")
    done = run_python(tmp_path, *track_args(folder), **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(expected)
    assert (folder / "wandb").exists() == (environment["WANDB_MODE"] == "offline")


def test_a_mode_of_the_settings_counts_more_than_the_environments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    tracked = track(results(tmp_path / "step-1500"), Wandb(mode="disabled"))
    assert (tracked.url, tracked.directory, tracked.offline) == (None, None, False)
    assert str(tracked) == "W&B is disabled: nothing was sent"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("WANDB_MODE", "W&B's setting mode: Input should be 'online', 'offline', "),
        ("WANDB_BASE_URL", "W&B's setting base_url: Input should be a valid URL, "),
    ],
)
@pytest.mark.slow
def test_what_wandb_cannot_read_of_the_environment_is_one_line(
    tmp_path: Path, name: str, message: str
) -> None:
    folder = results(tmp_path / "step-1500")
    done = run_python(tmp_path, *track_args(folder), **{name: "garbage"})
    [line] = done.stderr.splitlines()
    assert line.startswith(f"one line: {message}")
    assert line.endswith(f"; see {name}")


@pytest.mark.slow
@pytest.mark.parametrize("largest_file", [1_000, 5_000])
def test_a_full_disk_is_one_line(tmp_path: Path, largest_file: int) -> None:
    # A limit to the size of files takes the first part of a line and refuses the rest, as a full disk does. At
    # the larger one only wandb's own process meets it, and keeps that to itself.
    folder = results(tmp_path / "step-1500")
    shutil.rmtree(folder / "parts")
    done = run_python(tmp_path, *track_args(folder, largest_file=largest_file, mode="offline"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"one line: W&B's files in {folder}/wandb cannot be written: File too large; "
        f"the scorecards are kept, run `evalcore track {folder}` again when they can\n"
    )


def test_without_wandb_the_extra_is_named(tmp_path: Path) -> None:
    folder = results(tmp_path / "step-1500")
    without = "import sys; sys.modules['wandb'] = None\n" + TRACK
    done = run_python(tmp_path, "-c", without, *track_args(folder)[2:], WANDB_MODE="offline")
    advice = "wandb is not installed; pip install 'evalcore[wandb]'"
    assert done.stderr == f"one line: W&B mode offline is asked for, but {advice}\n"


def test_without_wandb_and_without_a_mode_the_numbers_stay_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    tracked = track(results(tmp_path / "step-1500"), Wandb())
    assert (tracked.url, tracked.directory) == (None, None)
    assert "wandb is not installed: nothing was sent; pip install" in tracked.message


def test_importing_track_does_not_import_wandb(tmp_path: Path) -> None:
    done = run_python(tmp_path, "-c", "import sys, evalcore.track; print('wandb' in sys.modules)")
    assert done.stdout == "False\n"


def test_a_folder_without_scorecards(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="evalcore summarize"):
        track(tmp_path, Wandb(mode="offline"))


def test_results_of_other_settings_or_weights_are_not_sent_as_this_checkpoints(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = results(tmp_path / "step-1500")
    # toy was begun anew with another judge, and has no scorecard of that yet; parts was overwritten.
    manifest(4, 2, name="toy", greedy=True, judged=True).save(folder / "toy")
    with pytest.raises(ResultsError, match=r"toy/scorecard\.json: made under other settings"):
        Scorecard.load(folder / "toy")
    retrained = CHECKPOINT.model_copy(update={"digest": "other"})
    rows = [Sample(f"p{p}", 0, "1", True) for p in range(4)]
    summarize(write(folder / "new", manifest(4, 1, name="new", checkpoint=retrained), rows))
    os.utime(folder / "parts" / "scorecard.json", (0, 0))
    assert list(_load(folder, {})) == ["new"]
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 2
    assert "other settings" in warnings[0]
    assert "other weights" in warnings[1]


def test_the_id_follows_the_checkpoint_and_its_weights() -> None:
    assert run_id(CHECKPOINT) == run_id(CHECKPOINT.model_copy(update={"path": "/elsewhere", "step": None}))
    changed = [{"digest": "other"}, {"name": "step-1"}, {"run": "other"}]
    assert len({run_id(CHECKPOINT.model_copy(update=change)) for change in [{}, *changed]}) == 4
