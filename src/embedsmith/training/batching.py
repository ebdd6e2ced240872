"""Triplets -> batches of row numbers in which no text occurs in two different triplets; of one source each, if told so.

Two triplets that share a text would be false negatives of each other (NLI data repeats its premises). Such a row waits
for the next batch; none is lost. The order is a pure function of data, batch size and seed, another one each epoch;
batches run on across epochs, so each is full. Memory: the rows that wait, and what an order takes (`order.py`). Where
batches stand after any of them is a few numbers, from which they go on at once.

    sources  a (6 rows)  b (3)     batches of 3, temperature 1     a a b | a a b | ...
                                                temperature 9     a b a | b a b | ...  b is shown more often than a

Batches of one source: each source has an order, and epochs, of its own, and gets size^(1/T) of the batches, as evenly
as whole batches can be dealt.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np

from embedsmith.data.table import Rows, TripletTable
from embedsmith.data.text_ids import TextIds
from embedsmith.records.results import SourceShare
from embedsmith.settings.config import RunConfig
from embedsmith.support.errors import ConfigError
from embedsmith.training.order import SHUFFLED, choose_order, row_order

Position = Mapping[str, Any]
"""Where batches stand, as JSON has it; see `Batches.position`."""


@dataclass(frozen=True)
class Place:
    """Where the batches of some rows stand.

    Attributes:
        order: kind of the order.
        epoch: passes that are over.
        num_drawn: rows of this pass that are drawn.
        waiting: those of them that had a text in common with another row of their batch.
    """

    order: str
    epoch: int = 0
    num_drawn: int = 0
    waiting: Sequence[int] = ()


class RowBatches(Iterator[np.ndarray]):
    """Batches of some rows, for ever: (batch_size,) int64 row numbers each.

    Args:
        text_ids: of each row, the numbers of its texts, equal where texts are equal; see `TripletTable.text_ids`.
        rows: those that count.
        batch_size: rows of each batch.
        seed: of the order.
        source: number and name of the source that they are; it has an order of its own.
        place: where they stand; None: at the start.
    """

    def __init__(
        self,
        text_ids: TextIds | np.ndarray,
        *,
        rows: Rows,
        batch_size: int,
        seed: int,
        source: tuple[int, str] | None = None,
        place: Place | None = None,
    ) -> None:
        self._text_ids = text_ids
        self._rows = rows
        self._batch_size = batch_size
        self._seed = seed
        self._source = source
        self._drawn_ahead: np.ndarray | None = None
        self.place = place or Place(choose_order(len(rows)))
        """Behind the last batch that was handed out."""
        self._epoch, self._num_drawn = self.place.epoch, self.place.num_drawn
        self._waiting = self.place.waiting
        self._fresh = self._draw_rows()

    def check(self) -> None:
        """Draw a batch ahead; raises ConfigError as `__next__`."""
        if self._drawn_ahead is None:
            self._drawn_ahead = self._draw_batch()

    def __next__(self) -> np.ndarray:
        """The next batch.

        Raises:
            ConfigError: none of that size without a repeated text can be found.
        """
        batch = self._draw_batch() if self._drawn_ahead is None else self._drawn_ahead
        self._drawn_ahead = None
        self.place = Place(self.place.order, self._epoch, self._num_drawn, self._waiting)
        return batch

    def _draw_batch(self) -> np.ndarray:
        batch: list[int] = []
        seen: set[int] = set()
        skipped: list[int] = []
        num_drawn = 0
        candidates = iter(self._waiting)
        while len(batch) < self._batch_size:
            row = next(candidates, -1)
            if row < 0:
                row = next(self._fresh)
                num_drawn += 1
                # Two whole passes hold every row at least once: what does not fit then never will.
                if num_drawn > 2 * len(self._rows):
                    raise ConfigError(self._describe_too_few(len(batch)))
            ids = self._text_ids[row].tolist()
            if seen.isdisjoint(ids):
                batch.append(row)
                seen.update(ids)
            else:
                skipped.append(row)
        self._waiting = [*skipped, *candidates]
        return np.array(batch)

    def _draw_rows(self) -> Iterator[int]:
        while True:
            # One more: numpy takes a key that ends in zeros for the same without them.
            key = [self._seed, self._epoch, *([] if self._source is None else [self._source[0] + 1])]
            for number in row_order(len(self._rows), kind=self.place.order, key=key, start=self._num_drawn):
                self._num_drawn += 1
                yield int(self._rows[number])
            self._epoch, self._num_drawn = self._epoch + 1, 0

    def _describe_too_few(self, num_found: int) -> str:
        among, source = f"{len(self._rows)}", self._source
        advice = "Lower training.batch_size or add data"
        if source:
            among = f"the {among} of {source[1]}"
            advice = (
                "Lower training.batch_size, put that source into one file with another, or set "
                "data.one_source_batches to false"
            )
        return (
            f"training.batch_size is {self._batch_size}, but only {num_found} rows without a common text were found "
            f"among {among}.\n{advice}."
        )


class SourceDeal(Iterator[int]):
    """The source of each batch, for ever: source s gets a share of sizes[s]^(1/T), evenly spread.

    Every source is owed its share with each batch; the one that is owed most is next. The seed says what they are owed
    at the start: less than a batch each.

    Args:
        sizes: rows of each source, (num_sources,), positive.
        temperature: T; 1 deals by size, larger ones give smaller sources more, up to the same for all.
        seed: of the beginning.
        owed: what they are owed now; None: at the start.

    Reference: GTE, Li et al. 2023 (arXiv 2308.03281), which draws sources with these shares (its alpha is 1/T), a
        source a batch; here they are dealt, so that short runs have them too.
    """

    def __init__(
        self, sizes: np.ndarray, *, temperature: float, seed: int, owed: Sequence[float] | None = None
    ) -> None:
        # Sizes relative to the largest: a small temperature makes large powers.
        weights = (sizes / sizes.max()) ** (1 / temperature)
        self._shares = weights / weights.sum()
        self.owed = np.random.default_rng([seed, len(sizes)]).random(len(sizes)) if owed is None else np.array(owed)

    def __next__(self) -> int:
        self.owed += self._shares
        number = int(self.owed.argmax())
        self.owed[number] -= 1
        return number


class Batches(Iterator[np.ndarray]):
    """The batches of a run, for ever: (batch_size,) int64 row numbers each.

    Args:
        streams: of each source, or of all rows.
        deal: says which is next, where there are several.
    """

    def __init__(self, streams: Sequence[RowBatches], *, deal: SourceDeal | None = None) -> None:
        self._streams = streams
        self._deal = deal

    def __next__(self) -> np.ndarray:
        """The next batch; raises ConfigError where it cannot be filled."""
        return next(self._streams[next(self._deal) if self._deal else 0])

    @property
    def position(self) -> Position:
        """Behind the last batch that was handed out."""
        owed = None if self._deal is None else self._deal.owed.tolist()
        return {"streams": [asdict(stream.place) for stream in self._streams], "owed": owed}


def training_batches(triplets: TripletTable, *, config: RunConfig, position: Position | None = None) -> Batches:
    """The batches of a run.

    Args:
        triplets: its data.
        config: batch size, seed, and whether batches are of one source.
        position: where they stand; None: at the start.

    Raises:
        ConfigError: a source cannot fill a batch. Without sources of their own the first batch tells it.
    """
    if not config.data.one_source_batches:
        place = _places(position)[0]
        return Batches([_all_rows(triplets, config=config, place=place)])
    return one_source_batches(
        triplets.text_ids,
        triplets.rows_by_source(len(config.data.source_names)),
        names=config.data.source_names,
        batch_size=config.training.batch_size,
        seed=config.training.seed,
        temperature=config.data.source_temperature,
        position=position,
    )


def replayed_batches(triplets: TripletTable, *, config: RunConfig, num_steps: int) -> Batches:
    """The same behind so many batches, in the order that runs had before checkpoints held positions.

    Cost: drawing those batches.
    """
    start = training_batches(triplets, config=config).position
    places = [{**place, "order": SHUFFLED} for place in start["streams"]]
    batches = training_batches(triplets, config=config, position={**start, "streams": places})
    for _ in islice(batches, num_steps):
        pass
    return batches


def _all_rows(triplets: TripletTable, *, config: RunConfig, place: Place | None) -> RowBatches:
    size, seed = config.training.batch_size, config.training.seed
    return contrastive_batches(triplets.text_ids, batch_size=size, seed=seed, place=place)


def _places(position: Position | None) -> Sequence[Place | None]:
    return [Place(**place) for place in position["streams"]] if position else [None]


def source_shares(triplets: TripletTable, *, config: RunConfig, num_steps: int) -> tuple[SourceShare, ...]:
    """How many of a run's batches each source gets; none where batches hold rows of any."""
    if not config.data.one_source_batches:
        return ()
    names = config.data.source_names
    sizes = np.array([len(rows) for rows in triplets.rows_by_source(len(names))])
    dealt = SourceDeal(sizes, temperature=config.data.source_temperature, seed=config.training.seed)
    counts = np.bincount(list(islice(dealt, num_steps)), minlength=len(names))
    return tuple(
        SourceShare(name, int(size), int(count), float(count * config.training.batch_size / size))
        for name, size, count in zip(names, sizes, counts, strict=True)
    )


def one_source_batches(
    text_ids: TextIds | np.ndarray,
    rows_by_source: Sequence[Rows],
    *,
    names: Sequence[str],
    batch_size: int,
    seed: int,
    temperature: float,
    position: Position | None = None,
) -> Batches:
    """Batches of rows of one source each.

    Args:
        text_ids: as `RowBatches`.
        rows_by_source: the rows of each source.
        names: of the sources.
        batch_size: rows of each batch.
        seed: of the orders.
        temperature: T > 0; see `SourceDeal`.
        position: as `training_batches`.

    Raises:
        ConfigError: a source has no row or cannot fill a batch.
    """
    streams = []
    places = _places(position) if position else [None] * len(names)
    for number, (name, rows, place) in enumerate(zip(names, rows_by_source, places, strict=True)):
        if not len(rows):
            raise ConfigError(
                f"data.one_source_batches is true, but {name} has no row among those that are drawn.\n"
                "Raise data.max_triplets, or drop the source."
            )
        source = (number, name)
        stream = RowBatches(text_ids, rows=rows, batch_size=batch_size, seed=seed, source=source, place=place)
        if position is None:
            stream.check()  # a source that cannot fill one stops the run before it begins
        streams.append(stream)
    sizes = np.array([len(rows) for rows in rows_by_source])
    owed = position["owed"] if position else None
    return Batches(streams, deal=SourceDeal(sizes, temperature=temperature, seed=seed, owed=owed))


def contrastive_batches(
    text_ids: TextIds | np.ndarray, *, batch_size: int, seed: int, place: Place | None = None
) -> RowBatches:
    """Batches of all rows; see `RowBatches`."""
    return RowBatches(text_ids, rows=range(len(text_ids)), batch_size=batch_size, seed=seed, place=place)


def count_steps(num_triplets: int, *, batch_size: int, num_epochs: float) -> int:
    """Optimizer steps that show `num_epochs` times the data, at least one."""
    return max(1, math.ceil(num_triplets * num_epochs / batch_size))
