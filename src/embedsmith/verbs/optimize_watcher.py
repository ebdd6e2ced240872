"""A run's evaluations -> the search's study, which may stop it; the clock may, too."""

from collections.abc import Iterable, Sequence
from typing import Any

from embedsmith.settings.config import RunConfig
from embedsmith.training.metrics import Record
from embedsmith.verbs.optimize_study import RunningTrial


class Watcher:
    """Tells the study of a run's evaluations, and stops the run that lags or that the time does not reach for.

    Args:
        running: the trial.
        config: its run.
        seconds_left: of the budget, for all of the run.
    """

    def __init__(self, running: RunningTrial, config: RunConfig, *, seconds_left: float) -> None:
        self._running = running
        self._keeps_best = config.evaluation.keep == "best"
        self._max_steps = config.training.max_steps
        self.seconds_left = seconds_left
        self.evaluations: list[tuple[int, float, float]] = []
        self.value: float | None = None
        self.elapsed_s = 0.0
        self.is_late = False

    def __call__(self, record: Record) -> bool:
        """Told by the run; see `keeping.Watch`."""
        (evaluation,) = evaluations_of([record])
        lags = self._tell(evaluation)
        self.is_late = not lags and self.elapsed_s >= self.seconds_left
        return lags or self.is_late

    def replay(self, evaluations: Sequence[Sequence[Any]]) -> bool:
        """Tell again what a run told before it was killed; returns whether the trial was to stop."""
        return any(self._tell(evaluation) for evaluation in evaluations)

    def _tell(self, evaluation: Sequence[Any]) -> bool:
        step, score, self.elapsed_s = evaluation
        self.evaluations.append((step, score, self.elapsed_s))
        self.value = score if self.value is None or not self._keeps_best else max(self.value, score)
        lags = self._running.report(self.value, evaluation=len(self.evaluations))
        return lags and step != self._max_steps  # the last one stops nothing


def evaluations_of(records: Iterable[Record]) -> list[tuple[int, float, float]]:
    """(step, Spearman, seconds) of each record of an evaluation."""
    name = "dev_cosine_spearman"
    return [(one["step"], one[name], one["elapsed_s"]) for one in records if name in one]
