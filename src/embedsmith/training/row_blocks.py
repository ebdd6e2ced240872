"""Losses over every row of a batch with every other one, some rows at a time, so that no batch is too large for them.

A matrix of cosines has B rows and twice as many columns or more: 270 MB for 4,096 triplets, of which a loss and its
backward hold half a dozen. Up to `MAX_CELLS` it is computed at once; beyond, block by block, and each block again for
its gradient. Cost: one more product of the embeddings with each other.
"""

from collections.abc import Callable

import torch
from torch.utils.checkpoint import checkpoint

MAX_CELLS = 2**23
"""Cells of one matrix: 32 MB in float32."""


def by_rows(part_of: Callable[[slice], torch.Tensor], *, num_rows: int, num_columns: int) -> torch.Tensor:
    """What a function gives for the rows of each block, stacked (number of blocks, ...).

    Args:
        part_of: rows -> tensor, of the same shape for all blocks.
        num_rows: of the whole matrix, B.
        num_columns: of the whole matrix.
    """
    height = max(1, MAX_CELLS // max(1, num_columns))
    if height >= num_rows:
        return part_of(slice(0, num_rows))[None]
    blocks = [slice(first, min(first + height, num_rows)) for first in range(0, num_rows, height)]
    parts = [checkpoint(part_of, block, use_reentrant=False, preserve_rng_state=False) for block in blocks]
    return torch.stack(parts)


def mean_over_rows(loss_of: Callable[[slice], torch.Tensor], *, num_rows: int, num_columns: int) -> torch.Tensor:
    """The mean over all rows of a loss that `loss_of` gives as the mean over some."""

    def share_of(block: slice) -> torch.Tensor:
        return loss_of(block) * ((block.stop - block.start) / num_rows)

    return by_rows(share_of, num_rows=num_rows, num_columns=num_columns).sum()
