"""Low-rank updates: the mean is that of the full matrices, a lower rank is the SVD's of the full matrix."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedsmith.model.loading.low_rank import LowRank, mean_updates, reduce_rank


def _update(rank: int, *, seed: int, shape: tuple[int, int] = (12, 20)) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    a, b = ((rank, shape[1]), (shape[0], rank))
    return LowRank(*(torch.randn(size, generator=generator, dtype=torch.float64) for size in (a, b)))


def _full(update: LowRank) -> np.ndarray:
    return (update.b @ update.a).numpy()


def test_the_mean_is_that_of_the_full_matrices() -> None:
    first, second = _update(2, seed=1), _update(5, seed=2)
    mean = mean_updates([{"q": first, "v": first}, {"q": second}], weights=[0.25, 0.75])
    assert {layer: update.rank for layer, update in mean.items()} == {"q": 7, "v": 2}
    np.testing.assert_allclose(_full(mean["q"]), 0.25 * _full(first) + 0.75 * _full(second), atol=1e-12)
    np.testing.assert_allclose(_full(mean["v"]), 0.25 * _full(first), atol=1e-12)


def test_no_rank_is_larger_than_the_layer() -> None:
    parts = [_update(5, seed=seed) for seed in range(4)]
    mean = mean_updates([{"q": part} for part in parts], weights=[0.25] * 4)["q"]
    assert mean.rank == 12
    np.testing.assert_allclose(_full(mean), sum(map(_full, parts)) / 4, atol=1e-12)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_a_lower_rank_is_the_nearest(rank: int) -> None:
    whole = _update(8, seed=3)
    reduced = reduce_rank(whole, rank=rank)
    u, values, v = np.linalg.svd(_full(whole), full_matrices=False)
    np.testing.assert_allclose(_full(reduced.update), (u[:, :rank] * values[:rank]) @ v[:rank], atol=1e-10)
    assert reduced.update.rank == rank
    assert reduced.kept == pytest.approx((values[:rank] ** 2).sum() / (values**2).sum())


def test_an_update_of_nothing_is_kept_whole() -> None:
    nothing = LowRank(a=torch.ones(4, 9, dtype=torch.float64), b=torch.zeros(6, 4, dtype=torch.float64))
    assert reduce_rank(nothing, rank=2).kept == 1


@st.composite
def updates(draw: st.DrawFn) -> tuple[list[dict[str, LowRank]], list[float]]:
    """What some adapters add to layers of any widths, each by ranks and on layers of its own, and their weights."""
    shapes = {"wide": (3, 8), "tall": (9, 2), "square": (5, 5)}
    stream = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    adapters = []
    for _ in range(draw(st.integers(1, 4))):
        ranks = {name: draw(st.integers(0, 4)) for name in shapes}
        adapters.append({
            name: LowRank(
                torch.randn(rank, shapes[name][1], generator=stream, dtype=torch.float64),
                torch.randn(shapes[name][0], rank, generator=stream, dtype=torch.float64),
            )
            for name, rank in ranks.items()
            if rank
        })  # fmt: skip
    return adapters, draw(st.lists(st.floats(-2, 2), min_size=len(adapters), max_size=len(adapters)))


@given(updates())
def test_a_mean_is_that_of_the_whole_updates(given_updates: tuple[list[dict[str, LowRank]], list[float]]) -> None:
    adapters, weights = given_updates
    mean = mean_updates(adapters, weights=weights)
    assert mean.keys() == {name for adapter in adapters for name in adapter}
    for name, update in mean.items():
        parts = zip(adapters, weights, strict=True)
        expected = sum(weight * (one[name].b @ one[name].a) for one, weight in parts if name in one)
        torch.testing.assert_close(update.b @ update.a, expected, atol=1e-9, rtol=1e-9)
        assert update.rank <= min(expected.shape) or sum(name in one for one in adapters) == 1


@given(updates(), st.integers(1, 5))
def test_no_update_of_that_rank_is_nearer(
    given_updates: tuple[list[dict[str, LowRank]], list[float]], rank: int
) -> None:
    """What is left is what Eckart and Young say: the singular values behind the rank."""
    for update in mean_updates(given_updates[0], weights=given_updates[1]).values():
        reduced = reduce_rank(update, rank=rank)
        whole = update.b @ update.a
        values = torch.linalg.svdvals(whole)
        left = torch.linalg.norm(whole - reduced.update.b @ reduced.update.a)
        torch.testing.assert_close(left, torch.linalg.norm(values[rank:]), atol=1e-9, rtol=1e-7)
        assert reduced.update.rank <= max(rank, 1)
