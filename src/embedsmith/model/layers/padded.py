"""Segments of similar length as padded blocks, for a GPU without varlen attention: a few large calls, not one a length.

    packed row   a b | c d e | f g h i j | ...          lengths 2 3 5 ...
    block        a b b b b     padded with copies of the last row, which no token of the segment sees
                 c d e e e
                 f g h i j

A block takes segments up to the next power of two, so less than half of its queries are padding; where texts have a
prefix, its keys are as many as the longest text's. Attention is a small part of a forward, and what is padded goes
through it alone.
"""

from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import torch

_SHORTEST = 16  # below it a power of two of its own saves nothing


@dataclass(frozen=True)
class PaddedBlock:
    """Some segments of a packed row.

    Attributes:
        segments: which they are.
        lengths: tokens of each, (count,) int64.
        before: tokens of each one's prefix, (count,) int64.
        num_queries: of the longest segment.
        num_keys: of the longest of them with its prefix.
        query_rows: (count * num_queries,) int64, the row of the packed row that stands in each place.
        key_rows: (count * num_keys,) int64, the same of whole texts one behind the other.
        places: (tokens of the block,) int64, where its tokens stand among the queries.
    """

    segments: slice
    lengths: torch.Tensor
    before: torch.Tensor
    num_queries: int
    num_keys: int
    query_rows: torch.Tensor
    key_rows: torch.Tensor
    places: torch.Tensor
    _masks: dict[tuple[int | None, bool, bool], torch.Tensor] = field(default_factory=dict, repr=False, compare=False)

    def mask(self, *, window: int | None, is_causal: bool, ends_only: bool) -> torch.Tensor:
        """(count, 1, num_queries, num_keys) bool, or with `ends_only` one query a segment: which keys a query sees.

        A query of the padding sees the first key, so that no softmax is over nothing.
        """
        name = (window, is_causal, ends_only)
        if name not in self._masks:
            lengths, before = self.lengths[:, None, None], self.before[:, None, None]
            key = torch.arange(self.num_keys, device=lengths.device)
            query = lengths - 1 if ends_only else torch.arange(self.num_queries, device=lengths.device)[:, None]
            distance = before + query - key
            reach = self.num_keys if window is None else window
            seen = (distance >= 0) & (distance < reach) if is_causal else distance.abs() < reach
            seen = seen & (key < before + lengths) | (query >= lengths) & (key == 0)
            self._masks[name] = seen[:, None]
        return self._masks[name]


def make_blocks(lengths: tuple[int, ...], before: tuple[int, ...], *, device: torch.device) -> tuple[PaddedBlock, ...]:
    """Blocks of a packed row.

    Args:
        lengths: tokens of each segment, ascending.
        before: tokens of each one's prefix.
        device: where their tensors go.
    """
    blocks = []
    first = query_start = key_start = 0
    for _, group in groupby(lengths, key=lambda length: max(_SHORTEST, 1 << (length - 1).bit_length())):
        own = np.array(list(group))
        segments = slice(first, first + len(own))
        prefix = np.array(before[segments])
        query_rows, places = _padded_rows(own, start=query_start)
        key_rows, _ = _padded_rows(own + prefix, start=key_start)
        arrays = (own, prefix, query_rows, key_rows, places)
        own_lengths, prefixes, queries, keys, stands = (torch.from_numpy(array).to(device) for array in arrays)
        blocks.append(
            PaddedBlock(
                segments,
                own_lengths,
                prefixes,
                num_queries=int(own.max()),
                num_keys=int((own + prefix).max()),
                query_rows=queries,
                key_rows=keys,
                places=stands,
            )
        )
        first += len(own)
        query_start += int(own.sum())
        key_start += int((own + prefix).sum())
    return tuple(blocks)


def _padded_rows(lengths: np.ndarray, *, start: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows from `start` on, each part padded with copies of its last one, and where the others stand."""
    place = np.arange(lengths.max())
    starts = start + np.cumsum(lengths) - lengths
    rows = starts[:, None] + np.minimum(place, lengths[:, None] - 1)
    return rows.ravel(), np.flatnonzero(place < lengths[:, None])
