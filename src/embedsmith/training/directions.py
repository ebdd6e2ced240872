"""Embeddings of a batch -> the cosines that its contrastive loss is made of, direction by direction, side by side.

    row i                    columns                      positive    never counted
    anchor_to_candidate      a_i · p_j   then a_i · n_k   j = i
    positive_to_anchor       p_i · a_j                    j = i
    anchor_to_anchor         a_i · a_j                                j = i
    positive_to_candidate    p_i · p_j   then p_i · n_k               j = i, and k of row i

anchor_to_candidate comes first, so that column i holds the positive of row i. The batches have no text in two rows, so
what is compared across rows are different texts in every direction.

Reference: GTE, Li et al. 2023 (arXiv 2308.03281), "improved contrastive loss"; sentence-transformers'
MultipleNegativesRankingLoss, whose `directions` these are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from embedsmith.settings.contrast import Direction

WHOLE = slice(None)
"""All rows."""


@dataclass(frozen=True)
class Comparisons:
    """What rows of a batch are compared with; b rows, all B or a block of them, and C columns of all directions.

    Attributes:
        cosines: (b, C).
        widths: columns of each direction.
        num_candidates: columns of anchor_to_candidate, which come first: B positives and the hard negatives.
        of_one_row: (b, C) bool, True where both texts are of one row.
        is_positive: (b, C) bool, True where they are its anchor and its positive.
        is_never: (b, C) bool, True where they are texts of one row and one side, or one text.
    """

    cosines: torch.Tensor
    widths: tuple[int, ...]
    num_candidates: int
    of_one_row: torch.Tensor
    is_positive: torch.Tensor
    is_never: torch.Tensor


def compare(
    anchor: torch.Tensor,
    positive: torch.Tensor,
    negative: torch.Tensor | None,
    *,
    directions: Sequence[Direction],
    negative_rows: torch.Tensor | None = None,
    block: slice = WHOLE,
) -> Comparisons:
    """The cosines of some directions, and which of them are of what kind.

    Args:
        anchor: unit-length embeddings, (B, D).
        positive: (B, D).
        negative: of all rows, (M, D), or None.
        directions: anchor_to_candidate among them.
        negative_rows: (M,) int64, the row of each negative; None: negative i is of row i.
        block: the rows that are compared, with the texts of all.
    """
    rows = torch.arange(len(anchor), device=anchor.device)
    candidates, rows_of_candidates = positive, rows
    if negative is not None:
        candidates = torch.cat([positive, negative])  # (B + M, D)
        rows_of_candidates = torch.cat([rows, rows if negative_rows is None else negative_rows])
    sides = {
        Direction.ANCHOR_TO_CANDIDATE: (anchor, candidates, rows_of_candidates),
        Direction.POSITIVE_TO_ANCHOR: (positive, anchor, rows),
        Direction.ANCHOR_TO_ANCHOR: (anchor, anchor, rows),
        Direction.POSITIVE_TO_CANDIDATE: (positive, candidates, rows_of_candidates),
    }
    chosen = [direction for direction in sides if direction in directions]
    assert chosen[:1] == [Direction.ANCHOR_TO_CANDIDATE], "the positive's column comes first"
    compared = rows[block]
    of_one_row = [compared[:, None] == sides[direction][2] for direction in chosen]
    is_positive = [torch.zeros_like(part) for part in of_one_row]
    is_never = [torch.zeros_like(part) for part in of_one_row]
    for direction, same, right, never in zip(chosen, of_one_row, is_positive, is_never, strict=True):
        if direction in (Direction.ANCHOR_TO_CANDIDATE, Direction.POSITIVE_TO_ANCHOR):
            right.scatter_(1, compared[:, None], True)
        else:
            never |= same
    return Comparisons(
        cosines=torch.cat([left[block] @ right.T for left, right, _ in map(sides.__getitem__, chosen)], dim=1),
        widths=tuple(part.shape[1] for part in of_one_row),
        num_candidates=len(candidates),
        of_one_row=torch.cat(of_one_row, dim=1),
        is_positive=torch.cat(is_positive, dim=1),
        is_never=torch.cat(is_never, dim=1),
    )


def count_columns(directions: Sequence[Direction], *, num_rows: int, num_negatives: int) -> int:
    """Columns C of what `compare` gives for so many rows and negatives."""
    num_candidates = num_rows + num_negatives
    anchors = (Direction.POSITIVE_TO_ANCHOR, Direction.ANCHOR_TO_ANCHOR)
    return sum(num_rows if direction in anchors else num_candidates for direction in directions)
