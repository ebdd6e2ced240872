"""What a search among vectors found, and where it looked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PLACES = ("file", "row", "id", "text")
"""Columns of a shard that tell what a vector is of; the last two may be absent."""


@dataclass(frozen=True)
class Place:
    """What a vector is of.

    Attributes:
        file: as it was named to `encode`.
        row: of the text in it, from 1.
        id: the file's own; None: none was kept.
        text: None: it was not kept.
    """

    file: str
    row: int
    id: str | None = None
    text: str | None = None

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "Place":
        """From a row of a shard."""
        return cls(**{name: values[name] for name in PLACES if name in values})


@dataclass(frozen=True)
class Hit:
    """One text that was found.

    Attributes:
        score: cosine; of bits the share of equal ones, times two less one.
        place: what it is.
    """

    score: float
    place: Place


@dataclass(frozen=True)
class Found:
    """What was found.

    Attributes:
        hits: for each query the nearest texts, the nearest first.
        how: in words, how was searched.
        recall: of an index, the share of the nearest texts of these queries that it found; None: not measured.
    """

    hits: tuple[tuple[Hit, ...], ...]
    how: str
    recall: float | None = None
