"""What embeds the shards of a corpus, one after the other: an engine. The local one has the model in this process."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from embedsmith.data.corpora import CorpusText
from embedsmith.support.ahead import one_ahead
from embedsmith.verbs.vector_maker import VectorKind, VectorMaker


@dataclass(frozen=True)
class TextShard:
    """Texts that come into one file.

    Attributes:
        number: of the shard, from 0.
        rows: its texts, in their order.
    """

    number: int
    rows: Sequence[CorpusText]

    @property
    def texts(self) -> list[str]:
        """Of the rows."""
        return [row.text for row in self.rows]


@dataclass(frozen=True)
class EmbeddedShard:
    """The same with its vectors.

    Attributes:
        shard: what it is of.
        vectors: (K, D) float32.
        num_cut: texts that were longer than the model takes.
    """

    shard: TextShard
    vectors: np.ndarray
    num_cut: int


class ShardEngine(Protocol):
    """Where the vectors are computed."""

    @property
    def kind(self) -> VectorKind:
        """What vectors they are."""

    def close(self) -> None:
        """Give back what it holds."""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of K texts, (K, D) float32; errors as `Embedder.encode`."""

    def embed_shards(
        self, shards: Iterator[TextShard], *, on_progress: Callable[[int], None]
    ) -> Iterator[EmbeddedShard]:
        """The shards with their vectors, the first one first and the others in any order.

        Args:
            shards: taken as they are needed.
            on_progress: called with the number of texts finished.

        Raises:
            RunError: what computes them was lost.
            ModelError, DataError, ConfigError: as `Embedder.encode`.
        """


class LocalEngine:
    """This process.

    Args:
        maker: has the model.
    """

    def __init__(self, maker: VectorMaker) -> None:
        self._maker = maker

    @property
    def kind(self) -> VectorKind:
        """See `ShardEngine`."""
        return self._maker

    def close(self) -> None:
        """See `ShardEngine`."""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """See `ShardEngine`."""
        return self._maker.embed(texts)

    def embed_shards(
        self, shards: Iterator[TextShard], *, on_progress: Callable[[int], None]
    ) -> Iterator[EmbeddedShard]:
        """See `ShardEngine`; the texts of the next one are read while one is computed."""
        for shard in one_ahead(shards):
            texts = shard.texts
            vectors = self._maker.embed(texts, on_progress=on_progress)
            yield EmbeddedShard(shard, vectors, self._maker.count_cut(texts))
