"""Records of a packed row: where its texts lie, how it is cut into pieces. `model/packing.py` makes it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, groupby

import numpy as np
import torch

from embedsmith.model.layers.padded import PaddedBlock, make_blocks

# Of one prefix: more jobs share the work more evenly, and each needs memory for sums of its own.
_LEAST_IN_A_JOB, _MOST_JOBS = 4, 32


@dataclass(frozen=True)
class Jobs:
    """Segments in jobs of a few that have one prefix, for kernels that read it once a job; all int32, on the CPU.

    Attributes:
        members: (S,) the segments, job by job. A prefix is itself the first in the first job of those that have it.
        bounds: (J + 1,) where each job begins in them, and the end.
        prefixes: (J,) each job's prefix, those of one side by side; behind them -1, each of one segment that has none.
        num_shared: jobs that have one.
    """

    members: torch.Tensor
    bounds: torch.Tensor
    prefixes: torch.Tensor
    num_shared: int


@dataclass(frozen=True)
class Segments:
    """Where the texts lie in a packed row.

    A prompt's first part that several texts begin with is a segment by itself, their prefix: each of them attends to
    it and to its own tokens, which alone lie in its segment.

    Attributes:
        lengths: tokens of each segment, ascending.
        cu_seqlens: (S + 1,) int32, start of each segment and the total, on the model's device.
        pool_from: the first token of each text, its prefix counted, that mean poolings look at; () for 0 everywhere.
        prefixes: of each segment the one that is its prefix, -1: it has none; () where none has one. A prefix has none.
    """

    lengths: tuple[int, ...]
    cu_seqlens: torch.Tensor
    pool_from: tuple[int, ...] = ()
    prefixes: tuple[int, ...] = ()

    @classmethod
    def of_tensors(
        cls,
        *,
        longest: int,
        cu_seqlens: torch.Tensor,
        text_seqlens: torch.Tensor,
        positions: torch.Tensor,
        ends: torch.Tensor,
        text_rows: torch.Tensor | None,
    ) -> "Segments":
        """Segments known on the device alone, where their numbers may change; here only a bound of their lengths is."""
        segments = cls(lengths=(longest,), cu_seqlens=cu_seqlens)
        known = {"text_seqlens": text_seqlens, "positions": positions, "ends": ends, "text_rows": text_rows}
        segments.__dict__.update(known)  # in the place of what would be computed
        return segments

    @cached_property
    def prefix_lengths(self) -> tuple[int, ...]:
        """Tokens of each segment's prefix."""
        if not self.prefixes:
            return (0,) * len(self.lengths)
        return tuple(self.lengths[prefix] if prefix >= 0 else 0 for prefix in self.prefixes)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """As `cu_seqlens`, here."""
        return (0, *accumulate(self.lengths))

    @cached_property
    def text_lengths(self) -> tuple[int, ...]:
        """Tokens of each segment and its prefix."""
        return tuple(map(sum, zip(self.prefix_lengths, self.lengths, strict=True)))

    @property
    def longest(self) -> int:
        """Tokens of the longest text, prefix included."""
        return max(self.text_lengths)

    @property
    def pooled(self) -> list[tuple[int, int]]:
        """(tokens left out, tokens looked at) by mean poolings, of each text."""
        starts = self.pool_from or (0,) * len(self.lengths)
        return [(start, length - start) for start, length in zip(starts, self.text_lengths, strict=True)]

    @cached_property
    def ends(self) -> torch.Tensor:
        """(S,) int64, the last token of each segment."""
        return self.cu_seqlens[1:].long() - 1

    @cached_property
    def positions(self) -> torch.Tensor:
        """(N,) int32, the place of every token in its text, on the model's device; few kernels, however many texts."""
        starts, lengths = self.cu_seqlens[:-1], self.cu_seqlens.diff()
        if self.prefixes:
            starts = starts - _on_device(self.prefix_lengths, torch.int32, self.cu_seqlens)
        total = sum(self.lengths)
        counted = torch.arange(total, dtype=torch.int32, device=starts.device)
        return counted - torch.repeat_interleave(starts, lengths, output_size=total)

    @cached_property
    def text_seqlens(self) -> torch.Tensor:
        """(S + 1,) int32, as `cu_seqlens`, of whole texts one behind the other."""
        if not self.prefixes:
            return self.cu_seqlens
        return _on_device([0, *accumulate(self.text_lengths)], torch.int32, self.cu_seqlens)

    @cached_property
    def text_rows(self) -> torch.Tensor | None:
        """The rows of whole texts one behind the other, each its prefix's and then its own, int64; None: all rows."""
        return _on_device(self.text_row_numbers, torch.int64, self.cu_seqlens) if self.prefixes else None

    @cached_property
    def text_row_numbers(self) -> np.ndarray:
        """As `text_rows`, here, where some have a prefix."""
        starts = np.array(self.starts[:-1])
        lengths, before, prefixes = (np.array(part) for part in (self.text_lengths, self.prefix_lengths, self.prefixes))
        place = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)  # in its text
        is_prefix = place < np.repeat(before, lengths)
        rows: np.ndarray = place + np.where(
            is_prefix, np.repeat(starts[prefixes], lengths), np.repeat(starts - before, lengths)
        )
        return rows

    @cached_property
    def jobs(self) -> Jobs | None:
        """Attention in jobs; None where no segment has a prefix. They depend on nothing but the segments."""
        if not self.prefixes:
            return None
        of_prefix: dict[int, list[int]] = {prefix: [prefix] for prefix in sorted(set(self.prefixes) - {-1})}
        alone: list[int] = []
        for segment, prefix in enumerate(self.prefixes):
            if segment not in of_prefix:
                of_prefix.get(prefix, alone).append(segment)
        jobs = [
            (prefix, members[first : first + size])
            for prefix, members in of_prefix.items()
            for size in [max(_LEAST_IN_A_JOB, -(-len(members) // _MOST_JOBS))]
            for first in range(0, len(members), size)
        ]
        num_shared = len(jobs)
        jobs += [(-1, [segment]) for segment in alone]
        return Jobs(
            members=torch.tensor([segment for _, members in jobs for segment in members], dtype=torch.int32),
            bounds=torch.tensor([0, *accumulate(len(members) for _, members in jobs)], dtype=torch.int32),
            prefixes=torch.tensor([prefix for prefix, _ in jobs], dtype=torch.int32),
            num_shared=num_shared,
        )

    @cached_property
    def padded_blocks(self) -> tuple[PaddedBlock, ...]:
        """Segments of similar length side by side, padded."""
        return make_blocks(self.lengths, self.prefix_lengths, device=self.cu_seqlens.device)

    @property
    def runs(self) -> Iterator[tuple[int, int, int]]:
        """(number of segments, length, prefix's length) of every block of segments that are alike in both."""
        for (length, before), group in groupby(zip(self.lengths, self.prefix_lengths, strict=True)):
            yield sum(1 for _ in group), length, before

    @cached_property
    def texts(self) -> list[int]:
        """Those that are texts: all that are nobody's prefix."""
        prefixes = set(self.prefixes)
        return [segment for segment in range(len(self.lengths)) if segment not in prefixes]

    def select(self, chosen: Sequence[int]) -> "Segments":
        """Some of them, in this order, in a row of their own; the prefixes of all must be among them."""
        lengths = [self.lengths[segment] for segment in chosen]
        place = {segment: index for index, segment in enumerate(chosen)} | {-1: -1}
        prefixes = tuple(place[self.prefixes[segment]] for segment in chosen) if self.prefixes else ()
        return Segments(
            lengths=tuple(lengths),
            cu_seqlens=_on_device([0, *accumulate(lengths)], torch.int32, self.cu_seqlens),
            pool_from=tuple(self.pool_from[segment] for segment in chosen) if self.pool_from else (),
            prefixes=prefixes if any(prefix >= 0 for prefix in prefixes) else (),
        )


@dataclass(frozen=True)
class PackedTexts:
    """One packed row.

    Attributes:
        input_ids: (1, N) int64.
        position_ids: (1, N) int64, starting at 0 in every text.
        segments: where the distinct texts, and what they begin with, lie.
        segment_of_text: (K,) int64, the segment that holds each of the texts given.
        first_row: for a piece of a longer row, where it began there; dropout depends on it.
        rows: (N,) int64, for a piece whose rows do not lie side by side there: each one's place, `first_row` not
            counted; None: they do.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    segments: Segments
    segment_of_text: torch.Tensor
    first_row: int = 0
    rows: torch.Tensor | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens that are computed, N."""
        return self.input_ids.shape[1]

    @property
    def distinct_of_text(self) -> torch.Tensor:
        """(K,) int64, which of the distinct texts, in the row's order, each of the texts given is."""
        if not self.segments.prefixes:
            return self.segment_of_text
        texts = _on_device(self.segments.texts, torch.int64, self.segment_of_text)
        return torch.searchsorted(texts, self.segment_of_text)

    def pieces(self, *, max_tokens: int) -> list["PackedTexts"]:
        """Cut the row between texts into pieces of about equal size and at most `max_tokens` tokens.

        A longer text is a piece of its own. Every piece holds the prefixes of its texts again, and its texts are those
        of the row from one place to another, in order.
        """
        segments = self.segments
        texts = segments.texts
        num_shared = self.num_tokens - sum(segments.lengths[text] for text in texts)
        num_own = self.num_tokens - num_shared
        num_pieces = -(-num_own // max(1, max_tokens - num_shared))
        # Evenly: a small last piece would run far from the machine's peak.
        limit = min(max_tokens, -(-num_own // num_pieces) + num_shared + segments.lengths[texts[-1]])
        pieces: list[list[int]] = [[]]
        taken: set[int] = set()
        num_tokens = 0
        for text in texts:
            if num_tokens and num_tokens + self._tokens_with(text, taken) > limit:
                pieces.append([])
                taken, num_tokens = set(), 0
            num_tokens += self._tokens_with(text, taken)
            taken |= set(segments.prefixes[text : text + 1]) - {-1}
            pieces[-1].append(text)
        return [self._piece(piece) for piece in pieces]

    def with_ids(self, ids: torch.Tensor) -> "PackedTexts":
        """The same row with other tokens, (N,)."""
        return replace(self, input_ids=ids[None])

    def _tokens_with(self, text: int, taken: set[int]) -> int:
        """Tokens that a text adds to a piece that holds some prefixes already."""
        segments = self.segments
        is_new = segments.prefixes and segments.prefixes[text] not in taken
        return segments.lengths[text] + (segments.prefix_lengths[text] if is_new else 0)

    def _piece(self, texts: list[int]) -> "PackedTexts":
        prefixes = {self.segments.prefixes[text] for text in texts} - {-1} if self.segments.prefixes else set()
        chosen = sorted({*texts, *prefixes})
        place = {segment: index for index, segment in enumerate(chosen)}
        first, last = self.segments.starts[chosen[0]], self.segments.starts[chosen[-1] + 1]
        piece = PackedTexts(
            input_ids=self.input_ids[:, first:last],
            position_ids=self.position_ids[:, first:last],
            segments=self.segments.select(chosen),
            segment_of_text=_on_device([place[text] for text in texts], torch.int64, self.segment_of_text),
            first_row=self.first_row + first,
        )
        if len(chosen) == chosen[-1] + 1 - chosen[0]:
            return piece
        rows = torch.cat([torch.arange(*self.segments.starts[segment : segment + 2]) for segment in chosen])
        rows = rows.to(self.input_ids.device)
        return replace(
            piece,
            input_ids=self.input_ids[:, rows],
            position_ids=self.position_ids[:, rows],
            first_row=self.first_row,
            rows=rows,
        )


def _on_device(numbers: Sequence[int] | np.ndarray, dtype: torch.dtype, like: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(numbers, dtype=dtype).to(like.device)
