"""Triplets -> batches of row numbers in which no text occurs in two different triplets; of one source each, if told so.

Two triplets that share a text would be false negatives of each other (NLI data repeats its premises). Such a row waits
for the next batch; none is lost. The order is a pure function of data, batch size and seed, another one each epoch;
batches run on across epochs, so each is full. Memory: one permutation of the rows.

    sources  a (6 rows)  b (3)     batches of 3, temperature 1     a a b | a a b | ...
                                                temperature 9     a b a | b a b | ...  b is shown more often than a

Batches of one source: each source has an order, and epochs, of its own, and gets size^(1/T) of the batches, as evenly
as whole batches can be dealt.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import chain, islice

import numpy as np

from embedsmith.data.table import TextIds, TripletTable
from embedsmith.records.results import SourceShare
from embedsmith.settings.config import RunConfig
from embedsmith.support.errors import ConfigError


def training_batches(triplets: TripletTable, *, config: RunConfig) -> Iterator[np.ndarray]:
    """The batches of a run, for ever: (batch_size,) int64 row numbers each.

    Raises:
        ConfigError: with the first batch, where the data, or a source, cannot fill one.
    """
    size, seed = config.training.batch_size, config.training.seed
    if not config.data.one_source_batches:
        return contrastive_batches(triplets.text_ids, batch_size=size, seed=seed)
    return one_source_batches(
        triplets.text_ids,
        triplets.sources,
        names=config.data.source_names,
        batch_size=size,
        seed=seed,
        temperature=config.data.source_temperature,
    )


def source_shares(triplets: TripletTable, *, config: RunConfig, num_steps: int) -> tuple[SourceShare, ...]:
    """How many of a run's batches each source gets; none where batches hold rows of any."""
    if not config.data.one_source_batches:
        return ()
    names = config.data.source_names
    sizes = np.bincount(triplets.sources, minlength=len(names))
    dealt = deal_sources(sizes, temperature=config.data.source_temperature, seed=config.training.seed)
    counts = np.bincount(list(islice(dealt, num_steps)), minlength=len(names))
    return tuple(
        SourceShare(name, int(size), int(count), float(count * config.training.batch_size / size))
        for name, size, count in zip(names, sizes, counts, strict=True)
    )


def one_source_batches(
    text_ids: TextIds | np.ndarray,
    sources: np.ndarray,
    *,
    names: Sequence[str],
    batch_size: int,
    seed: int,
    temperature: float,
) -> Iterator[np.ndarray]:
    """Yield batches for ever, each of rows of one source.

    Args:
        text_ids: as `contrastive_batches`.
        sources: (num_rows,) int64, number of each row's source.
        names: of the sources.
        batch_size: rows of each batch.
        seed: of the orders.
        temperature: T > 0; see `deal_sources`.

    Yields:
        (batch_size,) int64 row numbers.

    Raises:
        ConfigError: with the first batch, where a source has no row or cannot fill a batch.
    """
    sizes = np.bincount(sources, minlength=len(names))
    streams = []
    for number, name in enumerate(names):
        if not sizes[number]:
            raise ConfigError(
                f"data.one_source_batches is true, but {name} has no row among those that are drawn.\n"
                "Raise data.max_triplets, or drop the source."
            )
        rows = np.flatnonzero(sources == number)
        stream = contrastive_batches(text_ids, batch_size=batch_size, seed=seed, rows=rows, source=(number, name))
        # The first batch now: a source that cannot fill one stops the run before it begins.
        streams.append(chain([next(stream)], stream))
    for number in deal_sources(sizes, temperature=temperature, seed=seed):
        yield next(streams[number])


def deal_sources(sizes: np.ndarray, *, temperature: float, seed: int) -> Iterator[int]:
    """The source of each batch, for ever: source s gets a share of sizes[s]^(1/T), evenly spread.

    Every source is owed its share with each batch; the one that is owed most is next. The seed says what they are owed
    at the start: less than a batch each.

    Args:
        sizes: rows of each source, (num_sources,), positive.
        temperature: T; 1 deals by size, larger ones give smaller sources more, up to the same for all.
        seed: of the beginning.

    Reference: GTE, Li et al. 2023 (arXiv 2308.03281), which draws sources with these shares (its alpha is 1/T), a
        source a batch; here they are dealt, so that short runs have them too.
    """
    # Sizes relative to the largest: a small temperature makes large powers.
    weights = (sizes / sizes.max()) ** (1 / temperature)
    shares = weights / weights.sum()
    owed = np.random.default_rng([seed, len(sizes)]).random(len(sizes))
    while True:
        owed += shares
        number = int(owed.argmax())
        owed[number] -= 1
        yield number


def contrastive_batches(
    text_ids: TextIds | np.ndarray,
    *,
    batch_size: int,
    seed: int,
    rows: np.ndarray | None = None,
    source: tuple[int, str] | None = None,
) -> Iterator[np.ndarray]:
    """Yield batches for ever.

    Args:
        text_ids: of each row, the numbers of its texts, equal where texts are equal; see `TripletTable.text_ids`.
        batch_size: rows of each batch.
        seed: of the order.
        rows: those that count; None: all.
        source: number and name of the source that they are; it has an order of its own.

    Yields:
        (batch_size,) int64 row numbers.

    Raises:
        ConfigError: no batch of that size without a repeated text can be found.
    """
    rows = np.arange(len(text_ids)) if rows is None else rows
    fresh = _shuffled(rows, seed=seed, source=source[0] if source else None)
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
                if num_drawn > 2 * len(rows):
                    raise ConfigError(_too_few(len(batch), len(rows), batch_size=batch_size, source=source))
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


def _too_few(num_found: int, num_rows: int, *, batch_size: int, source: tuple[int, str] | None) -> str:
    among = f"the {num_rows} of {source[1]}" if source else f"{num_rows}"
    advice = (
        "Lower training.batch_size, put that source into one file with another, or set data.one_source_batches to false"
        if source
        else "Lower training.batch_size or add data"
    )
    return (
        f"training.batch_size is {batch_size}, but only {num_found} rows without a common text were found among "
        f"{among}.\n{advice}."
    )


def _shuffled(rows: np.ndarray, *, seed: int, source: int | None) -> Iterator[int]:
    epoch = 0
    while True:
        # One more: numpy takes a key that ends in zeros for the same without them.
        key = [seed, epoch] if source is None else [seed, epoch, source + 1]
        yield from rows[np.random.default_rng(key).permutation(len(rows))]
        epoch += 1
