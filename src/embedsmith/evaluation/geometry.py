"""Embeddings -> the shape of their space: what raw decoder embeddings suffer from, in five numbers.

Cost: O(K D^2) for K texts of width D, plus O(P D) for P pairs.
"""

import numpy as np

from embedsmith.records.findings import Geometry, SimilarityBand

POSITIVE_SHARE = 0.8
"""A pair is a positive where its gold score is at least this far from the lowest score to the highest: 4 of 5 for STS,
as SimCSE (Gao et al. 2021) takes STSBenchmark's pairs."""
_MAX_TEXTS = 4096
_NUM_RANDOM_PAIRS = 100_000
_BAND_EDGES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def measure_geometry(embeddings: np.ndarray, *, seed: int = 0) -> Geometry:
    """Anisotropy, uniformity, effective rank and the share of the strongest direction.

    Args:
        embeddings: of distinct texts, (K, D), K > 1; scaled to unit length here. Of more than 4,096 texts a random
            sample counts.
        seed: fixes the sample and the random pairs.

    Returns:
        `alignment` is None; it needs pairs.

    Reference: Ethayarajh 2019 (anisotropy); Wang and Isola 2020, equation 2 (uniformity, t = 2); Roy and Vetterli 2007
    (effective rank).
    """
    units = _sample(embeddings, seed=seed)
    cosines = random_cosines(units, seed=seed)
    # |u - v|^2 = 2 - 2 cos, so exp(-2 |u - v|^2) = exp(4 cos - 4).
    uniformity = float(np.log(np.mean(np.exp(4 * cosines - 4))))
    # Not centred: a direction that all texts share is what is looked for.
    spectrum = np.linalg.svd(units, compute_uv=False)
    shares = spectrum[spectrum > 0] / spectrum.sum()
    return Geometry(
        anisotropy=float(cosines.mean()),
        uniformity=uniformity,
        effective_rank=float(np.exp(-np.sum(shares * np.log(shares)))),
        top_share=float(spectrum[0] ** 2 / np.sum(spectrum**2)),
        width=embeddings.shape[1],
        num_texts=len(units),
        alignment=None,
    )


def random_cosines(embeddings: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Cosines of about 100,000 pairs of different texts, drawn at random; (P,)."""
    units = _sample(embeddings, seed=seed)
    first, second = np.random.default_rng(seed).integers(len(units), size=(2, _NUM_RANDOM_PAIRS))
    differ = first != second
    return np.asarray(np.einsum("kd,kd->k", units[first[differ]], units[second[differ]]))


def alignment(cosines: np.ndarray, gold: np.ndarray) -> float | None:
    """Mean squared distance of positives' unit embeddings; None where no pair is positive.

    Args:
        cosines: of each pair, (P,).
        gold: (P,); see `POSITIVE_SHARE`.

    Reference: Wang and Isola 2020, equation 1, alpha = 2.
    """
    positive = shares_of_scale(gold) >= POSITIVE_SHARE
    return float(np.mean(2 - 2 * cosines[positive])) if positive.any() else None


def similarity_bands(cosines: np.ndarray, gold: np.ndarray) -> list[SimilarityBand]:
    """Quartiles of the cosine in five bands of the gold score; bands without a pair are left out.

    Args:
        cosines: (P,).
        gold: (P,).
    """
    shares = shares_of_scale(gold)
    bands = np.clip(np.digitize(shares, _BAND_EDGES) - 1, 0, len(_BAND_EDGES) - 2)
    low, span = float(gold.min()), float(np.ptp(gold))
    found = []
    for index in range(len(_BAND_EDGES) - 1):
        inside = cosines[bands == index]
        if len(inside):
            edges = (low + span * _BAND_EDGES[index], low + span * _BAND_EDGES[index + 1])
            quantiles = np.quantile(inside, [0.05, 0.25, 0.5, 0.75, 0.95]).tolist()
            found.append(SimilarityBand(edges, len(inside), tuple(quantiles)))
    return found


def project(embeddings: np.ndarray) -> np.ndarray:
    """Unit embeddings (K, D) on the two directions in which they vary most, (K, 2): principal components.

    Signs are fixed, so that the same embeddings always give the same picture.
    """
    units = _unit(embeddings)
    centred = units - units.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    two = directions[:2]
    signs = np.sign(two[[0, 1], np.abs(two).argmax(axis=1)])
    return np.asarray(centred @ (two * signs[:, None]).T)


def shares_of_scale(gold: np.ndarray) -> np.ndarray:
    """Gold scores (P,) as shares of the way from the lowest to the highest one, in [0, 1]."""
    return np.asarray((gold - gold.min()) / np.ptp(gold))


def _sample(embeddings: np.ndarray, *, seed: int) -> np.ndarray:
    """Unit embeddings, of no more than 4,096 texts."""
    if len(embeddings) > _MAX_TEXTS:
        embeddings = embeddings[np.random.default_rng(seed).permutation(len(embeddings))[:_MAX_TEXTS]]
    return _unit(embeddings)


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, dtype=np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
