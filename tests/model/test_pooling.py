"""Pooling by segment, against plain loops."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedsmith.model.layers.segments import Segments
from embedsmith.model.pooling import pool
from embedsmith.settings.choices import Pooling

LENGTHS = (1, 3, 3, 5)
SEGMENTS = Segments(LENGTHS, torch.tensor([0, 1, 4, 7, 12], dtype=torch.int32))


@pytest.mark.parametrize("pooling", list(Pooling))
def test_pooling_equals_plain_loops(pooling: Pooling) -> None:
    hidden = torch.randn(12, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    pooled = pool(hidden, segments=SEGMENTS, pooling=pooling)
    for row, part in zip(pooled, hidden.detach().split(LENGTHS), strict=True):
        torch.testing.assert_close(row.detach(), _expected(part, pooling))
    pooled.sum().backward()
    assert hidden.grad is not None


@pytest.mark.parametrize("pooling", list(Pooling))
def test_means_look_at_the_second_copy_alone(pooling: Pooling) -> None:
    hidden = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    pool_from = (0, 1, 2, 3)
    pooled = pool(hidden, segments=Segments(LENGTHS, SEGMENTS.cu_seqlens, pool_from), pooling=pooling)
    for row, part, start in zip(pooled, hidden.split(LENGTHS), pool_from, strict=True):
        torch.testing.assert_close(row, _expected(part[start:], pooling))


@pytest.mark.parametrize("pool_from", [(), (0, 2, 0, 3)])
@pytest.mark.parametrize("pooling", list(Pooling))
def test_means_are_over_the_prefix_too(pooling: Pooling, pool_from: tuple[int, ...]) -> None:
    hidden = torch.randn(12, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    segments = Segments(LENGTHS, SEGMENTS.cu_seqlens, pool_from, prefixes=(2, 2, -1, -1))
    pooled = pool(hidden, segments=segments, pooling=pooling)
    single, short, prefix, long = hidden.split(LENGTHS)
    parts = [torch.cat([prefix, single]), torch.cat([prefix, short]), prefix, long]
    expected = torch.stack([
        _expected(part[start:], pooling) for part, start in zip(parts, pool_from or (0,) * 4, strict=True)
    ])  # fmt: skip
    torch.testing.assert_close(pooled, expected)
    found, wanted = (torch.autograd.grad(rows.square().sum(), hidden)[0] for rows in (pooled, expected))
    torch.testing.assert_close(found, wanted)


@st.composite
def segments(draw: st.DrawFn) -> Segments:
    """Texts of any lengths, pooled from any of their tokens on."""
    lengths = sorted(draw(st.lists(st.integers(1, 9), min_size=1, max_size=8)))
    pool_from = tuple(draw(st.integers(0, length - 1)) for length in lengths)
    bounds = torch.tensor([0, *lengths]).cumsum(0).int()
    return Segments(tuple(lengths), bounds, draw(st.sampled_from([(), pool_from])))


@given(segments(), st.sampled_from(list(Pooling)), st.integers(0, 99))
def test_any_texts_are_pooled_as_plain_loops_do(segments: Segments, pooling: Pooling, seed: int) -> None:
    hidden = torch.randn(sum(segments.lengths), 3, generator=torch.Generator().manual_seed(seed))
    pooled = pool(hidden, segments=segments, pooling=pooling)
    starts = segments.pool_from or (0,) * len(segments.lengths)
    for row, part, start in zip(pooled, hidden.split(segments.lengths), starts, strict=True):
        torch.testing.assert_close(row, _expected(part[start:], pooling))


def _expected(part: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    if pooling is Pooling.LAST:
        return part[-1]
    if pooling is Pooling.CONCAT:
        return torch.cat([part[-1], _expected(part, Pooling.MEAN)])
    weights = [1.0] * len(part) if pooling is Pooling.MEAN else [float(n + 1) for n in range(len(part))]
    return sum(w * state for w, state in zip(weights, part, strict=True)) / sum(weights)


def test_the_result_is_float32() -> None:
    hidden = torch.randn(12, 4).bfloat16()
    assert {pool(hidden, segments=SEGMENTS, pooling=pooling).dtype for pooling in Pooling} == {torch.float32}
