"""Torch's varlen flash attention, which a GPU alone has, as its documentation says it."""

import torch
from torch.nn.functional import scaled_dot_product_attention


def varlen_attn(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
) -> torch.Tensor:
    """What torch documents of its function, text by text: queries are aligned at the end of the keys."""
    assert cu_seq_q.dtype is cu_seq_k.dtype is torch.int32
    assert enable_gqa == (query.shape[1] != key.shape[1])
    rows = []
    for place in range(len(cu_seq_q) - 1):
        q = query[cu_seq_q[place] : cu_seq_q[place + 1]].transpose(0, 1)
        k, v = (tensor[cu_seq_k[place] : cu_seq_k[place + 1]].transpose(0, 1) for tensor in (key, value))
        assert q.shape[1] <= max_q and k.shape[1] <= max_k
        at = torch.arange(q.shape[1])[:, None] + k.shape[1] - q.shape[1]
        ahead = torch.arange(k.shape[1]) - at
        back, forth = (k.shape[1] if reach < 0 else reach for reach in window_size)
        mask = (ahead <= forth) & (ahead >= -back)
        rows.append(scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=True).transpose(0, 1))
    return torch.cat(rows)
