"""``make demo``: the early and the late tiny checkpoint through the real Airflow DAG, and their tables.

``make demo-slurm`` (``demo.py --slurm``) does it on a real Slurm cluster of two nodes, which it starts beside
Airflow and reaches through SSH, as Airflow would any other.

Starts Airflow, triggers ``evaluate_checkpoint`` twice, shows how the tasks go, prints the tables and where
everything lies, stops Airflow. What an earlier demo already generated is used again, and runs that were
interrupted go on.
"""

from __future__ import annotations

import getpass
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from cluster import Cluster, ClusterError
from standalone import FINAL, ROOT, Airflow, AirflowError

from evalcore import jobs
from evalcore.manifest import SCORECARD
from evalcore.report import as_text
from evalcore.summarize import Scorecard

DAG = "evaluate_checkpoint"
CHECKPOINTS = ROOT / "include" / "tiny" / "checkpoints"
RESULTS = ROOT / "results"


def main(arguments: list[str]) -> int:
    on_slurm = arguments == ["--slurm"]
    results = RESULTS / "slurm" if on_slurm else RESULTS
    # `kill` shall stop the whole of Airflow, as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()
    try:
        with ExitStack() as running:
            settings = slurm(running) if on_slurm else {}
            home = ROOT / ".airflow"
            airflow = running.enter_context(Airflow(home, port=8080, settings=settings, progress=say))
            failed = evaluate(airflow, early_and_late(), results, "cluster" if on_slurm else "local")
    except (AirflowError, ClusterError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. `make demo` goes on from here.")
        return 130
    finally:
        # Only now: a job that ends while Airflow runs would be started again.
        for job in jobs.running(RESULTS / ".jobs"):
            jobs.cancel(job)
    print(f"Done in {time.monotonic() - started:.0f} s. `make up` shows these runs in Airflow's UI.")
    return failed


def slurm(running: ExitStack) -> dict[str, str]:
    """Start a cluster, whose jobs run as this user; the settings by which Airflow finds it."""
    folder = ROOT / ".slurm"
    folder.mkdir(exist_ok=True)
    cluster = running.enter_context(Cluster(folder, user=getpass.getuser(), progress=say))
    profile = cluster.env_toml()
    profile.write_text(f'{profile.read_text()}python = "{sys.executable}"\npoll_interval = 2\n')
    return {"EVALCORE_ENV_TOML": str(profile), "AIRFLOW_CONN_CLUSTER": cluster.connection_uri()}


def early_and_late() -> list[Path]:
    """The first two checkpoints of the tiny run; the third is one that got worse."""
    return sorted(CHECKPOINTS.glob("step-*"))[:2]


def evaluate(airflow: Airflow, checkpoints: list[Path], results: Path, cluster: str) -> int:
    """Run the DAG for each checkpoint; 1 if a run failed."""
    runs = {}
    for checkpoint in checkpoints:
        prefix = f"demo-{cluster}-{checkpoint.name}-"
        if unfinished := airflow.unfinished(DAG, prefix):
            runs[checkpoint] = unfinished[-1]
            say(f"{checkpoint.name}: going on with run {unfinished[-1]}")
        else:
            conf = {
                "checkpoint": str(checkpoint),
                "suite": "tiny",
                "results": str(results),
                "cluster": cluster,
            }
            runs[checkpoint] = airflow.trigger(DAG, conf, f"{prefix}{time.strftime('%Y%m%dT%H%M%S')}")
            say(f"{checkpoint.name}: run {runs[checkpoint]}")
    states = watch(airflow, runs)
    for checkpoint, run in runs.items():
        print(f"\n=== {checkpoint.name}: {states[checkpoint]} ===\n")
        show(airflow, run)
    return int(any(state != "success" for state in states.values()))


def show(airflow: Airflow, run: str) -> None:
    """Print the tables of a run, what failed, and where everything lies."""
    for failure in airflow.xcom(DAG, run, "report", "failures"):
        print(f"FAILED {failure}")
    planned = any(t["task_id"] == "plan" and t["state"] == "success" for t in airflow.tasks(DAG, run))
    folders = (
        [Path(benchmark["brings"][1]) for benchmark in airflow.xcom(DAG, run, "plan")] if planned else []
    )
    cards = [Scorecard.load(folder) for folder in folders if (folder / SCORECARD).is_file()]
    print(as_text(cards))
    for folder in folders:
        print(f"Results  {folder}")
    for task in ("generate", "track"):
        for line in said(airflow, run, task):
            print(f"{task:8} {line}")


def watch(airflow: Airflow, runs: dict[Path, str]) -> dict[Path, str]:
    """Print each task as it ends, until all runs are over; their final states."""
    states: dict[Path, str] = {}
    seen: set[tuple[object, ...]] = set()
    while len(states) < len(runs):
        airflow.check_alive()
        for checkpoint, run in runs.items():
            if checkpoint in states:
                continue
            state = airflow.state(DAG, run)
            for task in airflow.tasks(DAG, run):
                what = task["task_id"] + (
                    f" [{task['rendered_map_index']}]" if task["map_index"] >= 0 else ""
                )
                key = (checkpoint, task["task_id"], task["map_index"], task["state"])
                if task["state"] in ("success", "failed", "skipped", "deferred") and key not in seen:
                    seen.add(key)
                    took = f" in {task['duration']:.0f} s" if task["duration"] else ""
                    waits = "waits for its job" if task["state"] == "deferred" else task["state"] + took
                    say(f"{checkpoint.name}: {what}: {waits}")
            if state in FINAL:
                states[checkpoint] = state
        time.sleep(1)
    return states


def said(airflow: Airflow, run: str, task_id: str) -> list[str]:
    """The last line that a task's job printed: how many answers are new, or where the W&B run is."""
    tasks = [t for t in airflow.tasks(DAG, run) if t["task_id"] == task_id and t["state"] == "success"]
    noted = [str(airflow.xcom(DAG, run, task_id, "job", t["map_index"])) for t in tasks]
    found = [
        Path(folder[folder.index("/") :]) for folder in noted
    ]  # behind the profile's name, if there is one
    newest = [jobs.latest(job.parent, job.name) for job in found]
    return [line for job in newest if job for line in jobs.tail(job, 1)]


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
