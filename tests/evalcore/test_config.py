"""Settings: who wins, and what a user is told when something is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalcore.config import (
    BenchmarkRun,
    EvalConfig,
    Inference,
    Judge,
    Sampling,
    Server,
    is_override,
    load_config,
    parse_benchmarks,
    section,
)
from evalcore.errors import ConfigError
from evalcore.settings import Wandb


def test_later_layers_win() -> None:
    config = load_config(
        "tiny",
        checkpoint="ckpt",
        benchmarks="tiny-arithmetic:2",
        inference={"temperature": 0.5, "top_p": None},
        overrides=["++inference.temperature=0.6", "client.concurrency=7"],
    )
    assert config.benchmarks == (BenchmarkRun(name="tiny-arithmetic", samples=2),)
    assert (config.inference.temperature, config.inference.top_p) == (0.6, None)
    assert config.client.concurrency == 7


@pytest.mark.parametrize(
    ("suite", "overrides", "expected"),
    [
        ("", [], Wandb(project="file", entity="team", mode="offline")),
        ("wandb: {project: suite}", [], Wandb(project="suite", entity="team", mode="offline")),
        (
            "wandb: {project: suite}",
            ["wandb.project=mine"],
            Wandb(project="mine", entity="team", mode="offline"),
        ),
        ("wandb: {mode: null}", ["wandb.entity=null"], Wandb(project="file")),
        (
            "",
            [f"wandb.project={Wandb().project}", "wandb.mode=disabled"],
            Wandb(entity="team", mode="disabled"),
        ),
    ],
)
def test_what_env_toml_says_of_wandb_lies_under_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suite: str, overrides: list[str], expected: Wandb
) -> None:
    (tmp_path / "env.toml").write_text('[wandb]\nproject = "file"\nentity = "team"\nmode = "offline"\n')
    monkeypatch.setenv("EVALCORE_ENV_TOML", str(tmp_path / "env.toml"))
    (tmp_path / "mine.yaml").write_text(f"benchmarks: gsm8k:0\n{suite}\n")
    config = load_config(str(tmp_path / "mine.yaml"), checkpoint="c", overrides=overrides)
    assert config.wandb == expected


def test_env_toml_need_not_say_anything_of_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "env.toml").write_text('[wandb]\nentity = ""\ntags = ["nightly"]\n')
    monkeypatch.setenv("EVALCORE_ENV_TOML", str(tmp_path / "env.toml"))
    assert load_config(checkpoint="c", benchmarks="a").wandb == Wandb()
    monkeypatch.delenv("EVALCORE_ENV_TOML")
    monkeypatch.chdir(tmp_path.parent)
    assert load_config(checkpoint="c", benchmarks="a").wandb == Wandb()


def test_sampling_falls_from_the_user_to_the_benchmark_to_the_default() -> None:
    user, benchmark = Inference(temperature=0.0), Inference(temperature=1.0, tokens_to_generate=64)
    sampling = Sampling.resolve(user, benchmark)
    assert (sampling.temperature, sampling.tokens_to_generate, sampling.top_p) == (0.0, 64, 0.95)


@pytest.mark.parametrize(
    "settings",
    [
        {"checkpoint": "/ckpt/step 1", "benchmarks": "gsm8k:0,aime24"},
        {"checkpoint": "c", "benchmarks": "/a b/mine.yaml:4,./other.yml"},
        {"checkpoint": "c", "benchmarks": "a", "training_run": "001500", "skip_greedy": True},
        {"checkpoint": "c", "benchmarks": "a:1", "inference": {"stop": ["\n\n", "Q: {x}", "a=b"], "seed": 3}},
        {"benchmarks": "a", "server": {"type": "openai", "address": "http://h:1/v1", "model": "null"}},
        {"checkpoint": "c", "benchmarks": "a", "server": {"type": "vllm", "args": ["--max-model-len", "8"]}},
    ],
)
def test_overrides_rebuild_the_config(settings: dict[str, object]) -> None:
    config = EvalConfig.model_validate(settings)
    assert load_config(overrides=config.to_overrides()) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gsm8k:-1", "samples must be a whole number from 0"),
        ("gsm8k:x", "samples must be a whole number from 0"),
        (":4", "samples must be a whole number from 0"),
        ("gsm8k:4,gsm8k:8", "named twice: gsm8k"),
        ("/a,b/mine.yaml:4", "'/a': a path must end in .yaml and have no comma in it"),
        ("~/a:1,b/mine.yaml", "'~/a:1': a path must end in .yaml and have no comma in it"),
    ],
)
def test_bad_benchmarks_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_benchmarks(text)
    with pytest.raises(ConfigError, match=message):
        load_config(checkpoint="c", overrides=[f"benchmarks='{text}'"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["inference.temprature=1"], r"unknown key 'inference.temprature'; valid: endpoint, .*temperature"),
        (["sampels=1"], r"unknown key 'sampels'; valid: benchmarks, "),
        (["inference.temperature=-1"], r"inference.temperature: .*greater than or equal to 0.* \(got -1\)"),
        (["inference.temperature"], "expected key.name=value"),
        (["server.type=openai"], "server.type=openai needs server.address"),
        (["server.type=tgi"], "'embedded', 'vllm', 'sglang', 'trtllm' or 'openai'"),
        (["checkpoint=null"], "give a checkpoint, or server.address"),
        (["inference.stop=[a"], "overrides inference.stop"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(checkpoint="c", benchmarks="a", overrides=overrides)
    assert "\n" not in str(caught.value)


def test_an_unknown_suite_lists_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown suite 'nope'; valid: .*tiny"):
        load_config("nope")


def test_interpolation_never_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    config = load_config(checkpoint="c", benchmarks="a", overrides=["training_run=${oc.env:OPENAI_API_KEY}"])
    assert "sk-secret" not in config.model_dump_json()


@pytest.mark.parametrize(
    ("argument", "expected"),
    [("a.b=1", True), ("++a=1", True), ("out/lr=1e-4/step-5", False), ("/d/lr=1/x", False), ("./a=1", False)],
)
def test_a_path_with_an_equals_sign_is_no_override(argument: str, expected: bool) -> None:
    assert is_override(argument) is expected


def test_a_section_alone() -> None:
    judge = section(Judge, "judge", ["judge.client.concurrency=8"], model="m", address=None)
    assert (judge.model, judge.client.concurrency, judge.address) == ("m", 8, Judge().address)
    with pytest.raises(ConfigError, match=r"expected judge\.key=value"):
        section(Judge, "judge", ["wandb.mode=offline"])


def test_a_server_at_an_address_is_somebody_elses_unless_said_otherwise() -> None:
    assert Server(address="http://h/v1").type == "openai"
    assert Server(address="http://h/v1", type="vllm").type == "vllm"
    assert Server().type == "embedded"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"server": {"model": "m"}}, "give the address too"),
        ({"server": {"args": ["--api-key", "s"]}}, r"--api-key would write a key down.*server\.api_key_env"),
        ({"server": {"args": ["--admin_api_key=s"]}}, "--admin_api_key would write a key down"),
        ({"server": {"args": ["--hf-token=s"]}}, "--hf-token would write a key down"),
        (
            {"server": {"address": "http://h/v1", "model": "m", "args": ["-x"]}},
            "server.args are for a server",
        ),
        ({"num_jobs": 0}, "num_jobs"),
    ],
)
def test_a_setting_without_effect_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(checkpoint="c", benchmarks="a", **settings)


def test_a_part_of_the_judges_client_keeps_the_rest() -> None:
    client = section(Judge, "judge", ["judge.client.concurrency=512"], model="m").client
    assert (client.concurrency, client.request_timeout) == (512, 600)
