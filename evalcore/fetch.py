"""fetch: a checkpoint that lies elsewhere becomes a folder here, once.

    evalcore fetch hf://allenai/OLMo-2-0425-1B@step1000-tokens3B

Sources: ``hf://org/repo@revision``, ``wandb://entity/project/name:version``, and any object store that fsspec reads
(``s3://bucket/run/step-1000``). The folder is named after what the files are, not where they come from::

    <results>/.checkpoints/<run>-<revision>/<checkpoint>/

It appears when it is whole: until then it is the hidden one beside it, in which the next attempt keeps every file
that has the size, and the hash if the source tells one, that it must have; of an object store, begun ones, too.
"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import orjson

from evalcore.checkpoints import is_remote
from evalcore.completeness import check_complete
from evalcore.config import EvalConfig
from evalcore.errors import CheckpointError, EvalError, ResultsError
from evalcore.plan import plan
from evalcore.processes import locked
from evalcore.sources.remote import FULL, Remote, Unavailable, part_of

log = logging.getLogger(__name__)

_T = TypeVar("_T")

CHECKPOINTS = ".checkpoints"
"""The folder of all that was fetched, in a results folder: no training run's, whatever that is called."""

PATIENCE = 600.0
"""Seconds for which a source that has begun to fail is asked again for a file."""

_LOG_SECONDS = 10.0
_LONGEST_PAUSE = 60.0
_DAMAGED = 3  # times that a file may arrive as another one than it should be


def resolve(url: str) -> Remote:
    """What is at an address now.

    Raises:
        ConfigError: the source's library is not installed.
        CheckpointError: there is no such thing, or it is no checkpoint that can be evaluated; Unavailable if the
            source cannot be asked.
    """
    # Here: each imports what the others need not wait for.
    if is_stored(url):
        from evalcore.sources.object_store import remote
    elif url.startswith("hf://"):
        from evalcore.sources.hub import remote
    else:
        from evalcore.sources.wandb import remote
    return remote(url)


def is_stored(url: str) -> bool:
    """Whether an address is one of an object store."""
    return not url.startswith(("hf://", "wandb://"))


def folder_of(remote: Remote, results: str | Path) -> Path:
    """Where a checkpoint is, or will be, once it is fetched."""
    root = Path(results).expanduser().absolute()
    return root / CHECKPOINTS / f"{remote.run}-{remote.revision}" / remote.name


def fetched(config: EvalConfig) -> EvalConfig:
    """The config with a folder for its checkpoint, which is fetched if it lies elsewhere and is not here yet.

    Raises:
        CheckpointError, ConfigError, ResultsError: as ``resolve`` and ``fetch``.
    """
    if not is_remote(config.checkpoint):
        return config
    remote = resolve(str(config.checkpoint))
    fetch(remote, config.results)
    return placed(config, remote, folder_of(remote, config.results))


class _Changed(Unavailable):
    """Files of a source were replaced while they were brought."""


class Outlook(NamedTuple):
    """What is to be done for a checkpoint elsewhere. commands: all that follow, in lines; none if it is here."""

    is_here: bool
    commands: str = ""

    @classmethod
    def from_json(cls, text: bytes) -> Outlook:
        """What ``python -m evalcore.fetch`` printed; before it a login shell may have said something."""
        return cls(**orjson.loads(text.splitlines()[-1]))


def outlook(config: EvalConfig) -> Outlook:
    """What is to be done for a config that ``placed`` has made; nothing is fetched.

    Raises:
        ConfigError, BenchmarkError: what is wrong with the rest of the request: now, and not after the download.
    """
    if Path(str(config.checkpoint)).is_dir():
        return Outlook(True)
    return Outlook(False, plan(config, is_there=False).render())


def command(url: str, revision: str, results: str | Path) -> list[str]:
    """The command that fetches what ``resolve`` has found at an address, and nothing else."""
    return ["evalcore", "fetch", url, "--results", str(results), "--revision", revision]


def planned(config: EvalConfig) -> str:
    """The commands of an evaluation whose checkpoint lies elsewhere, in lines."""
    remote = resolve(str(config.checkpoint))
    config = placed(config, remote, folder_of(remote, config.results))
    found = outlook(config)
    if found.is_here:
        return plan(config).render()
    first = command(remote.url, remote.revision, config.results)
    return f"{shlex.join(first)}  # {describe(remote)}\n{found.commands}"


def describe(remote: Remote) -> str:
    """``12 files, 13.5 GB``."""
    return f"{len(remote.files)} files, {size_text(remote.size)}"


def placed(config: EvalConfig, remote: Remote, folder: str | Path) -> EvalConfig:
    """The config of a checkpoint elsewhere, as it is when that lies in a folder; run and step stay what they were."""
    return config.model_copy(
        update={
            "checkpoint": str(folder),
            "training_run": config.training_run or remote.run,
            "step": remote.step if config.step is None else config.step,
        }
    )


def fetch(remote: Remote, results: str | Path) -> Path:
    """The folder of a checkpoint, fetched if it is not there. Of several who want the same, one fetches it.

    Raises:
        CheckpointError: it is not complete, or its source refuses or is away for long.
        ResultsError: the disk is full, or nothing can be written there.
    """
    target = folder_of(remote, results)
    if target.is_dir():
        log.info("%s is here: %s", remote.url, target)
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.parent / ".lock", f"fetches {remote.url}"):
            if not target.is_dir():
                _fetch(remote, target)
    except OSError as error:
        hint = f"; what was fetched can be deleted: {target.parents[1]}" if error.errno in FULL else ""
        raise ResultsError(f"cannot fetch to {target}: {error.strerror or error}{hint}") from error
    return target


def _fetch(remote: Remote, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.mkdir(exist_ok=True)
    started = time.monotonic()
    with ThreadPoolExecutor(remote.workers) as pool:
        whole = dict(
            zip(
                remote.files,
                pool.map(lambda name: remote.files[name].is_whole(temporary / name), remote.files),
                strict=True,
            )
        )
    # The folder is named after what the files are, so that a part of one is no other's.
    _remove(temporary, keep={name if is_whole else part_of(name) for name, is_whole in whole.items()})
    missing = [name for name, is_whole in whole.items() if not is_whole]
    wanted = remote.size - _bytes(temporary)
    here = f", {len(whole) - len(missing)} of them here already" if len(missing) < len(whole) else ""
    log.info("%s: %s%s", remote.url, describe(remote), here)
    if wanted > (free := shutil.disk_usage(temporary).free):
        raise ResultsError(
            f"{target.parent}: {size_text(wanted)} are wanted for {remote.url}, and {size_text(free)} are free; "
            f"what was fetched can be deleted: {target.parents[1]}"
        )
    try:
        with _said(remote, temporary), ThreadPoolExecutor(remote.workers) as pool:
            jobs = [pool.submit(_get, remote, name, temporary) for name in missing]
            try:
                for job in jobs:
                    job.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
        _remove(temporary, keep=set(remote.files))
        _check_unchanged(remote)
    except _Changed:
        # Of the right size, the others' would pass for these as soon as these are back in their place.
        _remove(temporary, keep=set())
        raise
    check_complete(temporary)
    temporary.rename(target)
    log.info("fetched %s in %.0f s: %s", remote.url, time.monotonic() - started, target)


def _get(remote: Remote, name: str, folder: Path) -> None:
    """Bring one file, whole."""
    file = remote.files[name]
    damaged = 0
    while True:
        _patiently(name, partial(remote.get, name, folder))
        if file.is_whole(folder / name):
            return
        arrived = (folder / name).stat().st_size
        (folder / name).unlink()
        _check_unchanged(remote)
        damaged += 1
        said = f"{remote.url}: {name} arrived damaged, {arrived:,} of {file.size:,} bytes"
        if damaged == _DAMAGED:
            raise CheckpointError(f"{said}, {damaged} times")
        log.warning("%s; fetching it again", said)


def _check_unchanged(remote: Remote) -> None:
    """_Changed if a file is another one by now: those that were brought may be of both."""
    if remote.now is None:
        return
    there = _patiently("its files", remote.now)
    if changed := sorted(name for name, file in remote.files.items() if there.get(name) != file):
        raise _Changed(f"{remote.url}: {changed[0]} has changed while it was fetched; fetch it again")


def _patiently(what: str, ask: Callable[[], _T]) -> _T:
    """What a source answers, which is asked again while it is away."""
    deadline, pause = 0.0, 1.0
    while True:
        try:
            return ask()
        except Unavailable as error:
            deadline = deadline or time.monotonic() + PATIENCE
            if time.monotonic() + pause > deadline:
                raise
            log.warning("%s; asking again for %s in %.0f s", error, what, pause)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


def _remove(folder: Path, keep: set[str]) -> None:
    """Remove what a killed attempt, or a source's library, has left in a folder."""
    for path in folder.iterdir():
        if path.name in keep:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextmanager
def _said(remote: Remote, folder: Path) -> Iterator[None]:
    """Say how far it is, every ten seconds: by what lies in the folder, wherever a library writes first."""
    over = threading.Event()

    def say() -> None:
        last, then = _bytes(folder), time.monotonic()
        while not over.wait(_LOG_SECONDS):
            here, now = _bytes(folder), time.monotonic()
            rate = max(here - last, 0) / (now - then)
            log.info(
                "%s: %s of %s, %s/s", remote.url, size_text(here), size_text(remote.size), size_text(rate)
            )
            last, then = here, now

    thread = threading.Thread(target=say, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _bytes(folder: Path) -> int:
    total = 0
    # Not Path.rglob, which may end at a folder that a library removes meanwhile.
    for here, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(here, name)).st_size
            except OSError:  # renamed meanwhile
                continue
    return total


def size_text(size: float) -> str:
    """``13.5 GB``."""
    for unit in ("B", "kB", "MB"):
        if round(size) < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:,.1f} GB"


def main() -> int:
    """``python -m evalcore.fetch``: ``outlook`` of the config on standard input, both as JSON, for clusters."""
    try:
        found = outlook(EvalConfig.model_validate_json(sys.stdin.buffer.read()))
    except EvalError as error:
        print(f"evalcore: error: {error}", file=sys.stderr)
        return 1
    sys.stdout.buffer.write(orjson.dumps(found._asdict()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
