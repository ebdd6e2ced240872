"""Loops of kernels.c over rows of tokens, run one by one or several together.

Everything between two attentions is done row by row: norms, products, activations, low-rank updates. Run `together`,
such loops are noted first and then run block of rows by block of rows, each block through all of them: threads meet
once where they would meet ten times, what one loop writes the next finds in the processor's cache, and a core that is
wanted by others takes fewer blocks. The results are the same bits.
"""

import ctypes
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

# What lies in a loop's slots, in order: P an address or nothing, i a whole number, f a float.
_SLOTS = {
    "add_norm": "PPPfPPfiPPPi",
    "norm_backward": "PPPPPiPPfi",
    "activation": "PPiii",
    "activation_backward": "PPiii",
    "project": "PiPPfPii",
    "project_wide": "PiPPfPii",
    "expand_add": "PPPfPiii",
    "outer": "PPiPfPii",
    "plain_product": "PPPPii",
    "add_product": "PPPPfii",
    "product_activation": "PPPPPiiii",
    "product_activation_backward": "PPPiiii",
}
_SUFFIX = {torch.bfloat16: "_bf16", torch.float32: "_f32", None: ""}
_NUM_SLOTS = 13
_FORMATS = {"P": "Q", "i": "q", "f": "f4x"}

Argument = torch.Tensor | ctypes.Structure | float | None


class RowLoops(threading.local):
    """The loops of a library; what is noted belongs to the thread that noted it."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._is_together = False
        self._num_rows = 0
        self._calls: list[bytes] = []
        self._kept: list[Argument] = []  # what the calls read and write must live until they have run

    def call(self, name: str, dtype: torch.dtype | None, *arguments: Argument, rows: int, parts: int = 1) -> None:
        """Run a loop over so many rows and so many parts of what it makes, or note it for later."""
        self._note(name, dtype, arguments, rows=rows, parts=parts, is_outer=False)

    def call_outer(self, name: str, dtype: torch.dtype, *arguments: Argument, rows: int, parts: int) -> None:
        """The same for a loop that sums over all rows; of what is noted, it runs last."""
        self._note(name, dtype, arguments, rows=rows, parts=parts, is_outer=True)

    def _note(
        self, name: str, dtype: torch.dtype | None, arguments: tuple[Argument, ...], *, rows: int, parts: int,
        is_outer: bool,
    ) -> None:  # fmt: skip
        if rows != self._num_rows:
            self.run()
            self._num_rows = rows
        slots = (_slot(argument) for argument in arguments)
        self._calls.append(_layout(name).pack(_number(self._library, name + _SUFFIX[dtype]), parts, is_outer, *slots))
        self._kept += arguments
        if not self._is_together:
            self.run()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Note the loops that a block calls and run them at its end.

        Until then nothing they write is there: whatever else reads it must be preceded by `run`.
        """
        assert not self._is_together, "loops run together once at a time"
        self._is_together = True
        try:
            yield
            self.run()
        finally:
            self._is_together = False
            self._calls, self._kept = [], []

    def run(self) -> None:
        """Run what is noted."""
        if self._calls:
            calls = b"".join(self._calls)
            num_calls, num_rows = ctypes.c_int64(len(self._calls)), ctypes.c_int64(self._num_rows)
            self._library.run_loops(calls, num_calls, num_rows, ctypes.c_int64(torch.get_num_threads()))
            self._calls, self._kept = [], []


@cache
def _number(library: ctypes.CDLL, name: str) -> int:
    library.find_loop.restype = ctypes.c_int64
    number: int = library.find_loop(name.encode("ascii"))
    assert number >= 0, f"kernels.c has no loop {name}"
    return number


@cache
def _layout(name: str) -> struct.Struct:
    slots = _SLOTS[name]
    padding = 8 * (_NUM_SLOTS - len(slots))
    return struct.Struct("=qqq" + "".join(_FORMATS[slot] for slot in slots) + f"{padding}x")


def _slot(argument: Argument) -> float:
    """As struct packs it; a row's values must lie side by side."""
    if argument is None:
        return 0
    if isinstance(argument, torch.Tensor):
        assert argument.stride(-1) == 1
        return argument.data_ptr()
    return ctypes.addressof(argument) if isinstance(argument, ctypes.Structure) else argument
