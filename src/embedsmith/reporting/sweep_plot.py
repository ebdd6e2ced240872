"""One axis of a sweep -> an SVG picture: every seed as a dot, their mean, and the spread between them."""

from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from embedsmith.records.results import SweepPoint
from embedsmith.reporting.plots import COLOURS, STYLE, to_svg

DECADES = 20
"""From this ratio on, a numeric axis is logarithmic."""
_MARGIN = 0.05  # of a numeric axis, on either side


def axis_svg(axis: str, points: Sequence[SweepPoint]) -> str:
    """Numbers on a line, anything else side by side; the recipe's own value is filled."""
    numbers = [point.value for point in points]
    is_numeric = all(number is not None for number in numbers) and len(points) > 1
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 3.4), layout="constrained")
        axes = figure.subplots()
        places = [float(number) for number in numbers if number is not None] if is_numeric else range(len(points))
        if is_numeric:
            _number_axis(axes, list(places), labels=[point.label for point in points])
            pairs = zip(places, points, strict=True)
            line = sorted((place, 100 * point.mean) for place, point in pairs if point.mean is not None)
            axes.plot([x for x, _ in line], [y for _, y in line], color=COLOURS[2], linewidth=1, alpha=0.6)
        else:
            axes.set_xticks(range(len(points)), [short_label(point.label) for point in points])
            axes.set_xlim(-0.6, len(points) - 0.4)
        for place, point in zip(places, points, strict=True):
            _draw(axes, place, point)
        axes.set(xlabel=axis, ylabel="Spearman × 100")
        axes.margins(y=0.15)
        axes.grid(axis="y")
        return to_svg(figure)


def _draw(axes: Axes, place: float, point: SweepPoint) -> None:
    scores = [100 * score for score in point.known]
    axes.plot([place] * len(scores), scores, "o", color=COLOURS[0], markersize=4, alpha=0.8)
    if point.mean is not None:
        fill = COLOURS[1] if point.is_base else "none"
        axes.errorbar(
            [place],
            [100 * point.mean],
            yerr=[100 * (point.spread or 0)],
            fmt="o",
            color=COLOURS[2],
            markerfacecolor=fill,
            markersize=9,
            capsize=4,
        )


def _number_axis(axes: Axes, places: list[float], *, labels: list[str]) -> None:
    low, high = min(places), max(places)
    # Limits from all values, not from those that have a score: a sweep's page is written after every run.
    if low > 0 and high / low >= DECADES:
        axes.set_xscale("log")
        margin = (high / low) ** _MARGIN
        axes.set_xlim(low / margin, high * margin)
    else:
        margin = (high - low) * _MARGIN
        axes.set_xlim(low - margin, high + margin)
    axes.set_xticks(places, labels)
    axes.minorticks_off()


def short_label(label: str) -> str:
    """A label that fits under an axis."""
    return label if len(label) <= 24 else label[:23] + "…"
