"""The order in which a pass shows some rows: each once, a function of their number and a key, the same for ever.

    shuffled   numpy's: all numbers in memory, four bytes each. Up to 2^22 rows, and runs that were begun with it
    keyed      a permutation that is computed number by number from the key: no memory, and any place is as near

The keyed one is a Feistel network over the next power of four, whose numbers beyond the rows are sent through it again
until they fall among the rows ("cycle walking").

Reference: Luby and Rackoff 1988, How to construct pseudorandom permutations from pseudorandom functions; Black and
Rogaway 2002, Ciphers with arbitrary finite domains, section 3; the rounds' function is the one that ends splitmix64
(Steele, Lea and Flood 2014, Fast splittable pseudorandom number generators).
"""

from collections.abc import Iterator, Sequence

import numpy as np

SHUFFLED_ROWS = 2**22
"""Most rows that a new run shuffles in memory."""
SHUFFLED, KEYED = "shuffled", "keyed"
_ROUNDS = 6
_NUMBERS_AT_A_TIME = 2**13


def choose_order(num_rows: int) -> str:
    """How a new run orders so many rows."""
    return SHUFFLED if num_rows <= SHUFFLED_ROWS else KEYED


def row_order(num_rows: int, *, kind: str, key: Sequence[int], start: int = 0) -> Iterator[int]:
    """Yield the numbers 0 .. num_rows - 1, each once, from the place `start` on.

    Args:
        num_rows: how many.
        kind: shuffled or keyed.
        key: of the order; what it is made of is not negative.
        start: how many come before what is yielded.
    """
    if kind == SHUFFLED:
        # The values of `permutation`, which would take twice the memory.
        order = np.arange(num_rows, dtype=np.int32 if num_rows < 2**31 else np.int64)
        np.random.default_rng(key).shuffle(order)
        for first in range(start, num_rows, _NUMBERS_AT_A_TIME):
            yield from order[first : first + _NUMBERS_AT_A_TIME].tolist()
        return
    permute = KeyedPermutation(num_rows, key=key)
    for first in range(start, num_rows, _NUMBERS_AT_A_TIME):
        yield from permute(np.arange(first, min(first + _NUMBERS_AT_A_TIME, num_rows))).tolist()


class KeyedPermutation:
    """A permutation of 0 .. size - 1, computed where it is asked for.

    Args:
        size: how many numbers there are, from 1 to 2^62.
        key: which permutation.
    """

    def __init__(self, size: int, *, key: Sequence[int]) -> None:
        self._size = np.uint64(size)
        half_bits = max(1, -(-(size - 1).bit_length() // 2))
        self._half_bits = np.uint64(half_bits)
        self._mask = np.uint64(2**half_bits - 1)
        self._round_keys = np.random.SeedSequence(key).generate_state(_ROUNDS, np.uint64)

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        """(n,) int64 -> where each goes, (n,) int64."""
        found = self._encipher(numbers.astype(np.uint64))
        while len(outside := np.flatnonzero(found >= self._size)):
            found[outside] = self._encipher(found[outside])
        return found.astype(np.int64)

    def _encipher(self, numbers: np.ndarray) -> np.ndarray:
        left, right = numbers >> self._half_bits, numbers & self._mask
        for key in self._round_keys:
            left, right = right, left ^ (_mix(right + key) & self._mask)
        return (left << self._half_bits) | right


def _mix(numbers: np.ndarray) -> np.ndarray:
    """splitmix64's last steps; products are modulo 2^64."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
