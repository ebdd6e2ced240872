"""Hidden states of a packed row (N, H) -> one vector per segment (S, H), by segment bounds and never by column.

Means are over a segment's prefix and itself. There is no padding, so the padding side cannot matter.
"""

import torch

from embedsmith.model.layers.segments import Segments
from embedsmith.settings.choices import Pooling


def pool(hidden: torch.Tensor, *, segments: Segments, pooling: Pooling) -> torch.Tensor:
    """Pool hidden states (N, H) by segment; returns (S, H) float32, or (S, 2H) side by side for `concat`."""
    if pooling is Pooling.LAST:
        return hidden.index_select(0, segments.ends).float()
    if pooling is Pooling.CONCAT:
        parts = [pool(hidden, segments=segments, pooling=part) for part in (Pooling.LAST, Pooling.MEAN)]
        return torch.cat(parts, dim=1)
    weigh = _rising if pooling is Pooling.WEIGHTED_MEAN else _equal
    weights = torch.cat([part for skipped, count in segments.pooled for part in (torch.zeros(skipped), weigh(count))])
    states = hidden if segments.text_rows is None else hidden.index_select(0, segments.text_rows)
    weighted = states.float() * weights.to(hidden.device)[:, None]
    return torch.segment_reduce(weighted, "sum", lengths=segments.text_seqlens.long().diff(), axis=0)


def pooled_width(hidden_size: int, *, pooling: Pooling) -> int:
    """Width of a pooled vector."""
    return 2 * hidden_size if pooling is Pooling.CONCAT else hidden_size


def _equal(count: int) -> torch.Tensor:
    return torch.full((count,), 1 / count)


def _rising(count: int) -> torch.Tensor:
    return torch.arange(1, count + 1) / (count * (count + 1) / 2)
