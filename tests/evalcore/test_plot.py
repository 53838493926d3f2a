"""Plots read back: the points of a page, the size and pixels of a PNG, and names that are none of a drawing's own."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from evalcore import cli
from evalcore.checkpoints import Checkpoint
from evalcore.compare import compare_folders
from evalcore.errors import ConfigError, ResultsError
from evalcore.history import open_history
from evalcore.plot import Panel, Point, draw, of_comparison, of_run
from evalcore.summarize import summarize
from synthetic_results import Sample, manifest, write

pytestmark = pytest.mark.slow

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(autouse=True)
def _own_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALCORE_HISTORY", f"sqlite:///{tmp_path}/history.sqlite")


def point(value: float, step: int | None = 100, **changed: Any) -> Point:
    of = Point("run", f"step-{step}", step, value, 0.05, True)
    return replace(of, **changed)


def panel(*points: Point, **changed: Any) -> Panel:
    return replace(Panel("toy", "pass@1[4] symbolic_correct", points), **changed)


def compared_panel(points: Sequence[Point], base: Point | None = None) -> Panel:
    return panel(*points, new=points[-1], base=base or points[0], margin=0.02, verdict="ok", said="ok: +1")


def page_of(panels: Sequence[Panel], folder: Path, title: str = "a title") -> ElementTree.Element:
    draw(panels, title, [folder / "plot.html"])
    return drawing_of(folder / "plot.html")


def drawing_of(file: Path) -> ElementTree.Element:
    page = file.read_text()
    return ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + len("</svg>")])


def values_of(drawing: ElementTree.Element, number: int = 0) -> list[tuple[str, float, float]]:
    """What a panel's points show, and where they are."""
    found = []
    for group in drawing.iter(f"{SVG}g"):
        if group.get("id", "").startswith(f"value-{number}-"):
            [title], [mark] = group.findall(f"{SVG}title"), group.iter(f"{SVG}use")
            found.append((title.text or "", float(mark.get("x", "")), float(mark.get("y", ""))))
    return found


def texts_of(drawing: ElementTree.Element) -> list[str]:
    return [text.text or "" for text in drawing.iter(f"{SVG}text")]


def size_of(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def results(root: Path, name: str, right: int, *, step: int | None, samples: int = 4, **changed: Any) -> Path:
    """A checkpoint's folder with one benchmark, toy: of its 20 problems each has so many right samples."""
    checkpoint = Checkpoint(path=None, run="run", name=name, step=step, digest=f"digest of {name}")
    made_by = manifest(20, samples, checkpoint=checkpoint).model_copy(update=changed)
    rows = [Sample(f"p{p}", s, "7", s < right) for p in range(20) for s in range(samples)]
    summarize(write(root / name / "toy", made_by, rows))
    return root / name


def test_a_point_has_a_band_that_stays_within_what_is_possible() -> None:
    assert point(0.5).band == pytest.approx((0.402, 0.598))
    assert point(0.05).band == pytest.approx((0.0, 0.148))
    assert point(0.98).band == pytest.approx((0.882, 1.0))
    assert str(point(0.5)) == "step 100: 50.00%, 95% band 40.20% to 59.80% (run/step-100)"
    assert str(point(0.5, std_err=None, complete=False, step=None)) == "50.00% (run/step-None, incomplete)"


def test_a_page_has_each_point_in_its_place_with_its_value(tmp_path: Path) -> None:
    points = [point(0.3, 100), point(0.5, 200), point(0.4, 400)]
    other = point(0.6, 300, run="other")
    drawing = page_of([panel(*points), compared_panel(points, base=other)], tmp_path)
    found = values_of(drawing)
    assert [title for title, _, _ in found] == [str(it) for it in points]
    (_, x0, y0), (_, x1, y1), (_, x2, y2) = found
    assert (x2 - x0) / (x1 - x0) == pytest.approx(3, abs=0.01), "steps are to scale"
    assert (y1 - y0) / (y2 - y0) == pytest.approx(2, abs=0.01), "values are to scale"
    assert y1 < y0, "more is above"
    found = values_of(drawing, 1)
    assert [title for title, _, _ in found] == [str(other), *map(str, points)]
    assert {"a title", "toy", "ok: +1", "baseline − margin", "new (95%)", "step"} <= set(texts_of(drawing))


def test_checkpoints_without_steps_stand_one_after_the_other_by_name(tmp_path: Path) -> None:
    points = [point(0.3, None, name="first"), point(0.4, 7000, name="step-7000"), point(0.5, 8000, name="z")]
    drawing = page_of([panel(*points)], tmp_path)
    (_, x0, _), (_, x1, _), (_, x2, _) = values_of(drawing)
    assert x2 - x1 == pytest.approx(x1 - x0, abs=0.01)
    assert {"first", "step-7000", "z", "checkpoint"} <= set(texts_of(drawing))


@pytest.mark.slow
def test_a_page_is_small_and_needs_nothing_else(tmp_path: Path) -> None:
    panels = [panel(*(point(0.3 + 0.01 * s, s) for s in range(50)), benchmark=f"b{b}") for b in range(20)]
    draw(panels, "a title", [tmp_path / "a.html"])
    page = (tmp_path / "a.html").read_text()
    assert len(page) < 1_000_000
    assert len(values_of(drawing_of(tmp_path / "a.html"), 19)) == 50
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert {link for link in re.findall(r'href="([^"]*)"', page) if not link.startswith("#")} == set()
    assert not re.findall(r"@import|url\((?!#)", page)


@pytest.mark.parametrize(
    ("panels", "size"),
    [
        (1, (1200, 772)),
        (2, (1380, 577)),
        (4, (1380, 1072)),
        pytest.param(20, (2760, 2557), marks=pytest.mark.slow),
    ],
)
def test_a_png_is_as_large_as_its_panels_need(tmp_path: Path, panels: int, size: tuple[int, int]) -> None:
    draw([compared_panel([point(0.3, 1), point(0.4, 2)])] * panels, "a title", [tmp_path / "a.png"])
    assert size_of((tmp_path / "a.png").read_bytes()) == size


@pytest.mark.parametrize("steps", [1, 3, 50])
def test_any_number_of_steps_can_be_drawn(tmp_path: Path, steps: int) -> None:
    points = [point(0.3, s, std_err=None if s % 2 else 0.01, complete=s % 3 == 0) for s in range(steps)]
    drawing = page_of([panel(*points), compared_panel(points)], tmp_path)
    assert [len(values_of(drawing, number)) for number in (0, 1)] == [steps, steps]
    assert ("incomplete" in texts_of(drawing)) is (steps > 1)


def test_the_same_numbers_give_the_same_bytes_whatever_else_is_drawn_here(tmp_path: Path) -> None:
    import matplotlib

    files = [tmp_path / name for name in ("a.png", "a.html", "b.png", "b.html")]
    drawn = [compared_panel([point(0.3, 1), point(0.4, 2)])]
    draw(drawn, "a title", files[:2])
    with matplotlib.rc_context(
        {"lines.linewidth": 9, "axes.facecolor": "red", "font.size": 30, "svg.fonttype": "path"}
    ):
        draw(drawn, "a title", files[2:])
        assert matplotlib.rcParams["font.size"] == 30
    a_png, a_html, b_png, b_html = (file.read_bytes() for file in files)
    assert (a_png, a_html) == (b_png, b_html)


HOSTILE = [
    "$x^2_1$",
    r"$\frac{$",
    "a_b^c",
    "_hidden",
    "<script>&amp;\"'",
    "]]>--><!--",
    "日本語",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_drawn_as_it_is(tmp_path: Path, name: str) -> None:
    points = [point(0.3, 1, run=name, name=name), point(0.4, None, run=name, name=f"{name}2")]
    drawn = compared_panel(points)
    drawing = page_of([replace(drawn, benchmark=name)], tmp_path, title=f"{name} t")
    texts = texts_of(drawing)
    assert texts.count(name) >= 3, "as benchmark, as training run, and as checkpoint"
    assert f"{name} t" in texts
    assert [title for title, _, _ in values_of(drawing)] == [str(it) for it in points]
    assert "<script" not in (tmp_path / "plot.html").read_text()
    draw([drawn], name, [tmp_path / "a.png"])
    assert size_of((tmp_path / "a.png").read_bytes()) == (1200, 772)


def test_what_no_page_can_hold_is_replaced(tmp_path: Path) -> None:
    name = "a\x00b\x1b[2J\nc\udcffd\ufffee\u202ef"
    drawing = page_of([replace(compared_panel([point(0.3, run=name)]), benchmark=name)], tmp_path, title=name)
    assert texts_of(drawing).count("a�b�[2J�c�d�e�f") == 2
    draw([panel(point(0.3, name=name, step=None))], name, [tmp_path / "a.png"])


def test_a_long_name_is_cut(tmp_path: Path) -> None:
    texts = texts_of(page_of([panel(point(0.3), benchmark="b" * 200)], tmp_path))
    assert "b" * 37 + "…" in texts


def test_a_comparison_is_drawn_among_the_runs_other_checkpoints(tmp_path: Path) -> None:
    folders = [results(tmp_path, f"step-{n}00", n, step=n * 100, samples=8) for n in (1, 2, 3, 4)]
    results(tmp_path, "step-500", 1, step=500, server_args=(("--seed", "1"),))
    results(tmp_path, "step-600", 6, step=600, samples=16)
    with open_history() as history:
        for folder in (*folders, tmp_path / "step-500", tmp_path / "step-600"):
            history.record(folder / "toy")
    shutil.rmtree(folders[3])
    results(tmp_path, "step-400", 5, step=400, samples=8)  # since then
    new, base = folders[3], folders[1]
    [found] = of_comparison(compare_folders(new, base, margin=0.03))
    assert [(it.step, it.value) for it in found.points] == [
        (100, 0.125),
        (200, 0.25),
        (300, 0.375),
        (400, 0.625),
        (600, 0.375),
    ]
    assert (found.base, found.new, found.margin) == (found.points[1], found.points[3], 0.03)
    assert (found.what, found.verdict) == ("pass@1[8] symbolic_correct", "ok")
    assert found.said == "ok: +37.5 points [+37.5, +37.5]"


def test_a_comparison_without_a_history_has_its_two_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    new, base = (results(tmp_path, f"step-{n}", n, step=n) for n in (3, 2))
    compared = compare_folders(new, base)
    [recorded] = of_comparison(compared)
    assert not caplog.records, "one in which they are not is no reason to warn"
    monkeypatch.setenv("EVALCORE_HISTORY", "sqlite:////proc/nowhere/history.sqlite")
    [found] = of_comparison(compared)
    assert found == recorded
    assert [it.name for it in found.points] == ["step-2", "step-3"]
    [record] = caplog.records
    assert "without the training run's other checkpoints: the history cannot be kept" in record.message


def test_a_greedy_comparison_draws_greedy_answers_and_a_judged_one_the_judges(tmp_path: Path) -> None:
    def evaluated(step: int, right: int, **of: Any) -> Path:
        checkpoint = Checkpoint(path=None, run="run", name=str(step), step=step, digest=str(step))
        rows = [Sample(f"p{p}", s, "7", False, p < right) for p in range(8) for s in range(-1, of["samples"])]
        made_by = manifest(8, name="toy", greedy=True, judged=True, checkpoint=checkpoint, **of)
        summarize(folder := write(tmp_path / str(step) / "toy", made_by, rows))
        with open_history() as history:
            history.record(folder)
        return folder

    evaluated(1, 2, samples=2)
    base, new = evaluated(2, 4, samples=0), evaluated(3, 6, samples=2)
    [found] = of_comparison(compare_folders(new, base))
    assert found.what == "greedy judge_correct"
    assert [it.value for it in found.points] == [0.25, 0.5, 0.75]
    with open_history() as history:
        [sampled] = of_run(history.evaluations(run="run"))
    assert sampled.what == "pass@1[2] judge_correct"
    assert [it.step for it in sampled.points] == [1, 3], "a greedy answer is no sample"


def test_a_baseline_of_the_same_name_is_not_taken_for_the_new_one(tmp_path: Path) -> None:
    new, base = results(tmp_path / "a", "final", 3, step=9), results(tmp_path / "b", "final", 2, step=9)
    [found] = of_comparison(compare_folders(new, base))
    assert [it.value for it in found.all_points] == [0.5, 0.75]
    assert [it.value for it in found.points] == [0.75]
    assert len(values_of(page_of([found], tmp_path))) == 2


def test_a_run_is_drawn_as_far_as_it_is_comparable_with_its_newest_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_history() as history:
        for step, changed in ((1, {"server_args": (("--seed", "1"),)}), (2, {}), (3, {})):
            history.record(results(tmp_path, f"step-{step}", step, step=step, **changed) / "toy")
        [found] = of_run(history.evaluations(run="run"))
    assert [it.step for it in found.points] == [2, 3]
    assert (found.new, found.base, found.said) == (None, None, "")
    [record] = caplog.records
    assert record.message.startswith("toy: 1 evaluations under other settings than the newest are not drawn")


@pytest.mark.slow
def test_the_commands_draw_and_say_what_they_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    new, base = (results(tmp_path, f"step-{n}", n, step=n) for n in (1, 3))
    png, page = tmp_path / "out" / "a.png", tmp_path / "out" / "a.HTML"
    done = CliRunner().invoke(
        cli.app,
        ["compare", str(new), str(base), "--plot", str(png), "--plot", str(page), "--fail-on-regression"],
    )
    assert (done.exit_code, size_of(png.read_bytes())[0]) == (3, 1200)
    drawing = drawing_of(page)
    assert "regressed: -50.0 points [-50.0, -50.0]" in texts_of(drawing)
    assert "run/step-1 against run/step-3: regressed on toy by 50.0 points" in texts_of(drawing)

    def said(*arguments: object) -> str:
        with pytest.raises(SystemExit) as exit_:
            cli.main(list(map(str, arguments)))
        out = capsys.readouterr()
        return out.out if exit_.value.code == 0 else out.err.splitlines()[-1]

    said("record", tmp_path)
    assert said("history", "run", "--plot", page) == f"{page}: 1 benchmarks\n"
    assert [title[:7] for title, _, _ in values_of(drawing_of(page))] == ["step 1:", "step 3:"]
    for step in range(60):
        results(tmp_path / "more", f"s-{step}", 1, step=10 + step)
    said("record", tmp_path / "more")
    said("history", "run", "--plot", page)
    assert len(values_of(drawing_of(page))) == 62, "all of them, where a listing stops at 50"
    exported = said("history", "run", "--plot", png, "--export", tmp_path / "a.csv")
    assert [line.partition(":")[0] for line in exported.splitlines()] == [str(tmp_path / "a.csv"), str(png)]
    assert "--plot is of one training run: give its name" in said("history", "--plot", png)
    assert "none of these evaluations has a number" in said(
        "history", "run", "--mode", "pass@99", "--plot", png
    )
    for command in (["history", "run"], ["compare", new, base]):
        assert "a.pdf: expected a name that ends in .png or .html" in said(*command, "--plot", "a.pdf")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for command in (["history", "run"], ["compare", new, base]):
        missing = said(*command, "--plot", png)
        assert missing.endswith("needs matplotlib, which is not installed: pip install 'evalcore[plot]'")
    assert "| regressed" in said("compare", new, base), "what needs none does without"


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="cannot write"):
        draw([panel(point(0.5))], "t", [tmp_path / "file" / "a.png"])
    with pytest.raises(ConfigError, match=r"\.png or \.html"):
        draw([panel(point(0.5))], "t", [tmp_path / "a"])


@pytest.mark.slow
def test_the_first_plot_of_a_home_says_nothing_of_fonts(tmp_path: Path) -> None:
    new = results(tmp_path, "step-日", 1, step=1)
    done = subprocess.run(
        [sys.executable, "-m", "evalcore.cli", "compare", new, new, "--plot", tmp_path / "a.png"],
        capture_output=True,
        text=True,
        env={**os.environ, "MPLCONFIGDIR": str(tmp_path / "matplotlib")},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert list((tmp_path / "matplotlib").iterdir())
