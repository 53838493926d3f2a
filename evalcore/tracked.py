"""Training runs to follow: one YAML file each, in ``include/tracked/`` or a folder of ``EVALCORE_INCLUDE``.

    # tracked/llama-8b.yaml
    source: {path: /lustre/ckpt/llama-8b}
    suite: nightly
    cluster: cluster
    baseline: previous
    critical: [gsm8k]
    margins: {gsm8k: 0.02}
    alerts: [team_slack]

>>> load_tracked("llama-8b").training_run
'llama-8b'

All of it is checked when it is read, so that a mistake is found tonight and not at the first alert.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from evalcore import include
from evalcore.checkpoints import path_component
from evalcore.config import EvalConfig, load_config
from evalcore.converters import load_converter
from evalcore.errors import CheckpointError, ConfigError
from evalcore.profiles import load_profiles
from evalcore.settings import Settings, validated

_KIND = "tracked"
_CONNECTION = re.compile(r"[A-Za-z0-9][\w.-]{0,199}", re.ASCII)
REPOSITORY = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
COLLECTION = r"[\w.-]+/[\w.-]+/[\w.-]+(:[\w.-]+)?"


def _component(name: str) -> str:
    try:
        safe = path_component(name, "name")
    except CheckpointError as error:
        raise ValueError(str(error)) from None
    if safe != name:
        # Two names that become one would share results and baselines.
        raise ValueError(f"expected letters, digits and . _ + = -; {safe!r} would do")
    return name


def _connection(name: str) -> str:
    if not _CONNECTION.fullmatch(name):
        # A channel's URL holds its secret.
        raise ValueError("expected the name of an Airflow Connection, which holds the channel's address")
    return name


Name = Annotated[str, AfterValidator(_component)]
Connection = Annotated[str, AfterValidator(_connection)]
Margin = Annotated[float, Field(gt=0, lt=1)]


class Source(Settings):
    """Where checkpoints appear; one of the places.

    path: a folder with a subfolder for each checkpoint, on the cluster of the tracked run.
    object: such a folder in an object store, as ``s3://connection_id@bucket/prefix``.
    wandb: an artifact collection, ``entity/project/name`` for all its versions; with ``:alias`` the one it is at.
    hub: a repository of the Hugging Face hub whose branches and tags are checkpoints (``step1000``).
    from_step: earlier ones are left alone, as is then what has no step in its name.
    """

    path: str | None = Field(None, pattern=r"^/")
    object: str | None = Field(None, pattern=r"^[a-z][a-z0-9+.-]*://([\w.-]+@)?[^@?#]+$")
    wandb: str | None = Field(None, pattern=rf"^{COLLECTION}$")
    hub: str | None = Field(None, pattern=rf"^{REPOSITORY}$")
    from_step: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if len([place for place in (self.path, self.object, self.wandb, self.hub) if place]) != 1:
            raise ValueError("give one of path, object, wandb, hub")
        return self


class Baseline(Settings):
    """What a checkpoint is compared with.

    ``previous`` step or ``best`` so far of its own training run; ``pinned``: the checkpoint ``name`` of it;
    ``run``: the same step of the training run ``name``.
    """

    kind: Literal["previous", "best", "pinned", "run"]
    name: Name | None = None


def _baseline(written: object) -> object:
    if isinstance(written, str) and written in ("previous", "best"):
        return {"kind": written}
    if isinstance(written, dict) and len(written) == 1:
        kind, name = next(iter(written.items()))
        if kind in ("pinned", "run") and isinstance(name, str):
            return {"kind": kind, "name": name}
    raise ValueError("expected previous, best, {pinned: CHECKPOINT} or {run: TRAINING_RUN}")


class Watched(Settings):
    """What is evaluated without anybody asking, and how.

    suite, benchmarks, overrides, cluster: as the params of the DAG evaluate_checkpoint. margins: by benchmark, the
    share of right answers that may be lost. alerts: Airflow Connections of channels.
    """

    description: str = ""
    enabled: bool = True
    suite: str
    benchmarks: str | None = None
    overrides: tuple[str, ...] = ()
    cluster: str = "local"
    margins: dict[str, Margin] = {}
    alerts: tuple[Connection, ...] = ()

    def config(self, checkpoint: str) -> EvalConfig:
        """The settings of a checkpoint's evaluation. ConfigError, as ``load_config``."""
        return load_config(
            self.suite, checkpoint=checkpoint, benchmarks=self.benchmarks, overrides=self.overrides
        )

    @property
    def converted(self) -> bool:
        """Whether its settings name a converter. ConfigError, as ``config``."""
        return self.config("/checkpoint").converter is not None

    def asked(self) -> dict[str, Any]:
        """The params of its evaluation, but for what is evaluated."""
        params = {
            "suite": self.suite,
            "benchmarks": self.benchmarks,
            "overrides": list(self.overrides),
            "cluster": self.cluster,
        }
        return {key: value for key, value in params.items() if value not in (None, [])}


class Tracked(Watched):
    """A training run to follow, and how its checkpoints are judged.

    training_run: by default the name of the file. nightly: the suite of the nightly sweep over its newest
    checkpoint. critical: the benchmarks whose loss is alerted about, all if empty.
    """

    training_run: Name
    source: Source
    nightly: str = "nightly"
    baseline: Annotated[Baseline, BeforeValidator(_baseline)] = Baseline(kind="previous")
    critical: tuple[str, ...] = ()

    def at_night(self) -> Tracked:
        """The same with the suite of the nightly sweep."""
        return self.model_copy(update={"suite": self.nightly, "benchmarks": None})


def names() -> list[str]:
    """The files there are."""
    return include.names(_KIND)


def load_tracked(name: str) -> Tracked:
    """The training run of a file.

    Raises:
        ConfigError: no such file, or something in it that is unknown or cannot be: a suite, a setting, a
            cluster, a converter, a benchmark that is not of the suites.
    """
    _, content = include.load(_KIND, name)
    where = f"{_KIND} {name}"
    tracked = validated(Tracked, {"training_run": name.rpartition("/")[2], **content}, where)
    check(where, tracked, tracked.at_night(), critical=tracked.critical, margins=tracked.margins)
    return tracked


def check(where: str, *watched: Watched, **named: Iterable[str]) -> None:
    """Whether what is watched can be evaluated as it says, and has the benchmarks that are named.

    Raises:
        ConfigError: an unknown suite, setting, cluster, converter or benchmark.
    """
    known: dict[str, None] = {}
    try:
        for it in watched:
            if it.suite not in (suites := include.names("suites")):
                raise ConfigError(f"unknown suite {it.suite!r}; valid: {', '.join(suites)}")
            load_profiles().get(it.cluster)
            config = it.config("/checkpoint")
            if config.converter:
                load_converter(config.converter)
            known |= dict.fromkeys(run.name for run in config.benchmarks)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    for key, benchmarks in named.items():
        if wrong := [benchmark for benchmark in benchmarks if benchmark not in known]:
            raise ConfigError(f"{where}: {key}: {wrong[0]!r} is not evaluated; valid: {', '.join(known)}")


def followed() -> Iterator[Tracked | ConfigError]:
    """The enabled training runs; in place of a file that cannot be used, the reason, so that one does not stop all.

    Of two files of one training run the second, by name, is such a one: they would share its results.
    """
    seen: dict[str, str] = {}
    for name in names():
        try:
            tracked = load_tracked(name)
        except ConfigError as error:
            yield error
            continue
        if not tracked.enabled:
            continue
        if first := seen.get(tracked.training_run):
            yield ConfigError(
                f"{_KIND} {name}: training run {tracked.training_run} is followed by {first} already"
            )
            continue
        seen[tracked.training_run] = name
        yield tracked


def following(training_run: str) -> Tracked | None:
    """The enabled file that follows a training run; None where there is none.

    Raises:
        ConfigError: there is one, and it cannot be used: without it nobody would be told, or by other margins.
    """
    unusable = None
    for name in names():
        try:
            tracked = load_tracked(name)
        except ConfigError as error:
            unusable = unusable or (error if _is_of(name, training_run) else None)
            continue
        if tracked.enabled and tracked.training_run == training_run:
            return tracked
    if unusable is not None:
        raise unusable
    return None


def _is_of(name: str, training_run: str) -> bool:
    """Whether a file that cannot be used would follow a training run, as far as it can be read."""
    try:
        _, content = include.load(_KIND, name)
    except ConfigError:
        content = {}
    own = content.get("training_run", name.rpartition("/")[2])
    return own == training_run and content.get("enabled", True) is not False
