"""A loss in blocks of rows is the loss of the whole batch, and so are its gradients."""

from collections.abc import Callable

import pytest
import torch
from torch.nn.functional import normalize

from embedsmith.settings.contrast import ContrastSection, Direction
from embedsmith.training import row_blocks
from embedsmith.training.directions import compare
from embedsmith.training.loss import guided_exclusion, info_nce, spread_out
from embedsmith.training.ranking import angle, cosent
from embedsmith.training.row_blocks import by_rows, mean_over_rows

ALL = ContrastSection(directions=list(Direction))
EACH = ContrastSection(
    directions=[Direction.ANCHOR_TO_CANDIDATE, Direction.POSITIVE_TO_ANCHOR], partition_mode="per_direction"
)
TERMS = {
    "plain": ContrastSection(),
    "all directions": ALL,
    "each direction by itself": EACH,
    "margin": ALL.model_copy(update={"false_negative_margin": 0.1}),
    "hardness": ALL.model_copy(update={"hardness_mode": "all_negatives", "hardness_form": "importance"}),
}
SCORES = torch.tensor([3.0, 1.0, 1.0, 5.0, 0.0, 0.0, 2.0])


def _unit(rows: int, seed: int) -> torch.Tensor:
    return normalize(torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed)), dim=-1)


ANCHOR, POSITIVE, NEGATIVE, GUIDE = _unit(7, 0), _unit(7, 1), _unit(9, 2), _unit(7, 3)
NEGATIVE_ROWS = torch.tensor([0, 0, 1, 2, 3, 3, 4, 5, 6])


def _contrast(terms: ContrastSection, *, guided: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    named = {"negative_rows": NEGATIVE_ROWS}

    def loss(anchor: torch.Tensor) -> torch.Tensor:
        def of_rows(block: slice) -> torch.Tensor:
            excluded = None
            if guided:
                found = compare(GUIDE, POSITIVE, NEGATIVE, directions=terms.directions, block=block, **named)
                excluded = guided_exclusion(found.cosines, margin=0.1, block=block)
            return info_nce(
                anchor,
                POSITIVE,
                NEGATIVE,
                temperature=0.2,
                hard_negative_weight=2.0,
                terms=terms,
                excluded=excluded,
                block=block,
                **named,
            )

        return mean_over_rows(of_rows, num_rows=7, num_columns=50)

    return loss


LOSSES = {
    **{name: _contrast(terms, guided=False) for name, terms in TERMS.items()},
    "guided": _contrast(ALL, guided=True),
    "spread out": spread_out,
    "cosent": lambda anchor: cosent(anchor, POSITIVE, SCORES, temperature=0.1),
    "angle": lambda anchor: angle(anchor, POSITIVE, SCORES, temperature=0.1),
    "equal scores": lambda anchor: cosent(anchor, POSITIVE, torch.ones(7), temperature=0.1),
}


@pytest.mark.parametrize("cells", [1, 21, 120])
@pytest.mark.parametrize("name", LOSSES)
def test_blocks_of_rows_make_the_loss_of_all(name: str, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one row, of a few, and with a last block that is smaller."""
    results = []
    for limit in (10_000, cells):
        monkeypatch.setattr(row_blocks, "MAX_CELLS", limit)
        anchor = ANCHOR.clone().requires_grad_()
        loss = LOSSES[name](anchor)
        loss.backward()
        results.append((loss.detach(), anchor.grad))
    for ours, whole in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(ours, whole, rtol=1e-5, atol=1e-6)
    assert name == "equal scores" or results[0][1].abs().max() > 1e-3


def test_no_block_is_larger_than_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_blocks, "MAX_CELLS", 25)
    taken: list[slice] = []

    def part(block: slice) -> torch.Tensor:
        taken.append(block)
        return torch.ones(())

    assert by_rows(part, num_rows=7, num_columns=10).tolist() == [1, 1, 1, 1]
    assert taken == [slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 7)]
    assert by_rows(part, num_rows=2, num_columns=10).tolist() == [1]
