"""A search's trials -> SVG pictures: how good the best was by then, and scores by each setting."""

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from embedsmith.records.optimized import SearchFindings, Trial
from embedsmith.reporting.plots import COLOURS, STYLE, to_svg
from embedsmith.reporting.sweep_plot import DECADES, short_label

_DODGE = 0.12  # between trials of one choice, side by side


def best_so_far_svg(findings: SearchFindings) -> str:
    """The best score of a whole run over trials and over minutes of training, and each trial's own."""
    minutes, ends = 0.0, []
    for trial in findings.trials:
        minutes += trial.elapsed_s / 60
        ends.append((trial, minutes))
    best = findings.best_so_far
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for trial, end in ends:
            _draw(left, trial.number, trial)
            _draw(right, end, trial)
        scores = [100 * score for *_, score in best]
        left.step([number for number, *_ in best], scores, where="post", color=COLOURS[1])
        right.step([minute for _, minute, _ in best], scores, where="post", color=COLOURS[1])
        left.set(xlabel="trial", ylabel="Spearman × 100")
        right.set(xlabel="minutes of training", xlim=(0, None))
        left.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axes in (left, right):
            axes.grid(axis="y")
        return to_svg(figure)


def setting_svg(name: str, findings: SearchFindings) -> str:
    """Scores of all trials by what they had there: numbers on a line, anything else side by side."""
    scored = [trial for trial in findings.trials if trial.score is not None]
    values = [trial.point[name] for trial in scored]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 2.8), layout="constrained")
        axes = figure.subplots()
        numbers = [value for value in values if not isinstance(value, str)]
        if len(numbers) == len(values):
            if numbers and min(numbers) > 0 and max(numbers) / min(numbers) >= DECADES / 2:
                axes.set_xscale("log")
            for trial, number in zip(scored, numbers, strict=True):
                _draw(axes, number, trial)
        else:
            labels = list(dict.fromkeys(map(str, values)))
            axes.set_xticks(range(len(labels)), [short_label(label) for label in labels])
            axes.set_xlim(-0.6, len(labels) - 0.4)
            for index, label in enumerate(labels):
                own = [trial for trial in scored if str(trial.point[name]) == label]
                for place, trial in enumerate(own):
                    shift = _DODGE * (place - (len(own) - 1) / 2) * min(1.0, 6 / len(own))
                    _draw(axes, index + shift, trial)
        axes.set(xlabel=name, ylabel="Spearman × 100")
        axes.margins(y=0.1)
        axes.grid(axis="y")
        return to_svg(figure)


def _draw(axes: Axes, place: float, trial: Trial) -> None:
    """A dot, filled for a whole run; nothing for one that failed."""
    if trial.score is not None:
        is_whole = trial.state == "complete"
        fill, alpha = (COLOURS[2], 0.9) if is_whole else ("none", 0.6)
        axes.plot([place], [100 * trial.score], "o", color=COLOURS[2], markerfacecolor=fill, markersize=5, alpha=alpha)
