"""What was found in a search: its trials, its finalists, which won."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from embedsmith.records.results import OverSeeds


@dataclass(frozen=True)
class Trial:
    """One run of a search.

    Attributes:
        number: from 0, in the order in which they were run.
        point: what was chosen, by the names of the search's space.
        state: complete, stopped (early, by successive halving) or failed.
        score: Spearman on the development set, of what the run kept; of one that was stopped, as far as it came.
        evaluations: (step, Spearman) behind the start.
        elapsed_s: seconds of training, evaluations included; 0 where an earlier trial had the same settings.
        run: name of its folder.
        failed: why, if it did.
        repeats: the trial that failed with these settings and was asked for again.
    """

    number: int
    point: Mapping[str, str | int | float]
    state: Literal["complete", "stopped", "failed"]
    score: float | None
    evaluations: tuple[tuple[int, float], ...]
    elapsed_s: float
    run: str
    failed: str | None = None
    repeats: int | None = None


@dataclass(frozen=True)
class Finalist(OverSeeds):
    """One of the best trials, run again with other seeds.

    Attributes:
        number: of the trial.
        scores: of the further seeds alone. That of the trial itself is the best of many, and so too good.
        failures: why runs failed.
    """

    number: int
    scores: tuple[float | None, ...]
    failures: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether all of its runs have a score."""
        return None not in self.scores


@dataclass(frozen=True)
class SearchFindings:
    """All of it.

    Attributes:
        trials: in the order in which they were run.
        final_seeds: of the finalists' runs.
        finalists: the best of the trials, best first.
        importances: name in the space -> share, largest first; empty where too few trials say nothing.
    """

    trials: tuple[Trial, ...]
    final_seeds: tuple[int, ...] = ()
    finalists: tuple[Finalist, ...] = ()
    importances: Mapping[str, float] = field(default_factory=dict)

    @property
    def elapsed_s(self) -> float:
        """Of all trials; the finalists' further runs aside."""
        return sum(trial.elapsed_s for trial in self.trials)

    @property
    def ranked(self) -> list[Trial]:
        """The whole runs, best first; of equal ones the earlier, and of equal settings one."""
        complete = sorted(
            (trial for trial in self.trials if trial.state == "complete"),
            key=lambda trial: (-(trial.score or 0.0), trial.number),
        )
        first_of = {trial.run: trial for trial in reversed(complete)}
        return [trial for trial in complete if first_of[trial.run] is trial]

    @property
    def winner(self) -> Trial | None:
        """The finalist with the best mean, if all its runs have a score; without final seeds, the best trial."""
        if not self.final_seeds:
            return next(iter(self.ranked), None)
        whole = [finalist for finalist in self.finalists if finalist.is_whole]
        best = max(whole, key=lambda finalist: finalist.mean or 0.0, default=None)
        return None if best is None else self.trials[best.number]

    @property
    def best_so_far(self) -> list[tuple[int, float, float]]:
        """(trial, minutes of training until its end, best score of the whole runs), from the first whole run on."""
        found, minutes, best = [], 0.0, None
        for trial in self.trials:
            minutes += trial.elapsed_s / 60
            if trial.state == "complete" and trial.score is not None:
                best = trial.score if best is None else max(best, trial.score)
            if best is not None:
                found.append((trial.number, minutes, best))
        return found
