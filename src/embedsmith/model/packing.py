"""Token lists -> one packed row without padding: segments sorted by length, identical texts once.

    texts            "a b"  "c"  "a b"  "d e f"          (K = 4, three distinct)
    tokens     (N,)   c $ | a b $ | d e f $              N = 2 + 3 + 4, $ is the end token
    positions  (N,)   0 1 | 0 1 2 | 0 1 2 3
    cu_seqlens        0     2       5         9
    segment_of_text   1  0  1  2

Invariant: segments are in order of length, so segments of one length lie side by side and form a dense block
(`runs`), and no token is computed twice or for nothing. Cost: O(N + K log K).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby, pairwise

import numpy as np
import torch

from embedsmith.model.tokens import TokenizedTexts


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


def pack_tokens(tokenized: TokenizedTexts, *, device: torch.device | str = "cpu") -> PackedTexts:
    """Pack K texts, none without a token, into one row."""
    assert tokenized.ids, "nothing to pack"
    index_of: dict[tuple[bytes, int], int] = {}
    first_texts: list[int] = []  # of each distinct one
    text_to_distinct = np.empty(len(tokenized.ids), dtype=np.int64)
    for text, (tokens, start) in enumerate(zip(tokenized.ids, tokenized.pool_from, strict=True)):
        index = index_of.setdefault((tokens.tobytes(), start), len(first_texts))
        if index == len(first_texts):
            first_texts.append(text)
        text_to_distinct[text] = index

    order = np.argsort([len(tokenized.ids[text]) for text in first_texts], kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    ordered = tokenized.select([first_texts[index] for index in order])
    lengths = tuple(len(tokens) for tokens in ordered.ids)
    cu_seqlens = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    positions = np.concatenate([np.arange(length) for length in lengths])
    return PackedTexts(
        input_ids=torch.from_numpy(np.concatenate(ordered.ids))[None].to(device),
        position_ids=torch.from_numpy(positions)[None].to(device),
        segments=Segments(lengths, torch.from_numpy(cu_seqlens).to(device), tuple(ordered.pool_from)),
        segment_of_text=torch.from_numpy(rank[text_to_distinct]).to(device),
    )


def split_by_tokens(lengths: Sequence[int], *, max_tokens: int) -> Iterator[np.ndarray]:
    """Split texts into groups of similar length and at most `max_tokens` tokens; one longer text goes alone.

    Yields arrays of text indices, longest texts first, so that the largest memory need shows at once.
    """
    order = np.argsort(np.asarray(lengths), kind="stable")[::-1]
    group: list[int] = []
    num_tokens = 0
    for index in order:
        if group and num_tokens + lengths[index] > max_tokens:
            yield np.array(group)
            group, num_tokens = [], 0
        group.append(int(index))
        num_tokens += lengths[index]
    if group:
        yield np.array(group)
