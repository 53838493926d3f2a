"""The DAG in the real scheduler and triggerer, on a real model, with real kills."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import psutil
import pytest

from demo.standalone import Airflow, AirflowError
from distributed_checkpoint import COPY, write_converter, write_distributed
from evalcore import jobs
from evalcore.config import load_config
from evalcore.discovery import missing
from evalcore.generate import generate
from evalcore.manifest import Manifest
from evalcore.summarize import Scorecard
from judge_server import running_judge
from seen_processes import command_of, supervisor_of
from waiting import LONG, until
from whole_dag import DAG, held, is_watched

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

# Each answer its own request: of the samples of one request a server counts the tokens together only.
SINGLE = ["client.group_samples=false"]
ANSWERS = 90

Rows = dict[tuple[str, int], dict[str, Any]]


def start(airflow: Airflow, checkpoint: Path, results: Path, **params: Any) -> str:
    conf = {"checkpoint": str(checkpoint), "suite": "tiny", "results": str(results), "max_problems": 10}
    return airflow.trigger(DAG, conf | params)


def states(airflow: Airflow, run: str) -> dict[str, str]:
    """State by task, mapped ones as ``generate[0]``."""
    return {
        task["task_id"] + (f"[{task['map_index']}]" if task["map_index"] >= 0 else ""): task["state"]
        for task in airflow.tasks(DAG, run)
    }


def files(results: Path) -> list[Path]:
    return list(results.glob("*/*/*/generations/*.jsonl"))


def count(results: Path) -> int:
    return sum(file.read_bytes().count(b"\n") for file in files(results))


def rows(results: Path) -> Rows:
    """All rows by key; fails if one is there twice or torn."""
    found: Rows = {}
    for file in files(results):
        for line in file.read_bytes().splitlines():
            row = orjson.loads(line)
            key = row["problem_id"], row["sample"]
            assert key not in found
            found[key] = row
    return found


def find_job(results: Path) -> Path | None:
    """The newest attempt of the run's generate job; None before there is one."""
    names = [path.name for path in results.glob(".jobs/*-generate-0-*")]
    return jobs.latest(results / ".jobs", names[0]) if names else None


def generate_job(results: Path) -> Path:
    job = find_job(results)
    assert job is not None
    return job


def processes(job: Path) -> list[psutil.Process]:
    """Everything a job has started: the command, its inference server."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("EVALCORE_JOB") == str(job):
                found.append(process)
    return found


def kill(*victims: psutil.Process) -> None:
    for process in victims:
        with contextlib.suppress(psutil.NoSuchProcess):  # the kernel kills some together with others
            process.kill()


def gone(started: list[psutil.Process]) -> bool:
    return not any(process.is_running() for process in started)


@pytest.fixture(autouse=True)
def _nothing_runs_on(tmp_path: Path) -> Iterator[None]:
    yield
    for folder in tmp_path.rglob(".jobs"):
        for job in jobs.running(folder):
            kill(*processes(job))


@pytest.fixture(scope="module")
def uninterrupted(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """What the answers are if nothing happens."""
    results = tmp_path_factory.mktemp("uninterrupted")
    options = {"checkpoint": str(checkpoint), "results": str(results), "max_problems": 10}
    generate(load_config("tiny", overrides=SINGLE, **options))
    return rows(results)


def test_a_run_ends_with_tables_scorecard_and_logs(
    airflow: Airflow, checkpoint: Path, tmp_path: Path, uninterrupted: Rows
) -> None:
    run = start(airflow, checkpoint, tmp_path, overrides=SINGLE)
    assert airflow.wait(DAG, run) == "success", states(airflow, run)
    assert states(airflow, run) == {
        "fetch": "skipped",
        "plan": "success",
        "convert": "success",
        "generate[0]": "success",
        "score.grade[0]": "success",
        "score.judge[0]": "skipped",
        "score.summarize[0]": "success",
        "track": "success",
        "record": "success",
        # There is nothing to compare it with.
        "compare": "skipped",
        "confirm": "skipped",
        "report": "success",
    }
    assert rows(tmp_path) == uninterrupted
    (folder,) = tmp_path.glob("*/*/tiny-arithmetic")
    assert (folder / "scorecard.json").is_file()
    report = airflow.log(DAG, run, "report")
    assert "evaluation_mode" in report
    assert "pass@8" in report
    assert list(folder.parent.glob("wandb/offline-run-*/*.wandb"))
    names = {task["task_id"]: task["rendered_map_index"] for task in airflow.tasks(DAG, run)}
    assert names["score.grade"] == "tiny-arithmetic"
    the_log_page_is_for_those_who_may_read_the_tasks_logs(airflow, run)


def the_log_page_is_for_those_who_may_read_the_tasks_logs(airflow: Airflow, run: str) -> None:
    path = f"/dags/{DAG}/dagRuns/{run}/taskInstances/generate/links"
    link = airflow.request("GET", path, map_index=0)["extra_links"]["Job log"]
    page = airflow.get(link)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/plain")
    assert f"{ANSWERS} of {ANSWERS} samples" in page.text
    assert httpx.get(f"{airflow.url}{link}").status_code == 401
    assert airflow.get(link.replace("/0/log", "/7/log")).status_code == 404
    assert airflow.get(link.replace("generate", "plan").replace("/0/log", "/-1/log")).status_code == 404
    # What a task noted is not believed: not even another task's job comes out.
    noted = Path(airflow.xcom(DAG, run, "generate", "job", map_index=0).removeprefix("local:"))
    (convert,) = noted.parent.glob("*-convert-*")
    for elsewhere in (str(convert), f"{noted}/../{convert.name}", str(noted / "1"), "/etc"):
        path = f"/dags/{DAG}/dagRuns/{run}/taskInstances/generate/xcomEntries/job"
        airflow.request("PATCH", path, {"value": f"local:{elsewhere}", "map_index": 0})
        assert airflow.get(link).status_code == 404, elsewhere


def test_killed_processes_are_started_again_and_no_answer_is_lost_or_double(
    airflow: Airflow, checkpoint: Path, tmp_path: Path, uninterrupted: Rows, hold: Path
) -> None:
    run = start(airflow, checkpoint, tmp_path, overrides=held(hold))
    until(lambda: count(tmp_path) >= 10, "the first answers", LONG)
    # First the command, its server and its supervisor at once: nobody is left to say how it ended.
    first = generate_job(tmp_path)
    kill(supervisor_of(first), *processes(first))
    until(lambda: jobs.status(first).state is jobs.State.LOST, "the kernel to notice")
    before = count(tmp_path)
    assert 10 <= before < ANSWERS
    # Then only the command of the second attempt.
    until(lambda: count(tmp_path) >= before + 10, "answers of a second attempt", LONG)
    second = generate_job(tmp_path)
    assert second.name == "2"
    kill(command_of(second))
    hold.unlink()
    assert airflow.wait(DAG, run) == "success", states(airflow, run)
    assert generate_job(tmp_path).name == "3"
    assert rows(tmp_path) == uninterrupted


def test_jobs_outlive_scheduler_workers_and_triggerer_and_are_found_again(
    airflow: Airflow, checkpoint: Path, tmp_path: Path, uninterrupted: Rows, hold: Path
) -> None:
    deferred, running = tmp_path / "deferred", tmp_path / "running"
    first = start(airflow, checkpoint, deferred, overrides=held(hold))
    waits_deferred(airflow, first, attempt=1)
    # The second one's task still waits in its worker process when that is killed; where we were too slow to see that,
    # it is deferred like the first.
    second = start(airflow, checkpoint, running, overrides=held(hold))
    until(lambda: (job := find_job(running)) and (job / jobs.PIDS).exists(), "the second run's job", LONG)
    airflow.kill_component("scheduler")
    assert states(airflow, second)["generate[0]"] in ("running", "deferred")
    for component in ("triggerer", "dag-processor"):
        airflow.kill_component(component)
    assert jobs.status(generate_job(deferred)).state is jobs.State.RUNNING
    assert jobs.status(generate_job(running)).state is jobs.State.RUNNING
    for component in ("scheduler", "triggerer", "dag-processor"):
        airflow.start_component(component)
    hold.unlink()
    for run, results in ((first, deferred), (second, running)):
        assert airflow.wait(DAG, run) == "success", states(airflow, run)
        # The same attempt to the end: it was found, not started anew.
        assert generate_job(results).name == "1"
        assert rows(results) == uninterrupted


def test_clearing_or_failing_a_waiting_task_ends_its_processes(
    airflow: Airflow, checkpoint: Path, tmp_path: Path, hold: Path
) -> None:
    run = start(airflow, checkpoint, tmp_path, overrides=held(hold))
    until(lambda: is_watched(airflow, run), "a trigger", LONG)
    first = generate_job(tmp_path)
    started = processes(first)
    assert len(started) >= 2, "the command and its server"
    airflow.clear(DAG, run, ["generate", 0])
    until(lambda: gone(started), "the processes to be gone", LONG)
    until(lambda: jobs.status(first).state is jobs.State.CANCELLED, "the supervisor to say so")
    until(lambda: generate_job(tmp_path) != first, "the next attempt", LONG)
    until(lambda: is_watched(airflow, run, attempt=2), "a trigger", LONG)
    second = generate_job(tmp_path)
    started = processes(second)
    assert started
    mark_as_failed(airflow, run)
    until(lambda: gone(started), "the processes to be gone", LONG)
    assert airflow.wait(DAG, run) == "failed"
    assert generate_job(tmp_path) == second


def mark_as_failed(airflow: Airflow, run: str) -> None:
    path = f"/dags/{DAG}/dagRuns/{run}/taskInstances/generate/0"
    airflow.request("PATCH", path, {"new_state": "failed"})


def test_a_task_whose_trigger_never_started_keeps_its_job_if_cleared_and_ends_it_if_marked(
    airflow: Airflow, checkpoint: Path, tmp_path: Path, uninterrupted: Rows, hold: Path
) -> None:
    cleared, failed = tmp_path / "cleared", tmp_path / "failed"
    airflow.kill_component("triggerer")
    try:
        first = start(airflow, checkpoint, cleared, overrides=held(hold))
        second = start(airflow, checkpoint, failed, overrides=held(hold))
        for run in (first, second):
            waits_deferred(airflow, run, attempt=1)
        airflow.clear(DAG, first, ["generate", 0])
        started = processes(generate_job(failed))
        assert started
        mark_as_failed(airflow, second)
        until(lambda: gone(started), "the processes to be gone", LONG)
        waits_deferred(airflow, first, attempt=2)
    finally:
        airflow.start_component("triggerer")
    hold.unlink()
    assert airflow.wait(DAG, first) == "success", states(airflow, first)
    assert generate_job(cleared).name == "1"
    assert rows(cleared) == uninterrupted
    assert airflow.wait(DAG, second) == "failed"
    assert generate_job(failed).name == "1"


def waits_deferred(airflow: Airflow, run: str, attempt: int) -> None:
    def found() -> list[tuple[str, int]]:
        tasks = [task for task in airflow.tasks(DAG, run) if task["task_id"] == "generate"]
        return [(task["state"], task["try_number"]) for task in tasks]

    until(lambda: found() == [("deferred", attempt)], f"try {attempt} to wait deferred", LONG)


def test_a_task_marked_in_its_worker_ends_its_job(
    airflow: Airflow, checkpoint: Path, tmp_path: Path, hold: Path
) -> None:
    run = start(airflow, checkpoint, tmp_path, overrides=held(hold))
    until(lambda: find_job(tmp_path), "a job", LONG)
    mark_as_failed(airflow, run)
    assert airflow.wait(DAG, run) == "failed"
    # However the mark and the task's own end of patience met, nothing is left.
    until(lambda: jobs.running(tmp_path / ".jobs") == [], "the job to be gone", LONG)


def test_a_bad_benchmark_fails_the_run_by_name_and_does_not_lose_the_good_one(
    airflow: Airflow, checkpoint: Path, tmp_path: Path
) -> None:
    run = start(airflow, checkpoint, tmp_path, benchmarks="good:1,torn:1", max_problems=None)
    assert airflow.wait(DAG, run) == "failed"
    found = states(airflow, run)
    assert (found["score.summarize[0]"], found["track"], found["report"]) == ("success", "success", "failed")
    assert [path.parent.name for path in tmp_path.glob("*/*/*/scorecard.json")] == ["good"]
    failures = airflow.xcom(DAG, run, "report", "failures")
    assert [failure.split(":")[0] for failure in failures] == ["generate of torn", "score.grade of torn"]
    assert "torn.jsonl" in failures[0]
    assert "\n" not in "".join(failures)
    report = airflow.log(DAG, run, "report")
    assert "evaluation_mode" in report
    assert failures[0] in report


def test_a_benchmark_that_wants_a_judge_gets_its_verdicts(
    airflow: Airflow, checkpoint: Path, tmp_path: Path
) -> None:
    with running_judge() as judge:
        run = airflow.trigger(
            DAG,
            {
                "checkpoint": str(checkpoint),
                "results": str(tmp_path),
                "benchmarks": "judged:1",
                "judge_model": "judge-model",
                "judge_address": judge.address,
            },
        )
        assert airflow.wait(DAG, run) == "success", states(airflow, run)
    assert states(airflow, run)["score.judge[0]"] == "success"
    card = Scorecard.load(next(tmp_path.glob("*/*/judged")))
    greedy = card.subsets[0].modes[0]
    assert card.judged
    assert card.complete
    assert greedy.judge_correct is not None
    assert greedy.judge_correct.entries == 4
    assert "judge_correct" in airflow.log(DAG, run, "report")


def test_a_dry_run_prints_every_command_and_starts_none(
    airflow: Airflow, checkpoint: Path, tmp_path: Path
) -> None:
    run = start(airflow, checkpoint, tmp_path, dry_run=True)
    assert airflow.wait(DAG, run) == "success"
    found = states(airflow, run)
    assert found.pop("plan") == "success"
    assert set(found.values()) == {"skipped"}
    log = airflow.log(DAG, run, "plan")
    for stage in ("convert", "generate", "grade", "summarize", "track"):
        assert f"evalcore {stage} " in log
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_hugging_face_folder_is_converted_first(
    airflow: Airflow, checkpoint: Path, tmp_path: Path
) -> None:
    folder = write_distributed(tmp_path / "ckpt" / "run" / "iter_0001800")
    assert not missing(folder, converted=True), "discovery would have it evaluated"
    write_converter(Path(airflow.settings["EVALCORE_INCLUDE"]), "e2e", COPY.format(model=str(checkpoint)))
    overrides = ["converter=e2e", "convert_to=hf:float32", "wandb.mode=disabled"]
    run = start(airflow, folder, tmp_path, benchmarks="good:1", overrides=overrides)
    assert airflow.wait(DAG, run) == "success", states(airflow, run)
    assert "converter e2e: " in airflow.log(DAG, run, "convert")
    manifest = Manifest.load(tmp_path / "run" / "iter_0001800" / "good")
    assert manifest.checkpoint.conversion
    assert (manifest.checkpoint.conversion.name, manifest.checkpoint.step) == ("e2e", 1800)
    scorecard = Scorecard.load(tmp_path / "run" / "iter_0001800" / "good")
    assert scorecard.complete


def test_a_request_that_cannot_be_met_fails_in_plan(airflow: Airflow, tmp_path: Path) -> None:
    run = start(airflow, tmp_path / "no-such-step", tmp_path)
    assert airflow.wait(DAG, run) == "failed"
    (failure,) = airflow.xcom(DAG, run, "report", "failures")
    assert failure == f"plan: checkpoint {tmp_path}/no-such-step: no such folder"
    assert states(airflow, run)["plan"] == "failed"


@pytest.mark.parametrize(
    "params", [{"benchmarks": "gsm8k:-1"}, {"temperature": "hot"}, {"suite": "nope"}, {"server_type": "x"}]
)
def test_a_bad_param_is_refused_at_once(airflow: Airflow, params: dict[str, Any]) -> None:
    with pytest.raises(AirflowError, match=" 400 "):
        airflow.trigger(DAG, params)
