"""The losses against plain Python loops and closed forms."""

import cmath
import math

import pytest
import torch
from torch.nn.functional import normalize

from embedsmith.training.loss import ANGLE_TEMPERATURE, angle, cosent, distillation, guided_exclusion, info_nce

SCORES = [3.0, 0.5, 3.0, 5.0, 1.0, -2.0]  # with a tie, and of no particular range


def _unit(rows: int, seed: int, width: int = 8) -> torch.Tensor:
    return normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


def _dot(first: list[float], second: list[float]) -> float:
    return sum(x * y for x, y in zip(first, second, strict=True))


def _by_loops(
    anchor: torch.Tensor,
    positive: torch.Tensor,
    negative: torch.Tensor | None,
    t: float,
    *,
    weight: float = 1.0,
    left_out: set[tuple[int, int]] = frozenset(),
) -> float:
    """The formula of the paper, a term at a time."""
    a, p = anchor.tolist(), positive.tolist()
    n = negative.tolist() if negative is not None else []
    total = 0.0
    for i in range(len(a)):
        cosine = [_dot(a[i], other) for other in (*p, *n)]
        counts = [0 if (i, j) in left_out else weight if j == i + len(p) else 1 for j in range(len(cosine))]
        total += -math.log(
            math.exp(cosine[i] / t) / sum(k * math.exp(c / t) for k, c in zip(counts, cosine, strict=True))
        )
    return total / len(a)


def _ranking_by_loops(values: list[float], scores: list[float]) -> float:
    total = 1.0
    for i, higher in enumerate(scores):
        for j, lower in enumerate(scores):
            if higher > lower:
                total += math.exp(values[j] - values[i])
    return math.log(total)


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


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 3.0])
def test_a_row_s_own_hard_negative_counts_so_many_times(weight: float) -> None:
    anchor, positive, negative = _unit(6, 0).requires_grad_(), _unit(6, 1), _unit(6, 2)
    loss = info_nce(anchor, positive, negative, temperature=0.2, hard_negative_weight=weight)
    assert loss.item() == pytest.approx(_by_loops(anchor, positive, negative, 0.2, weight=weight), rel=1e-5)
    loss.backward()
    assert anchor.grad.isfinite().all()


def test_equal_similarities_with_a_weight_give_the_log_of_what_counts() -> None:
    same = _unit(1, 0).expand(4, 8)
    loss = info_nce(same, same, same, temperature=0.05, hard_negative_weight=5)
    assert loss.item() == pytest.approx(math.log(4 + 3 + 5), rel=1e-5)


@pytest.mark.parametrize("margin", [-0.3, 0.0, 0.3])
def test_the_guide_takes_out_what_it_finds_closer_than_the_positive(margin: float) -> None:
    anchor, positive, negative = _unit(6, 0).requires_grad_(), _unit(6, 1), _unit(6, 2)
    guide = torch.rand(6, 12, generator=torch.Generator().manual_seed(3))
    excluded = guided_exclusion(guide, margin=margin)
    rows = guide.tolist()
    left_out = {(i, j) for i in range(6) for j in range(12) if j != i and rows[i][j] > rows[i][i] - margin}
    assert {tuple(place) for place in excluded.nonzero().tolist()} == left_out
    assert 0 < len(left_out) < 66
    loss = info_nce(anchor, positive, negative, temperature=0.2, excluded=excluded)
    assert loss.item() == pytest.approx(_by_loops(anchor, positive, negative, 0.2, left_out=left_out), rel=1e-5)
    loss.backward()
    assert anchor.grad.isfinite().all()


def test_a_positive_is_never_left_out() -> None:
    assert guided_exclusion(torch.zeros(3, 6), margin=1).logical_not().nonzero().tolist() == [[0, 0], [1, 1], [2, 2]]


def test_distillation_equals_plain_loops() -> None:
    anchor, candidates, teacher = _unit(4, 0), _unit(8, 1), torch.rand(4, 8, generator=torch.Generator().manual_seed(2))

    def softmax(values: list[float]) -> list[float]:
        weights = [math.exp(value / 0.3) for value in values]
        return [weight / sum(weights) for weight in weights]

    total = 0.0
    for row, taught in zip(anchor.tolist(), teacher.tolist(), strict=True):
        student = softmax([_dot(row, other) for other in candidates.tolist()])
        total += sum(p * math.log(p / q) for p, q in zip(softmax(taught), student, strict=True))
    assert distillation(anchor, candidates, teacher, temperature=0.3).item() == pytest.approx(total / 4, rel=1e-5)


def test_a_teacher_that_agrees_teaches_nothing() -> None:
    anchor, candidates = _unit(4, 0), _unit(8, 1)
    assert distillation(anchor, candidates, anchor @ candidates.T, temperature=0.05).item() == pytest.approx(
        0, abs=1e-6
    )


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
    with pytest.raises(ValueError, match="one shape"):
        info_nce(_unit(4, 0), _unit(3, 0), None, temperature=0.05)
    with pytest.raises(ValueError, match="one shape"):
        info_nce(_unit(4, 0), _unit(4, 0), _unit(3, 0), temperature=0.05)
    with pytest.raises(ValueError, match="must be positive"):
        info_nce(_unit(4, 0), _unit(4, 0), None, temperature=0)
    with pytest.raises(ValueError, match="must not be negative"):
        info_nce(_unit(4, 0), _unit(4, 0), _unit(4, 0), temperature=1, hard_negative_weight=-1)
    with pytest.raises(ValueError, match="must be positive"):
        distillation(_unit(4, 0), _unit(4, 0), torch.zeros(4, 4), temperature=0)
    for loss in (cosent, angle):
        with pytest.raises(ValueError, match="one shape"):
            loss(_unit(4, 0), _unit(3, 0), torch.zeros(4), temperature=1)
        with pytest.raises(ValueError, match="must be positive"):
            loss(_unit(4, 0), _unit(4, 0), torch.zeros(4), temperature=0)
