"""Records of a packed row: where its texts lie, how it is cut into pieces. `model/packing.py` makes it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, groupby, pairwise

import torch


@dataclass(frozen=True)
class Segments:
    """Where the texts lie in a packed row.

    Attributes:
        lengths: tokens of each segment, ascending.
        cu_seqlens: (S + 1,) int32, start of each segment and the total, on the model's device.
        pool_from: the first token of each segment that mean poolings look at.
    """

    lengths: tuple[int, ...]
    cu_seqlens: torch.Tensor
    pool_from: tuple[int, ...] = ()

    @property
    def pooled(self) -> list[tuple[int, int]]:
        """(tokens left out, tokens looked at) by mean poolings, of each segment."""
        starts = self.pool_from or (0,) * len(self.lengths)
        return [(start, length - start) for start, length in zip(starts, self.lengths, strict=True)]

    @property
    def ends(self) -> torch.Tensor:
        """(S,) int64, the last token of each segment."""
        return self.cu_seqlens[1:].long() - 1

    @property
    def positions(self) -> torch.Tensor:
        """(N,) int32, the place of every token in its segment, on the model's device; three kernels, however many."""
        starts, lengths = self.cu_seqlens[:-1], self.cu_seqlens.diff()
        total = sum(self.lengths)
        counted = torch.arange(total, dtype=torch.int32, device=starts.device)
        return counted - torch.repeat_interleave(starts, lengths, output_size=total)

    @property
    def runs(self) -> Iterator[tuple[int, int, int]]:
        """(first token, number of segments, length) of every block of equally long segments."""
        start = 0
        for length, group in groupby(self.lengths):
            count = sum(1 for _ in group)
            yield start, count, length
            start += count * length


@dataclass(frozen=True)
class PackedTexts:
    """One packed row.

    Attributes:
        input_ids: (1, N) int64.
        position_ids: (1, N) int64, starting at 0 in every segment.
        segments: where the distinct texts lie.
        segment_of_text: (K,) int64, the segment that holds each of the texts given.
        first_row: for a piece of a longer row, where it began there; dropout depends on it.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    segments: Segments
    segment_of_text: torch.Tensor
    first_row: int = 0

    @property
    def num_tokens(self) -> int:
        """Tokens that are computed, N."""
        return self.input_ids.shape[1]

    def pieces(self, *, max_tokens: int) -> list["PackedTexts"]:
        """Cut the row between segments into pieces of about equal size and at most `max_tokens` tokens.

        A longer segment is a piece of its own. Every piece's texts are its segments, in order.
        """
        lengths = self.segments.lengths
        num_pieces = -(-self.num_tokens // max_tokens)
        # Evenly: a small last piece would run far from the machine's peak.
        limit = min(max_tokens, -(-self.num_tokens // num_pieces) + lengths[-1])
        bounds = [0]
        num_tokens = 0
        for segment, length in enumerate(lengths):
            if num_tokens and num_tokens + length > limit:
                bounds.append(segment)
                num_tokens = 0
            num_tokens += length
        starts = [0, *accumulate(lengths)]
        return [
            self._piece(slice(first, end), start=starts[first], end=starts[end])
            for first, end in pairwise([*bounds, len(lengths)])
        ]

    def with_ids(self, ids: torch.Tensor) -> "PackedTexts":
        """The same row with other tokens, (N,)."""
        return replace(self, input_ids=ids[None])

    def _piece(self, segments: slice, *, start: int, end: int) -> "PackedTexts":
        cu_seqlens = self.segments.cu_seqlens[segments.start : segments.stop + 1]
        lengths = self.segments.lengths[segments]
        return PackedTexts(
            input_ids=self.input_ids[:, start:end],
            position_ids=self.position_ids[:, start:end],
            segments=Segments(lengths, cu_seqlens - start, self.segments.pool_from[segments]),
            segment_of_text=torch.arange(len(lengths), device=self.input_ids.device),
            first_row=self.first_row + start,
        )
