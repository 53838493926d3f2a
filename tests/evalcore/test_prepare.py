"""prepare: from files, idempotent, and against a hub on the loopback interface with the real client."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evalcore.errors import BenchmarkError
from evalcore.prepare import data_folder, prepare
from hub import BAD_TOKEN, TOKEN, Hub, Repo

ROWS = [{"id": f"s-{n}", "problem": f"{n} + 1 = ?", "expected_answer": str(n + 1)} for n in range(4)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An include folder with the local benchmark ``sums`` and the hub benchmark ``remote``."""
    benchmarks = tmp_path / "include" / "benchmarks"
    benchmarks.mkdir(parents=True)
    monkeypatch.setenv("EVALCORE_INCLUDE", str(tmp_path / "include"))
    monkeypatch.setenv("EVALCORE_DATA", str(tmp_path / "data"))
    write_rows(benchmarks / "sums.jsonl", ROWS)
    (benchmarks / "sums.yaml").write_text("source: {path: sums.jsonl}\nname: sums\n")
    (benchmarks / "remote.yaml").write_text(
        "name: remote\n"
        "source: {hub: org/sums, where: {kind: sum}}\n"
        "fields:\n"
        "  problem: question\n"
        '  expected_answer: {column: answer, after: "####", remove: ",$"}\n'
    )
    return benchmarks


def write_rows(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


class TestFiles:
    def test_writes_the_rows_and_what_they_are(self, folder: Path) -> None:
        problems = prepare("sums")
        kept = data_folder() / "sums" / "test.jsonl"
        about = json.loads(kept.with_suffix(".json").read_text())
        assert [json.loads(line) for line in kept.read_text().splitlines()] == ROWS
        assert (about["count"], about["digest"], about["given"]) == (4, problems.digest, False)
        assert about["origins"][0]["path"] == str(folder / "sums.jsonl")
        assert sorted(file.name for file in kept.parent.iterdir()) == ["test.json", "test.jsonl"]

    def test_done_again_it_touches_nothing(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        first = prepare("sums")
        kept = data_folder() / "sums" / "test.jsonl"
        before = kept.stat()
        caplog.clear()
        assert prepare("sums") == first
        assert kept.stat().st_ino == before.st_ino
        assert caplog.messages == []

    def test_a_changed_source_is_prepared_anew_and_it_says_so(
        self, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        first = prepare("sums")
        write_rows(folder / "sums.jsonl", ROWS[:2])
        second = prepare("sums")
        assert (len(second), second.digest != first.digest) == (2, True)
        assert any("sums.jsonl changed, preparing it again" in message for message in caplog.messages)

    def test_a_changed_yaml_is_prepared_anew(self, folder: Path) -> None:
        assert prepare("sums").problems[0].subset is None
        (folder / "sums.yaml").write_text(
            "name: sums\nsource: {path: sums.jsonl}\nsubset_field: expected_answer\n"
        )
        assert prepare("sums").problems[0].subset == "1"

    def test_a_subset_field_that_a_row_lacks_is_named(self, folder: Path) -> None:
        (folder / "sums.yaml").write_text("name: sums\nsource: {path: sums.jsonl}\nsubset_field: levle\n")
        with pytest.raises(
            BenchmarkError,
            match=r"sums\.jsonl:1: no 'levle', .*subset_field; there are: .*problem.*`fields:`",
        ):
            prepare("sums")

    def test_every_row_has_the_subset_field_and_null_is_no_subset(self, folder: Path) -> None:
        (folder / "sums.yaml").write_text("name: sums\nsource: {path: sums.jsonl}\nsubset_field: level\n")
        write_rows(folder / "sums.jsonl", [ROWS[0] | {"level": 3}, ROWS[1] | {"level": None}])
        assert [problem.subset for problem in prepare("sums").problems] == ["3", None]
        write_rows(folder / "sums.jsonl", [ROWS[0] | {"level": 3}, ROWS[1]])
        with pytest.raises(BenchmarkError, match=r"sums\.jsonl:2: no 'level'"):
            prepare("sums")

    @pytest.mark.parametrize("damage", ["edited", "rows gone", "description torn", "rows torn"])
    def test_damage_is_mended(self, folder: Path, damage: str) -> None:
        first = prepare("sums")
        kept = data_folder() / "sums" / "test.jsonl"
        match damage:
            case "edited":
                kept.write_text(kept.read_text().replace('"2"', '"3"'))
            case "rows gone":
                kept.unlink()
            case "description torn":
                kept.with_suffix(".json").write_text('{"benchmark": "su')
            case "rows torn":
                kept.write_bytes(kept.read_bytes()[:-9])
        assert prepare("sums") == first
        assert [json.loads(line)["id"] for line in kept.read_text().splitlines()] == [r["id"] for r in ROWS]

    def test_a_bad_row_leaves_what_was_prepared(self, folder: Path) -> None:
        prepare("sums")
        kept = data_folder() / "sums" / "test.jsonl"
        before = kept.read_bytes()
        write_rows(folder / "sums.jsonl", [*ROWS, {"id": "s-9", "problem": "?", "expected_answer": ""}])
        with pytest.raises(BenchmarkError, match=r"sums\.jsonl:5: id 's-9' has no usable expected_answer"):
            prepare("sums")
        assert kept.read_bytes() == before

    def test_a_local_benchmark_has_one_split(self, folder: Path) -> None:
        with pytest.raises(BenchmarkError, match="no split 'train'; valid: test"):
            prepare("sums", split="train")

    def test_a_split_is_no_path(self, folder: Path) -> None:
        with pytest.raises(BenchmarkError, match="cannot be the name of a split"):
            prepare("sums", split="../../x")

    def test_a_folder_that_cannot_be_written(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EVALCORE_DATA", "/proc/evalcore")  # no folder can be made there, not even by root
        with pytest.raises(BenchmarkError, match=r"cannot write .* EVALCORE_DATA names another folder"):
            prepare("sums")


class TestGivenFile:
    def test_rows_of_the_original_dataset(self, folder: Path, tmp_path: Path) -> None:
        raw = [
            {"question": "How much?", "answer": "Count.\n#### $1,080", "kind": "sum"},
            {"question": "Why?", "answer": "#### 1", "kind": "essay"},
            {"question": "How many?", "answer": "12 #### 3 #### 4 ", "kind": "sum"},
        ]
        problems = prepare("remote", source=write_rows(tmp_path / "raw.jsonl", raw)).problems
        assert [(p.id, p.fields["problem"], p.expected_answer) for p in problems] == [
            ("remote-0", "How much?", "1080"),
            ("remote-2", "How many?", "4"),
        ]

    def test_rows_with_nemo_skills_names_are_taken_as_they_are(self, folder: Path, tmp_path: Path) -> None:
        rows = [{"problem": "2, 3 #### ?", "expected_answer": 1.5, "reference_solution": "…", "level": 3}]
        only = prepare("remote", source=write_rows(tmp_path / "nemo.jsonl", rows)).problems[0]
        assert only.id == "remote-0"
        assert only.fields == {**rows[0], "expected_answer": "1.5"}

    def test_it_may_be_gone_afterwards(self, folder: Path, tmp_path: Path) -> None:
        given = write_rows(tmp_path / "given.jsonl", ROWS)
        first = prepare("remote", source=given)
        given.unlink()
        assert prepare("remote") == first

    def test_given_again_after_a_change(self, folder: Path, tmp_path: Path) -> None:
        given = write_rows(tmp_path / "given.jsonl", ROWS)
        prepare("remote", source=given)
        write_rows(given, ROWS[:1])
        assert len(prepare("remote")) == 4
        assert len(prepare("remote", source=given)) == 1

    def test_damage_names_the_file_to_give_again(self, folder: Path, tmp_path: Path) -> None:
        given = write_rows(tmp_path / "given.jsonl", ROWS)
        prepare("remote", source=given)
        (data_folder() / "remote" / "test.jsonl").write_text("")
        with pytest.raises(BenchmarkError, match=r"prepare remote --source .*given\.jsonl` again"):
            prepare("remote")

    def test_below_a_home(self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        write_rows(tmp_path / "given.jsonl", ROWS)
        first = prepare("remote", source=Path("~/given.jsonl"))
        assert prepare("remote", source=Path("~/given.jsonl")) == first
        nobody = "path ~nobody-of-this-name/x: there is no such user's home"
        with pytest.raises(BenchmarkError, match=nobody):
            prepare("remote", source=Path("~nobody-of-this-name/x"))
        monkeypatch.setenv("EVALCORE_DATA", "~nobody-of-this-name/x")
        with pytest.raises(BenchmarkError, match=nobody):
            prepare("remote")

    def test_no_such_file(self, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(BenchmarkError, match=r"cannot read .*nowhere\.jsonl: No such file"):
            prepare("remote", source=tmp_path / "nowhere.jsonl")

    def test_a_column_that_is_not_there(self, folder: Path, tmp_path: Path) -> None:
        given = write_rows(tmp_path / "given.jsonl", [{"task": "?", "kind": "sum"}])
        with pytest.raises(
            BenchmarkError, match=r"given\.jsonl:1: no column 'question'; there are: task, kind"
        ):
            prepare("remote", source=given)

    def test_an_answer_without_its_mark(self, folder: Path, tmp_path: Path) -> None:
        given = write_rows(tmp_path / "given.jsonl", [{"question": "?", "answer": "4", "kind": "sum"}])
        with pytest.raises(BenchmarkError, match=r"given\.jsonl:1: no '####' in column 'answer'"):
            prepare("remote", source=given)


def test_without_the_client_it_names_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(BenchmarkError, match=r"pip install 'evalcore\[hub\]', or run `.* --source FILE`"):
        prepare("remote")


# The client reads HF_ENDPOINT when it is imported, so it runs in a process of its own: once for all cases.
SCRIPT = """
import json, os, sys
from evalcore.errors import BenchmarkError
from evalcore.prepare import prepare

for case in json.load(sys.stdin):
    os.environ.pop("HF_TOKEN", None)
    os.environ.update(case.pop("env", {}))
    try:
        result = {"rows": [[p.id, p.expected_answer, p.subset] for p in prepare(**case).problems]}
    except BenchmarkError as error:
        result = {"error": str(error)}
    print(json.dumps(result), flush=True)
"""

CARD = """---
configs:
- config_name: plain
  data_files:
  - {split: train, path: plain/train-*}
  - {split: test, path: plain/test-*}
- config_name: other
  data_files:
  - {split: test, path: other/*}
---
"""


def parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def write_benchmark(folder: Path, name: str, **content: Any) -> None:
    (folder / f"{name}.yaml").write_text(json.dumps({"name": name, **content}))  # JSON is YAML


def run(url: str, tmp_path: Path, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    decoy = tmp_path / "cwd" / "org" / "sums"  # a folder that only looks like the dataset
    decoy.mkdir(parents=True, exist_ok=True)
    (decoy / "test.jsonl").write_text('{"question": "?", "answer": "decoy"}\n')
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path / "cwd",
        input=json.dumps(cases),
        env={**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "hf")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr == ""  # no progress bars and no warnings where nobody watches
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def hub(folder: Path) -> Iterator[Hub]:
    sums = [{"question": f"{n} + 1 = ?", "answer": n + 1, "kind": ["odd", "even"][n % 2]} for n in range(5)]
    repos = {
        "org/sums": Repo(
            {
                "README.md": CARD.encode(),
                "plain/train-00000-of-00001.parquet": parquet(sums[:1]),
                "plain/test-00000-of-00001.parquet": parquet(sums),
                "other/test.parquet": parquet(sums[1:3]),
            }
        ),
        # As KbsdJames/Omni-MATH: no card, one file, lists, and rows without an answer.
        "org/lists": Repo({"test.jsonl": jsonl([{"q": "a", "a": ["1", "2"]}, {"q": "b", "a": []}])}),
        "org/gated": Repo(
            {"README.md": b"---\nlicense: other\n---\n# Terms", "test.jsonl": jsonl(ROWS)}, gated=True
        ),
        "org/two-b": Repo({"data/train.jsonl": jsonl([{"question": "b", "answer": "1"}])}),
    }
    fields = {"problem": "question", "expected_answer": "answer"}
    write_benchmark(folder, "plain", source={"hub": "org/sums", "config": "plain"}, fields=fields)
    write_benchmark(
        folder,
        "even",
        source={
            "hub": "org/sums",
            "config": "plain",
            "split": "test",
            "revision": "main",
            "where": {"kind": "even"},
        },
        fields=fields,
        split="easy",
    )
    write_benchmark(
        folder,
        "both",
        source=[
            {"hub": "org/sums", "config": "other", "label": "a"},
            {"hub": "org/two-b", "split": "train", "label": "b"},
            {"hub": "org/two-b", "split": "train", "label": "b"},
        ],
        fields=fields,
        subset_field="subset_for_metrics",
    )
    write_benchmark(
        folder,
        "lists",
        source={"hub": "org/lists", "skip_unanswered": True},
        fields={"problem": "q", "expected_answer": {"column": "a", "join": ", "}},
    )
    write_benchmark(folder, "gated", source={"hub": "org/gated"})
    write_benchmark(folder, "missing", source={"hub": "org/nowhere"})
    write_benchmark(folder, "config", source={"hub": "org/sums", "config": "fancy"}, fields=fields)
    write_benchmark(folder, "revision", source={"hub": "org/sums", "config": "plain", "revision": "v9"})
    write_benchmark(folder, "column", source={"hub": "org/sums", "config": "plain"})
    with Hub(repos) as server:
        yield server


@pytest.mark.slow
class TestHub:
    def test_datasets_as_they_are(self, hub: Hub, folder: Path, tmp_path: Path) -> None:
        plain, even, both, lists, gated = run(
            hub.url,
            tmp_path,
            [
                {"benchmark": "plain"},
                {"benchmark": "even"},
                {"benchmark": "both"},
                {"benchmark": "lists"},
                {"benchmark": "gated", "env": {"HF_TOKEN": TOKEN}},
            ],
        )
        assert plain["rows"] == [[f"plain-{n}", str(n + 1), None] for n in range(5)]
        # An id is the row's place in the dataset, whatever the filter leaves out.
        assert even["rows"] == [["even-1", "2", None], ["even-3", "4", None]]
        assert both["rows"] == [["a-0", "2", "a"], ["a-1", "3", "a"], ["b-0", "1", "b"], ["b-1", "1", "b"]]
        assert lists["rows"] == [["lists-0", "1, 2", None]]
        assert [row[0] for row in gated["rows"]] == [f"gated-{n}" for n in range(4)]
        about = json.loads((data_folder() / "plain" / "test.json").read_text())
        assert about["origins"][0]["revision"] == hub.repos["org/sums"].sha
        # What is recorded as the revision is what was fetched, file by file, also where the YAML names a branch.
        fetched = [request for request in hub.requests if "/resolve/" in request]
        shas = {repo.sha for repo in hub.repos.values()}
        assert fetched
        assert all(request.split("/resolve/")[1].split("/")[0] in shas for request in fetched)
        # Nothing goes anywhere but to the datasets' own addresses: no telemetry, no counting.
        assert {request.split()[1].split("/")[1] for request in hub.requests} <= {"api", "datasets"}
        assert all("org/" in request for request in hub.requests)

    def test_what_is_prepared_needs_no_hub(self, hub: Hub, folder: Path, tmp_path: Path) -> None:
        run(hub.url, tmp_path, [{"benchmark": "plain"}])
        asked = len(hub.requests)
        assert len(prepare("plain")) == 5
        assert run(hub.url, tmp_path, [{"benchmark": "plain"}, {"benchmark": "plain", "force": True}])
        assert len(hub.requests) > asked
        hub.requests.clear()
        prepare("plain", source=write_rows(tmp_path / "given.jsonl", ROWS))
        (again, forced) = run(
            hub.url, tmp_path, [{"benchmark": "plain"}, {"benchmark": "plain", "force": True}]
        )
        assert (len(again["rows"]), len(forced["rows"])) == (4, 5)  # the given file stays until forced

    def test_what_the_hub_refuses(self, hub: Hub, folder: Path, tmp_path: Path) -> None:
        cases = {
            "no token": {"benchmark": "gated"},
            "terms not accepted": {"benchmark": "gated", "env": {"HF_TOKEN": BAD_TOKEN}},
            "missing": {"benchmark": "missing"},
            "split": {"benchmark": "plain", "split": "validation"},
            "config": {"benchmark": "config"},
            "revision": {"benchmark": "revision"},
            "column": {"benchmark": "column"},
        }
        results = run(hub.url, tmp_path, list(cases.values()))
        said = dict(zip(cases, (result["error"] for result in results), strict=True))
        assert all("\n" not in message for message in said.values())
        terms = "org/gated is gated: accept its terms at https://huggingface.co/datasets/org/gated and set HF_TOKEN"
        assert terms in said["no token"]
        assert terms in said["terms not accepted"]
        assert "org/nowhere: not on the hub, or private; if private, set HF_TOKEN" in said["missing"]
        assert "Unknown split \"validation\". Should be one of ['train', 'test']" in said["split"]
        assert "'fancy' not found. Available: ['plain', 'other']" in said["config"]
        assert "no revision 'v9'" in said["revision"]
        assert "no column 'expected_answer', 'problem'; there are: question, answer, kind" in said["column"]
        assert not data_folder().exists()

    def test_a_hub_that_is_down(self, hub: Hub, folder: Path, tmp_path: Path) -> None:
        hub.fail = True
        (failing,) = run(hub.url, tmp_path, [{"benchmark": "plain"}])
        with Hub({}) as gone:
            url = gone.url
        (refused,) = run(url, tmp_path, [{"benchmark": "plain"}])
        for message, address in ((failing["error"], hub.url), (refused["error"], url)):
            assert f"org/sums: cannot be fetched from {address}" in message
            assert "run `evalcore prepare plain` where the hub can be reached" in message
            assert "`evalcore prepare plain --source FILE`" in message
