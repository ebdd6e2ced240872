"""Plain result records: what an evaluation found, as every verb passes it on and as `results.json` stores it.

No torch and no model here, so that evaluation, training and reporting can share them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from statistics import fmean, stdev
from typing import Any

import numpy as np

SPEARMAN, NDCG, PRECISION = "Spearman", "nDCG@10", "average precision"
"""What a comparison is of: scored pairs, queries of retrieval sets, or pairs of duplicate sets."""
SIGNIFICANCE = 0.05
"""A difference counts where its corrected p-value is below this."""


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
class PairSimilarities:
    """What a score was made of, which a comparison needs.

    Attributes:
        cosine: of each pair, (K,).
        gold: what people gave it, (K,).
        fingerprint: equal for equal pairs in equal order.
    """

    cosine: np.ndarray
    gold: np.ndarray
    fingerprint: str


@dataclass(frozen=True)
class QueryScores:
    """What the score of a retrieval set was made of, which a comparison needs.

    Attributes:
        ndcg_at_10: of each query, (Q,), in the order of their ids.
        fingerprint: equal for equal sets.
    """

    ndcg_at_10: np.ndarray
    fingerprint: str


@dataclass(frozen=True)
class DuplicateRanks:
    """What the score of a duplicate set was made of, which a comparison needs.

    Attributes:
        ranks: mid-ranks of the pairs' cosines, (K,), from 1, the nearest pair the highest.
        is_duplicate: whether a pair means the same, (K,) bool.
        fingerprint: equal for equal sets.
    """

    ranks: np.ndarray
    is_duplicate: np.ndarray
    fingerprint: str


@dataclass(frozen=True)
class EvaluationResult:
    """Scores of one model on several tasks, in the order they were asked for, and maybe what they were made of.

    Attributes:
        model: what the user called it.
        tasks: by name.
        similarities: of the same tasks, where they are known.
        queries: of retrieval sets, by name; their scores are mteb's.
        duplicates: of duplicate sets, likewise.
        failures: task -> why it could not be scored.
        embedding: all that its vectors depend on (`model.loading.fingerprint`), where it is known: two results with
            equal ones are of the same model, whatever it is called.
    """

    model: str
    tasks: dict[str, TaskResult]
    similarities: Mapping[str, PairSimilarities] = field(default_factory=dict, compare=False, repr=False)
    queries: Mapping[str, QueryScores] = field(default_factory=dict, compare=False, repr=False)
    duplicates: Mapping[str, DuplicateRanks] = field(default_factory=dict, compare=False, repr=False)
    failures: Mapping[str, str] = field(default_factory=dict, compare=False)
    embedding: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)

    @property
    def parts(self) -> dict[str, PairSimilarities | QueryScores | DuplicateRanks]:
        """What the scores were made of, by task."""
        return {**self.similarities, **self.queries, **self.duplicates}

    @property
    def average(self) -> float:
        """Unweighted mean of the tasks' scores, as the literature reports it."""
        return fmean(task.cosine_spearman for task in self.tasks.values())

    def to_json(self) -> dict[str, Any]:
        """The `results.json` form; scores are fractions."""
        tasks = {name: task.to_json() for name, task in self.tasks.items()}
        values: dict[str, Any] = {"model": self.model, "tasks": tasks, "average": self.average if tasks else None}
        values |= {"failures": dict(self.failures)} if self.failures else {}
        return values | ({"embedding": dict(self.embedding)} if self.embedding else {})

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "EvaluationResult":
        """Inverse of `to_json`; raises KeyError or TypeError when `value` is not such a record."""
        return cls(
            model=value["model"],
            tasks={name: TaskResult.from_json(task) for name, task in value["tasks"].items()},
            failures=dict(value.get("failures", {})),
            embedding=value.get("embedding"),
        )


@dataclass(frozen=True)
class MtebScore:
    """What mteb found on one task.

    Attributes:
        kind: mteb's type of task, such as Retrieval.
        metric: its main score.
        score: a fraction; over the task's subsets, their mean.
        ci95: bootstrap 95 % interval over the queries of a retrieval set or pairs of a duplicate set; None: not known.
        num_queries: of a retrieval set whose queries' scores are known.
        mrr_at_10: of the same.
        num_pairs: of a duplicate set whose pairs' ranks are known.
    """

    kind: str
    metric: str
    score: float
    ci95: tuple[float, float] | None = None
    num_queries: int | None = None
    mrr_at_10: float | None = None
    num_pairs: int | None = None

    def to_json(self) -> dict[str, Any]:
        """For files; what is not known is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "MtebScore":
        """Inverse of `to_json`; raises TypeError or ValueError when `value` is not such a record."""
        lower_upper = value.get("ci95")
        interval = None if lower_upper is None else (float(lower_upper[0]), float(lower_upper[1]))
        return cls(**{**value, "ci95": interval})


@dataclass(frozen=True)
class BenchmarkResult:
    """Scores of one model on tasks of several types.

    Attributes:
        benchmark: name, where tasks are one's.
        scores: by task.
        comparable: what `compare` can take: STS tasks again, with intervals, the queries of retrieval sets, and the
            pairs of duplicate sets.
        failures: task -> why it has no score; the means are over the others.
    """

    benchmark: str | None
    scores: dict[str, MtebScore]
    comparable: EvaluationResult
    failures: Mapping[str, str] = field(default_factory=dict)

    @property
    def by_kind(self) -> dict[str, float]:
        """Mean of each type of task."""
        kinds = dict.fromkeys(one.kind for one in self.scores.values())
        return {kind: fmean(one.score for one in self.scores.values() if one.kind == kind) for kind in kinds}

    @property
    def mean(self) -> float:
        """Over tasks."""
        return fmean(one.score for one in self.scores.values())

    @property
    def mean_of_kinds(self) -> float:
        """Over the means of the types, which mteb's leaderboards rank by."""
        return fmean(self.by_kind.values())

    def to_json(self) -> dict[str, Any]:
        """What `results.json` holds besides the similarity tasks."""
        return {
            "benchmark": self.benchmark,
            "scores": {name: one.to_json() for name, one in self.scores.items()},
            "by_kind": self.by_kind,
            "mean": self.mean,
            "mean_of_kinds": self.mean_of_kinds,
            **({"failures": dict(self.failures)} if self.failures else {}),
        }


class Verdict(StrEnum):
    """What a comparison says of a model."""

    BETTER = "better"
    WORSE = "worse"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True)
class Difference:
    """One model against another, on one task or on average over tasks.

    Attributes:
        base: score of the one compared with, mean over its seeds.
        model: of the other, mean over its seeds.
        ci95: 95 % interval of `model - base`, over pairs or queries, and seeds.
        p_value: of the test that there is no difference, corrected for the number of tests.
        num_pairs: scored pairs; of a retrieval set its queries.
        num_seeds: of base and model.
    """

    base: float
    model: float
    ci95: tuple[float, float]
    p_value: float
    num_pairs: int
    num_seeds: tuple[int, int]

    @property
    def gain(self) -> float:
        """`model - base`."""
        return self.model - self.base

    @property
    def verdict(self) -> Verdict:
        """Better or worse where the corrected p-value is below 0.05 and the interval has no zero in it."""
        lower, upper = self.ci95
        if self.p_value >= SIGNIFICANCE or lower <= 0 <= upper:
            return Verdict.CANNOT_TELL
        return Verdict.BETTER if self.gain > 0 else Verdict.WORSE

    def with_p_value(self, p_value: float) -> "Difference":
        """The same with another p-value."""
        return replace(self, p_value=p_value)

    def to_json(self) -> dict[str, Any]:
        """For files."""
        return {
            "base": self.base,
            "model": self.model,
            "difference": self.gain,
            "ci95": list(self.ci95),
            "p_value": self.p_value,
            "verdict": str(self.verdict),
            "num_pairs": self.num_pairs,
            "num_seeds": list(self.num_seeds),
        }


@dataclass(frozen=True)
class Comparison:
    """One model against another: label of the one compared with, label of the other, by task and on average.

    `metric` is `SPEARMAN`, `NDCG` or `PRECISION`. `left_out` has the tasks that some model could not be scored on, with
    the reason.
    """

    base: str
    model: str
    tasks: dict[str, Difference]
    average: Difference
    metric: str = SPEARMAN
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def units(self) -> str:
        """What was resampled."""
        return "queries" if self.metric == NDCG else "pairs"

    @property
    def verdict(self) -> Verdict:
        """Of the average."""
        return self.average.verdict

    @property
    def sentence(self) -> str:
        """The verdict in a sentence."""
        lower, upper = (100 * bound for bound in self.average.ci95)
        size = f"{100 * self.average.gain:+.1f} points of {self.metric} x 100 [{lower:+.1f}, {upper:+.1f}]"
        where = f"on average over {len(self.tasks)} tasks" if len(self.tasks) > 1 else f"on {next(iter(self.tasks))}"
        if self.verdict is Verdict.CANNOT_TELL:
            return f"{self.model} against {self.base}: cannot tell, {size} {where}"
        return f"{self.model} is {self.verdict} than {self.base}: {size} {where}"

    def to_json(self) -> dict[str, Any]:
        """For files."""
        return {
            "base": self.base,
            "model": self.model,
            "metric": self.metric,
            "verdict": str(self.verdict),
            "average": self.average.to_json(),
            "tasks": {name: difference.to_json() for name, difference in self.tasks.items()},
            **({"left_out": dict(self.left_out)} if self.left_out else {}),
        }


class OverSeeds:
    """Runs that differ in their seed alone.

    Attributes:
        scores: Spearman on the development set, seed by seed; None where there is none (yet).
    """

    scores: tuple[float | None, ...]

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
class SweepPoint(OverSeeds):
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


@dataclass(frozen=True)
class SourceShare:
    """What a source gets of a run whose batches are of one source each.

    Attributes:
        name: of the source.
        num_rows: its rows.
        num_batches: of the run's.
        num_epochs: passes over the source in them.
    """

    name: str
    num_rows: int
    num_batches: int
    num_epochs: float


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
        teacher_s: seconds of a teacher's vectors for all texts, before the first step; 0: kept already, or no teacher.
        peak_bytes: most memory at one time: of the whole process on a CPU, of tensors on a GPU.
        device: where and how, in words.
        num_processes: the run's, or of one process those of whom the next two speak.
        embedding_bytes: what each of so many processes sends a step, for all to have all embeddings.
        gradient_bytes: the same for the adapter's gradients to be added up.
        sources: what each gets, where batches are of one source.
    """

    num_rows: int
    num_steps: int
    num_epochs: float
    tokens_per_step: float
    step_s: float
    num_evaluations: int
    evaluation_s: float
    start_s: float
    teacher_s: float
    peak_bytes: int
    device: str
    num_processes: int
    embedding_bytes: int
    gradient_bytes: int
    sources: tuple[SourceShare, ...] = ()

    @property
    def total_tokens(self) -> float:
        """Tokens of all steps."""
        return self.num_steps * self.tokens_per_step

    @property
    def total_s(self) -> float:
        """Seconds of the whole run."""
        return self.start_s + self.teacher_s + self.num_steps * self.step_s + self.num_evaluations * self.evaluation_s
