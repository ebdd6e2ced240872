"""Plain result records: what an evaluation found, as every verb passes it on and as `results.json` stores it.

No torch and no model here, so that evaluation, training and reporting can share them.
"""

from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any


@dataclass(frozen=True)
class TaskResult:
    """Score of one model on one task.

    Attributes:
        cosine_spearman: Spearman correlation of cosine similarity with the gold score, in [-1, 1].
        ci95: bootstrap 95 % interval of that correlation (lower, upper).
        num_pairs: number of scored pairs.
    """

    cosine_spearman: float
    ci95: tuple[float, float]
    num_pairs: int

    def to_json(self) -> dict[str, Any]:
        """For files."""
        return {"cosine_spearman": self.cosine_spearman, "ci95": list(self.ci95), "num_pairs": self.num_pairs}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "TaskResult":
        """Inverse of `to_json`; raises KeyError or TypeError when `value` is not such a record."""
        lower, upper = value["ci95"]
        return cls(float(value["cosine_spearman"]), (float(lower), float(upper)), int(value["num_pairs"]))


@dataclass(frozen=True)
class EvaluationResult:
    """Scores of one model on several tasks, in the order they were asked for."""

    model: str
    tasks: dict[str, TaskResult]

    @property
    def average(self) -> float:
        """Unweighted mean of the tasks' scores, as the literature reports it."""
        return fmean(task.cosine_spearman for task in self.tasks.values())

    def to_json(self) -> dict[str, Any]:
        """The `results.json` form; scores are fractions."""
        tasks = {name: task.to_json() for name, task in self.tasks.items()}
        return {"model": self.model, "tasks": tasks, "average": self.average}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "EvaluationResult":
        """Inverse of `to_json`; raises KeyError or TypeError when `value` is not such a record."""
        return cls(
            model=value["model"], tasks={name: TaskResult.from_json(task) for name, task in value["tasks"].items()}
        )


@dataclass(frozen=True)
class SweepPoint:
    """One value of one axis of a sweep, and what its runs scored.

    Attributes:
        axis: the setting varied.
        label: its value, for people to read.
        value: the same as a number, where it is one.
        is_base: whether it is what the recipe itself says.
        scores: Spearman on the development set, seed by seed; None where there is none (yet).
        failures: why runs failed.
    """

    axis: str
    label: str
    value: float | None
    is_base: bool
    scores: tuple[float | None, ...]
    failures: tuple[str, ...] = ()

    @property
    def known(self) -> list[float]:
        """The scores there are."""
        return [score for score in self.scores if score is not None]

    @property
    def mean(self) -> float | None:
        """Over seeds."""
        return fmean(self.known) if self.known else None

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds (of the sample); None for fewer than two."""
        return stdev(self.known) if len(self.known) > 1 else None


@dataclass(frozen=True)
class Plan:
    """What a run will take.

    Attributes:
        num_rows: of data.
        num_steps: optimizer steps.
        num_epochs: passes over the data.
        tokens_per_step: mean over the batches counted; equal texts of a batch count once.
        step_s: seconds of a step of that size.
        num_evaluations: of the development set.
        evaluation_s: seconds of one.
        start_s: seconds until the first step: data, model, checks.
        peak_bytes: most memory at one time: of the whole process on a CPU, of tensors on a GPU.
        device: where and how, in words.
    """

    num_rows: int
    num_steps: int
    num_epochs: float
    tokens_per_step: float
    step_s: float
    num_evaluations: int
    evaluation_s: float
    start_s: float
    peak_bytes: int
    device: str

    @property
    def total_tokens(self) -> float:
        """Tokens of all steps."""
        return self.num_steps * self.tokens_per_step

    @property
    def total_s(self) -> float:
        """Seconds of the whole run."""
        return self.start_s + self.num_steps * self.step_s + self.num_evaluations * self.evaluation_s
