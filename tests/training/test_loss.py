"""The losses against plain Python loops and closed forms."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from embedsmith.settings.contrast import ContrastSection, Direction
from embedsmith.settings.teacher import EmbeddingDistance
from embedsmith.training.loss import distillation, embedding_distillation, guided_exclusion, info_nce, spread_out


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


@pytest.mark.parametrize("with_negatives", [True, False])
def test_without_terms_it_is_the_plain_formula_to_the_bit(with_negatives: bool) -> None:
    gradients = []
    for is_ours in (True, False):
        anchor, positive, negative = (_unit(6, seed).requires_grad_() for seed in range(3))
        if is_ours:
            loss = info_nce(anchor, positive, negative if with_negatives else None, temperature=0.07)
        else:
            candidates = torch.cat([positive, negative]) if with_negatives else positive
            loss = cross_entropy(anchor @ candidates.T / 0.07, torch.arange(6))
        loss.backward()
        gradients.append([loss.detach(), anchor.grad, positive.grad, *([negative.grad] if with_negatives else [])])
    for ours, plain in zip(*gradients, strict=True):
        assert torch.equal(ours, plain)


def test_what_the_model_itself_takes_for_a_false_negative_is_left_out_without_gradient() -> None:
    terms = ContrastSection(directions=list(Direction), false_negative_margin=0.1)
    gradients = []
    for is_ours in (True, False):
        anchor, positive, negative = (_unit(6, seed).requires_grad_() for seed in range(3))
        if is_ours:
            loss = info_nce(anchor, positive, negative, temperature=0.2, terms=terms)
        else:
            others = torch.cat([positive, negative])
            blocks = [anchor @ others.T, positive @ anchor.T, anchor @ anchor.T, positive @ others.T]
            excluded = torch.cat(blocks, dim=1) > (anchor * positive).sum(dim=1, keepdim=True) + 0.1
            assert excluded.any(dim=0).sum() > 20
            directions = ContrastSection(directions=list(Direction))
            loss = info_nce(anchor, positive, negative, temperature=0.2, terms=directions, excluded=excluded)
        loss.backward()
        gradients.append([loss.detach(), anchor.grad, positive.grad, negative.grad])
    for ours, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("partition_mode", ["joint", "per_direction"])
def test_a_positive_stays_in_every_direction(partition_mode: str) -> None:
    both = [Direction.ANCHOR_TO_CANDIDATE, Direction.POSITIVE_TO_ANCHOR]
    terms = ContrastSection(directions=both, partition_mode=partition_mode, false_negative_margin=-2)
    everything = torch.ones(4, 8, dtype=torch.bool)
    loss = info_nce(_unit(4, 0), _unit(4, 1), None, temperature=0.1, terms=terms, excluded=everything)
    # joint: the positive stands there twice; by itself it is all there is
    assert loss.item() == pytest.approx(math.log(2) if partition_mode == "joint" else 0, abs=1e-6)


@pytest.mark.parametrize("strength", [2.5, 10.0])
def test_importance_weights_equal_the_published_code(strength: float) -> None:
    """Robinson et al., `main.py: criterion` with `tau_plus` 0, for one view against the other."""
    gradients = []
    for is_ours in (True, False):
        anchor, positive = (_unit(6, seed).requires_grad_() for seed in range(2))
        if is_ours:
            terms = ContrastSection(
                hardness_mode="in_batch_negatives", hardness_strength=strength, hardness_form="importance"
            )
            loss = info_nce(anchor, positive, None, temperature=0.4, terms=terms)
        else:
            similarities = torch.exp(anchor @ positive.T / 0.4)
            is_negative = ~torch.eye(6, dtype=torch.bool)
            pos, neg = similarities.diagonal(), similarities[is_negative].view(6, 5)
            beta = strength * 0.4
            imp = (beta * neg.log()).exp()
            reweight_neg = (imp * neg).sum(dim=-1) / imp.mean(dim=-1)
            loss = (-torch.log(pos / (pos + reweight_neg))).mean()
        loss.backward()
        gradients.append([loss.detach(), anchor.grad, positive.grad])
    for ours, published in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, published)


def test_an_anchor_without_negatives_to_weigh_has_a_gradient() -> None:
    terms = ContrastSection(hardness_mode="hard_negatives", hardness_form="importance")
    anchor, positive, negative = (_unit(3, seed).requires_grad_() for seed in range(3))
    rows = torch.tensor([0, 0, 2])
    loss = info_nce(anchor, positive, negative, temperature=0.1, negative_rows=rows, terms=terms)
    loss.backward()
    assert all(part.grad.isfinite().all() for part in (anchor, positive, negative))


def test_spread_out_in_closed_form() -> None:
    assert spread_out(torch.eye(4)).item() == 0
    same = _unit(1, 0).expand(5, 8)
    assert spread_out(same).item() == pytest.approx(1 + 1 - 1 / 8, rel=1e-5)
    assert spread_out(same, moments=[1]).item() == pytest.approx(1, rel=1e-5)
    # a pair at 60 degrees: mean 1/2, mean square 1/4, over two dimensions
    pair = torch.tensor([[1.0, 0.0], [0.5, math.sqrt(0.75)]])
    assert spread_out(pair, moments=[1]).item() == pytest.approx(0.25)
    assert spread_out(pair, moments=[2]).item() == 0
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert spread_out(opposite, moments=[2]).item() == pytest.approx(1 - 1 / 2)


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


def test_embedding_distillation_of_known_angles() -> None:
    """Student at 60 degrees from the teacher, and at 0 degrees with half the length; a projection that does nothing."""
    student = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    teacher = torch.tensor([[0.5, math.sqrt(0.75)], [0.0, 1.0]])
    halved = torch.tensor([[1.0, 0.0], [0.0, 0.5]])
    for projection, distance, expected in (
        (torch.eye(2), EmbeddingDistance.COSINE, (0.5 + 0) / 2),
        (torch.eye(2), EmbeddingDistance.SQUARED, (1 + 0) / 2),  # |s - t|^2 = 2 - 2 cos
        (halved, EmbeddingDistance.COSINE, (0.5 + 0) / 2),
        (halved, EmbeddingDistance.SQUARED, (1 + 0.25) / 2),
    ):
        loss = embedding_distillation(student, teacher, projection, distance=distance)
        assert loss.item() == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"onto \(K, T\), not \(2, 2\), \(2, 3\), \(2, 3\)"):
        embedding_distillation(student, torch.ones(2, 3), torch.ones(2, 3), distance=EmbeddingDistance.COSINE)
