"""A metric over a training run's steps, with its band: a PNG for reports, a page with values to hover over.

>>> compared = compare_folders(new, base)
>>> draw(of_comparison(compared), sentence(compared), [Path("step-1800.png"), Path("step-1800.html")])

A panel for each benchmark. Only comparable evaluations are in one: of one benchmark under one fingerprint. The page
needs nothing but itself: no script, and nothing is fetched. The same numbers give the same bytes.
"""

from __future__ import annotations

import html
import io
import logging
import math
import textwrap
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalcore.checkpoints import Checkpoint
from evalcore.errors import ConfigError, EvalError, ResultsError
from evalcore.history import open_history
from evalcore.records import write_file
from evalcore.summarize import Mode, Scorecard
from evalcore.tally import deciding

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from evalcore.compare import Compared, Comparisons
    from evalcore.history.store import Evaluation

log = logging.getLogger(__name__)

KINDS = (".png", ".html")
_NORMAL = 1.96  # standard errors on either side of a mean that hold 95% of a normal distribution
_DPI = 150
_ONE = (8.0, 4.6)  # inches: a panel alone, and each of several
_EACH = (4.6, 3.3)
_LEAST = 6.0  # points on the y axis, lest noise looks like a cliff
_RUN, _BASE, _MARGIN = (
    "#0072b2",
    "#555555",
    "#d55e00",
)  # to be told apart by the colour-blind too (Okabe and Ito)
_VERDICTS = {"regressed": "#b34700", "ok": "#00704f", "inconclusive": "#555555"}


@dataclass(frozen=True, slots=True)
class Point:
    """A checkpoint's number, a share. std_err None: unknown, and then so is its band."""

    run: str
    name: str
    step: int | None
    value: float
    std_err: float | None
    complete: bool

    @property
    def band(self) -> tuple[float, float]:
        """Where the true value lies with 95% probability; NaN where that is unknown."""
        error = math.nan if self.std_err is None else _NORMAL * self.std_err
        return max(0.0, self.value - error), min(1.0, self.value + error)

    def __str__(self) -> str:
        step = "" if self.step is None else f"step {self.step:,}: "
        low, high = self.band
        band = "" if self.std_err is None else f", 95% band {low:.2%} to {high:.2%}"
        return (
            f"{step}{self.value:.2%}{band} ({self.run}/{self.name}{'' if self.complete else ', incomplete'})"
        )


@dataclass(frozen=True, slots=True)
class Panel:
    """One benchmark. points: of the training run, the earliest first, new and base among them if they are its own.

    what: the metric's name. said: the verdict and the difference. margin: how far below the baseline is still fine.
    """

    benchmark: str
    what: str
    points: tuple[Point, ...]
    new: Point | None = None
    base: Point | None = None
    margin: float | None = None
    verdict: str = ""
    said: str = ""

    @property
    def all_points(self) -> tuple[Point, ...]:
        """With the baseline, should it be of another training run."""
        return self.points if self.base is None or self.base in self.points else (self.base, *self.points)


def check(files: Iterable[Path]) -> None:
    """ConfigError if plots cannot be drawn here, or a file is to be of another kind; better before the work."""
    for file in files:
        if file.suffix.lower() not in KINDS:
            raise ConfigError(f"--plot {file}: expected a name that ends in {' or '.join(KINDS)}")
        if not find_spec("matplotlib"):
            raise ConfigError(
                f"--plot {file}: needs matplotlib, which is not installed: pip install 'evalcore[plot]'"
            )


def of_comparison(compared: Comparisons) -> list[Panel]:
    """The benchmarks of two compared folders, among the training run's other checkpoints as the history has them.

    Without a history there are the two checkpoints alone, and the log says why.
    """
    others = _recorded(compared)
    panels = (
        _compared(it, *compared.cards[it.benchmark], others.get(it.benchmark, ()))
        for it in compared.benchmarks
        if it.pairs
    )
    return [panel for panel in panels if panel.points]


def of_run(evaluations: Sequence[Evaluation]) -> list[Panel]:
    """The benchmarks of one training run, from its evaluations, newest checkpoint first.

    Those that cannot be compared with the newest of their benchmark are left out, and the log says how many.
    """
    panels = []
    for name in sorted({it.benchmark for it in evaluations}):
        own = [it for it in evaluations if it.benchmark == name and it.mode]
        if not own or not (newest := own[0]).mode:
            continue
        mode = newest.mode.evaluation_mode
        column = deciding(newest.needs_judge and newest.judged)
        comparable = [it for it in own if it.fingerprint == newest.fingerprint]
        if left := len(own) - len(comparable):
            log.warning(
                "%s: %d evaluations under other settings than the newest are not drawn; --fingerprint chooses",
                name,
                left,
            )
        if points := _points(comparable, mode, column):
            panels.append(Panel(name, f"{mode} {column}", _in_order(points)))
    return panels


def draw(panels: Sequence[Panel], title: str, files: Iterable[Path]) -> None:
    """Write a figure of the panels to files, each as its name ends: ``.png`` or ``.html``.

    Raises:
        ConfigError: matplotlib is not installed, or a name ends otherwise.
        ResultsError: there is nothing to draw, or a file cannot be written.
    """
    files = list(files)
    check(files)
    if not panels:
        raise ResultsError("--plot: none of these evaluations has a number to draw")
    import matplotlib

    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # it tells of its fonts, which nobody asked for
    # The user's own matplotlibrc is not ours, and what is drawn must not depend on it. Names come from outside: no $
    # in them begins a formula. Text in a page stays text; and ids follow from what is drawn.
    settings: dict[Any, Any] = {
        "text.parse_math": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "evalcore",
        "font.size": 9,
    }
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box is drawn for it
        for file in files:
            is_page = file.suffix.lower() == ".html"
            figure, values = _figure(panels, title, with_values=is_page)
            stream = io.BytesIO()
            if is_page:
                figure.savefig(stream, format="svg", metadata={"Date": None})
                write_file(file, _page(stream.getvalue().decode(), title, values))
            else:
                figure.savefig(stream, format="png", dpi=_DPI)
                write_file(file, stream.getvalue())


def _recorded(compared: Comparisons) -> dict[str, list[Evaluation]]:
    """What the history has of the checkpoint's training run that is comparable, by benchmark."""
    fingerprints = {name: new.fingerprint for name, (new, _) in compared.cards.items()}
    try:
        with open_history() as history:
            return {
                it.benchmark: history.evaluations(
                    run=compared.checkpoint.run,
                    benchmark=it.benchmark,
                    fingerprint=fingerprints[it.benchmark],
                    mode="greedy" if it.mode == "greedy" else None,
                )
                for it in compared.benchmarks
                if fingerprints[it.benchmark]
            }
    except EvalError as error:
        log.warning("the plot is without the training run's other checkpoints: %s", error)
        return {}


def _compared(it: Compared, new: Scorecard, base: Scorecard, others: Sequence[Evaluation]) -> Panel:
    points = _points(others, it.mode, it.column)
    ends: list[Point | None] = []
    for card in (new, base):
        line = next(line for line in card.subsets[0].modes if _kind(line.evaluation_mode) == _kind(it.mode))
        ends.append(_point(card.checkpoint, line, it.column, card.complete) if card.checkpoint else None)
    for end in reversed(ends):  # the new one last, should both have one name
        if end and new.checkpoint and end.run == new.checkpoint.run:
            points[end.name] = end  # its folder may say more than what was recorded of it
    found = it.found
    difference = f"{100 * found.difference:+.1f} points [{100 * found.lower:+.1f}, {100 * found.upper:+.1f}]"
    return Panel(
        it.benchmark,
        f"{it.mode} {it.column}",
        _in_order(points),
        new=ends[0],
        base=ends[1],
        margin=found.margin,
        verdict=str(found.verdict),
        said=f"{found.verdict}: {difference}",
    )


def _points(evaluations: Iterable[Evaluation], mode: str, column: str) -> dict[str, Point]:
    """By the checkpoint's name; of several evaluations of one the newest, which comes first."""
    found: dict[str, Point] = {}
    for it in evaluations:
        # Of pass@1[4] and pass@1[8] both are pass@1.
        if it.mode and _kind(it.mode.evaluation_mode) == _kind(mode):
            point = _point(it.checkpoint, it.mode, column, it.complete)
            if point:
                found.setdefault(point.name, point)
    return found


def _kind(mode: str) -> str:
    return mode.partition("[")[0]


def _point(checkpoint: Checkpoint, line: Mode, column: str, complete: bool) -> Point | None:
    estimate = getattr(line, column)
    if estimate is None:
        return None
    run, name, step = checkpoint.run, checkpoint.name, checkpoint.step
    return Point(run, name, step, estimate.value, estimate.std_err, complete)


def _in_order(points: Mapping[str, Point]) -> tuple[Point, ...]:
    """By step; those without one before, as the history has them."""
    return tuple(sorted(points.values(), key=lambda it: (it.step is not None, it.step or 0, it.name)))


def _figure(panels: Sequence[Panel], title: str, *, with_values: bool) -> tuple[Figure, dict[str, str]]:
    """The drawing, and what to show at which of its elements: by id, if with_values."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = {1: 1, 2: 2, 3: 3, 4: 2}.get(len(panels), 3 if len(panels) <= 9 else 4)
    rows = math.ceil(len(panels) / columns)
    width, height = _ONE if len(panels) == 1 else (_EACH[0] * columns, _EACH[1] * rows)
    wrapped = textwrap.wrap(_shown(title), int(width * 11))
    # What stands above and below the panels takes nothing from them.
    figure = Figure(
        figsize=(width, height + 0.2 * len(wrapped) + 0.35),
        layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08),
    )
    figure.suptitle("\n".join(wrapped), fontsize=11)
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    values: dict[str, str] = {}
    legend: dict[str, Any] = {}
    for number, (axes, panel) in enumerate(zip(grid, panels, strict=False)):
        legend.update(_draw(axes, panel))
        if with_values:
            for at, (x, point) in enumerate(zip(_xs(panel), panel.all_points, strict=True)):
                values[id_ := f"value-{number}-{at}"] = str(point)
                axes.plot(
                    [x], [100 * point.value], "o", markersize=13, alpha=0, zorder=9, clip_on=False, gid=id_
                )
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    names = list(legend)
    figure.legend(
        [legend[name] for name in names], names, loc="outside lower center", ncols=len(names), frameon=False
    )
    return figure, values


def _xs(panel: Panel) -> list[int]:
    """Where points stand: at their steps; one after the other if any of them has none."""
    steps = [point.step for point in panel.all_points if point.step is not None]
    return steps if len(steps) == len(panel.all_points) else list(range(len(panel.all_points)))


def _draw(axes: Axes, panel: Panel) -> dict[str, Any]:
    """Draw a panel; returns what its legend says."""
    legend: dict[str, Any] = {}
    at = dict(zip(panel.all_points, _xs(panel), strict=True))
    xs = [at[point] for point in panel.points]
    lows, highs = zip(*([100 * end for end in point.band] for point in panel.points), strict=True)
    [line] = axes.plot(xs, [100 * point.value for point in panel.points], color=_RUN, linewidth=1.4, zorder=3)
    band = axes.fill_between(xs, lows, highs, color=_RUN, alpha=0.18, linewidth=0)
    if len(xs) > 1:
        legend |= {_shown(panel.points[0].run, 30): line, "95% band": band}
    dots: dict[str, Any] = {
        "linestyle": "",
        "marker": "o",
        "color": _RUN,
        "markersize": 3.5,
        "zorder": 4,
        "clip_on": False,
    }
    for complete, face, name in ((True, _RUN, ""), (False, "white", "incomplete")):
        if some := [point for point in panel.points if point.complete is complete]:
            ys = [100 * point.value for point in some]
            [drawn] = axes.plot([at[it] for it in some], ys, markerfacecolor=face, **dots)
            legend.update({name: drawn} if name else {})
    if panel.base and panel.margin is not None:
        base = 100 * panel.base.value
        axes.axhline(base, color=_BASE, linewidth=0.9, linestyle="--", zorder=2)
        legend["baseline − margin"] = axes.axhline(
            base - 100 * panel.margin, color=_MARGIN, linewidth=0.9, linestyle=":", zorder=2
        )
    marks = [("baseline (95%)", panel.base, "s", "white"), ("new (95%)", panel.new, "D", "black")]
    if len(xs) == 1 and not panel.new:  # one alone has no line, and no band
        marks = [(f"{_shown(panel.points[0].run, 30)} (95%)", panel.points[0], "D", _RUN)]
    for name, point, marker, face in marks:
        if point:
            low, high = point.band
            reach = [[100 * (point.value - low)], [100 * (high - point.value)]]
            bar = axes.errorbar(
                [at[point]],
                [100 * point.value],
                yerr=reach,
                fmt=marker,
                color="black",
                markerfacecolor=face,
                markersize=6.5,
                capsize=3,
                elinewidth=1,
                zorder=5,
            )
            legend[name] = bar
    _axes(axes, panel, at)
    return legend


def _axes(axes: Axes, panel: Panel, at: Mapping[Point, int]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_title(_shown(panel.benchmark, 38), fontsize=10, fontweight="bold", pad=18 if panel.said else 6)
    color = _VERDICTS.get(panel.verdict, "black")
    axes.text(0.5, 1.02, panel.said, transform=axes.transAxes, ha="center", va="bottom", color=color)
    axes.set_ylabel(_shown(panel.what, 36))
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    ends = [100 * end for point in at for end in (*point.band, point.value) if not math.isnan(end)]
    if panel.base and panel.margin is not None:
        ends.append(100 * (panel.base.value - panel.margin))
    middle, reach = (min(ends) + max(ends)) / 2, max(1.12 * (max(ends) - min(ends)), _LEAST) / 2
    axes.set_ylim(max(middle - reach, -1), min(middle + reach, 101))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}%"))
    xs = sorted(set(at.values()))
    first, last = xs[0], xs[-1]
    beside = 0.05 * (last - first) or 1
    axes.set_xlim(first - beside, last + beside)
    if all(point.step is not None for point in at):
        axes.set_xlabel("step")
        gap = min((b - a for a, b in pairwise(xs)), default=0)
        if len(xs) <= 5 and 8 * gap >= last - first:  # so that their labels do not run into each other
            axes.set_xticks(xs)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        return
    axes.set_xlabel("checkpoint")
    some = list(at)[:: math.ceil(len(at) / 6)]
    axes.set_xticks([at[it] for it in some], [_shown(it.name, 18) for it in some], rotation=25, ha="right")


def _page(svg: str, title: str, values: Mapping[str, str]) -> str:
    """The drawing as a page, with what a browser shows over its points."""
    drawing = svg[svg.index("<svg") :]
    for id_, value in values.items():
        drawing = drawing.replace(
            f'<g id="{id_}">', f'<g id="{id_}"><title>{html.escape(_shown(value))}</title>'
        )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{html.escape(_shown(title))}</title>
<style>
body {{ margin: 1rem; font-family: "DejaVu Sans", sans-serif; background: white; }}
svg {{ max-width: 100%; height: auto; }}
[id^="value-"]:hover use {{ opacity: 0.3 !important; }}
</style>
</head>
<body>
{drawing}</body>
</html>
"""


def _shown(text: str, most: int | None = None) -> str:
    """A name as it can be drawn: on one line, without what steers, cannot be encoded or is no XML; cut to so long."""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return line if most is None or len(line) <= most else f"{line[: most - 1]}…"
