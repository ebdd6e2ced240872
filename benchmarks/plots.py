"""Rows of results -> SVG plots: step times as bars, growth on logarithmic axes. The same rows give the same bytes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator

from benchmarks.rows import Row

# Okabe and Ito's colours, readable for the colour-blind; greys and no ground serve light and dark pages alike.
_INK = "#808080"
_OURS = "#0072b2"
_COLOURS = (_OURS, "#e69f00", "#009e73")
_STYLE: dict[str, Any] = {
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": _INK,
    "axes.titlesize": 11,
    "font.size": 10,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.labelcolor": _INK,
    "svg.hashsalt": "embedsmith",
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


def draw_bars(rows: Sequence[Row], path: Path, *, title: str, xlabel: str) -> None:
    """One bar a variant, the quickest on top, with its interquartile range."""
    timed = sorted((row for row in rows if row.seconds), key=lambda row: row.seconds or 0)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8, 0.9 + 0.42 * len(timed)), layout="constrained")
        axes = figure.subplots()
        colours = [_OURS if row.variant.startswith("embedsmith") else _INK for row in timed]
        seconds = [row.seconds or 0 for row in timed]
        spreads = [(row.spread or 0) / 2 for row in timed]
        bars = axes.barh([row.label for row in timed], seconds, xerr=spreads, color=colours, ecolor=_INK)
        axes.bar_label(bars, labels=[f"{value:.3g}" for value in seconds], padding=6)
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.set(title=title, xlabel=xlabel)
        axes.grid(axis="x")
        _save(figure, path)


def draw_growth(panels: dict[str, Sequence[Row]], path: Path) -> None:
    """Time above, memory below, one column for each axis; a dotted line grows in proportion."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(3.4 * len(panels), 5.6), layout="constrained")
        grid = figure.subplots(2, len(panels), squeeze=False)
        for column, (axis, rows) in enumerate(panels.items()):
            _lines(grid[0][column], rows, field="seconds", unit=1.0)
            _lines(grid[1][column], rows, field="peak_bytes", unit=1e9)
            grid[1][column].set_xlabel(axis)
        grid[0][0].set_ylabel("seconds a step")
        grid[1][0].set_ylabel("peak memory, GB")
        shown: dict[str, Any] = {}
        for axes in grid.flat:
            lines, labels = axes.get_legend_handles_labels()
            shown |= dict(zip(labels, lines, strict=True))
        figure.legend(shown.values(), shown.keys(), loc="outside upper left", ncols=3)
        _save(figure, path)


def _lines(axes: Axes, rows: Sequence[Row], *, field: str, unit: float) -> None:
    variants = list(dict.fromkeys((row.variant, row.label) for row in rows))
    for (name, label), colour in zip(variants, _COLOURS, strict=False):
        points = sorted(
            (row.x or 0, getattr(row, field) / unit) for row in rows if row.variant == name and _is_drawn(row)
        )
        if not points:
            continue
        axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=4, label=label)
        if field == "seconds" and name == variants[0][0]:
            (x0, y0), (x1, _) = points[-1], points[0]
            axes.plot([x0, x1], [y0, y0 * x1 / x0], color=_INK, linestyle=":", label="in proportion")
    axes.set(xscale="log", yscale="log")
    axes.grid(which="major")
    axes.xaxis.set_major_locator(FixedLocator(sorted({row.x for row in rows if row.x})))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for own in (axes.xaxis, axes.yaxis):
        own.set_minor_locator(NullLocator())
        own.set_major_formatter("{x:g}")


def _is_drawn(row: Row) -> bool:
    return bool(row.x and row.seconds and row.peak_bytes)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
