"""Batches: full, without false negatives, nothing lost, another order each epoch, a function of the seed."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest

from embedsmith.support.errors import ConfigError
from embedsmith.training.batching import contrastive_batches, count_steps


def _ids(num_anchors: int, per_anchor: int) -> np.ndarray:
    rows = num_anchors * per_anchor
    return np.stack([np.repeat(np.arange(num_anchors), per_anchor), 1000 + np.arange(rows), 5000 + np.arange(rows)], 1)


def _take(ids: np.ndarray, size: int, count: int, seed: int = 0) -> list[list[int]]:
    return [batch.tolist() for batch in islice(contrastive_batches(ids, batch_size=size, seed=seed), count)]


def test_no_text_occurs_in_two_triplets_of_a_batch() -> None:
    ids = _ids(12, 4)
    ids[5, 2] = ids[40, 1]  # one text as negative here and as positive there
    for batch in _take(ids, 8, 60):
        assert len(batch) == 8
        texts = [text for row in batch for text in set(ids[row].tolist())]
        assert len(texts) == len(set(texts))


def test_every_row_is_shown_equally_often() -> None:
    counts = Counter(row for batch in _take(_ids(20, 3), 5, 12 * 10) for row in batch)
    assert set(counts) == set(range(60))
    assert max(counts.values()) - min(counts.values()) <= 2


def test_each_epoch_has_its_own_order() -> None:
    batches = _take(_ids(40, 1), 10, 8)
    assert batches[:4] != batches[4:]
    for epoch in (batches[:4], batches[4:]):
        assert sorted(row for batch in epoch for row in batch) == list(range(40))


def test_the_order_is_a_function_of_the_seed() -> None:
    assert _take(_ids(40, 2), 8, 20) == _take(_ids(40, 2), 8, 20)
    assert _take(_ids(40, 2), 8, 20) != _take(_ids(40, 2), 8, 20, seed=1)


def test_a_batch_that_cannot_be_filled() -> None:
    with pytest.raises(ConfigError, match="batch_size is 8, but only 5 rows without a common text"):
        _take(_ids(5, 100), 8, 1)


@pytest.mark.parametrize(("triplets", "size", "epochs", "steps"), [(100, 32, 1, 4), (64, 32, 2, 4), (3, 32, 0.1, 1)])
def test_steps_of_an_epoch(triplets: int, size: int, epochs: float, steps: int) -> None:
    assert count_steps(triplets, batch_size=size, num_epochs=epochs) == steps
