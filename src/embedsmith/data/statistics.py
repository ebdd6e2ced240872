"""TripletTable -> what a person should know of it before training: sizes, lengths, duplicates, overlaps, examples.

One pass over the rows; memory: one number per text and measure, and a hash per distinct text.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np

from embedsmith.data.doubts import text_key
from embedsmith.data.normalise import words
from embedsmith.data.table import TripletTable
from embedsmith.records.data_facts import DataFacts, Distribution, TextColumn

CountLengths = Callable[[Sequence[str]], Sequence[int]]
"""Texts -> how long each is."""
_NUM_BINS = 10
_NUM_EXAMPLES = 3


def describe_data(table: TripletTable, *, count_lengths: CountLengths, seed: int = 0) -> DataFacts:
    """Facts about triplets, pairs, scored pairs or texts.

    Args:
        table: the rows.
        count_lengths: how long texts are, such as `token_lengths(tokenizer)`.
        seed: of the examples drawn.
    """
    names = table.text_columns
    lengths: dict[str, list[int]] = {name: [] for name in names}
    seen: dict[str, Counter[int]] = {name: Counter() for name in names}
    overlaps: dict[str, list[float]] = {name: [] for name in names[1:]}
    rows_seen: set[int] = set()
    positives: set[int] = set()
    negatives: set[int] = set()
    num_same, num_closer_negatives = 0, 0
    scores: list[float] = []
    for rows in table.chunks():
        for name, group in zip(names, rows.groups(), strict=False):
            lengths[name] += count_lengths(group) if group else []
            seen[name].update(hash(text_key(text)) for text in group)
        for texts in rows.texts:
            keys = tuple(map(text_key, texts))
            rows_seen.add(hash(keys))
            num_same += len(set(keys)) < len(keys)
            if len(texts) == 1:
                continue
            positives.add(hash(keys[:2]))
            negatives.update(hash((keys[0], key)) for key in keys[2:])
            anchor, *others = (set(words(text)) for text in texts)
            positive, *of_negatives = [jaccard(anchor, other) for other in others]
            overlaps[names[1]].append(positive)
            if of_negatives:
                overlaps[names[2]] += of_negatives
                num_closer_negatives += max(of_negatives) > positive
        scores += rows.scores.tolist() if rows.scores is not None else []
    drawn = np.sort(np.random.default_rng(seed).permutation(len(table))[:_NUM_EXAMPLES])
    return DataFacts(
        kind=table.kind,
        num_rows=len(table),
        negatives_per_row=table.negatives_per_row,
        num_repeated_rows=len(table) - len(rows_seen),
        num_repeated_anchors=len(table) - len(seen[names[0]]),
        most_rows_of_an_anchor=max(seen[names[0]].values()),
        num_rows_with_equal_texts=num_same,
        num_contradictions=len(positives & negatives),
        num_closer_negatives=num_closer_negatives if table.has_negatives else None,
        columns=tuple(TextColumn(name, len(seen[name]), distribution(lengths[name])) for name in names),
        overlaps={name: distribution(values, low=0.0, high=1.0) for name, values in overlaps.items()},
        scores=distribution(scores) if scores else None,
        examples=tuple(table.rows(drawn).texts),
    )


def token_lengths(tokenizer: Any) -> CountLengths:
    """Lengths in a model's tokens, without the prompt and the end token that it adds, and never cut."""
    return lambda texts: [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]


def distribution(values: Sequence[float], *, low: float | None = None, high: float | None = None) -> Distribution:
    """Mean, quantiles and a histogram of equal bins from `low` to `high`; None: the smallest and the largest value.

    Whole numbers get bins of whole width, and what lies beyond 99 % of them falls into one last, wider bin.
    """
    array = np.asarray(values, dtype=np.float64)
    bounds = (float(array.min()) if low is None else low, float(array.max()) if high is None else high)
    if low is None and (array == array.round()).all():
        most = np.ceil(np.quantile(array, 0.99))
        width = np.ceil((most - bounds[0] + 1) / _NUM_BINS)
        edges = np.arange(bounds[0], most + width + 1, width)
        edges[-1] = max(edges[-1], bounds[1] + 1)
    else:
        edges = np.linspace(*bounds, _NUM_BINS + 1)
    counts, edges = np.histogram(array, bins=edges)
    return Distribution(
        mean=float(array.mean()),
        quantiles=tuple(float(value) for value in np.quantile(array, [0, 0.05, 0.5, 0.95, 1])),
        edges=tuple(float(edge) for edge in edges),
        counts=tuple(int(count) for count in counts),
    )


def jaccard(first: AbstractSet[str], second: AbstractSet[str]) -> float:
    """What two sets have in common, as a share of what is in either; 1 where both are empty."""
    union = first | second
    return len(first & second) / len(union) if union else 1.0
