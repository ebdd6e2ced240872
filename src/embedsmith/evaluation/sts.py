"""Scored pairs + an embedding function -> Spearman correlation of cosine similarity, with its interval.

One pass over a task's distinct texts may score several models at once (poolings of the same forward).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from embedsmith.data.beir import load_retrieval_set
from embedsmith.data.clusters import ClusteringSet, load_clustering_set
from embedsmith.data.local_sets import LocalSet, SetKind, find_local_sets, kind_of_file, name_kinds, set_name
from embedsmith.data.pairs import ScoredPairs, load_duplicates, load_pairs
from embedsmith.data.readers import is_data_file
from embedsmith.evaluation.correlation import NUM_DRAWS, bootstrap_interval, spearman
from embedsmith.records.results import EvaluationResult, PairSimilarities, TaskResult
from embedsmith.support.errors import DataError, ModelError

Embed = Callable[[list[str]], Mapping[str, np.ndarray]]
"""Texts -> model label -> embeddings (K, D)."""


def cosine_similarities(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosine of each row of `first` (K, D) with the same row of `second`; (K,), in their precision.

    As 1 - |u - v|^2 / 2 of the unit vectors, the way mteb's scorer does it: equal vectors give exactly 1, so that pairs
    of identical texts tie instead of being ranked by rounding.
    """
    difference = _unit(first) - _unit(second)
    return 1 - np.einsum("kd,kd->k", difference, difference) / 2


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.sqrt(np.einsum("kd,kd->k", vectors, vectors))[:, None]


def pair_similarities(embed: Embed, pairs: ScoredPairs) -> dict[str, np.ndarray]:
    """Cosine similarity (K,) of every pair, by model label; equal texts are embedded once."""
    texts = list(dict.fromkeys([*pairs.sentence1, *pairs.sentence2]))
    row_of = {text: row for row, text in enumerate(texts)}
    rows1 = [row_of[text] for text in pairs.sentence1]
    rows2 = [row_of[text] for text in pairs.sentence2]
    return {label: cosine_similarities(vectors[rows1], vectors[rows2]) for label, vectors in embed(texts).items()}


def score_task(
    similarities: np.ndarray, scores: np.ndarray, *, task: str = "the task", num_draws: int = 1000
) -> TaskResult:
    """Spearman correlation of similarities with gold scores, and its bootstrap interval from `num_draws` resamples.

    Raises:
        ModelError: similarities are not finite or all equal: the model has collapsed.
    """
    try:
        return TaskResult(
            cosine_spearman=spearman(similarities, scores),
            ci95=bootstrap_interval(similarities, scores, num_draws=num_draws),
            num_pairs=len(scores),
        )
    except ValueError as error:
        raise ModelError(
            f"The model's similarities on {task} cannot be ranked: {error}.\n"
            "Its embeddings are not finite or all alike; run `embedsmith doctor` on it."
        ) from error


def evaluate_tasks(
    embed: Embed, *, tasks: Mapping[str, ScoredPairs], on_task: Callable[[str], None] | None = None
) -> dict[str, EvaluationResult]:
    """Score every model that `embed` yields on every task.

    Args:
        embed: see `Embed`; its labels are the models' names.
        tasks: name -> pairs.
        on_task: called with a task's name before it starts.

    A task that cannot be ranked takes no other one with it: its reason stands among the result's failures.

    Raises:
        ModelError: no task of any model can be ranked.
    """
    scored: dict[str, dict[str, TaskResult]] = {}
    kept: dict[str, dict[str, PairSimilarities]] = {}
    failures: dict[str, dict[str, str]] = {}
    for name, pairs in tasks.items():
        if on_task:
            on_task(name)
        for label, similarities in pair_similarities(embed, pairs).items():
            for by_label in (scored, kept, failures):
                by_label.setdefault(label, {})
            try:
                scored[label][name] = score_task(similarities, pairs.scores, task=name, num_draws=NUM_DRAWS)
            except ModelError as error:
                failures[label][name] = str(error)
                continue
            kept[label][name] = PairSimilarities(similarities, pairs.scores, pairs.fingerprint)
    if not any(scored.values()):
        raise ModelError(next(reason for reasons in failures.values() for reason in reasons.values()))
    return {label: EvaluationResult(label, scored[label], kept[label], failures=failures[label]) for label in scored}


def load_local_tasks(
    folder: Path, names: Sequence[str] | None = None, *, columns: Mapping[str, str] | None = None
) -> dict[str, ScoredPairs]:
    """Scored pairs of a folder that holds `<TASK>.tsv.gz` (or another known format); None: all of them.

    Raises:
        DataError: as `find_local_sets`, sets of other kinds, or faulty files.
    """
    sets = find_local_sets(folder, names, columns=columns)
    if others := {name: one for name, one in sets.items() if one.kind is not SetKind.SCORED_PAIRS}:
        pairs = [name for name in sets if name not in others]
        raise DataError(
            f"{folder} holds {name_kinds(others)}, where scored pairs are asked for.\n"
            + (f"Name these alone: --tasks {' '.join(pairs)}" if pairs else "It holds no scored pairs.")
        )
    return {name: load_pairs(str(one.path), columns=columns, columns_option="--columns") for name, one in sets.items()}


def load_evaluation_sets(sources: Sequence[str]) -> dict[str, ScoredPairs | ClusteringSet]:
    """Every set of the folders, and the files, named; `sample` is the built-in one. A retrieval set in BEIR's layout is
    its relevant pairs.

    Raises:
        DataError: as `find_local_sets` and those that load; or two sets have one name.
    """
    sets: dict[str, ScoredPairs | ClusteringSet] = {}
    places: dict[str, str] = {}
    for source in sources:
        path = Path(source)
        found = {name: _load(one) for name, one in find_local_sets(path).items()} if path.is_dir() else _one(source)
        for name in found:
            if name in places:
                raise DataError(f"Two evaluation sets have the name {name}: of {places[name]} and of {source}.")
        sets |= found
        places |= dict.fromkeys(found, source)
    return sets


def _one(source: str) -> dict[str, ScoredPairs | ClusteringSet]:
    path = Path(source)
    is_known = path.is_file() and is_data_file(path.name)  # else `load_pairs` says what is wrong
    return {set_name(path.name): _load(LocalSet(kind_of_file(path), path)) if is_known else load_pairs(source)}


def _load(one: LocalSet) -> ScoredPairs | ClusteringSet:
    match one.kind:
        case SetKind.RETRIEVAL:
            return load_retrieval_set(one.path).relevant_pairs
        case SetKind.CLUSTERS:
            return load_clustering_set(one.path)
        case SetKind.DUPLICATES:
            return load_duplicates(one.path)
    return load_pairs(str(one.path))
