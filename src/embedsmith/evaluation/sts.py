"""Scored pairs + an embedding function -> Spearman correlation of cosine similarity, with its interval.

One pass over a task's distinct texts may score several models at once (poolings of the same forward).
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from embedsmith.data.beir import find_retrieval_sets, load_retrieval_set
from embedsmith.data.pairs import ScoredPairs, load_pairs
from embedsmith.data.readers import SUFFIXES, is_data_file
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
    """Tasks of a folder that holds `<TASK>.tsv.gz` (or another known format); None: all of them.

    Raises:
        DataError: no such folder or task, two files of one task, or faulty files.
    """
    if not folder.is_dir():
        raise DataError(f"There is no data folder {folder}.\nGive a folder that holds files such as STS12.tsv.gz.")
    available: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if is_data_file(path.name):
            available.setdefault(set_name(path.name), []).append(path)
    unknown = [name for name in names or [] if name not in available]
    if unknown or not available:
        hints = [difflib.get_close_matches(name, available, n=1, cutoff=0.4) for name in unknown]
        close = ", ".join(hint[0] for hint in hints if hint)
        raise DataError(
            f"{folder} has no task {', '.join(unknown) or 'at all'}."
            + (f" Did you mean {close}?" if close else "")
            + f"\nIt holds: {', '.join(available) or 'no file of a known format'}."
        )
    asked = list(dict.fromkeys(names or available))
    if doubled := [f"{name}: {' and '.join(path.name for path in available[name])}"
                   for name in asked if len(available[name]) > 1]:  # fmt: skip
        raise DataError(f"{folder} has more than one file of a task ({'; '.join(doubled)}).\nKeep one of each.")
    return {name: load_pairs(str(available[name][0]), columns=columns, columns_option="--columns") for name in asked}


def load_evaluation_sets(sources: Sequence[str]) -> dict[str, ScoredPairs]:
    """Every set of the folders, and the files, named; `sample` is the built-in one. A retrieval set in BEIR's layout is
    its relevant pairs.

    Raises:
        DataError: as `load_local_tasks`, `load_pairs` and `load_retrieval_set`; or two sets have one name.
    """
    sets: dict[str, ScoredPairs] = {}
    places: dict[str, str] = {}
    for source in sources:
        path = Path(source)
        found = _sets_of_folder(path) if path.is_dir() else {set_name(path.name): load_pairs(source)}
        for name in found:
            if name in places:
                raise DataError(f"Two evaluation sets have the name {name}: of {places[name]} and of {source}.")
        sets |= found
        places |= dict.fromkeys(found, source)
    return sets


def _sets_of_folder(folder: Path) -> dict[str, ScoredPairs]:
    places = find_retrieval_sets(folder)
    found = {name: load_retrieval_set(place).relevant_pairs for name, place in places.items()}
    holds_pairs = folder not in places.values() and any(is_data_file(path.name) for path in folder.iterdir())
    pairs = load_local_tasks(folder) if holds_pairs or not places else {}
    if twice := sorted(found.keys() & pairs.keys()):
        raise DataError(f"{folder} holds {', '.join(twice)} twice: as a retrieval set and as a file.\nRename one.")
    return pairs | found


def set_name(file_name: str) -> str:
    """The name of a set: its file's, without what tells the format."""
    suffix = next((suffix for suffix in SUFFIXES if file_name.endswith(suffix)), "")
    return file_name.removesuffix(suffix)
