"""Sweeps over the amount of data or of steps -> fitted curves, what they say of more, and a picture.

    python -m benchmarks.scaling 'SmolLM2-135M=runs/sweep-scaling/sweep.json' --axis triplets --at 275601 --out scaling

A curve is score(n) = ceiling - scale * n ** -exponent, the form in which losses of language models fall (Kaplan et al.
2020, arXiv 2001.08361), by least squares over the means of the seeds. Its interval: the fit is made again for scores
drawn anew around the curve, as far off as another seed would put them. That is the uncertainty of the parameters, given
that the form is right; whether it is, far beyond the last point, no fit can say.

--out gets scaling.json, scaling.md and scaling.svg.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import curve_fit

from benchmarks.tables import table
from embedsmith.evaluation.significance import SEED_SPREAD
from embedsmith.reporting.plots import COLOURS, STYLE, to_svg
from embedsmith.support import files
from embedsmith.support.json_text import parse_json

NUM_DRAWS = 1000
_LOWER, _UPPER = (0.0, 0.0, 0.02), (1.0, 10.0, 3.0)  # of ceiling, scale and exponent
_START = (0.85, 0.5, 0.5)


@dataclass(frozen=True)
class Points:
    """What a sweep found along one axis.

    Attributes:
        x: (K,) amounts, rising.
        scores: (K,) Spearman, means over seeds.
        num_seeds: (K,) of each.
    """

    x: np.ndarray
    scores: np.ndarray
    num_seeds: np.ndarray


@dataclass(frozen=True)
class Curve:
    """score(n) = ceiling - scale * n ** -exponent."""

    ceiling: float
    scale: float
    exponent: float

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Scores at amounts, of the same shape."""
        return _score(x, self.ceiling, self.scale, self.exponent)


def _score(x: np.ndarray, ceiling: float, scale: float, exponent: float) -> np.ndarray:
    return ceiling - scale * x**-exponent


def read_points(path: Path, *, axis: str) -> Points:
    """The points of an axis whose labels are numbers, and whose runs have ended.

    Raises:
        ValueError: the sweep has no such axis, a label of it is no number, or there are too few points for a curve.
    """
    cells = [cell for cell in parse_json(path.read_text(encoding="utf-8")) if cell["axis"] == axis]
    found = []
    for cell in cells:
        if scores := [score for score in cell["scores"] if score is not None]:
            found.append((_amount(cell["label"], path=path, axis=axis), float(np.mean(scores)), len(scores)))
    if len(found) < 4:
        raise ValueError(f"{path} has {len(found)} finished points on the axis {axis!r}; a curve needs 4 or more.")
    x, scores, num_seeds = map(np.array, zip(*sorted(found), strict=True))
    return Points(x, scores, num_seeds)


def _amount(label: str, *, path: Path, axis: str) -> float:
    try:
        return float(label.replace(",", ""))
    except ValueError:
        raise ValueError(f"{path}: the axis {axis!r} has the value {label!r}; a curve needs numbers.") from None


def fit_curve(x: np.ndarray, scores: np.ndarray, *, weights: np.ndarray) -> Curve:
    """The curve nearest to K points; `weights` (K,) count how often each was measured."""
    # The unit of x is the first point: a scale far from one would leave the solver standing.
    fitted, _ = curve_fit(
        _score, x / x[0], scores, p0=_START, sigma=weights**-0.5, bounds=(_LOWER, _UPPER), max_nfev=10_000
    )
    ceiling, scale, exponent = map(float, fitted)
    return Curve(ceiling, scale * float(x[0]) ** exponent, exponent)


def draw_curves(points: Points, curve: Curve, *, seed_spread: float, num_draws: int) -> list[Curve]:
    """Fits to scores drawn anew around a curve: off by what seeds differ, or by what the points are off, if that is
    more."""
    random = np.random.default_rng(0)
    fitted = curve(points.x)
    left_over = float(np.sqrt(np.sum((points.scores - fitted) ** 2) / max(1, len(points.x) - 3)))
    spread = np.maximum(seed_spread / np.sqrt(points.num_seeds), left_over)
    drawn = fitted + random.normal(size=(num_draws, len(points.x))) * spread
    return [fit_curve(points.x, scores, weights=points.num_seeds) for scores in drawn]


def describe(
    label: str, points: Points, *, at: Sequence[float], seed_spread: float, num_draws: int = NUM_DRAWS
) -> dict[str, Any]:
    """A curve, the points it goes through, and what it says at other amounts, with 95 % intervals."""
    curve = fit_curve(points.x, points.scores, weights=points.num_seeds)
    drawn = draw_curves(points, curve, seed_spread=seed_spread, num_draws=num_draws)
    grid = np.geomspace(points.x[0], max([*at, points.x[-1]]), 100)
    return {
        "label": label,
        "curve": asdict(curve),
        "points": [
            dict(zip(("x", "score", "num_seeds"), row, strict=True)) for row in zip(*_lists(points), strict=True)
        ],
        "at": [{"x": x, "score": float(curve(np.array(x))), "ci95": _interval(drawn, np.array([x]))[0]} for x in at],
        "grid": {"x": grid.tolist(), "score": curve(grid).tolist(), "ci95": _interval(drawn, grid)},
    }


def _lists(points: Points) -> list[list[float]]:
    return [points.x.tolist(), points.scores.tolist(), points.num_seeds.tolist()]


def _interval(curves: Sequence[Curve], x: np.ndarray) -> list[list[float]]:
    return np.percentile([one(x) for one in curves], (2.5, 97.5), axis=0).T.tolist()


def scaling_table(found: Sequence[dict[str, Any]], *, axis: str) -> str:
    """A line for each point, measured first, then extrapolated."""
    rows = []
    for one in found:
        measured = {point["x"]: point for point in one["points"]}
        rows += [
            [one["label"], f"{x:,.0f}", f"{100 * point['score']:.1f}", "measured"] for x, point in measured.items()
        ]
        for beyond in one["at"]:
            lower, upper = beyond["ci95"]
            score = f"{100 * beyond['score']:.1f} [{100 * lower:.1f}, {100 * upper:.1f}]"
            kind = "extrapolated" if beyond["x"] > max(measured) else "by the curve"
            rows.append([one["label"], f"{beyond['x']:,.0f}", score, kind])
    return table(["model", axis, "Spearman × 100", ""], rows)


def scaling_svg(found: Sequence[dict[str, Any]], *, axis: str) -> str:
    """Points, curves and their bands; dashed behind the last point."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.subplots()
        for one, colour in zip(found, COLOURS[1:], strict=False):
            grid = np.array(one["grid"]["x"])
            scores = 100 * np.array(one["grid"]["score"])
            is_measured = grid <= one["points"][-1]["x"]
            axes.fill_between(grid, *(100 * np.array(one["grid"]["ci95"])).T, color=colour, alpha=0.15, linewidth=0)
            axes.plot(grid[is_measured], scores[is_measured], color=colour, label=one["label"])
            axes.plot(grid[~is_measured], scores[~is_measured], color=colour, linestyle="--")
            axes.scatter(*zip(*((p["x"], 100 * p["score"]) for p in one["points"]), strict=True), color=colour)
        axes.set(xscale="log", xlabel=axis, ylabel="Spearman × 100")
        axes.grid(axis="y")
        axes.legend()
        return to_svg(figure)


def _labelled(argument: str) -> tuple[str, str]:
    label, equals, path = argument.partition("=")
    if not (label and equals and path):
        raise ValueError(f"{argument!r} must be LABEL=FILE, for example 'SmolLM2-135M=runs/sweep-scaling/sweep.json'.")
    return label, path


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweeps", nargs="+", metavar="LABEL=FILE", help="sweep.json of each model")
    parser.add_argument("--axis", required=True, help="of the sweeps; its labels are numbers")
    parser.add_argument("--at", nargs="+", type=float, default=[], metavar="X", help="amounts to ask the curve about")
    parser.add_argument("--seed-spread", type=float, default=SEED_SPREAD, help="standard deviation between seeds")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    given = parser.parse_args(arguments)
    try:
        points = {label: read_points(Path(path), axis=given.axis) for label, path in map(_labelled, given.sweeps)}
    except (ValueError, OSError) as error:
        parser.error(str(error))
    found = [describe(label, own, at=given.at, seed_spread=given.seed_spread) for label, own in points.items()]
    files.write_json(given.out / "scaling.json", found)
    files.write_text(given.out / "scaling.md", scaling_table(found, axis=given.axis))
    files.write_text(given.out / "scaling.svg", scaling_svg(found, axis=given.axis))
    print(scaling_table(found, axis=given.axis))


if __name__ == "__main__":
    main()
