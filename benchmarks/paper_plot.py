"""The development score over the steps of the paper's arms -> an SVG picture, a panel for each model."""

from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks.paper_tables import ARMS, Results, arm_title
from embedsmith.reporting.plots import COLOURS, STYLE, to_svg

_LINES = ("-", "--", ":")


def steps_svg(results: Sequence[Results]) -> str:
    """Spearman x 100 on the pairs that watched; models whose training nothing watched are left out."""
    watched = [one for one in results if any(arm.get("curve") for arm in one["arms"].values())]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 4), layout="constrained")
        panels = figure.subplots(1, len(watched), sharey=True, squeeze=False)[0]
        labels: dict[str, Line2D] = {}
        for axes, one in zip(panels, watched, strict=True):
            for number, name in enumerate(ARMS):  # a colour is the same arm's in every panel
                if (arm := one["arms"].get(name)) and arm["curve"]:
                    steps, scores = zip(*arm["curve"], strict=True)
                    style = {"color": COLOURS[number % len(COLOURS)], "linestyle": _LINES[number // len(COLOURS)]}
                    (line,) = axes.plot(steps, [100 * score for score in scores], marker="o", markersize=3, **style)
                    labels.setdefault(arm_title(name, arm), line)
            axes.set(title=one["model"], xlabel="step")
            axes.grid(axis="y")
        figure.legend(list(labels.values()), list(labels), loc="outside lower center", ncols=3, fontsize=8)
        panels[0].set_ylabel("Spearman × 100")
        return to_svg(figure)
