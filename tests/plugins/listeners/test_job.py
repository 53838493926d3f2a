"""The listener on a row of a table like Airflow's; on Airflow's own, see the end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import task_instance
from evalcore import jobs
from evalcore.backends import Local, Look, Unreachable
from evalcore.errors import JobError
from listeners.job import on_task_instance_failed, on_task_instance_skipped, on_task_instance_success, to_stop
from waiting import until

# They start processes, and wait for them.
pytestmark = pytest.mark.slow

KEY = ("evaluate", "r", "score.grade", 3)


class Base(DeclarativeBase):
    pass


class TaskInstance(Base):
    __tablename__ = "task_instance"
    dag_id: Mapped[str]
    run_id: Mapped[str]
    task_id: Mapped[str] = mapped_column(primary_key=True)
    map_index: Mapped[int]
    state: Mapped[str]
    noted: Mapped[str]

    def xcom_pull(self, *, task_ids: str, key: str, map_indexes: int, session: Session) -> Any:
        assert (task_ids, key, map_indexes) == ("score.grade", "job", 3)
        return self.noted


@pytest.fixture
def session() -> Iterator[Session]:
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as opened:
        yield opened
    engine.dispose()


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Path]:
    found = jobs.ensure(tmp_path, jobs.job_name(*KEY), ["sleep", "300"])
    yield found
    jobs.cancel(found)


def marked(session: Session, job: Path, state: str) -> TaskInstance:
    dag_id, run_id, task_id, map_index = KEY
    ti = TaskInstance(
        dag_id=dag_id,
        run_id=run_id,
        task_id=task_id,
        map_index=map_index,
        state=state,
        noted=f"local:{job.parent}",
    )
    session.add(ti)
    return ti


@pytest.mark.parametrize(
    ("hook", "state"),
    [
        (on_task_instance_failed, "failed"),
        (on_task_instance_success, "success"),
        (on_task_instance_skipped, "skipped"),
    ],
)
def test_the_job_of_a_marked_task_is_cancelled_once_the_mark_is_visible(
    session: Session, job: Path, hook: Any, state: str
) -> None:
    hook(marked(session, job, state))
    assert not (job / jobs.CANCELLED).exists()
    session.commit()
    until(lambda: jobs.status(job).state is jobs.State.CANCELLED)


def commit(session: Session) -> None:
    """Commit, and wait until what was to be cancelled then is."""
    session.commit()
    to_stop.join()


def test_a_mark_that_is_taken_back_cancels_nothing(session: Session, job: Path) -> None:
    on_task_instance_failed(marked(session, job, "failed"))
    session.rollback()
    commit(session)  # of something else
    assert not (job / jobs.CANCELLED).exists()


@pytest.mark.parametrize(
    "why", [PermissionError(13, "Permission denied"), Unreachable("away"), JobError("no")]
)
def test_a_job_that_cannot_be_cancelled_does_not_spoil_the_mark(
    session: Session,
    job: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    why: Exception,
) -> None:
    def denied(folder: Path) -> None:
        raise why

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "request_cancel", denied)
        patch.setattr("listeners.job.PATIENCE", 0.0)
        on_task_instance_failed(marked(session, job, "failed"))
        commit(session)
    assert [r.getMessage() for r in caplog.records if "cannot cancel job" in r.getMessage()]
    session.add(TaskInstance(dag_id="d", run_id="r", task_id="t", map_index=-1, state="success", noted=""))
    commit(session)


def test_a_task_that_will_be_tried_again_keeps_its_job(session: Session, job: Path) -> None:
    on_task_instance_failed(marked(session, job, "up_for_retry"))
    commit(session)
    assert not (job / jobs.CANCELLED).exists()


def test_a_job_that_is_over_is_left_alone(session: Session, job: Path) -> None:
    jobs.cancel(job)
    (job / jobs.CANCELLED).unlink()
    on_task_instance_success(marked(session, job, "success"))
    commit(session)
    assert not (job / jobs.CANCELLED).exists()


def test_in_a_worker_it_does_nothing(job: Path) -> None:
    dag_id, run_id, task_id, map_index = KEY
    # This one has no xcom_pull.
    ti: Any = task_instance.TaskInstance({}, dag_id, run_id, task_id, map_index, state="failed")
    on_task_instance_failed(ti)
    assert not (job / jobs.CANCELLED).exists()


def test_a_cluster_that_is_away_is_asked_again(
    session: Session, job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([Unreachable("no route"), Unreachable("no route")])

    def look(self: Local, offsets: dict[str, int]) -> dict[str, Look]:
        for error in answers:
            raise error
        return {job: Look(jobs.Status(jobs.State.RUNNING), [], 0) for job in offsets}

    monkeypatch.setattr(Local, "look", look)
    monkeypatch.setattr("listeners.job._PAUSE", 0.0)
    on_task_instance_failed(marked(session, job, "failed"))
    commit(session)
    assert next(answers, None) is None
    assert jobs.status(job).state is jobs.State.CANCELLED
