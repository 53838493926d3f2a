"""evalcore publish: one run for a checkpoint, the one that discovery would start, whatever happens on the way."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

import airflow_api
from airflow_api import PASSWORD, TOKEN, USER, Server
from distributed_checkpoint import write_distributed
from evalcore import cli, publish
from evalcore.discovery import Folder, find, request
from evalcore.errors import CheckpointError, ConfigError
from evalcore.publish import PublishError
from evalcore.tracked import load_tracked
from tiny_folder import write_checkpoint


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with airflow_api.running() as running:
        monkeypatch.setenv("EVALCORE_AIRFLOW_URL", running.url)
        monkeypatch.setenv("EVALCORE_AIRFLOW_TOKEN", TOKEN)
        yield running


class Clock:
    """In place of ``time``: nobody waits, and as much has passed as would have been waited."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def monotonic(self) -> float:
        return sum(self.pauses)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = Clock()
    monkeypatch.setattr(publish, "time", clock)
    return clock.pauses


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of the training run llama, which a file in tracked/ follows."""
    (tmp_path / "tracked").mkdir()
    (tmp_path / "tracked" / "llama.yaml").write_text(
        f"source: {{path: {tmp_path / 'ckpt'}}}\nsuite: tiny\noverrides: [inference.seed=5]\n"
    )
    monkeypatch.setenv("EVALCORE_INCLUDE", str(tmp_path))
    folder = write_checkpoint(tmp_path / "ckpt" / "step-1500")
    (folder / "tokenizer.json").write_text("{}")
    return folder


def test_it_is_the_run_that_discovery_would_start(server: Server, checkpoint: Path) -> None:
    tracked = load_tracked("llama")
    [found] = find(tracked, Folder(str(checkpoint.parent)), unknown=set, limit=9).found
    wanted = request(tracked, found)
    published = publish.publish(str(checkpoint), "llama")
    assert published == (wanted["trigger_run_id"], True)
    assert server.runs["evaluate_checkpoint"] == {
        published.run_id: {"dag_run_id": published.run_id, "logical_date": None, "conf": wanted["conf"]}
    }
    assert publish.publish(str(checkpoint), "llama", step=1600) == (published.run_id, False)
    assert len(server.runs["evaluate_checkpoint"]) == 1


def test_another_format_needs_a_converter(server: Server, checkpoint: Path) -> None:
    folder = write_distributed(checkpoint.parent / "iter_7")
    with pytest.raises(CheckpointError, match="iter_7: a distributed checkpoint, and no converter=NAME"):
        publish.publish(str(folder), "llama")
    assert not server.runs["evaluate_checkpoint"]
    file = checkpoint.parents[1] / "tracked" / "llama.yaml"
    file.write_text(file.read_text().replace("[inference.seed=5]", "[converter=dcp]"))
    assert publish.publish(str(folder), "llama").is_new


def test_the_step_may_be_said(server: Server, checkpoint: Path) -> None:
    published = publish.publish(str(checkpoint), "llama", step=7)
    assert server.runs["evaluate_checkpoint"][published.run_id]["conf"]["step"] == 7


def test_the_first_step_is_one(server: Server, checkpoint: Path) -> None:
    published = publish.publish(str(checkpoint), "llama", step=0)
    assert server.runs["evaluate_checkpoint"][published.run_id]["conf"]["step"] == 0


def test_suite_and_cluster_may_be_said(
    server: Server, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALCORE_AIRFLOW_URL", f"{server.url}/")
    published = publish.publish(str(checkpoint), "llama", suite="nightly", cluster="there")
    conf = server.runs["evaluate_checkpoint"][published.run_id]["conf"]
    assert (conf["suite"], conf["cluster"], conf["overrides"]) == ("nightly", "there", ["inference.seed=5"])


def test_a_run_that_nobody_follows_needs_a_suite(server: Server, checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match=r"'other' has no file in tracked/ .*: give --suite"):
        publish.publish(str(checkpoint), "other")
    published = publish.publish(str(checkpoint), "other", suite="nightly", cluster="there")
    conf = server.runs["evaluate_checkpoint"][published.run_id]["conf"]
    assert (conf["suite"], conf["cluster"], conf["training_run"]) == ("nightly", "there", "other")
    with pytest.raises(ConfigError, match="publish: training_run: expected letters"):
        publish.publish(str(checkpoint), "a/b", suite="tiny")


def test_a_file_that_cannot_be_read_may_be_the_one_that_follows_it(
    server: Server, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "tracked" / "a-torn.yaml").write_text("suite: tiny\n")
    assert publish.publish(str(checkpoint), "llama").is_new
    with pytest.raises(ConfigError, match=r"give --suite, and .*; tracked a-torn: source: Field required"):
        publish.publish(str(checkpoint), "other")


def test_an_incomplete_checkpoint_is_not_published(server: Server, checkpoint: Path) -> None:
    (checkpoint / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="no tokenizer yet"):
        publish.publish(str(checkpoint), "llama")
    with pytest.raises(CheckpointError, match=r"step-9: no such folder"):
        publish.publish(str(checkpoint.parent / "step-9"), "llama")
    assert not server.asked


@pytest.mark.parametrize("faults", [[503, 502, 429], [0], [0, 0, 500]])
def test_it_is_made_once_though_the_api_is_away_or_its_answer_lost(
    server: Server, checkpoint: Path, faults: list[int], pauses: list[float]
) -> None:
    server.faults = list(faults)
    publish.publish(str(checkpoint), "llama")
    assert len(server.runs["evaluate_checkpoint"]) == 1
    assert pauses == [1.0, 2.0, 4.0][: len(faults)]


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An address at which nobody answers."""
    # Kept, and never listened on: nobody else gets it meanwhile.
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{kept.getsockname()[1]}"
        monkeypatch.setenv("EVALCORE_AIRFLOW_URL", url)
        monkeypatch.setenv("EVALCORE_AIRFLOW_TOKEN", TOKEN)
        yield url


def test_patience_ends(checkpoint: Path, nobody: str, pauses: list[float]) -> None:
    with pytest.raises(PublishError, match=f"{nobody} cannot be asked: .*refused"):
        publish.publish(str(checkpoint), "llama", patience=3)
    assert pauses == [1.0, 2.0]


@pytest.mark.usefixtures("nobody")
def test_an_upgrade_of_airflow_is_waited_for_and_noticed_soon(checkpoint: Path, pauses: list[float]) -> None:
    with pytest.raises(PublishError, match="cannot be asked"):
        publish.publish(str(checkpoint), "llama")
    assert 570 < sum(pauses) <= 600
    assert pauses == sorted(pauses)
    assert max(pauses) == 30


def test_who_takes_the_question_and_never_answers_is_asked_again(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    monkeypatch.setattr(publish, "_ANSWER_SECONDS", 0.05)
    monkeypatch.setenv("EVALCORE_AIRFLOW_TOKEN", TOKEN)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("EVALCORE_AIRFLOW_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(PublishError, match="cannot be asked: timed out"):
            publish.publish(str(checkpoint), "llama", patience=1)
    assert pauses == [1.0]


def test_a_login_instead_of_a_token(
    server: Server, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EVALCORE_AIRFLOW_TOKEN")
    with pytest.raises(ConfigError, match="set EVALCORE_AIRFLOW_TOKEN, or EVALCORE_AIRFLOW_USER and"):
        publish.publish(str(checkpoint), "llama")
    monkeypatch.setenv("EVALCORE_AIRFLOW_USER", USER)
    monkeypatch.setenv("EVALCORE_AIRFLOW_PASSWORD", "wrong")
    with pytest.raises(PublishError, match="login as trainer: 401 Invalid credentials"):
        publish.publish(str(checkpoint), "llama")
    monkeypatch.setenv("EVALCORE_AIRFLOW_PASSWORD", PASSWORD)
    assert publish.publish(str(checkpoint), "llama").is_new


def test_what_airflow_refuses_is_said_at_once(
    server: Server, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    monkeypatch.setenv("EVALCORE_AIRFLOW_TOKEN", "old")
    with pytest.raises(PublishError, match="401 Invalid auth token: Signature verification failed"):
        publish.publish(str(checkpoint), "llama")
    monkeypatch.setenv("EVALCORE_AIRFLOW_TOKEN", TOKEN)
    del server.runs["evaluate_checkpoint"]
    with pytest.raises(PublishError, match="404 Dag with dag_id: 'evaluate_checkpoint' not found"):
        publish.publish(str(checkpoint), "llama")
    assert not pauses


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (None, "EVALCORE_AIRFLOW_URL: set it to the address"),
        ("airflow:8080", "set it to the address"),
        ("file:///etc/passwd", "set it to the address"),
        ("http://me:hidden@airflow", "has credentials in it"),
        ("http://hidden@airflow", "has credentials in it"),
        ("http://[airflow", "set it to the address"),
        ("http://airflow:port", "set it to the address"),
        ("http://airflow:8080 ", "set it to the address"),
    ],
)
def test_an_address_that_cannot_be(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, url: str | None, message: str
) -> None:
    monkeypatch.delenv("EVALCORE_AIRFLOW_URL", raising=False)
    if url:
        monkeypatch.setenv("EVALCORE_AIRFLOW_URL", url)
    with pytest.raises(ConfigError, match=message) as error:
        publish.publish(str(checkpoint), "llama")
    assert "hidden" not in str(error.value)


def test_the_command_says_what_it_did_and_no_secret(
    server: Server, checkpoint: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for ending in ("is made", "was there already: nothing to do"):
        with pytest.raises(SystemExit) as ended:
            cli.main(["publish", str(checkpoint), "--run", "llama", "--step", "1500"])
        assert not ended.value.code
        said = capfd.readouterr()
        assert said.out.startswith("run ckpt__llama__step-1500__")
        assert said.out.endswith(f" {ending}\n")
        assert TOKEN not in said.out + said.err


def test_a_redirect_is_no_run_and_gets_no_token(server: Server, checkpoint: Path) -> None:
    with airflow_api.running() as other:
        server.elsewhere = other.url
        with pytest.raises(PublishError, match=f"302, it is at {other.url}.*: set EVALCORE_AIRFLOW_URL"):
            publish.publish(str(checkpoint), "llama")
        assert not other.asked
        assert not other.gets


def test_whatever_else_answers_has_made_no_run(
    server: Server, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "answer", lambda *_: (200, {"message": "please log in"}))
    with pytest.raises(PublishError, match="what answers there is not Airflow"):
        publish.publish(str(checkpoint), "llama")
    monkeypatch.delenv("EVALCORE_AIRFLOW_TOKEN")
    monkeypatch.setenv("EVALCORE_AIRFLOW_USER", USER)
    monkeypatch.setenv("EVALCORE_AIRFLOW_PASSWORD", PASSWORD)
    with pytest.raises(PublishError, match="login as trainer: no token in the answer"):
        publish.publish(str(checkpoint), "llama")


@pytest.mark.parametrize("token", [f"{TOKEN}\n", f"{TOKEN}\u4e2d"])
def test_a_token_that_cannot_be_sent_is_not_shown(
    server: Server, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("EVALCORE_AIRFLOW_TOKEN", token)
    with pytest.raises(ConfigError, match="EVALCORE_AIRFLOW_TOKEN is no token") as error:
        publish.publish(str(checkpoint), "llama")
    assert TOKEN not in str(error.value)
    assert not server.asked
