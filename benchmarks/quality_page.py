"""What `python -m benchmarks.quality` found -> a table for each column, and a picture of quality against speed."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from benchmarks.tables import table
from embedsmith.reporting.plots import COLOURS, STYLE, to_svg

Comparison = dict[str, Any]
_MARKERS = "osD^vP"


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
            for line, speed, score in zip(lines, speeds, scores, strict=True):
                axes.annotate(line["label"], (speed, score), xytext=(5, 4), textcoords="offset points", fontsize=8)
        axes.set(
            xscale="log", xlabel="sentences a second", ylabel=f"Spearman × 100, mean of {len(found['tasks'])} sets"
        )
        axes.grid(axis="y")
        axes.margins(x=0.18, y=0.1)
        figure.legend(loc="outside lower center", ncols=3, fontsize=8)
        return to_svg(figure)


def _by_column(found: Comparison) -> list[tuple[str, list[dict[str, Any]]]]:
    """Contestants by what they have learned from, in the order in which columns first come."""
    order = {column: number for number, column in enumerate(dict.fromkeys(c["column"] for c in found["contestants"]))}
    lines = sorted(found["contestants"], key=lambda line: order[line["column"]])
    return [(column, list(own)) for column, own in groupby(lines, key=lambda line: line["column"])]
