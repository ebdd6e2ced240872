"""Dropout of an adapter's inputs as a function of a seed: the mask is computed from (seed, row, column), never stored.

Backward and a repeated forward make the same mask again, on every kernel and device, and a seed is all a checkpoint of
the random state has to cover. Plain and fused paths draw one seed per adapted layer and forward, in the same order.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch

# Multipliers of a 32-bit finaliser (Wellons 2018, "lowbias32") and of Fibonacci hashing, as signed integers.
_SPREAD, _MIX_1, _MIX_2 = (constant - 2**32 if constant >= 2**31 else constant for constant in (
    0x9E3779B1, 0x7FEB352D, 0x846CA68B
))  # fmt: skip
_STEPS = 2**32
_place: ContextVar[tuple[int, torch.Tensor | None]] = ContextVar("place", default=(0, None))
_tape: ContextVar["MaskTape | None"] = ContextVar("tape", default=None)


@dataclass(frozen=True)
class DropoutMask:
    """Which elements of a matrix are dropped.

    Attributes:
        seed: two 32-bit words.
        p: share dropped; 0 drops nothing.
        rows: (n,) int64, for rows picked out of a larger matrix: the row each one had there; None: all of them.
        first_row: where that matrix begins in a still longer one that was cut into pieces.
    """

    seed: tuple[int, int] = (0, 0)
    p: float = 0.0
    rows: torch.Tensor | None = None
    first_row: int = 0
    _numbers: dict[tuple[int, torch.device], torch.Tensor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def threshold(self) -> int:
        """Hashes below it, of 2^32, are dropped."""
        return round(self.p * _STEPS)

    @property
    def keep_scale(self) -> float:
        """What is kept grows by this, so that the expectation stays."""
        return 1.0 / (1.0 - self.p)

    def factors(self, num_rows: int, width: int, *, device: torch.device) -> torch.Tensor:
        """The mask times `keep_scale`, (num_rows, width) float32."""
        numbers = self.numbers(width, device=device)
        return keep_factors(numbers, self.rows, self.keep_scale, num_rows=num_rows, width=width)

    def numbers(self, width: int, *, device: torch.device) -> torch.Tensor:
        """(4,) int32: both words of the seed, the first element's number, the threshold less 2^31; made once.

        As a tensor, so that code compiled for one mask serves them all.
        """
        key = (width, device)
        if key not in self._numbers:
            self._numbers[key] = torch.tensor(self.words(width), dtype=torch.int32).to(device)
        return self._numbers[key]

    def words(self, width: int) -> list[int]:
        """As `numbers`, here."""
        words = (*self.seed, self.first_row * width, self.threshold - 2**31)
        return [(word + 2**31) % _STEPS - 2**31 for word in words]

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        """`x` (n, width) with elements dropped, float32."""
        x = x.float()
        return x * self.factors(*x.shape, device=x.device) if self.p > 0 else x


def draw_mask(p: float, *, rows: torch.Tensor | None = None) -> DropoutMask:
    """A fresh mask; its seed comes from torch's global CPU generator on every device."""
    first_row, places = _place.get()
    if places is not None:
        rows = places if rows is None else places[rows]
    if tape := _tape.get():
        return tape.next_mask(p, rows=rows)
    return DropoutMask(seed=_draw_seeds(1)[0], p=p, rows=rows, first_row=first_row)


def _draw_seeds(number: int) -> list[tuple[int, int]]:
    """So many seeds; the generator gives the same ones however they are grouped."""
    return [(first, second) for first, second in torch.randint(0, 2**32, (number, 2)).tolist()]


class MaskTape:
    """The masks of a run that is recorded once and repeated: their numbers lie in one tensor, to be written anew.

    Args:
        device: the model's.
        most: masks of a run, at most.
    """

    def __init__(self, *, device: torch.device, most: int = 4096) -> None:
        self._table = torch.zeros((most, 4), dtype=torch.int32, device=device)
        self._masks: list[_TapedMask] = []

    @contextmanager
    def records(self) -> Iterator[None]:
        """Run a block whose masks are from the tape, from its beginning; no seed is drawn."""
        self._masks = []
        token = _tape.set(self)
        try:
            yield
        finally:
            _tape.reset(token)

    def next_mask(self, p: float, *, rows: torch.Tensor | None) -> DropoutMask:
        """The next mask of the block."""
        mask = _TapedMask(p=p, rows=rows, row=self._table[len(self._masks)])
        self._masks.append(mask)
        return mask

    def redraw(self) -> None:
        """Fresh seeds for all: those that `draw_mask` would draw, one by one."""
        if not self._masks:
            return
        first_row, _ = _place.get()
        seeds = _draw_seeds(len(self._masks))
        words = [
            DropoutMask(seed=seed, p=mask.p, first_row=first_row).words(mask.widths[0])
            for seed, mask in zip(seeds, self._masks, strict=True)
        ]
        self._table[: len(words)].copy_(torch.tensor(words, dtype=torch.int32))


@dataclass(frozen=True)
class _TapedMask(DropoutMask):
    """A mask whose numbers stand in a row of a tape."""

    row: torch.Tensor = field(kw_only=True)
    widths: list[int] = field(default_factory=list, repr=False, compare=False, kw_only=True)

    def numbers(self, width: int, *, device: torch.device) -> torch.Tensor:
        """As `DropoutMask.numbers`; a mask has one width."""
        if not self.widths:
            self.widths.append(width)
        assert self.widths == [width] and device == self.row.device
        return self.row


@contextmanager
def rows_from(first_row: int, *, rows: torch.Tensor | None = None) -> Iterator[None]:
    """Run a block on a piece of a longer matrix: with the same seeds, its rows get the masks they have in the whole.

    `rows` (n,) int64: each one's place in it behind `first_row`; None: they lie side by side.
    """
    token = _place.set((first_row, rows))
    try:
        yield
    finally:
        _place.reset(token)


class AdapterDropout(torch.nn.Module):
    """Takes the place of `nn.Dropout` in an adapter; works on (1, N, width) or (N, width)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Drop while training, else nothing."""
        if not self.training or self.p == 0:
            return x
        rows = x.flatten(0, -2)
        factors = draw_mask(self.p).factors(*rows.shape, device=x.device)
        return x * factors.view(x.shape)


def keep_factors(
    numbers: torch.Tensor, rows: torch.Tensor | None, keep_scale: float, *, num_rows: int, width: int
) -> torch.Tensor:
    """As `DropoutMask.factors`, of the mask's `numbers`; pointwise, all sums modulo 2^32."""
    row = torch.arange(num_rows, dtype=torch.int32, device=numbers.device) if rows is None else rows.to(torch.int32)
    x = row[:, None] * width + torch.arange(width, dtype=torch.int32, device=numbers.device) + numbers[2]
    x = x * _SPREAD + numbers[0]
    x = x ^ _shift(x, 16)
    x = (x * _MIX_1) ^ numbers[1]
    x = x ^ _shift(x, 15)
    x = x * _MIX_2
    # Compared as unsigned numbers: both are moved down by 2^31, which turns the highest bit.
    return (x ^ -(2**31) >= numbers[3]).float() * keep_scale


def _shift(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Shift to the right with zeros coming in; torch's own keeps the sign."""
    return (x >> bits) & (2 ** (32 - bits) - 1)
