"""Records and arrays -> SVG text, for pages that must stand alone. Needs matplotlib (extra `report`).

The same input gives the same bytes. Colours are Okabe and Ito's, readable for the colour-blind; axes and letters take
the page's own colour and the ground is transparent, to serve light and dark pages alike.
"""

import io
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np

from embedsmith.records.data_facts import DataFacts
from embedsmith.records.findings import Analysis
from embedsmith.reporting.tables import Rows
from embedsmith.support.errors import MissingExtraError

try:
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import MaxNLocator
except ImportError:
    raise MissingExtraError("matplotlib", extra="report", needed_for="Drawing the report's plots") from None

COLOURS = ("#8a8a8a", "#e69f00", "#0072b2", "#009e73")
_INK = "#808080"
_MAX_POINTS = 400
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
            bounds = 100 * np.array([record["dev_ci95"] for record in evaluations], dtype=float)
            right.fill_between(x, bounds[:, 0], bounds[:, 1], color=COLOURS[1], alpha=0.25, linewidth=0)
            scores = [100 * record["dev_cosine_spearman"] for record in evaluations]
            right.plot(x, scores, color=COLOURS[1], marker="o", markersize=4)
        right.set(title="Development score (Spearman × 100, 95 % interval)", xlabel="step")
        for axes in (left, right):
            axes.grid(axis="y")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return to_svg(figure)


def similarity_svg(analysis: Analysis) -> str:
    """One panel a model: cosine against gold score, some pairs as points, quartiles of each band of scores, and
    Spearman as title."""
    gold, cosines = analysis.gold, analysis.cosines
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        panels = figure.subplots(1, len(cosines), sharey=True, squeeze=False)[0]
        shown = np.random.default_rng(0).permutation(len(gold))[:_MAX_POINTS]
        for axes, (title, values), colour in zip(panels, cosines.items(), cycle(COLOURS), strict=False):
            axes.scatter(gold[shown], values[shown], s=8, color=colour, alpha=0.35, linewidths=0)
            for band in analysis.bands[title]:
                centre, width = sum(band.edges) / 2, 0.5 * (band.edges[1] - band.edges[0])
                low, lower, median, upper, high = band.quantiles
                axes.plot([centre, centre], [low, high], color=_INK, linewidth=1)
                box = Rectangle((centre - width / 2, lower), width, upper - lower)
                box.set(facecolor=colour, edgecolor=_INK, alpha=0.85)
                axes.add_patch(box)
                axes.plot([centre - width / 2, centre + width / 2], [median, median], color="white", linewidth=2)
            score = dict(analysis.rows)[title].tasks[analysis.focus].cosine_spearman
            axes.set_title(_panel_title(title, len(cosines), f": {100 * score:.1f}"))
            axes.set_xlabel("gold score")
            axes.grid(axis="y")
        panels[0].set_ylabel("cosine similarity")
        return to_svg(figure)


def cosines_svg(analysis: Analysis) -> str:
    """One panel a model: how the cosines of random texts and of pairs that people call alike are distributed."""
    random, alike = analysis.random_cosines, analysis.alike_cosines
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 2.6), layout="constrained")
        panels = figure.subplots(1, len(random), sharey=False, squeeze=False)[0]
        every = np.concatenate([*random.values(), *alike.values()])
        edges = np.linspace(min(0.0, float(every.min())), 1.0, 49)
        for axes, (title, values), colour in zip(panels, random.items(), cycle(COLOURS), strict=False):
            axes.hist(values, bins=edges, density=True, color=_INK, alpha=0.45, label="random texts")
            axes.hist(alike[title], bins=edges, density=True, color=colour, alpha=0.75, label="alike")
            axes.set_title(_panel_title(title, len(random)))
            axes.set(xlabel="cosine similarity", yticks=[])
            axes.spines["left"].set_visible(False)
            axes.legend(fontsize=8, loc="upper left")
        return to_svg(figure)


def data_svg(facts: DataFacts) -> str:
    """Histograms of training data: lengths of each column, words shared with the anchor, scores."""
    shown = [(f"{column.name}: length in tokens", column.lengths) for column in facts.columns]
    shown += [(f"{name}: words shared", values) for name, values in facts.overlaps.items()]
    shown += [("score", facts.scores)] if facts.scores is not None else []
    with matplotlib.rc_context(STYLE):
        num_rows = (len(shown) + 2) // 3
        figure = Figure(figsize=(9, 2.1 * num_rows), layout="constrained")
        panels = list(figure.subplots(num_rows, 3, squeeze=False).flat)
        for axes, (title, values) in zip(panels, shown, strict=False):
            widths = np.diff(values.edges)
            # The last bin may reach far; it is drawn as wide as the others and says so.
            regular = np.minimum(widths, widths[0])
            axes.bar(values.edges[:-1], values.counts, width=0.92 * regular, align="edge", color=COLOURS[2])
            if widths[-1] > 1.01 * widths[0]:
                axes.set_xlabel(f"last bar: up to {values.quantiles[-1]:.0f}", fontsize=8)
            axes.set_title(title, fontsize=10)
            axes.grid(axis="y")
        for axes in panels[len(shown) :]:
            axes.set_visible(False)
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


def _smooth(values: np.ndarray) -> np.ndarray:
    width = max(1, len(values) // 10)
    sums = np.convolve(values, np.ones(width), mode="same")
    return sums / np.convolve(np.ones(len(values)), np.ones(width), mode="same")


def _panel_title(title: str, num_panels: int, score: str = "") -> str:
    """A title that fits over one of several panels."""
    room = 96 // num_panels - len(score)
    return (title if len(title) <= room else title[: room - 1] + "…") + score


def to_svg(figure: Figure) -> str:
    """The figure as an `<svg>` element in the text colour of its surroundings; the same figure gives the same text."""
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
    )
    text = buffer.getvalue()
    picture = text[text.index("<svg") :].replace(_INK, "currentColor")
    # Alone, in a file, it is grey; a page's style is stronger than this attribute.
    return picture.replace("<svg ", f'<svg color="{_INK}" ', 1)
