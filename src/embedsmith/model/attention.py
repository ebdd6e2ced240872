"""Packed attention, plugged into transformers' attention interface: each segment attends to itself only.

CPU (and float32 anywhere): `scaled_dot_product_attention` over blocks of equally long segments, so nothing is padded.
CUDA in half precision: torch's varlen flash attention on the packed row. No attention mask is ever built:
transformers makes none for an attention implementation it has no mask function for.
"""

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from embedsmith.errors import ModelError
from embedsmith.model.packing import Segments

PACKED_ATTENTION = "embedsmith_packed"


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    segments: Segments | None = None,
    **unused: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each segment of a packed row.

    Args:
        query: (1, heads, N, width); key and value: (1, KV heads, N, width), rotary already applied.
        segments: where the segments lie; transformers hands it through from the model's call.
        sliding_window: tokens a query may look back, itself included, or None.

    Returns:
        (1, N, heads, width), and None in place of the attention weights.

    Raises:
        ModelError: the model does not hand `segments` through, or its attention has a part (soft capping, sinks, a
            mask of its own, attention dropout) that this function does not compute.
    """
    name = type(module).__name__
    if segments is None or attention_mask is not None:
        raise ModelError(f"{name} cannot run on packed texts: it does not pass its attention arguments through.")
    extras = [key for key in ("softcap", "s_aux", "position_bias") if unused.get(key) is not None]
    if extras or dropout > 0:
        raise ModelError(f"{name} uses {', '.join(extras) or 'attention dropout'}, which packed attention lacks.")
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))  # (N, heads, width)
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
        output = _varlen(query, key, value, segments, scaling=scaling, sliding_window=sliding_window)
    else:
        output = _by_length(query, key, value, segments, scaling=scaling, sliding_window=sliding_window)
    return output[None], None


def _by_length(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Segments,
    *,
    scaling: float | None,
    sliding_window: int | None,
) -> torch.Tensor:
    # float32: the bfloat16 backward of this function takes three times as long on a CPU (measured).
    dtype = query.dtype
    query, key, value = query.float(), key.float(), value.float()
    runs = list(segments.runs)
    # One split, not a slice per block: the backward of a slice fills a whole row of zeros.
    blocks = zip(*(tensor.split([n * m for _, n, m in runs]) for tensor in (query, key, value)), strict=True)
    outputs = []
    for (_, count, length), rows in zip(runs, blocks, strict=True):
        q, k, v = (tensor.unflatten(0, (count, length)).transpose(1, 2) for tensor in rows)
        is_windowed = sliding_window is not None and length > sliding_window
        output = scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=_window_mask(length, sliding_window, query.device) if is_windowed else None,
            is_causal=not is_windowed,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )  # (count, heads, length, width)
        outputs.append(output.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs).to(dtype)


def _window_mask(length: int, window: int | None, device: torch.device) -> torch.Tensor:
    assert window is not None
    position = torch.arange(length, device=device)
    distance = position[:, None] - position[None, :]
    return (distance >= 0) & (distance < window)


def _varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Segments,
    *,
    scaling: float | None,
    sliding_window: int | None,
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    longest = segments.lengths[-1]
    # (look back, look ahead); -1 is "no limit". The query itself is not counted here.
    window = (-1 if sliding_window is None else sliding_window - 1, 0)
    output = varlen_attn(
        query.contiguous(),
        key.contiguous(),
        value.contiguous(),
        segments.cu_seqlens,
        segments.cu_seqlens,
        longest,
        longest,
        scale=scaling,
        window_size=window,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(output, torch.Tensor)
    return output


AttentionInterface.register(PACKED_ATTENTION, packed_attention)
