"""What `python -m benchmarks.quality` found -> a table for each column, and a picture of quality against speed."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from benchmarks.tables import table
from embedsmith.reporting.plots import COLOURS, STYLE, to_svg

Comparison = dict[str, Any]
_MARKERS = "osD^vP"
_PLACES = [(across, up) for up in (0, 9, -9, 18, -18) for across in (7, -7)]
"""Where a name may stand beside its point, in printer's points, the best ones first."""


def comparison_table(found: Comparison) -> str:
    """A line for each contestant, the columns one after the other: what has learned from more stands apart."""
    header = ["model", *found["tasks"], "average", "against the first", "sentences a second"]
    return "\n".join(
        f"**{column}**\n\n{table(header, [_cells(line, found['tasks']) for line in lines])}"
        for column, lines in _by_column(found)
    )


def _cells(line: dict[str, Any], tasks: Sequence[str]) -> list[str]:
    difference = line.get("difference")
    averages = line["averages"]
    seeds = f" ({', '.join(f'{100 * value:.1f}' for value in averages)})" if len(averages) > 1 else ""
    return [
        line["label"],
        *(f"{100 * line['scores'][task]:.1f}" for task in tasks),
        f"{100 * line['average']:.1f}{seeds}",
        _difference(difference) if difference else "",
        f"{line['sentences_per_s']:,.0f}",
    ]


def _difference(found: dict[str, Any]) -> str:
    lower, upper = found["ci95"]
    return f"{100 * (found['model'] - found['base']):+.1f} [{100 * lower:+.1f}, {100 * upper:+.1f}]"


def comparison_svg(found: Comparison) -> str:
    """Average score against encoding speed, a colour and a mark for each column."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.subplots()
        for number, (column, lines) in enumerate(_by_column(found)):
            speeds = [line["sentences_per_s"] for line in lines]
            scores = [100 * line["average"] for line in lines]
            axes.scatter(speeds, scores, color=COLOURS[number % len(COLOURS)], marker=_MARKERS[number], label=column)
        axes.set(
            xscale="log", xlabel="sentences a second", ylabel=f"Spearman × 100, mean of {len(found['tasks'])} sets"
        )
        axes.grid(axis="y")
        axes.margins(x=0.18, y=0.1)
        figure.legend(loc="outside lower center", ncols=3, fontsize=8)
        _name_points(axes, found["contestants"])
        return to_svg(figure)


def _name_points(axes: Axes, lines: Sequence[dict[str, Any]]) -> None:
    """Write each name beside its point, at the first of `_PLACES` where it covers no other name or point."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # so that places on the page are known
    points = {line["label"]: (line["sentences_per_s"], 100 * line["average"]) for line in lines}
    marks = {
        label: Bbox.from_extents(*(at - 6), *(at + 6))
        for label, at in zip(points, axes.transData.transform(list(points.values())), strict=True)
    }
    named: list[Bbox] = []
    for label, point in sorted(points.items(), key=lambda item: -item[1][1]):
        taken = [*named, *(mark for other, mark in marks.items() if other != label)]
        for across, up in _PLACES:
            note = axes.annotate(
                label,
                point,
                xytext=(across, up),
                textcoords="offset points",
                fontsize=8,
                ha="left" if across > 0 else "right",
                va="center",
            )
            box = note.get_window_extent()
            is_inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1
            if (is_inside and not box.count_overlaps(taken)) or (across, up) == _PLACES[-1]:
                named.append(box)
                break
            note.remove()


def _by_column(found: Comparison) -> list[tuple[str, list[dict[str, Any]]]]:
    """Contestants by what they have learned from, in the order in which columns first come."""
    order = {column: number for number, column in enumerate(dict.fromkeys(c["column"] for c in found["contestants"]))}
    lines = sorted(found["contestants"], key=lambda line: order[line["column"]])
    return [(column, list(own)) for column, own in groupby(lines, key=lambda line: line["column"])]
