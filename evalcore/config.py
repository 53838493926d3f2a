"""What is asked for: one evaluation of one checkpoint, from a suite, options and dotted overrides.

>>> config = load_config("tiny", checkpoint="ckpt/step-1500", overrides=["inference.temperature=0.6"])
>>> [str(b) for b in config.benchmarks], config.inference.temperature
(['tiny-arithmetic:8'], 0.6)

Later wins: ``[wandb]`` of env.toml, suite file, options, dotted overrides. A setting left out everywhere falls
to the benchmark's own (``generation:`` in its YAML) and then to the defaults of ``Sampling``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    field_serializer,
    model_validator,
)

from evalcore import include
from evalcore.errors import ConfigError
from evalcore.profiles import wandb_defaults
from evalcore.settings import Settings, Wandb, validated

_T = TypeVar("_T", bound=BaseModel)

ServerType = Literal["embedded", "vllm", "sglang", "trtllm", "openai"]
"""Who answers: started by us on a free port, or (``openai``) anything OpenAI-compatible at an address."""


class BenchmarkRun(Settings):
    """``gsm8k:8``: eight samples of each problem, after a greedy answer. ``gsm8k:0`` is greedy alone.

    samples None: as many as the benchmark's YAML says.
    """

    name: str
    samples: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        text = text.strip()
        name, colon, samples = text.rpartition(":")
        if not colon:
            name = text
        elif not re.fullmatch(r"\d{1,6}", samples) or not name:
            raise ConfigError(f"benchmark {text!r}: samples must be a whole number from 0, as in gsm8k:8")
        if name.startswith(("/", ".", "~")) and not name.endswith((".yaml", ".yml")):
            # Mostly half of one: commas separate benchmarks.
            raise ConfigError(f"benchmark {text!r}: a path must end in .yaml and have no comma in it")
        return cls(name=name, samples=int(samples) if colon else None)

    def __str__(self) -> str:
        return self.name if self.samples is None else f"{self.name}:{self.samples}"


def parse_benchmarks(text: str) -> tuple[BenchmarkRun, ...]:
    """``"gsm8k:4,aime24:64"`` as a tuple.

    Raises:
        ConfigError: samples below 0, a path that is no YAML file's, or a benchmark named twice.
    """
    runs = tuple(BenchmarkRun.parse(part) for part in text.split(",") if part.strip())
    names = [run.name for run in runs]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"benchmark named twice: {', '.join(sorted(twice))}")
    return runs


def _benchmarks(value: object) -> object:
    if isinstance(value, str):
        return parse_benchmarks(value)
    if isinstance(value, list | tuple):
        return parse_benchmarks(",".join(map(str, value)))
    return value


class Inference(Settings):
    """Sampling settings a user may set; None leaves it to the benchmark and then to ``Sampling``.

    Names are NeMo-Skills' (``inference.temperature``, ``inference.tokens_to_generate``).
    """

    endpoint: Literal["chat", "completions"] | None = None
    temperature: float | None = Field(None, ge=0, le=5)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    tokens_to_generate: int | None = Field(None, ge=1)
    seed: int | None = Field(None, ge=0)
    stop: tuple[str, ...] | None = None


class Sampling(Settings):
    """The settings an answer was sampled with, complete. top_k 0: no limit. Greedy answers use temperature 0."""

    endpoint: Literal["chat", "completions"] = "chat"
    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 0
    tokens_to_generate: int = 2048
    seed: int = 0
    stop: tuple[str, ...] = ()

    @classmethod
    def resolve(cls, *layers: Inference) -> Sampling:
        """Merge layers, the first that sets a field wins."""
        merged: dict[str, Any] = {}
        for layer in reversed(layers):
            merged |= layer.model_dump(exclude_none=True)
        return cls(**merged)


_KEY = re.compile(r"--?(?:[a-z]+[-_])*(?:api[-_]key|hf[-_]token)\b")


class Server(Settings):
    """The inference server. With an address nothing is started; ``openai`` needs one.

    model: the name to ask for (default: the first that ``/v1/models`` lists).
    args: passed on to the server as they are. start_timeout: seconds until it answers a completion.
    """

    type: ServerType = "embedded"
    address: str | None = None
    model: str | None = None
    gpus: int = Field(1, ge=0)
    args: tuple[str, ...] = ()
    start_timeout: float = Field(1800, gt=0)
    api_key_env: str = "OPENAI_API_KEY"

    @model_validator(mode="before")
    @classmethod
    def _an_address_is_somebody_elses(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("address") and not data.get("type"):
            return {**data, "type": "openai"}
        return data

    @model_validator(mode="after")
    def _started_or_at_an_address(self) -> Self:
        if self.type == "openai" and not self.address:
            raise ValueError("server.type=openai needs server.address=http://host:port/v1")
        if keys := [arg for arg in self.args if _KEY.match(arg)]:
            # Settings are in command lines, logs and manifests.
            raise ValueError(
                f"server.args: {keys[0].partition('=')[0]} would write a key down; put it into the environment, "
                "under the name that server.api_key_env says"
            )
        if self.model and not self.address:
            raise ValueError("server.model is a model's name at server.address; give the address too")
        if self.args and self.address:
            raise ValueError(
                "server.args are for a server that is started, and server.address is one that runs"
            )
        return self


class Client(Settings):
    """How the server is asked. concurrency counts samples in flight; request_timeout is a deadline in s."""

    concurrency: int = Field(512, ge=1)
    request_timeout: float = Field(3600, gt=0)
    max_retries: int = Field(8, ge=0)
    group_samples: bool = True


class JudgeClient(Client):
    """How the judge is asked: mostly somebody else's server, and short answers."""

    concurrency: int = Field(64, ge=1)
    request_timeout: float = Field(600, gt=0)


class Judge(Settings):
    """The judge model: an OpenAI-compatible endpoint. With a model all answers are judged, without none."""

    model: str | None = None
    address: str = "https://api.openai.com/v1"
    prompt: str = "judge/math"
    tokens_to_generate: int = Field(1024, ge=1)
    temperature: float = Field(0.0, ge=0)
    api_key_env: str = "OPENAI_API_KEY"
    client: JudgeClient = JudgeClient()


class EvalConfig(Settings):
    """One evaluation of one checkpoint.

    checkpoint: a folder; None when ``server.address`` serves the model already.
    name: of the checkpoint in results and history; by default its folder's, or the model's.
    convert_to: format and dtype the server gets (``hf``, ``hf:bfloat16``); see ``evalcore.convert``.
    converter: what makes a Hugging Face folder of a checkpoint that is none; see ``evalcore.converters``.
    max_problems: the first so many problems of each benchmark, for a quick look.
    num_jobs: inference servers to share the benchmarks between; -1 is one for each benchmark.
    """

    checkpoint: str | None = None
    training_run: str | None = None
    name: str | None = None
    step: int | None = Field(None, ge=0, lt=10**18)
    benchmarks: Annotated[tuple[BenchmarkRun, ...], BeforeValidator(_benchmarks), Field(min_length=1)]
    results: str = "results"
    split: str | None = None
    prompt: str | None = None
    skip_greedy: bool = False
    max_problems: int | None = Field(None, ge=1)
    num_jobs: Literal[-1] | Annotated[int, Field(ge=1)] = -1
    convert_to: str = "hf"
    converter: str | None = None
    inference: Inference = Inference()
    server: Server = Server()
    client: Client = Client()
    judge: Judge = Judge()
    wandb: Wandb = Wandb()

    @field_serializer("benchmarks")
    def _benchmarks_as_text(self, runs: tuple[BenchmarkRun, ...]) -> str:
        return ",".join(map(str, runs))

    @model_validator(mode="after")
    def _something_to_ask(self) -> Self:
        if not self.checkpoint and not (self.server.address and self.server.model):
            raise ValueError(
                "give a checkpoint, or server.address and server.model of a server that runs already"
            )
        return self


def load_config(suite: str | None = None, *, overrides: Sequence[str] = (), **options: Any) -> EvalConfig:
    """Suite file, then options (those that are not None; nested mappings allowed), then dotted overrides.

    Under all of them lies what env.toml says of W&B.

    Raises:
        ConfigError: unknown suite, unknown key (lists the valid ones), a value out of range, or an env.toml that
            cannot be used.
    """
    from_suite = include.load("suites", suite)[1] if suite else {}
    defaults = {"wandb": wandb_defaults()}
    merged = _merge(defaults, from_suite, _without_none(options), _parse_overrides(overrides))
    merged.pop("description", None)  # a suite's own line for people
    return validated(EvalConfig, merged, "settings")


def section(kind: type[_T], name: str, overrides: Sequence[str], **options: Any) -> _T:
    """The settings of one section alone: options, then overrides such as ``judge.client.concurrency=8``."""
    if wrong := [o for o in overrides if not o.lstrip("+").startswith(f"{name}.")]:
        raise ConfigError(f"override {wrong[0]!r}: expected {name}.key=value")
    parsed = _merge(_parse_overrides(overrides))
    return validated(kind, _without_none(options) | parsed.get(name, {}), name)


def is_override(argument: str) -> bool:
    """Whether an argument is ``key.name=value``; a path such as ``out/lr=1e-4`` is not.

    ``++a.b=c`` and ``+a.b=c`` are how Hydra's users write the same thing.
    """
    return bool(re.match(r"\+{0,2}[A-Za-z_][\w.]*=", argument))


def _parse_overrides(overrides: Sequence[str]) -> Any:
    from omegaconf import OmegaConf  # here: grading on a node and reading a DAG need not wait for it
    from omegaconf.errors import OmegaConfBaseException

    for override in overrides:
        if not is_override(override):
            raise ConfigError(
                f"override {override!r}: expected key.name=value, as in inference.temperature=0.6"
            )
    try:
        return OmegaConf.from_dotlist([override.lstrip("+") for override in overrides])
    except (OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"overrides {' '.join(overrides)}: {_one_line(error)}") from error


def _merge(*layers: Any) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        # Interpolation stays text: ``${oc.env:…}`` would carry a secret into manifests and logs.
        merged = OmegaConf.to_container(OmegaConf.merge(*map(OmegaConf.create, layers)), resolve=False)
    except (OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"settings: {_one_line(error)}") from error
    if not isinstance(merged, dict):
        raise ConfigError("settings: expected names and values, not a list")
    return {str(key): value for key, value in merged.items()}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _without_none(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, Mapping) else value
        for key, value in options.items()
        if value is not None
    }
