"""Hidden states of a packed row (N, H) -> one vector per segment (S, H), by segment bounds and never by column.

There is no padding, so the padding side cannot matter.
"""

import torch

from embedsmith.config import Pooling
from embedsmith.model.packing import Segments


def pool(hidden: torch.Tensor, *, segments: Segments, pooling: Pooling) -> torch.Tensor:
    """Pool hidden states (N, H) by segment; returns (S, H) float32."""
    if pooling is Pooling.LAST:
        return hidden.index_select(0, segments.ends).float()
    hidden = hidden.float()
    lengths = segments.cu_seqlens.long().diff()
    if pooling is Pooling.WEIGHTED_MEAN:
        weights = torch.cat([torch.arange(1, n + 1) / (n * (n + 1) / 2) for n in segments.lengths])
        return _segment_sum(hidden * weights.to(hidden.device)[:, None], lengths)
    return _segment_sum(hidden, lengths) / lengths[:, None]


def _segment_sum(values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    return torch.segment_reduce(values, "sum", lengths=lengths, axis=0)
