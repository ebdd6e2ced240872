"""A sweep's points -> table, Markdown and one self-contained HTML page with a picture for each axis."""

import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from rich.table import Table

from embedsmith.records.results import SweepPoint
from embedsmith.support import files
from embedsmith.support.errors import MissingExtraError

HEADER = ("axis", "value", "runs", "mean", "spread", "scores", "against the recipe's own")


def sweep_table(points: Sequence[SweepPoint]) -> Table:
    """For the terminal: a line for each point."""
    table = Table(*HEADER)
    for line in sweep_lines(points):
        table.add_row(*line)
    return table


def sweep_markdown(points: Sequence[SweepPoint]) -> str:
    """The same in Markdown."""
    lines = [HEADER, ["---", "---", *["---:"] * 3, "---", "---"], *sweep_lines(points)]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines) + "\n"


def sweep_lines(points: Sequence[SweepPoint]) -> list[list[str]]:
    """Cells of the table; scores are Spearman x 100, the spread their standard deviation over seeds."""
    lines = []
    for axis, group in groupby(points, key=lambda point: point.axis):
        own = list(group)
        base = next((point for point in own if point.is_base), None)
        for point in own:
            lines.append(
                [
                    axis,
                    point.label + (" (the recipe's own)" if point.is_base else ""),
                    f"{len(point.known)} of {len(point.scores)}",
                    _number(point.mean),
                    _number(point.spread),
                    ", ".join(_number(score) for score in point.scores) + "".join(f"; {f}" for f in point.failures[:1]),
                    verdict(point, base),
                ]
            )
    return lines


def verdict(point: SweepPoint, base: SweepPoint | None) -> str:
    """Whether a point differs from the recipe's own value by more than seeds do: only when no two seeds overlap."""
    if base is None or point is base or not point.known or not base.known:
        return ""
    if min(len(point.known), len(base.known)) < 2:
        return "one seed: cannot tell"
    assert point.mean is not None and base.mean is not None
    gain = f"{100 * (point.mean - base.mean):+.1f}"
    if min(point.known) > max(base.known):
        return f"{gain}, higher with every seed"
    if max(point.known) < min(base.known):
        return f"{gain}, lower with every seed"
    return f"{gain}, within the spread of seeds"


def write_sweep_page(path: Path, points: Sequence[SweepPoint], *, title: str, recipe_yaml: str) -> None:
    """Write the page, and beside it each axis's picture as a file of its own (`AXIS.svg`), atomically.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
        OSError: the file cannot be written.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise MissingExtraError("jinja2", extra="report", needed_for="Writing the sweep's page") from None
    from embedsmith.reporting.sweep_plot import axis_svg

    groups = [(axis, list(group)) for axis, group in groupby(points, key=lambda point: point.axis)]
    axes = [(axis, axis_svg(axis, own), sweep_lines(own)) for axis, own in groups]
    environment = Environment(loader=PackageLoader("embedsmith.reporting"), autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("sweep.html").render(
        title=title,
        header=HEADER,
        axes=axes,
        num_runs=sum(len(point.known) for point in points),
        num_wanted=sum(len(point.scores) for point in points),
        recipe_yaml=recipe_yaml,
    )
    files.write_text(path, page)
    for axis, svg, _ in axes:
        files.write_text(path.parent / f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', axis)}.svg", svg)


def _number(score: float | None) -> str:
    return "-" if score is None else f"{100 * score:.1f}"
