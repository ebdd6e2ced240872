"""Records and arrays -> SVG text, for pages that must stand alone. Needs matplotlib (extra `report`).

The same input gives the same bytes. Colours are Okabe and Ito's, readable for the colour-blind; greys and a transparent
ground serve light and dark pages alike.
"""

import io
from collections.abc import Mapping, Sequence
from itertools import cycle, pairwise
from typing import Any

import numpy as np

from embedsmith.errors import MissingExtraError
from embedsmith.reporting.tables import Rows

try:
    import matplotlib
    from matplotlib.figure import Figure
except ImportError:
    raise MissingExtraError("matplotlib", extra="report", needed_for="Drawing the report's plots") from None

COLOURS = ("#8a8a8a", "#e69f00", "#0072b2", "#009e73")
_INK = "#808080"
_MAX_POINTS = 2000
STYLE = {
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "axes.titlecolor": _INK,
    "font.family": "sans-serif",
    "font.size": 10,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.labelcolor": _INK,
    "svg.hashsalt": "embedsmith",
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


def learning_curve_svg(metrics: Sequence[Mapping[str, Any]]) -> str:
    """Loss of every step (faint, and smoothed over a tenth of the run) and the development score with its interval."""
    steps = [record for record in metrics if "loss" in record]
    evaluations = [record for record in metrics if "dev_cosine_spearman" in record]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        if steps:
            x = [record["step"] for record in steps]
            loss = np.array([record["loss"] for record in steps])
            left.plot(x, loss, color=COLOURS[2], alpha=0.3, linewidth=1)
            left.plot(x, _smooth(loss), color=COLOURS[2], linewidth=2)
        left.set(title="Training loss", xlabel="step", ylim=(0, None))
        if evaluations:
            x = [record["step"] for record in evaluations]
            bounds = 100 * np.array([record["dev_ci95"] for record in evaluations])
            right.fill_between(x, bounds[:, 0], bounds[:, 1], color=COLOURS[1], alpha=0.25, linewidth=0)
            scores = [100 * record["dev_cosine_spearman"] for record in evaluations]
            right.plot(x, scores, color=COLOURS[1], marker="o", markersize=4)
        right.set(title="Development score (Spearman × 100, 95 % interval)", xlabel="step")
        for axes in (left, right):
            axes.grid(axis="y")
        return to_svg(figure)


def similarity_svg(gold: np.ndarray, similarities: Mapping[str, np.ndarray]) -> str:
    """One panel a model: cosine of each pair against its gold score, the running median, and Spearman as title."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        panels = figure.subplots(1, len(similarities), sharey=True, squeeze=False)[0]
        shown = np.random.default_rng(0).permutation(len(gold))[:_MAX_POINTS]
        for axes, (title, values), colour in zip(panels, similarities.items(), cycle(COLOURS), strict=False):
            axes.scatter(gold[shown], values[shown], s=12, color=colour, alpha=0.5, linewidths=0)
            centres, medians = _running_median(gold, values)
            axes.plot(centres, medians, color=_INK, linewidth=2)
            spearman = np.corrcoef(mid_ranks(gold), mid_ranks(values))[0, 1]
            axes.set(title=f"{title}: {100 * spearman:.1f}", xlabel="gold score")
            axes.grid(axis="y")
        panels[0].set_ylabel("cosine similarity")
        return to_svg(figure)


def scores_svg(rows: Rows) -> str:
    """A line per task with a dot and its interval for each model."""
    tasks = list(rows[0][1].tasks)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 1.1 + 0.55 * len(tasks)), layout="constrained")
        axes = figure.subplots()
        for index, ((title, result), colour) in enumerate(zip(rows, cycle(COLOURS), strict=False)):
            scores = 100 * np.array([result.tasks[task].cosine_spearman for task in tasks])
            bounds = 100 * np.array([result.tasks[task].ci95 for task in tasks])
            y = np.arange(len(tasks)) + 0.16 * (index - (len(rows) - 1) / 2)
            spread = np.abs(bounds.T - scores)
            axes.errorbar(scores, y, xerr=spread, fmt="o", color=colour, label=title, markersize=7, linewidth=2)
        axes.set_yticks(range(len(tasks)), tasks)
        axes.invert_yaxis()
        axes.set(xlabel="Spearman × 100, with 95 % interval")
        axes.margins(y=0.35 / len(tasks) + 0.1)
        axes.grid(axis="x")
        figure.legend(loc="outside upper left", ncols=len(rows))
        return to_svg(figure)


def mid_ranks(values: np.ndarray) -> np.ndarray:
    """Rank of each value as a fraction of their number, in (0, 1]; ties at their average rank."""
    _, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[codes] / len(values)


def _smooth(values: np.ndarray) -> np.ndarray:
    width = max(1, len(values) // 10)
    sums = np.convolve(values, np.ones(width), mode="same")
    return sums / np.convolve(np.ones(len(values)), np.ones(width), mode="same")


def _running_median(x: np.ndarray, y: np.ndarray) -> tuple[list[float], list[float]]:
    edges = np.linspace(x.min(), x.max(), 7)
    bins = np.digitize(x, edges[1:-1])  # a value on an edge belongs to the bin above, and to no other
    centres, medians = [], []
    for index, (low, high) in enumerate(pairwise(edges)):
        inside = bins == index
        if inside.any():
            centres.append(float(low + high) / 2)
            medians.append(float(np.median(y[inside])))
    return centres, medians


def to_svg(figure: Figure) -> str:
    """The figure as an `<svg>` element; the same figure gives the same text."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
