"""An order shows every row once, is a function of its key, goes on from any place, and looks like chance."""

import tracemalloc

import numpy as np
import pytest

from embedsmith.training.order import KEYED, SHUFFLED, SHUFFLED_ROWS, KeyedPermutation, choose_order, row_order

SIZES = (1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 1000, 10_007)


@pytest.mark.parametrize("kind", [SHUFFLED, KEYED])
@pytest.mark.parametrize("size", SIZES)
def test_every_row_comes_once_and_from_any_place_on(kind: str, size: int) -> None:
    whole = list(row_order(size, kind=kind, key=[7, 0]))
    assert sorted(whole) == list(range(size))
    for start in (0, 1, size // 2, size - 1, size):
        assert list(row_order(size, kind=kind, key=[7, 0], start=start)) == whole[start:]


@pytest.mark.parametrize("kind", [SHUFFLED, KEYED])
def test_each_key_has_an_order_of_its_own(kind: str) -> None:
    orders = [tuple(row_order(1000, kind=kind, key=key)) for key in ([7, 0], [7, 1], [8, 0], [7, 0, 1], [7, 0, 2])]
    assert len(set(orders)) == 5
    assert tuple(row_order(1000, kind=kind, key=[7, 0])) == orders[0]


def test_few_rows_are_in_the_order_that_numpy_gives_them() -> None:
    """Published scores depend on it."""
    for size in (*SIZES, 70_001):
        expected = np.random.default_rng([7, 3]).permutation(size).tolist()
        assert list(row_order(size, kind=choose_order(size), key=[7, 3])) == expected
    assert (choose_order(SHUFFLED_ROWS), choose_order(SHUFFLED_ROWS + 1)) == (SHUFFLED, KEYED)


def test_the_keyed_order_stays_the_one_it_is() -> None:
    """Runs go on from checkpoints of other machines and later versions. Numbers: of the version that brought it."""
    assert list(row_order(10, kind=KEYED, key=[7, 0])) == [0, 4, 2, 5, 3, 6, 8, 7, 9, 1]
    assert KeyedPermutation(50_000_000, key=[7, 0])(np.arange(4)).tolist() == [41884528, 21325247, 13843908, 1745984]


def test_the_keyed_order_looks_like_chance() -> None:
    """Where a row goes, by its place, by its neighbour and by the key: sixteen bins each, chi-squared on 15 degrees."""
    size, bins = 50_000_003, 16
    rng = np.random.default_rng(0)
    starts = rng.integers(size - 1, size=20_000)
    permute = KeyedPermutation(size, key=[7, 0])
    here, next_to = permute(starts), permute(starts + 1)
    other_key = KeyedPermutation(size, key=[7, 1])(starts)
    for values in (here, (here - starts) % size, (next_to - here) % size, (other_key - here) % size):
        counts = np.bincount(values * bins // size, minlength=bins)
        expected = len(values) / bins
        assert ((counts - expected) ** 2 / expected).sum() < 44  # one in ten thousand goes beyond
    assert abs(np.corrcoef(here, next_to)[0, 1]) < 0.03
    assert abs(np.corrcoef(here, starts)[0, 1]) < 0.03


def test_a_keyed_order_of_a_billion_rows_takes_no_memory() -> None:
    tracemalloc.start()
    order = row_order(10**9, kind=KEYED, key=[7, 0], start=999_000_000)
    first = [next(order) for _ in range(1000)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(set(first)) == 1000
    assert peak < 4_000_000
