"""InfoNCE against plain Python loops and closed forms."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from embedsmith.training.loss import info_nce


def _unit(rows: int, seed: int) -> torch.Tensor:
    return normalize(torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed)), dim=-1)


def _by_loops(anchor: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor | None, t: float) -> float:
    """The formula of the paper, a term at a time."""
    a, p = anchor.tolist(), positive.tolist()
    n = negative.tolist() if negative is not None else []
    total = 0.0
    for i in range(len(a)):
        cosine = [sum(x * y for x, y in zip(a[i], other, strict=True)) for other in (*p, *n)]
        total += -math.log(math.exp(cosine[i] / t) / sum(math.exp(c / t) for c in cosine))
    return total / len(a)


@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("with_negatives", [True, False])
def test_it_equals_plain_loops(temperature: float, with_negatives: bool) -> None:
    anchor, positive, negative = _unit(6, 0), _unit(6, 1), _unit(6, 2) if with_negatives else None
    loss = info_nce(anchor, positive, negative, temperature=temperature)
    assert loss.item() == pytest.approx(_by_loops(anchor, positive, negative, temperature), rel=1e-5)


def test_equal_similarities_give_the_log_of_the_candidates() -> None:
    same = _unit(1, 0).expand(4, 8)
    assert info_nce(same, same, same, temperature=0.05).item() == pytest.approx(math.log(8), rel=1e-5)


def test_hard_negatives_push_away() -> None:
    anchor, positive = _unit(4, 0), _unit(4, 1)
    without = info_nce(anchor, positive, None, temperature=0.05)
    assert info_nce(anchor, positive, anchor, temperature=0.05) > without


def test_faulty_arguments() -> None:
    with pytest.raises(ValueError, match="one shape"):
        info_nce(_unit(4, 0), _unit(3, 0), None, temperature=0.05)
    with pytest.raises(ValueError, match="one shape"):
        info_nce(_unit(4, 0), _unit(4, 0), _unit(3, 0), temperature=0.05)
    with pytest.raises(ValueError, match="must be positive"):
        info_nce(_unit(4, 0), _unit(4, 0), None, temperature=0)
