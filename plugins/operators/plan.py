"""plan as a task: checks the run's params and lays out its commands, or only prints them.

Everything that can be wrong with a request fails here, in one line, before a job starts; that a cluster cannot be
reached is not wrong, and is tried again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.utils.skipmixin import SkipMixin
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from evalcore.backends import Unreachable
from evalcore.errors import ConfigError, EvalError
from evalcore.profiles import DockerProfile, load_profiles
from evalcore.slurm.cluster import Cluster
from hooks.backends import backend

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context

    from evalcore.config import EvalConfig
    from evalcore.plan import Plan

_PLAN_SECONDS = 120.0


class PlanOperator(BaseOperator, SkipMixin):
    """Returns one ``{name, brings, grade, judge, summarize}`` for each benchmark; the rest are XComs by name.

    :param fetched: ``{checkpoint, training_run, step}`` instead of the params', if ``fetch`` had something to do.

    ``brings`` is where its results lie for its commands, and where they lie for Airflow: the same place but on
    a cluster, where the commands are laid out, by this version of evalcore, over there.

    ``convert`` and ``track`` are commands (``track`` empty: W&B is disabled), ``generate`` is a list of
    ``{argv, subject}``, ``settings`` has the id of each benchmark's settings, ``jobs_folder`` is a path. With
    the param ``dry_run`` the commands are printed and everything downstream is skipped. Of a plan that failed
    there is only ``error``.
    """

    # So that Airflow keeps tasks skipped when they are cleared alone.
    inherits_from_skipmixin = True
    ui_color = "#f3ecfa"
    template_fields = ("fetched",)

    def __init__(self, *, fetched: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.fetched = fetched

    def execute(self, context: Context) -> list[dict[str, Any]]:
        from evalcore.plan import plan  # here: it imports what reading a DAG need not wait for

        ti, params = context["ti"], context["params"]
        try:
            _check_known(context["dag_run"].conf or {}, self.dag.params)
            config = config_from_params(params).model_copy(update=self.fetched or {})
            here = Path(config.results).expanduser().absolute()
            jobs_folder = str(here / ".jobs")
            runs_at = backend(params["cluster"], jobs_folder)
            if isinstance(runs_at, Cluster):
                planned, there = _plan_there(config, runs_at), Path(runs_at.profile.results)
            else:
                planned, there = plan(config), here
                _check_mounted(config, params["cluster"], here)
        except EvalError as error:
            ti.xcom_push("error", str(error))
            raise AirflowFailException(str(error)) from None
        except Unreachable as error:
            ti.xcom_push("error", f"cluster {params['cluster']}: {error}")
            raise AirflowException(f"cluster {params['cluster']}: {error}") from error
        for line in planned.render().splitlines():
            self.log.info("%s", line)
        if params["dry_run"]:
            self.log.info("Dry run: nothing of this is started")
            self.skip(ti=ti, tasks=context["task"].get_flat_relatives(upstream=False))
        ti.xcom_push("convert", planned.convert)
        ti.xcom_push("generate", [{"argv": argv, "subject": _subject(argv)} for argv in planned.generate])
        ti.xcom_push("track", planned.track or [])
        ti.xcom_push("settings", {b.name: b.settings for b in planned.benchmarks})
        ti.xcom_push("jobs_folder", jobs_folder)
        return [
            {
                "name": b.name,
                "brings": [b.folder, str(here / Path(b.folder).relative_to(there))],
                "grade": b.grade,
                "judge": b.judge or [],
                "summarize": b.summarize,
            }
            for b in planned.benchmarks
        ]


def _plan_there(config: EvalConfig, cluster: Cluster) -> Plan:
    """The plan as the cluster makes it, where the checkpoint is."""
    from evalcore.plan import Plan

    there = config.model_copy(update={"results": cluster.profile.results})
    asked = there.model_dump_json(exclude_unset=True).encode()  # its commands say what was said, and no more
    said = cluster.run("evalcore.plan", stdin=asked, timeout=_PLAN_SECONDS)
    return Plan.from_json(said)


def _check_mounted(config: EvalConfig, cluster: str, results: Path) -> None:
    """The checkpoint is seen here; that a container does not see it would be said only by its first job."""
    profile = load_profiles().get(cluster)
    if not isinstance(profile, DockerProfile) or not config.checkpoint:
        return
    checkpoint = Path(config.checkpoint).expanduser().absolute()
    if not (profile.has(checkpoint) or checkpoint.is_relative_to(results)):
        raise ConfigError(
            f"profile {cluster}: no container sees {checkpoint}; add it, or a folder above it, to mounts: "
            f'mounts = ["{checkpoint.parent}:{checkpoint.parent}:ro"]'
        )


def _check_known(conf: Mapping[str, Any], params: Mapping[str, Any]) -> None:
    # Airflow takes any key, and a misspelt one would leave a setting at its default without a word.
    if unknown := sorted(set(conf) - set(params)):
        raise ConfigError(
            f"unknown param {', '.join(map(repr, unknown))}; valid: {', '.join(sorted(params))}"
        )


def config_from_params(params: Mapping[str, Any]) -> EvalConfig:
    """The settings that a params form describes. Empty fields leave a setting to the suite.

    Raises:
        ConfigError: an unknown or impossible setting.
    """
    from evalcore.config import load_config

    def given(key: str) -> Any:
        value = params[key]
        return value.strip() or None if isinstance(value, str) else value

    return load_config(
        given("suite"),
        checkpoint=given("checkpoint"),
        training_run=given("training_run"),
        name=given("name"),
        step=given("step"),
        benchmarks=given("benchmarks"),
        results=given("results"),
        skip_greedy=given("skip_greedy") or None,
        max_problems=given("max_problems"),
        inference={key: given(key) for key in ("temperature", "top_p", "tokens_to_generate", "seed")},
        server={"type": given("server_type"), "address": given("server_address"), "model": given("model")},
        judge={"model": given("judge_model"), "address": given("judge_address")},
        overrides=given("overrides") or [],
    )


def _subject(argv: list[str]) -> str:
    return next((a.removeprefix("benchmarks=") for a in argv if a.startswith("benchmarks=")), "generate")
