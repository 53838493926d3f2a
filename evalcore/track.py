"""Send a checkpoint's scorecards to Weights & Biases: one W&B run per checkpoint, grouped by training run.

>>> track(Path("results/tiny/step-001800"), Wandb(project="my-evals"))
TrackedRun(url=None, directory=PosixPath('results/tiny/step-001800/wandb/offline-run-…'), …)

A W&B run's id follows from the checkpoint, so tracking it again resumes its run: the summary then shows
the newest numbers, and its history has one more point at the same ``checkpoint_step``. Metrics are named
``<benchmark>/<mode>/<metric>``, as in the tables: ``gsm8k/pass@1[8]/symbolic_correct``; shares are 0 to 1.
``<benchmark>/complete`` is 0 where samples, grades or judgements are missing, so that a half-done
evaluation is not taken for a regression.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from evalcore.checkpoints import Checkpoint
from evalcore.errors import ConfigError, EvalError, ResultsError
from evalcore.manifest import MANIFEST, SCORECARD, Manifest
from evalcore.metrics import Estimate
from evalcore.settings import Wandb
from evalcore.summarize import Mode, Scorecard, Subset
from evalcore.tally import COLUMNS

log = logging.getLogger(__name__)

STEP = "checkpoint_step"
_ESTIMATES = (*COLUMNS, "no_answer", "avg_tokens")
# More than wandb keeps in memory before it writes.
_ROOM = 1 << 16


@dataclass(frozen=True)
class TrackedRun:
    """Where the numbers went. url None: not online; directory None: W&B is disabled.

    message: one line for people; offline it says how to upload.
    """

    url: str | None
    directory: Path | None
    offline: bool
    message: str

    def __str__(self) -> str:
        return self.message


def track(folder: Path, settings: Wandb, planned: Mapping[str, str] | None = None) -> TrackedRun:
    """Track every scorecard of one checkpoint's folder (``<results>/<run>/<checkpoint>``).

    Online when W&B finds a key (``WANDB_API_KEY``, netrc), offline otherwise; ``settings.mode`` and then
    ``WANDB_MODE`` overrule that. W&B writes into ``<folder>/wandb``, nothing elsewhere and nothing on the
    terminal.

    planned: of some benchmarks, the id of the settings their scorecards must be of (``manifest.settings_id``).

    Raises:
        ResultsError: the folder holds no scorecards.
        ConfigError: a mode is asked for, and wandb is not installed; W&B's own environment variables are wrong.
        EvalError: W&B refused, or could not be reached, or the disk is full.
    """
    benchmarks = _load(folder, planned)
    mode = settings.mode or os.environ.get("WANDB_MODE") or None
    if mode == "disabled":
        return TrackedRun(None, None, False, "W&B is disabled: nothing was sent")
    wandb = import_wandb()
    if wandb is None:
        if mode:
            raise ConfigError(f"W&B mode {mode} is asked for, but wandb is not installed; {_INSTALL}")
        return TrackedRun(None, None, False, f"wandb is not installed: nothing was sent; {_INSTALL}")
    checkpoint = next(iter(benchmarks.values())).manifest.checkpoint
    if missing := [name for name, it in benchmarks.items() if not _is_complete(it.card)]:
        log.warning("incomplete, and marked so in W&B (complete = 0): %s", ", ".join(missing))
    try:
        with _data_folder(folder), _silent_logging():
            quiet = quiet_settings(wandb)
            if mode is None:
                mode = "online" if wandb.login(prompt=False, verify=False) else "offline"
            return _track(wandb, quiet, mode, folder, settings, checkpoint, benchmarks)
    except ValidationError as error:
        wrong = error.errors()[0]
        name = str(wrong["loc"][0])
        raise ConfigError(f"W&B's setting {name}: {wrong['msg']}; see WANDB_{name.upper()}") from error
    except OSError as error:
        raise EvalError(
            f"W&B's files in {folder / 'wandb'} cannot be written: {error.strerror or error}; "
            f"the scorecards are kept, run `evalcore track {folder}` again when they can"
        ) from error
    except wandb.Error as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        advice = "" if mode == "offline" else "; wandb.mode=offline keeps them on disk"
        raise EvalError(f"W&B did not take the numbers of {folder}: {reason}{advice}") from error


@dataclass(frozen=True)
class _Tracked:
    folder: Path
    manifest: Manifest
    card: Scorecard


def _load(folder: Path, planned: Mapping[str, str] | None = None) -> dict[str, _Tracked]:
    """The benchmarks that have a scorecard of their manifest's settings, by name, sorted.

    A checkpoint that was overwritten by another of its name has results of both: the newest counts.
    """
    tracked = []
    for file in sorted(folder.glob(f"*/{SCORECARD}"), key=lambda file: file.stat().st_mtime):
        settings = (planned or {}).get(file.parent.name)
        try:
            manifest = Manifest.load(file.parent, settings)
            tracked.append(_Tracked(file.parent, manifest, Scorecard.load(file.parent, settings)))
        except ResultsError as error:
            log.warning("not tracked: %s", error)
    if not tracked:
        raise ResultsError(
            f"{folder}: no {SCORECARD} in its benchmark folders; run `evalcore summarize` first"
        )
    digest = tracked[-1].manifest.checkpoint.digest
    for old in (benchmark for benchmark in tracked if benchmark.manifest.checkpoint.digest != digest):
        log.warning("not tracked: %s: of a checkpoint of the same name with other weights", old.folder)
    current = [benchmark for benchmark in tracked if benchmark.manifest.checkpoint.digest == digest]
    return {benchmark.card.benchmark: benchmark for benchmark in sorted(current, key=lambda it: it.folder)}


def import_wandb() -> Any:
    """The module, or None where the extra is not installed."""
    try:
        import wandb
    except ImportError:
        return None
    return wandb


_INSTALL = "pip install 'evalcore[wandb]'"


def quiet_settings(wandb: Any, **more: Any) -> Any:
    settings = wandb.Settings(
        **more,
        silent=True,
        console="off",
        save_code=False,
        disable_git=True,
        disable_job_creation=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
    wandb.setup(settings)
    return settings


def _track(
    wandb: Any,
    quiet: Any,
    mode: str,
    folder: Path,
    settings: Wandb,
    checkpoint: Checkpoint,
    benchmarks: Mapping[str, _Tracked],
) -> TrackedRun:
    run = wandb.init(
        project=settings.project,
        entity=settings.entity,
        mode=mode,
        dir=str(folder),
        id=run_id(checkpoint),
        name=checkpoint.name,
        group=checkpoint.run,
        job_type="evaluation",
        # W&B has nothing to resume offline; the id makes `wandb sync` add to the same run.
        resume="allow" if mode == "online" else None,
        settings=quiet,
    )
    try:
        run.config.update(_config(checkpoint, benchmarks), allow_val_change=True)
        step = {}
        if checkpoint.step is not None:  # or W&B would fill the axis with 0
            run.define_metric(STEP)
            run.define_metric("*", step_metric=STEP)
            step = {STEP: checkpoint.step}
        cards = [benchmark.card for benchmark in benchmarks.values()]
        run.log({**step, **metrics(cards), "scorecards": wandb.Table(*_table(cards))})
        run.log_artifact(_artifact(wandb, run.id, benchmarks))
    except BaseException:
        run.finish(exit_code=1)  # as the run's own context manager does, which prints a traceback besides
        raise
    run.finish()
    directory = Path(run.settings.sync_dir)
    if run.settings._offline:
        # wandb does not tell when its last write failed; nor could this be written then.
        with tempfile.TemporaryFile(dir=directory) as probe:
            probe.write(bytes(_ROOM))
        command = f"wandb sync {shlex.quote(str(directory))}"
        return TrackedRun(None, directory, True, f"W&B run kept on disk; upload it: {command}")
    return TrackedRun(run.url, directory, False, f"W&B run: {run.url}")


def run_id(checkpoint: Checkpoint) -> str:
    """The W&B run's id: the same for the same checkpoint, another when its weights change. 16 hex digits."""
    name = "\0".join((checkpoint.run, checkpoint.name, checkpoint.digest))
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def metrics(cards: Sequence[Scorecard]) -> dict[str, float]:
    """``<benchmark>/<mode>/<metric>``, ``…_std_err``, ``<benchmark>/complete``; what is unknown has no entry."""
    named = {}
    for card in cards:
        named[f"{card.benchmark}/complete"] = float(_is_complete(card))
        for subset, mode in _modes(card):
            name = card.benchmark if subset is card.subsets[0] else subset.name
            for metric in _ESTIMATES:
                estimate: Estimate | None = getattr(mode, metric)
                if estimate is None:
                    continue
                named[f"{name}/{mode.evaluation_mode}/{metric}"] = estimate.value
                if estimate.std_err is not None:
                    named[f"{name}/{mode.evaluation_mode}/{metric}_std_err"] = estimate.std_err
    return named


def _table(cards: Sequence[Scorecard]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of the pass@k table, one row for each line of a scorecard."""
    estimates = [name for metric in _ESTIMATES for name in (metric, f"{metric}_std_err")]
    rows = []
    for card in cards:
        for subset, mode in _modes(card):
            row: list[Any] = [subset.name, mode.evaluation_mode, mode.num_entries, _is_complete(card)]
            for metric in _ESTIMATES:
                estimate: Estimate | None = getattr(mode, metric)
                row += [estimate.value, estimate.std_err] if estimate else [None, None]
            rows.append(row)
    return ["benchmark", "evaluation_mode", "num_entries", "complete", *estimates], rows


def _is_complete(card: Scorecard) -> bool:
    """Whether nothing is missing: no sample, no grade, and no judgement where numbers need a judge."""
    return card.complete and (card.judged or not card.needs_judge)


def _modes(card: Scorecard) -> Iterator[tuple[Subset, Mode]]:
    for subset in card.subsets:
        for mode in subset.modes:
            yield subset, mode


def _config(checkpoint: Checkpoint, benchmarks: Mapping[str, _Tracked]) -> dict[str, Any]:
    made_by = {"checkpoint", "benchmark"}
    return {
        "checkpoint": checkpoint.model_dump(),
        "benchmarks": {
            name: {"fingerprint": it.manifest.fingerprint, **it.manifest.model_dump(exclude=made_by)}
            for name, it in benchmarks.items()
        },
    }


def _artifact(wandb: Any, run: str, benchmarks: Mapping[str, _Tracked]) -> Any:
    artifact = wandb.Artifact(f"scorecards-{run}", type="evaluation")
    for name, benchmark in benchmarks.items():
        for file in (SCORECARD, MANIFEST):
            artifact.add_file(str(benchmark.folder / file), name=f"{name}/{file}")
    return artifact


@contextmanager
def _data_folder(folder: Path) -> Iterator[None]:
    """Keep an artifact's files beside the run until they are uploaded; W&B would put them into HOME."""
    if "WANDB_DATA_DIR" in os.environ:
        yield
        return
    os.environ["WANDB_DATA_DIR"] = str((folder / "wandb" / "data").absolute())
    try:
        yield
    finally:
        del os.environ["WANDB_DATA_DIR"]


@contextmanager
def _silent_logging() -> Iterator[None]:
    """wandb keeps a log of its own, and on a full disk each line of it would be a traceback on the terminal."""
    before = logging.raiseExceptions
    logging.raiseExceptions = False
    try:
        yield
    finally:
        logging.raiseExceptions = before
