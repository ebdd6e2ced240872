"""Plain records of what was found about a space, about a model's failures and about a run; a report shows them.

Labels are the models' titles, in the order of the report.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedsmith.records.results import Comparison, EvaluationResult

WATTS_A_THREAD = 10
"""Assumed: a busy core of a server or a laptop, with its share of memory and power supply."""
WATTS_A_GPU = 350
"""Assumed: about half of a data-centre GPU's limit; small batches rarely draw more."""


@dataclass(frozen=True)
class Geometry:
    """The shape of an embedding space.

    Attributes:
        anisotropy: mean cosine of two random texts; near 0 for directions spread evenly, near 1 for a narrow cone.
        uniformity: log of the mean Gaussian potential of random pairs; lower is more even.
        effective_rank: how many directions are in use, in [1, width]: exp of the entropy of the singular values.
        top_share: the strongest direction's share of the squared lengths; near 1 when all texts point one way.
        width: of an embedding.
        num_texts: that it was measured on.
        alignment: mean squared distance of positives; lower is closer. None where there were no positives.
    """

    anisotropy: float
    uniformity: float
    effective_rank: float
    top_share: float
    width: int
    num_texts: int
    alignment: float | None


@dataclass(frozen=True)
class SimilarityBand:
    """Cosines of the pairs whose gold score lies between two edges.

    Attributes:
        edges: of the gold score.
        num_pairs: in the band.
        quantiles: of their cosines: 5, 25, 50, 75 and 95 %.
    """

    edges: tuple[float, float]
    num_pairs: int
    quantiles: tuple[float, ...]


@dataclass(frozen=True)
class WrongPair:
    """A pair and where it stands among all pairs.

    Attributes:
        sentence1, sentence2: the pair.
        gold: its score.
        gold_rank: by gold, as a share of all pairs: 1 is the most similar.
        ranks: label -> rank by cosine, as a share.
        cosines: label -> cosine.
        kinds: the slices it is in.
    """

    sentence1: str
    sentence2: str
    gold: float
    gold_rank: float
    ranks: Mapping[str, float]
    cosines: Mapping[str, float]
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Slice:
    """Pairs of one kind.

    Attributes:
        name: of the kind.
        meaning: which pairs are in it.
        num_pairs: how many.
        scores: label -> Spearman within the slice; None where there are too few pairs, or only one score.
        errors: label -> mean distance of a pair's rank by cosine from its rank by gold, among all pairs, as a share.
        biases: label -> the same with its sign: above 0, the model takes such pairs for more similar than people do.
        worst: the pairs that the last model gets most wrong, the worst first.
    """

    name: str
    meaning: str
    num_pairs: int
    scores: Mapping[str, float | None]
    errors: Mapping[str, float]
    biases: Mapping[str, float]
    worst: tuple[WrongPair, ...]


@dataclass(frozen=True)
class TextMap:
    """Some texts on a plane, under each model.

    Attributes:
        texts: that are shown.
        links: (text, text, whether people call the two alike), as positions in `texts`.
        positions: label -> a place for each text, in one scale for all models.
    """

    texts: tuple[str, ...]
    links: tuple[tuple[int, int, bool], ...]
    positions: Mapping[str, tuple[tuple[float, float], ...]]


@dataclass(frozen=True)
class Analysis:
    """Models on the same tasks; labels in the order given, the first one is what the others are compared with.

    Attributes:
        rows: (label, scores).
        comparisons: of each model but the first with the first.
        focus: the task that all below is about.
        pairs: (sentence1, sentence2, gold score) of it.
        cosines: label -> cosine of each of them.
        random_cosines: label -> cosines of random texts.
        alike_cosines: label -> cosines of the pairs that people call alike.
        geometry: label -> shape of the space.
        bands: label -> cosines by gold score.
        slices: pairs by kind, with the worst of the last model.
        map: some texts on a plane.
    """

    rows: list[tuple[str, EvaluationResult]]
    comparisons: list[Comparison]
    focus: str
    pairs: list[tuple[str, str, float]]
    cosines: Mapping[str, np.ndarray]
    random_cosines: Mapping[str, np.ndarray]
    alike_cosines: Mapping[str, np.ndarray]
    geometry: Mapping[str, Geometry]
    bands: Mapping[str, list[SimilarityBand]]
    slices: list[Slice]
    map: TextMap

    @property
    def gold(self) -> np.ndarray:
        """Gold scores of the pairs, (P,)."""
        return np.array([score for _, _, score in self.pairs])


@dataclass(frozen=True)
class Cost:
    """What a run took.

    Attributes:
        num_steps: optimizer steps.
        num_tokens: computed in training.
        elapsed_s: seconds, evaluations included.
        peak_bytes: most memory at one time: of the process on a CPU, of tensors on a GPU.
        num_threads: of the CPU.
        num_gpus: at work.
    """

    num_steps: int
    num_tokens: int
    elapsed_s: float
    peak_bytes: int
    num_threads: int
    num_gpus: int

    @property
    def energy_wh(self) -> float:
        """An estimate in watt-hours, from assumed watts alone."""
        return (WATTS_A_THREAD * self.num_threads + WATTS_A_GPU * self.num_gpus) * self.elapsed_s / 3600

    @property
    def lines(self) -> dict[str, str]:
        """For people to read."""
        gpus = f" and {WATTS_A_GPU} W for each of {self.num_gpus} GPUs" if self.num_gpus else ""
        return {
            "training time": f"{self.elapsed_s / 60:.1f} min, evaluations included",
            "steps": f"{self.num_steps:,}, {self.num_tokens:,} tokens",
            "peak memory": f"{self.peak_bytes / 1e9:.1f} GB {'of the GPU' if self.num_gpus else 'of the process'}",
            "energy": f"about {self.energy_wh:.1f} Wh, not measured: {WATTS_A_THREAD} W for each of "
            f"{self.num_threads} busy threads{gpus}",
        }


@dataclass(frozen=True)
class RunRecord:
    """A finished run, as its folder tells of it.

    Attributes:
        title: what it is called on the page.
        config_yaml: the resolved recipe.
        metrics: records of `metrics.jsonl`.
        facts: model, data, cost, environment: name -> value, for people to read.
    """

    title: str
    config_yaml: str
    metrics: tuple[Mapping[str, Any], ...]
    facts: Mapping[str, str]
