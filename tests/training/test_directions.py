"""Directions, hardness and the regulariser against sentence-transformers' losses: values and gradients."""

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import (
    GlobalOrthogonalRegularizationLoss,
    MultipleNegativesRankingLoss,
)
from torch.nn.functional import normalize

from embedsmith.settings.contrast import ContrastSection, Direction
from embedsmith.training.directions import compare
from embedsmith.training.loss import info_nce, spread_out

NAMES = {
    Direction.ANCHOR_TO_CANDIDATE: "query_to_doc",
    Direction.POSITIVE_TO_ANCHOR: "doc_to_query",
    Direction.ANCHOR_TO_ANCHOR: "query_to_query",
    Direction.POSITIVE_TO_CANDIDATE: "doc_to_doc",
}
FIRST, *OTHERS = NAMES
SYMMETRIC = [FIRST, Direction.POSITIVE_TO_ANCHOR]
CASES: dict[str, dict[str, object]] = {
    "plain": {},
    **{f"with {direction}": {"directions": [FIRST, direction]} for direction in OTHERS},
    "GTE": {"directions": list(NAMES)},
    "symmetric": {"directions": SYMMETRIC, "partition_mode": "per_direction"},
    "in_batch_negatives": {"hardness_mode": "in_batch_negatives", "hardness_strength": 9},
    "hard_negatives": {"hardness_mode": "hard_negatives"},
    "all_negatives, GTE": {"hardness_mode": "all_negatives", "hardness_strength": 3, "directions": list(NAMES)},
    "all_negatives, symmetric": {
        "hardness_mode": "all_negatives",
        "directions": SYMMETRIC,
        "partition_mode": "per_direction",
    },
}


def _texts(num_negatives: int) -> list[torch.Tensor]:
    """Anchors, positives, and so many negatives of each of six rows."""
    generator = torch.Generator().manual_seed(0)
    return [
        normalize(torch.randn(6, 8, generator=generator), dim=-1).requires_grad_() for _ in range(2 + num_negatives)
    ]


@pytest.mark.parametrize("num_negatives", [0, 1, 2])
@pytest.mark.parametrize("case", CASES)
def test_it_equals_sentence_transformers(case: str, num_negatives: int) -> None:
    terms = ContrastSection(**CASES[case])
    ours = _texts(num_negatives)
    loss = info_nce(
        *ours[:2],
        torch.cat(ours[2:]) if num_negatives else None,
        negative_rows=torch.arange(6).repeat(num_negatives),
        temperature=0.05,
        terms=terms,
    )
    loss.backward()
    theirs = _texts(num_negatives)
    expected = MultipleNegativesRankingLoss(
        torch.nn.Identity(),
        directions=tuple(NAMES[direction] for direction in terms.directions),
        partition_mode=terms.partition_mode,
        hardness_mode=terms.hardness_mode,
        hardness_strength=terms.hardness_strength,
    ).compute_loss_from_embeddings(theirs, None)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    for text, other in zip(ours, theirs, strict=True):
        # theirs divides by the length once more, so what changes the length alone has no gradient there
        along = (text.grad * text).sum(dim=1, keepdim=True) * text
        torch.testing.assert_close(text.grad - along, other.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("moments", [[1], [2], [1, 2]])
def test_the_regulariser_equals_sentence_transformers(moments: list[int]) -> None:
    ours, theirs = _texts(0), _texts(0)
    loss = sum(spread_out(role, moments=moments) for role in ours)
    loss.backward()
    weights = {"mean_weight": float(1 in moments), "second_moment_weight": float(2 in moments)}
    reference = GlobalOrthogonalRegularizationLoss(torch.nn.Identity(), aggregation="sum", **weights)
    expected = sum(reference.compute_loss_from_embeddings(theirs).values())
    expected.backward()
    torch.testing.assert_close(loss, expected)
    for text, other in zip(ours, theirs, strict=True):
        along = (text.grad * text).sum(dim=1, keepdim=True) * text
        torch.testing.assert_close(text.grad - along, other.grad, atol=1e-6, rtol=1e-4)


def test_the_order_in_which_directions_are_named_is_of_no_matter() -> None:
    anchor, positive, negative = _texts(1)
    one, other = (
        compare(anchor, positive, negative, directions=order) for order in (list(NAMES), list(reversed(NAMES)))
    )
    assert torch.equal(one.cosines, other.cosines)
    assert one.widths == (12, 6, 6, 12)


def test_texts_of_one_row_and_one_side_are_never_compared() -> None:
    """Three rows, of which the first has two negatives and the last one."""
    anchor, positive, negative = (text[:3] for text in _texts(1))
    found = compare(anchor, positive, negative, directions=list(NAMES), negative_rows=torch.tensor([0, 0, 2]))
    assert found.num_candidates == 6
    never = [sorted(row.nonzero()[:, 0].tolist()) for row in found.is_never]
    # columns: 6 candidates, 3 anchors, 3 anchors, 6 candidates
    assert never == [[9, 12, 15, 16], [10, 13], [11, 14, 17]]
    right = [row.nonzero()[:, 0].tolist() for row in found.is_positive]
    assert right == [[0, 6], [1, 7], [2, 8]]
