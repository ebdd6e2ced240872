"""A packed row at fixed addresses and of a fixed size, for runs that are recorded once and repeated with other texts.

    real row    | text | text | text |                        N tokens, S segments
    fixed row   | text | text | text | filler | ... | filler |   N' tokens, S' segments

Sizes go up to the next of a few, so that the batches of a run have few shapes. What is left over is cut into filler
texts, of a token or more each: attention sees no empty text, and no row is left without a value. Fillers attend to
themselves alone and nothing reads what they become, so their gradients are zero, and so is what they add to the
adapter's.
"""

from dataclasses import dataclass

import numpy as np
import torch

from embedsmith.model.layers.segments import PackedTexts, Segments

_LEAST_LENGTH = 128
_FILLER_ID = 0


@dataclass(frozen=True)
class RowShape:
    """What a recorded run depends on in the row.

    Attributes:
        num_tokens: N'.
        num_segments: S'.
        num_text_rows: rows of whole texts, prefixes repeated; 0 where none has a prefix.
        longest: a bound of the texts' lengths, prefixes counted.
        has_places: whether the row's places in a longer one are given (`PackedTexts.rows`).
    """

    num_tokens: int
    num_segments: int
    num_text_rows: int
    longest: int
    has_places: bool

    @classmethod
    def of(cls, packed: PackedTexts) -> "RowShape":
        """The smallest that holds the row."""
        segments = packed.segments
        num_tokens, num_segments = packed.num_tokens, len(segments.lengths)
        longest = max(_LEAST_LENGTH, 1 << (segments.longest - 1).bit_length())
        all_segments = num_segments
        while True:
            all_segments = _step_up(all_segments + 1, least=32)
            num_fillers = all_segments - num_segments
            tokens = _step_up(num_tokens + num_fillers, least=64)
            text_rows = 0
            if segments.prefixes:
                text_rows = _step_up(sum(segments.text_lengths) + tokens - num_tokens, least=64)
            left_over = max(tokens - num_tokens, text_rows - sum(segments.text_lengths))
            if left_over <= num_fillers * longest:
                return cls(tokens, all_segments, text_rows, longest, packed.rows is not None)


class FixedRow:
    """The row's tensors; `packed` refers to them, `fill` writes them.

    Args:
        shape: of all rows that will be put in.
        device: the model's.
    """

    def __init__(self, shape: RowShape, *, device: torch.device) -> None:
        self.shape = shape
        tokens, segments, text_rows = shape.num_tokens, shape.num_segments, shape.num_text_rows
        sizes32 = (segments + 1, segments + 1, tokens)
        sizes64 = (segments, text_rows)
        self._numbers32 = torch.zeros(sum(sizes32), dtype=torch.int32, device=device)
        self._numbers64 = torch.zeros(sum(sizes64), dtype=torch.int64, device=device)
        starts, text_starts, positions = self._numbers32.split(sizes32)
        ends, rows = self._numbers64.split(sizes64)
        self._ids = torch.full((1, tokens), _FILLER_ID, device=device)
        self.places = torch.zeros(tokens, dtype=torch.int64, device=device) if shape.has_places else None
        self.packed = PackedTexts(
            input_ids=self._ids,
            position_ids=positions[None],
            segments=Segments.of_tensors(
                longest=shape.longest,
                cu_seqlens=starts,
                text_seqlens=text_starts,
                positions=positions,
                ends=ends,
                text_rows=rows if text_rows else None,
            ),
            segment_of_text=ends,
            rows=self.places,
        )

    def fill(self, packed: PackedTexts) -> None:
        """Put a row of this shape in."""
        numbers32, numbers64 = self._places_of(packed.segments)
        self._numbers32.copy_(torch.from_numpy(numbers32))
        self._numbers64.copy_(torch.from_numpy(numbers64))
        self._ids[:, : packed.num_tokens].copy_(packed.input_ids)
        self._ids[:, packed.num_tokens :].fill_(_FILLER_ID)
        if self.places is not None:
            assert packed.rows is not None
            self.places[: packed.num_tokens].copy_(packed.rows)

    def _places_of(self, segments: Segments) -> tuple[np.ndarray, np.ndarray]:
        shape = self.shape
        num_fillers = shape.num_segments - len(segments.lengths)
        fillers = _evenly(shape.num_tokens - sum(segments.lengths), num_fillers)
        lengths = np.concatenate([segments.lengths, fillers])
        ends = np.cumsum(lengths)
        starts = ends - lengths
        before = np.concatenate([segments.prefix_lengths, np.zeros(num_fillers, dtype=np.int64)])
        positions = np.arange(shape.num_tokens) - np.repeat(starts - before, lengths)
        text_lengths, rows = lengths, np.empty(0, dtype=np.int64)
        if shape.num_text_rows:
            wide = _evenly(shape.num_text_rows - sum(segments.text_lengths), num_fillers)
            text_lengths = np.concatenate([segments.text_lengths, wide])
            # A filler's keys: its own rows, behind its first one as often as makes up the number.
            place = np.arange(wide.sum()) - np.repeat(np.cumsum(wide) - fillers, wide)
            rows = np.concatenate(
                [segments.text_row_numbers, np.repeat(starts[-num_fillers:], wide) + np.maximum(place, 0)]
            )
        text_ends = np.cumsum(text_lengths)
        return (
            np.concatenate([[0], ends, [0], text_ends, positions]).astype(np.int32),
            np.concatenate([ends - 1, rows]).astype(np.int64),
        )


def _step_up(number: int, *, least: int) -> int:
    """The next of few sizes: multiples of an eighth of the power of two below, and of `least`."""
    step = max(least, 1 << max(0, number.bit_length() - 4))
    return -(-number // step) * step


def _evenly(total: int, count: int) -> np.ndarray:
    """A number cut into parts that differ by one at most, the larger ones first."""
    return np.full(count, total // count) + (np.arange(count) < total % count)
