"""Triplets -> batches of row numbers in which no text occurs in two different triplets.

Two triplets that share a text would be false negatives of each other (NLI data repeats its premises). Such a row waits
for the next batch; none is lost. The order is a pure function of data, batch size and seed, another one each epoch;
batches run on across epochs, so each is full. Memory: one permutation of the rows.
"""

import math
from collections.abc import Iterator

import numpy as np

from embedsmith.data.table import TextIds
from embedsmith.support.errors import ConfigError


def contrastive_batches(text_ids: TextIds | np.ndarray, *, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """Yield batches for ever.

    Args:
        text_ids: of each row, the numbers of its texts, equal where texts are equal; see `TripletTable.text_ids`.
        batch_size: rows of each batch.
        seed: of the order.

    Yields:
        (batch_size,) int64 row numbers.

    Raises:
        ConfigError: no batch of that size without a repeated text can be found.
    """
    fresh = _shuffled_rows(len(text_ids), seed=seed)
    waiting: list[int] = []
    while True:
        batch: list[int] = []
        seen: set[int] = set()
        skipped: list[int] = []
        num_drawn = 0
        candidates = iter(waiting)
        while len(batch) < batch_size:
            row = next(candidates, -1)
            if row < 0:
                row = next(fresh)
                num_drawn += 1
                # Two whole passes hold every row at least once: what does not fit then never will.
                if num_drawn > 2 * len(text_ids):
                    raise ConfigError(
                        f"training.batch_size is {batch_size}, but only {len(batch)} rows without a common text "
                        f"were found among {len(text_ids)}.\nLower training.batch_size or add data."
                    )
            ids = text_ids[row].tolist()
            if seen.isdisjoint(ids):
                batch.append(row)
                seen.update(ids)
            else:
                skipped.append(row)
        waiting = [*skipped, *candidates]
        yield np.array(batch)


def count_steps(num_triplets: int, *, batch_size: int, num_epochs: float) -> int:
    """Optimizer steps that show `num_epochs` times the data, at least one."""
    return max(1, math.ceil(num_triplets * num_epochs / batch_size))


def _shuffled_rows(num_rows: int, *, seed: int) -> Iterator[int]:
    epoch = 0
    while True:
        yield from np.random.default_rng([seed, epoch]).permutation(num_rows)
        epoch += 1
