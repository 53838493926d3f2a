"""What may stand in a tracked file, and that a mistake in it is one line."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from evalcore import include
from evalcore.errors import ConfigError
from evalcore.tracked import Baseline, Tracked, followed, following, load_tracked

PLAIN = "source: {path: /ckpt/run}\nsuite: tiny\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVALCORE_INCLUDE", str(tmp_path))
    (tmp_path / "tracked").mkdir()
    return tmp_path / "tracked"


def test_a_fresh_installation_follows_nothing_and_its_example_is_right() -> None:
    assert list(followed()) == []
    names = include.names("tracked")
    assert names
    for name in names:
        assert not load_tracked(name).enabled


def test_defaults(folder: Path) -> None:
    (folder / "llama-8b.yaml").write_text(PLAIN)
    tracked = load_tracked("llama-8b")
    assert (tracked.training_run, tracked.cluster, tracked.enabled) == ("llama-8b", "local", True)
    assert tracked.baseline == Baseline(kind="previous")
    assert tracked.source.from_step == 0


def test_at_night_the_nightly_suite_is_asked_with_its_own_benchmarks(folder: Path) -> None:
    (folder / "team").mkdir()
    (folder / "team" / "llama.yaml").write_text(f"{PLAIN}benchmarks: 'tiny-arithmetic:4'\nnightly: default\n")
    tracked = load_tracked("team/llama")
    assert tracked.training_run == "llama"
    assert tracked.asked() == {"suite": "tiny", "benchmarks": "tiny-arithmetic:4", "cluster": "local"}
    assert tracked.at_night().asked() == {"suite": "default", "cluster": "local"}


def test_a_training_run_is_followed_by_its_own_file(folder: Path) -> None:
    for name in ("a", "b", "c"):
        (folder / f"{name}.yaml").write_text(f"{PLAIN}description: {name}\nenabled: {name != 'c'}\n")
    followed_by = following("b")
    assert followed_by is not None
    assert followed_by.description == "b"
    assert following("c") is following("d") is None


@pytest.mark.parametrize("margin", ["0", "1", "-0.1"])
def test_a_margin_that_is_none_or_all(folder: Path, margin: str) -> None:
    (folder / "a.yaml").write_text(f"{PLAIN}margins: {{tiny-arithmetic: {margin}}}\n")
    with pytest.raises(ConfigError, match=r"tracked a: margins\.tiny-arithmetic: "):
        load_tracked("a")


@pytest.mark.parametrize(
    ("written", "baseline"),
    [
        ("previous", Baseline(kind="previous")),
        ("best", Baseline(kind="best")),
        ("{pinned: step-1500}", Baseline(kind="pinned", name="step-1500")),
        ("{run: other}", Baseline(kind="run", name="other")),
    ],
)
def test_baselines(folder: Path, written: str, baseline: Baseline) -> None:
    (folder / "a.yaml").write_text(f"{PLAIN}baseline: {written}\n")
    assert load_tracked("a").baseline == baseline


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("baselin: best", "tracked a: unknown key 'baselin'; valid: .*baseline"),
        ("baseline: worst", "tracked a: baseline: expected previous, best, "),
        ("baseline: {pinned: a/b}", r"baseline\.name: expected letters, .*; 'a-b' would do"),
        ("baseline: {pinned: }", "baseline: expected previous, best, "),
        ("training_run: ../x", "training_run: expected letters"),
        ("training_run: '..'", "training_run: .* cannot be used as a folder name"),
        ("suite: nope", "tracked a: unknown suite 'nope'; valid: .*tiny"),
        ("nightly: nope", "tracked a: unknown suite 'nope'; valid: .*tiny"),
        ("cluster: nope", "tracked a: .*unknown profile 'nope'"),
        ("benchmarks: nope:x", "tracked a: .*benchmark 'nope:x'"),
        ("overrides: [inference.temprature=1]", "unknown key 'inference.temprature'"),
        ("overrides: [converter=nope]", "tracked a: unknown converter 'nope'; valid: dcp$"),
        ("critical: [hle]", "critical: 'hle' is not evaluated; valid: tiny-arithmetic, "),
        ("margins: {hle: 0.1}", "margins: 'hle' is not evaluated; valid: tiny-arithmetic, "),
        ("margins: {tiny-arithmetic: 2}", "margins.tiny-arithmetic: Input should be less than 1"),
        ("alerts: ['slack://token@channel']", r"alerts\.0: expected the name of an Airflow Connection"),
        ("source: {}", "source: give one of path, object, wandb, hub"),
        ("source: {path: /a, hub: org/repo}", "source: give one of path, object, wandb, hub"),
        ("source: {path: relative}", r"source\.path: "),
        ("source: {path: /a, from_step: -1}", r"source\.from_step: "),
        ("source: {wandb: project/name}", r"source\.wandb: "),
        ("source: {object: 's3://key:secret@bucket/ckpt'}", r"source\.object: "),
        ("source: {hub: repo}", r"source\.hub: "),
        ("source: {paths: /a}", "unknown key 'source.paths'; valid: from_step, hub, object, path, wandb"),
    ],
)
def test_a_mistake_is_one_line(folder: Path, line: str, message: str) -> None:
    key = line.partition(":")[0]
    rest = "".join(f"{row}\n" for row in PLAIN.splitlines() if not row.startswith(f"{key}:"))
    (folder / "a.yaml").write_text(f"{rest}{line}\n")
    with pytest.raises(ConfigError, match=message) as error:
        load_tracked("a")
    assert "\n" not in str(error.value)


def test_benchmarks_and_overrides_count_for_what_is_critical(folder: Path) -> None:
    (folder / "a.yaml").write_text(
        f"{PLAIN}benchmarks: gsm8k:2\noverrides: [inference.seed=3]\ncritical: [gsm8k]\n"
    )
    tracked = load_tracked("a")
    config = tracked.config("/c")
    assert ([str(b) for b in config.benchmarks], config.inference.seed) == (["gsm8k:2"], 3)


def test_one_bad_file_does_not_stop_the_others(folder: Path) -> None:
    (folder / "a.yaml").write_text("nonsense: 1\n")
    (folder / "b.yaml").write_text(PLAIN)
    (folder / "c.yaml").write_text(f"{PLAIN}training_run: b\n")
    (folder / "d.yaml").write_text(f"{PLAIN}enabled: false\n")
    (folder / "e.yaml").write_text("source: [\n")
    bad, b, twice, torn = followed()
    assert isinstance(b, Tracked)
    assert b.training_run == "b"
    assert "tracked a: " in str(bad)
    assert str(twice) == "tracked c: training run b is followed by b already"
    assert "tracked e: " in str(torn)


@pytest.mark.parametrize(
    "written", ["alerts: ['slack://T-hidden/B/x']", "source: {object: 's3://key:hidden@bucket/x'}"]
)
def test_an_address_in_the_wrong_place_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    monkeypatch.setenv("EVALCORE_INCLUDE", str(tmp_path))
    (tmp_path / "tracked").mkdir()
    source = "" if "source" in written else "source: {path: /ckpt}\n"
    (tmp_path / "tracked" / "llama.yaml").write_text(f"suite: tiny\n{source}{written}\n")
    with pytest.raises(ConfigError, match=r"tracked llama: ") as error:
        load_tracked("llama")
    assert "hidden" not in "".join(traceback.format_exception(error.value))


def test_a_file_that_cannot_be_used_is_not_one_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALCORE_INCLUDE", str(tmp_path))
    (tmp_path / "tracked").mkdir()
    good = "source: {path: /ckpt}\nsuite: tiny\n"
    for name, text in (
        ("torn", "source: {path: /ckpt"),
        ("other", f"{good}training_run: named\nmargins: {{nope: 0.1}}\n"),
        ("off", f"{good}enabled: false\nmargins: {{nope: 0.1}}\n"),
    ):
        (tmp_path / "tracked" / f"{name}.yaml").write_text(text)
    for run, message in (("torn", "unreadable"), ("named", "tracked other: margins: 'nope'")):
        with pytest.raises(ConfigError, match=message):
            following(run)
    assert following("off") is following("other") is following("nobody") is None
