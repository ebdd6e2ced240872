"""Pooling by segment, against plain loops."""

import pytest
import torch

from embedsmith.config import Pooling
from embedsmith.model.packing import Segments
from embedsmith.model.pooling import pool

LENGTHS = (1, 3, 3, 5)
SEGMENTS = Segments(LENGTHS, torch.tensor([0, 1, 4, 7, 12], dtype=torch.int32))


@pytest.mark.parametrize("pooling", list(Pooling))
def test_pooling_equals_plain_loops(pooling: Pooling) -> None:
    hidden = torch.randn(12, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    pooled = pool(hidden, segments=SEGMENTS, pooling=pooling)
    for row, part in zip(pooled, hidden.detach().split(LENGTHS), strict=True):
        if pooling is Pooling.LAST:
            expected = part[-1]
        else:
            weights = [1.0] * len(part) if pooling is Pooling.MEAN else [float(n + 1) for n in range(len(part))]
            expected = sum(w * state for w, state in zip(weights, part, strict=True)) / sum(weights)
        torch.testing.assert_close(row.detach(), expected)
    pooled.sum().backward()
    assert hidden.grad is not None


def test_the_result_is_float32() -> None:
    hidden = torch.randn(12, 4).bfloat16()
    assert {pool(hidden, segments=SEGMENTS, pooling=pooling).dtype for pooling in Pooling} == {torch.float32}
