"""Embeddings of some models on the same tasks -> all that a report shows of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from embedsmith.data.pairs import ScoredPairs
from embedsmith.evaluation.failures import analyse_failures
from embedsmith.evaluation.geometry import (
    POSITIVE_SHARE,
    alignment,
    measure_geometry,
    project,
    random_cosines,
    shares_of_scale,
    similarity_bands,
)
from embedsmith.evaluation.significance import SeedScores, TaskScores, compare
from embedsmith.evaluation.sts import evaluate_tasks
from embedsmith.records.findings import Analysis, TextMap
from embedsmith.support.errors import ModelError

_NUM_ALIKE, _NUM_UNLIKE = 40, 20
_UNLIKE_SHARE = 0.2


def distinct_texts(tasks: Mapping[str, ScoredPairs]) -> list[str]:
    """Every text of the tasks, once."""
    return list(dict.fromkeys(text for pairs in tasks.values() for text in (*pairs.sentence1, *pairs.sentence2)))


def analyse(tasks: Mapping[str, ScoredPairs], vectors: Mapping[str, np.ndarray]) -> Analysis:
    """Score, compare and look into models.

    Args:
        tasks: name -> pairs; the largest one is looked into.
        vectors: label -> embeddings (K, D) of `distinct_texts(tasks)`.

    A task that some model cannot be scored on is left out; its reason stands among that model's failures.

    Raises:
        ModelError: no task can be ranked for all models.
    """
    row_of = {text: row for row, text in enumerate(distinct_texts(tasks))}

    def rows_of(texts: Sequence[str]) -> list[int]:
        return [row_of[text] for text in texts]

    results = evaluate_tasks(
        lambda texts: {label: values[rows_of(texts)] for label, values in vectors.items()}, tasks=tasks
    )
    shared = [name for name in tasks if all(name in one.tasks for one in results.values())]
    if not shared:
        raise ModelError(next(reason for one in results.values() for reason in one.failures.values()))
    scores = {
        name: TaskScores(
            gold=tasks[name].scores,
            models={label: SeedScores([one.similarities[name].cosine]) for label, one in results.items()},
        )
        for name in shared
    }
    focus = max(shared, key=lambda name: len(tasks[name]))
    pairs = tasks[focus]
    cosines = {label: one.similarities[focus].cosine for label, one in results.items()}
    is_alike = shares_of_scale(pairs.scores) >= POSITIVE_SHARE
    texts = distinct_texts({focus: pairs})
    own = {label: values[rows_of(texts)] for label, values in vectors.items()}
    return Analysis(
        rows=list(results.items()),
        comparisons=compare(scores) if len(results) > 1 else [],
        focus=focus,
        pairs=list(zip(pairs.sentence1, pairs.sentence2, pairs.scores.tolist(), strict=True)),
        cosines=cosines,
        random_cosines={label: random_cosines(values) for label, values in own.items()},
        alike_cosines={label: values[is_alike] for label, values in cosines.items()},
        geometry={
            label: replace(measure_geometry(values), alignment=alignment(cosines[label], pairs.scores))
            for label, values in own.items()
        },
        bands={label: similarity_bands(values, pairs.scores) for label, values in cosines.items()},
        slices=analyse_failures(pairs, cosines),
        map=_draw_map(pairs, own, texts),
    )


def _draw_map(pairs: ScoredPairs, vectors: Mapping[str, np.ndarray], texts: list[str]) -> TextMap:
    """Some pairs that people call alike, and some that they do not, drawn at random and always the same."""
    shares = shares_of_scale(pairs.scores)
    random = np.random.default_rng(0)
    alike = random.permutation(np.flatnonzero(shares >= POSITIVE_SHARE))[:_NUM_ALIKE]
    unlike = random.permutation(np.flatnonzero(shares <= _UNLIKE_SHARE))[:_NUM_UNLIKE]
    row_of = {text: row for row, text in enumerate(texts)}
    shown: dict[str, int] = {}
    links = []
    for pair, is_alike in [*((pair, True) for pair in alike), *((pair, False) for pair in unlike)]:
        first, second = (shown.setdefault(text, len(shown)) for text in (pairs.sentence1[pair], pairs.sentence2[pair]))
        links.append((first, second, is_alike))
    rows = [row_of[text] for text in shown]
    positions = {label: project(values[rows]) for label, values in vectors.items()}
    scale = max(float(np.abs(values).max()) for values in positions.values()) or 1.0
    return TextMap(
        texts=tuple(shown),
        links=tuple(links),
        positions={
            label: tuple((float(x), float(y)) for x, y in values / scale) for label, values in positions.items()
        },
    )
