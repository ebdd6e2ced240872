"""The losses of scored pairs against plain Python loops and complex numbers."""

import cmath
import math

import pytest
import torch
from torch.nn.functional import normalize

from embedsmith.training.ranking import ANGLE_TEMPERATURE, angle, cosent

SCORES = [3.0, 0.5, 3.0, 5.0, 1.0, -2.0]  # with a tie, and of no particular range


def _unit(rows: int, seed: int, width: int = 8) -> torch.Tensor:
    return normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


def _dot(first: list[float], second: list[float]) -> float:
    return sum(x * y for x, y in zip(first, second, strict=True))


def _ranking_by_loops(values: list[float], scores: list[float]) -> float:
    total = 1.0
    for i, higher in enumerate(scores):
        for j, lower in enumerate(scores):
            if higher > lower:
                total += math.exp(values[j] - values[i])
    return math.log(total)


def test_cosent_equals_plain_loops() -> None:
    first, second = _unit(6, 0), _unit(6, 1)
    values = [_dot(u, v) / 0.05 for u, v in zip(first.tolist(), second.tolist(), strict=True)]
    loss = cosent(first, second, torch.tensor(SCORES), temperature=0.05)
    assert loss.item() == pytest.approx(_ranking_by_loops(values, SCORES), rel=1e-5)


def test_only_the_order_of_the_scores_counts() -> None:
    first, second, scores = _unit(6, 0), _unit(6, 1), torch.tensor(SCORES, dtype=torch.float64)
    for loss in (cosent, angle):
        expected = loss(first, second, scores, temperature=0.05)
        assert loss(first, second, 0.01 * scores - 7, temperature=0.05) == expected


def test_equal_scores_give_no_loss_and_no_gradient() -> None:
    first = _unit(4, 0).requires_grad_()
    loss = cosent(first, _unit(4, 1), torch.ones(4), temperature=0.05)
    loss.backward()
    assert loss.item() == 0
    assert first.grad.eq(0).all()


@pytest.mark.parametrize("width", [8, 7])
def test_angle_equals_complex_numbers(width: int) -> None:
    """Quotients of complex numbers, one by one; an odd width is filled up with a zero."""
    first, second = _unit(6, 0, width), _unit(6, 1, width)
    half = (width + 1) // 2

    def as_complex(row: list[float]) -> list[complex]:
        row = [*row, 0.0][: 2 * half]
        return [complex(row[k], row[k + half]) for k in range(half)]

    values = []
    for u, v in zip(first.tolist(), second.tolist(), strict=True):
        # z conj(w), as the published code divides by the vectors' lengths, which are 1
        parts = [
            cmath.rect(abs(z) * abs(w), cmath.phase(z) - cmath.phase(w))
            for z, w in zip(as_complex(u), as_complex(v), strict=True)
        ]
        values.append(abs(sum(part.real + part.imag for part in parts)) / ANGLE_TEMPERATURE)
    cosine_part = cosent(first, second, torch.tensor(SCORES), temperature=0.05).item()
    loss = angle(first, second, torch.tensor(SCORES), temperature=0.05)
    assert loss.item() == pytest.approx(cosine_part + _ranking_by_loops(values, SCORES), rel=1e-5)


def test_faulty_arguments() -> None:
    for loss in (cosent, angle):
        with pytest.raises(ValueError, match="one shape"):
            loss(_unit(4, 0), _unit(3, 0), torch.zeros(4), temperature=1)
        with pytest.raises(ValueError, match="must be positive"):
            loss(_unit(4, 0), _unit(4, 0), torch.zeros(4), temperature=0)
