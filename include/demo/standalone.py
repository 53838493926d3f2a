"""The real Airflow on this machine, for the demo, for ``make up`` and for the end-to-end tests.

>>> with Airflow(Path(".airflow")) as airflow:
...     run = airflow.trigger("evaluate_checkpoint", {"checkpoint": "ckpt/step-1500", "suite": "tiny"})
...     airflow.wait("evaluate_checkpoint", run)
'success'

Scheduler, dag processor, triggerer and API server on SQLite with a LocalExecutor; each in a process
group of its own, so that stopping one takes its workers along. For development and trial, not for
production: one user, one machine.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Self

import httpx
import psutil

from evalcore.terminal import without_controls

ROOT = Path(__file__).resolve().parents[2]
COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
START_TIMEOUT = 1200.0
"""Seconds: a machine where much else runs takes minutes for what takes half a minute."""
ANSWER_TIMEOUT = 300.0
# Below the ports that the kernel hands out to whoever asks for any: it is long before the API server listens.
PORTS = range(20_000, 32_768)
STOP_TIMEOUT = 15.0
FINAL = frozenset({"success", "failed"})

TaskInstances = list[dict[str, Any]]


class AirflowError(Exception):
    """Airflow did not start, stopped, or answered with an error; one line."""


class Airflow:
    """One Airflow in a home of its own, started on ``with`` and stopped after it.

    :param home: AIRFLOW_HOME: database, logs, generated password.
    :param port: of API and UI; if it is in use, or 0, a free one is taken (see ``url``).
    :param settings: environment for all components, such as ``AIRFLOW__CORE__PARALLELISM``.
    :param progress: is told in a line what is being waited for.
    """

    def __init__(
        self,
        home: Path,
        *,
        port: int = 0,
        settings: Mapping[str, str] | None = None,
        progress: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.home = home.absolute()
        self.progress = progress
        self.port = port
        self.settings = dict(settings or {})
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._lock: IO[str] | None = None
        self._http: httpx.Client | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def password(self) -> str:
        """The password of the user ``admin``, made by Airflow at its first start."""
        return str(json.loads((self.home / "passwords.json").read_text())["admin"])

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything and wait until it is ready. AirflowError if that takes longer than START_TIMEOUT."""
        (self.home / "logs").mkdir(parents=True, exist_ok=True)
        self._take_home()
        self.port = free_port(self.port)
        started = time.monotonic()
        self.progress("preparing the database")
        migrated = subprocess.run(
            [sys.executable, "-m", "airflow", "db", "migrate"],
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            check=False,
        )
        if migrated.returncode:
            raise AirflowError(f"airflow db migrate failed: {migrated.stdout.strip().splitlines()[-1]}")
        for component in COMPONENTS:
            self.start_component(component)
        self.wait_until_ready()
        self.progress(f"Airflow is ready after {time.monotonic() - started:.0f} s: {self.url}")

    def wait_until_ready(self) -> None:
        """Return when all parts are healthy and all DAGs are listed. AirflowError if that takes START_TIMEOUT."""
        deadline = time.monotonic() + START_TIMEOUT
        while not self._is_ready():
            if time.monotonic() > deadline:
                raise AirflowError(f"not ready after {START_TIMEOUT:.0f} s; see {self.home / 'logs'}")
            time.sleep(0.5)

    def stop(self) -> None:
        """Stop everything, workers too. Jobs live on, and are found again after the next start."""
        # An impatient second Ctrl-C must not leave half of it running.
        previous = {n: signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._close_client()
            # The API server last: tasks that are stopped tell it so, and are tried again after the next start.
            for component in sorted(self.processes, key=COMPONENTS.index, reverse=True):
                self._stop_component(component)
            self.processes.clear()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        if self._lock:
            (self.home / "processes.json").unlink(missing_ok=True)
            self._lock.close()
            self._lock = None

    def _stop_component(self, component: str) -> None:
        process = self.processes[component]
        _signal_group(process, signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.progress(f"{component} does not stop; killing it")
        _signal_group(process, signal.SIGKILL)
        process.wait()

    def start_component(self, component: str) -> None:
        """Start one of COMPONENTS, again if need be."""
        skip_logs = ["--skip-serve-logs"] if component in ("scheduler", "triggerer") else []
        with (self.home / "logs" / f"{component}.log").open("ab") as log:
            self.processes[component] = subprocess.Popen(
                [sys.executable, "-m", "airflow", component, *skip_logs],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=ROOT,
            )
        self._record_processes()

    def kill_component(self, component: str) -> None:
        """SIGKILL one of COMPONENTS with all its workers."""
        process = self.processes[component]
        _signal_group(process, signal.SIGKILL)
        process.wait()

    def request(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """The JSON answer of ``/api/v2<path>``. AirflowError with the server's words on a status of 400 or more."""
        response = self._client().request(method, f"/api/v2{path}", json=body, params=query)
        if response.status_code == 401:  # the token is good for a day
            self._close_client()
            response = self._client().request(method, f"/api/v2{path}", json=body, params=query)
        if response.is_error:
            raise AirflowError(f"{method} {path}: {response.status_code} {response.text[:500]}")
        return response.json() if response.content else None

    def get(self, path: str) -> httpx.Response:
        """What the UI's server answers with a session, for pages outside the API."""
        return self._client().get(path)

    def trigger(self, dag_id: str, conf: Mapping[str, Any], run_id: str | None = None) -> str:
        """Start a run and return its id."""
        body = {"logical_date": None, "conf": dict(conf), **({"dag_run_id": run_id} if run_id else {})}
        return str(self.request("POST", f"/dags/{dag_id}/dagRuns", body)["dag_run_id"])

    def state(self, dag_id: str, run_id: str) -> str:
        return str(self.request("GET", f"/dags/{dag_id}/dagRuns/{run_id}")["state"])

    def unfinished(self, dag_id: str, run_id_prefix: str) -> list[str]:
        """The ids of the runs that begin so and are not over, the oldest first."""
        runs = self.request("GET", f"/dags/{dag_id}/dagRuns", state=["running", "queued"], limit=1000)
        found = [str(run["dag_run_id"]) for run in runs["dag_runs"]]
        return [run_id for run_id in found if run_id.startswith(run_id_prefix)]

    def wait(self, dag_id: str, run_id: str, timeout: float = 1200.0) -> str:
        """The final state of a run."""
        deadline = time.monotonic() + timeout
        while (state := self.state(dag_id, run_id)) not in FINAL:
            if time.monotonic() > deadline:
                raise AirflowError(f"run {run_id} is still {state} after {timeout:.0f} s")
            self.check_alive()
            time.sleep(1)
        return state

    def tasks(self, dag_id: str, run_id: str) -> TaskInstances:
        """The task instances of a run."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances"
        return list(self.request("GET", path, limit=1000)["task_instances"])

    def xcom(
        self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1
    ) -> Any:
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        return self.request("GET", path, map_index=map_index, deserialize=True)["value"]

    def log(self, dag_id: str, run_id: str, task_id: str, *, try_number: int = 1, map_index: int = -1) -> str:
        """The log of one try of a task, as plain lines."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        content = self.request("GET", path, map_index=map_index, full_content=True)["content"]
        return "\n".join(line if isinstance(line, str) else line["event"] for line in content)

    def clear(
        self, dag_id: str, run_id: str, *task_ids: str | list[str | int], downstream: bool = True
    ) -> None:
        """Clear tasks (``"convert"``, or ``["generate", 0]`` for one of a mapped task) so that they run again."""
        body = {
            "dry_run": False,
            "dag_run_id": run_id,
            "task_ids": list(task_ids),
            "include_downstream": downstream,
            "only_failed": False,
            "reset_dag_runs": True,
        }
        self.request("POST", f"/dags/{dag_id}/clearTaskInstances", body)

    def check_alive(self) -> None:
        """AirflowError if a component that was started is gone, with the end of its log."""
        for component, process in self.processes.items():
            if process.poll() is not None:
                log = self.home / "logs" / f"{component}.log"
                raise AirflowError(
                    f"{component} ended with {process.returncode}: {_last_line(log)}; see {log}"
                )

    def _is_ready(self) -> bool:
        self.check_alive()
        try:
            health = httpx.get(f"{self.url}/api/v2/monitor/health", timeout=5, trust_env=False).json()
        except (httpx.HTTPError, ValueError):
            return self._waits_for("API server")
        for part in ("scheduler", "triggerer", "dag_processor"):
            if health[part]["status"] != "healthy":
                return self._waits_for(part.replace("_", " "))
        errors = self.request("GET", "/importErrors")["import_errors"]
        if errors:
            trace = " ".join(errors[0]["stack_trace"].split())
            raise AirflowError(f"{errors[0]['filename']} cannot be imported: {trace[:500]}")
        expected = len(list((ROOT / "dags").glob("*.py")))
        if self.request("GET", "/dags")["total_entries"] < expected:
            return self._waits_for("DAGs")
        return True

    def _waits_for(self, what: str) -> bool:
        if what != getattr(self, "_waiting_for", None):
            self._waiting_for = what
            self.progress(f"waiting for {what}")
        return False

    def _environment(self) -> dict[str, str]:
        # Another Airflow's settings in the caller's shell must not reach this one.
        inherited = {k: v for k, v in os.environ.items() if not k.lstrip("_").startswith("AIRFLOW_")}
        inherited.pop("PYTHONDONTWRITEBYTECODE", None)  # every process would compile all of Airflow anew
        own = {
            # Airflow's own clients would ask a proxy of this shell for 127.0.0.1.
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.home / "passwords.json"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home / 'airflow.db'}",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.home / "logs" / "tasks"),
            # Workers notice the end of a task's process up to this many seconds late, 5 by default.
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            # After a kill -9 of everything, tasks that were running are tried again within a minute.
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        }
        return inherited | own | self.settings

    def _client(self) -> httpx.Client:
        if self._http is None:
            client = httpx.Client(base_url=self.url, timeout=ANSWER_TIMEOUT, trust_env=False)
            login = client.post("/auth/token", json={"username": "admin", "password": self.password})
            if login.is_error:
                client.close()
                raise AirflowError(f"login as admin: {login.status_code} {login.text[:200]}")
            client.headers["Authorization"] = f"Bearer {login.json()['access_token']}"
            self._http = client
        return self._http

    def _close_client(self) -> None:
        if self._http:
            self._http.close()
            self._http = None

    def _take_home(self) -> None:
        self._lock = (self.home / "lock").open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            self._lock = None
            raise AirflowError(
                f"another Airflow runs in {self.home}; stop it, or choose another home"
            ) from None
        # Whoever had this home was killed before it could stop its processes.
        killed: list[psutil.Process] = []
        for pid, started in _read_processes(self.home / "processes.json"):
            try:
                if abs(psutil.Process(pid).create_time() - started) < 1:
                    killed += _group(pid)
                    os.killpg(pid, signal.SIGKILL)
            except (psutil.NoSuchProcess, ProcessLookupError):
                continue
        # Until they are gone they have the port and the database.
        deadline = time.monotonic() + STOP_TIMEOUT
        while any(map(_lives, killed)) and time.monotonic() < deadline:
            time.sleep(0.05)

    def _record_processes(self) -> None:
        alive = [p.pid for p in self.processes.values() if p.poll() is None]
        record = [(pid, psutil.Process(pid).create_time()) for pid in alive]
        temporary = self.home / "processes.json.tmp"
        temporary.write_text(json.dumps(record))
        temporary.replace(self.home / "processes.json")


def _read_processes(file: Path) -> list[tuple[int, float]]:
    if not file.is_file():
        return []
    return [(int(pid), float(started)) for pid, started in json.loads(file.read_text())]


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    # The leader may be gone while its workers are not.
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


def _group(leader: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(process.pid) == leader:
                found.append(process)
    return found


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def free_port(wanted: int) -> int:
    """The port that is wanted, or another one if nobody says which, or somebody has it."""
    for port in [wanted or random.choice(PORTS), *random.sample(PORTS, 1000)]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise AirflowError(f"no port between {PORTS.start} and {PORTS.stop} is free")


def _last_line(file: Path) -> str:
    lines = [without_controls(line).strip() for line in file.read_text(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "it printed nothing")


def main() -> int:
    """``make up``: Airflow with its UI until Ctrl-C."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    wanted = int(os.environ.get("PORT", "8080"))
    try:
        with Airflow(
            ROOT / ".airflow", port=wanted, progress=lambda line: print(line, flush=True)
        ) as airflow:
            if airflow.port != wanted:
                print(f"Port {wanted} is in use; this is on {airflow.port} instead (PORT=… chooses)")
            print(
                f"\nOpen {airflow.url} and log in as admin with {airflow.password}; Ctrl-C stops it.",
                flush=True,
            )
            while True:
                airflow.check_alive()
                time.sleep(1)
    except AirflowError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Jobs that run go on, and are found again by the next start.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
