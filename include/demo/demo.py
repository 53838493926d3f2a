"""``make demo``: a training run publishes three checkpoints; the third is worse, and the alert fires.

``make demo-slurm`` (``demo.py --slurm``) does it on a real Slurm cluster of two nodes, which it starts beside
Airflow and reaches through SSH, as Airflow would any other.

Starts Airflow, publishes the tiny checkpoints one after the other with ``evalcore publish``, as training would,
shows how the tasks of each evaluation go, and its tables. What got worse is confirmed on fresh seeds, and then told
to a webhook on this machine. The last line is the verdict. Each demo is a training run of its own, so that it can be
shown again, with results in ``results/`` and a history in ``.airflow/``.
"""

from __future__ import annotations

import getpass
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import yaml
from cluster import Cluster, ClusterError
from receiver import Receiver
from standalone import FINAL, ROOT, Airflow, AirflowError

from evalcore import jobs
from evalcore.manifest import SCORECARD
from evalcore.report import as_text
from evalcore.summarize import Scorecard

EVALUATION, CONFIRMATION = "evaluate_checkpoint", "confirm_regression"
CHECKPOINTS = ROOT / "include" / "tiny" / "checkpoints"
RESULTS = ROOT / "results"
HOME = ROOT / ".airflow"
CHANNEL = "demo_alerts"
ALERT_TIMEOUT = 60.0


def main(arguments: list[str]) -> int:
    on_slurm = arguments == ["--slurm"]
    # `kill` shall stop the whole of Airflow, as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()
    try:
        with ExitStack() as running:
            settings = slurm(running) if on_slurm else {}
            receiver = running.enter_context(Receiver())
            run = f"demo-{time.strftime('%Y%m%dT%H%M%S')}"
            include = follow(run, "cluster" if on_slurm else "local")
            settings |= {
                "EVALCORE_INCLUDE": os.pathsep.join(
                    filter(None, (str(include), os.getenv("EVALCORE_INCLUDE")))
                ),
                "EVALCORE_HISTORY": f"sqlite:///{HOME / 'history.sqlite'}",  # none of the user's own
                "EVALCORE_RESULTS": str(RESULTS / "slurm" if on_slurm else RESULTS),
                f"AIRFLOW_CONN_{CHANNEL.upper()}": receiver.connection,
            }
            airflow = running.enter_context(Airflow(HOME, port=8080, settings=settings, progress=say))
            verdict = training(airflow, run, receiver)
            say(f"Done in {time.monotonic() - started:.0f} s. `make up` shows these runs in Airflow's UI.")
            print(f"\n{verdict}")
    except (AirflowError, ClusterError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.")
        return 130
    finally:
        # Only now: a job that ends while Airflow runs would be started again.
        for job in jobs.running(RESULTS / ".jobs"):
            jobs.cancel(job)
    return 0


def slurm(running: ExitStack) -> dict[str, str]:
    """Start a cluster, whose jobs run as this user; the settings by which Airflow finds it."""
    folder = ROOT / ".slurm"
    folder.mkdir(exist_ok=True)
    cluster = running.enter_context(Cluster(folder, user=getpass.getuser(), progress=say))
    profile = cluster.env_toml()
    profile.write_text(f'{profile.read_text()}python = "{sys.executable}"\npoll_interval = 2\n')
    return {"EVALCORE_ENV_TOML": str(profile), "AIRFLOW_CONN_CLUSTER": cluster.connection_uri()}


def follow(run: str, cluster: str) -> Path:
    """Write the file that follows a training run, as a team would; the include folder it is in."""
    include = HOME / "include"
    file = include / "tracked" / "demo.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    tracked = {
        "training_run": run,
        "source": {"path": str(CHECKPOINTS)},
        "suite": "tiny",
        "cluster": cluster,
        "baseline": "previous",
        "alerts": [CHANNEL],
    }
    file.write_text(yaml.safe_dump(tracked, sort_keys=False))
    return include


def training(airflow: Airflow, run: str, receiver: Receiver) -> str:
    """Publish one checkpoint after the other, each evaluated before the next is there; the verdict on the last.

    AirflowError if an evaluation fails, or the alert does not fire.
    """
    sentence = ""
    for checkpoint in sorted(CHECKPOINTS.glob("step-*")):
        evaluation = publish(airflow, checkpoint, run)
        state = watch(airflow, EVALUATION, evaluation, checkpoint.name)
        print(f"\n=== {checkpoint.name}: {state} ===\n")
        show(airflow, evaluation)
        if state != "success":
            raise AirflowError(f"the evaluation of {checkpoint.name} failed: {airflow.url}")
        compared = {t["task_id"]: t["state"] for t in airflow.tasks(EVALUATION, evaluation)}["compare"]
        if compared == "success":
            sentence = airflow.xcom(EVALUATION, evaluation, "compare", "compared")["sentence"]
            print(f"Compared {sentence}\n")
    suspected = airflow.xcom(EVALUATION, evaluation, "compare")
    if not suspected:
        raise AirflowError(f"the last checkpoint should have looked worse: {sentence}")
    say("is it so on fresh seeds, too?")
    confirmation = suspected[0]["trigger_run_id"]
    watch(airflow, CONFIRMATION, confirmation, "confirmation", until="alert")
    for alert in received(receiver):
        print(f"\n=== alert on the channel {CHANNEL} ===\n\n{alert}")
    return f"{sentence}; confirmed on fresh seeds, and told"


def publish(airflow: Airflow, checkpoint: Path, run: str) -> str:
    """What training calls when it has written a checkpoint; the run that evaluates it."""
    said = {
        "EVALCORE_AIRFLOW_URL": airflow.url,
        "EVALCORE_AIRFLOW_USER": "admin",
        "EVALCORE_AIRFLOW_PASSWORD": airflow.password,
        "EVALCORE_INCLUDE": airflow.settings["EVALCORE_INCLUDE"],
        "NO_PROXY": "127.0.0.1",
    }
    if profiles := airflow.settings.get("EVALCORE_ENV_TOML"):
        said["EVALCORE_ENV_TOML"] = profiles
    evalcore = Path(sys.executable).with_name("evalcore")
    argv = [str(evalcore), "publish", str(checkpoint), "--run", run]
    say(f"evalcore publish {checkpoint.relative_to(ROOT)} --run {run}")
    done = subprocess.run(argv, env={**os.environ, **said}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AirflowError(done.stderr.strip())
    return done.stdout.split()[1]


def received(receiver: Receiver) -> list[str]:
    deadline = time.monotonic() + ALERT_TIMEOUT
    while not receiver.alerts():
        if time.monotonic() > deadline:
            raise AirflowError("the alert did not fire")
        time.sleep(0.2)
    return receiver.alerts()


def show(airflow: Airflow, run: str) -> None:
    """Print the tables of a run, what failed, and where everything lies."""
    for failure in airflow.xcom(EVALUATION, run, "report", "failures"):
        print(f"FAILED {failure}")
    planned = any(t["task_id"] == "plan" and t["state"] == "success" for t in airflow.tasks(EVALUATION, run))
    folders = (
        [Path(benchmark["brings"][1]) for benchmark in airflow.xcom(EVALUATION, run, "plan")]
        if planned
        else []
    )
    cards = [Scorecard.load(folder) for folder in folders if (folder / SCORECARD).is_file()]
    print(as_text(cards))
    for folder in folders:
        print(f"Results  {folder}")
    for task in ("generate", "track"):
        for line in said(airflow, run, task):
            print(f"{task:8} {line}")


def watch(airflow: Airflow, dag: str, run: str, name: str, *, until: str | None = None) -> str:
    """Print each task as it ends, until the run is over, or one of its tasks is; the run's state."""
    seen: set[tuple[object, ...]] = set()
    while True:
        airflow.check_alive()
        state = airflow.state(dag, run)
        for task in airflow.tasks(dag, run):
            what = task["task_id"] + (f" [{task['rendered_map_index']}]" if task["map_index"] >= 0 else "")
            key = (task["task_id"], task["map_index"], task["state"])
            if task["state"] in ("success", "failed", "skipped", "deferred") and key not in seen:
                seen.add(key)
                took = f" in {task['duration']:.0f} s" if task["duration"] else ""
                waits = "waits" if task["state"] == "deferred" else task["state"] + took
                say(f"{name}: {what}: {waits}")
                if task["task_id"] == until and task["state"] in FINAL:
                    return state
        if state in FINAL:
            return state
        time.sleep(1)


def said(airflow: Airflow, run: str, task_id: str) -> list[str]:
    """The last line that a task's job printed: how many answers are new, or where the W&B run is."""
    tasks = [t for t in airflow.tasks(EVALUATION, run) if t["task_id"] == task_id and t["state"] == "success"]
    noted = [str(airflow.xcom(EVALUATION, run, task_id, "job", t["map_index"])) for t in tasks]
    # Behind the profile's name, if there is one.
    found = [Path(folder[folder.index("/") :]) for folder in noted]
    newest = [jobs.latest(job.parent, job.name) for job in found]
    return [line for job in newest if job for line in jobs.tail(job, 1)]


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
