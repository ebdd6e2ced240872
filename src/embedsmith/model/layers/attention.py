"""Packed attention, plugged into transformers' attention interface: each segment attends to itself and its prefix only.

CPU: `scaled_dot_product_attention` over blocks of equally long segments, so nothing is padded. CUDA in half precision,
where torch and the card have it: torch's varlen flash attention on the packed row. Other rows on a GPU, float32 among
them: blocks of similarly long segments, padded, as every block is a call that a GPU waits for. transformers builds no
mask at all for an attention implementation it has no mask function for.
"""

import inspect
from functools import cache
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from embedsmith.model.layers.segments import Segments
from embedsmith.support.errors import ModelError

PACKED_ATTENTION = "embedsmith_packed"
_AMPERE = (8, 0)
_WIDEST_HEAD = 256  # of flash attention


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
    softcap: float | None = None,
    segments: Segments | None = None,
    causal_layers: int | None = None,
    **unused: Any,
) -> tuple[torch.Tensor, None]:
    """Attention within each segment of a packed row, causal in the first layers.

    Args:
        query: (1, heads, N, width); key and value: (1, KV heads, N, width), rotary already applied.
        segments: where the segments lie; transformers hands it through from the model's call.
        sliding_window: tokens a query may look back, itself included, or None; as many ahead where it is not causal.
        softcap: c where scores become c tanh(score / c) before the softmax, or None.
        causal_layers: in so many of the first layers a token sees no later one; None: in all.

    Returns:
        (1, N, heads, width), and None in place of the attention weights.

    Raises:
        ModelError: the model does not hand `segments` through, or its attention has a part (sinks, a
            mask of its own, attention dropout) that this function does not compute.
    """
    name = type(module).__name__
    if segments is None or attention_mask is not None:
        raise ModelError(f"{name} cannot run on packed texts: it does not pass its attention arguments through.")
    extras = [key for key in ("s_aux", "position_bias") if unused.get(key) is not None]
    if extras or dropout > 0:
        raise ModelError(f"{name} uses {', '.join(extras) or 'attention dropout'}, which packed attention lacks.")
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))  # (N, heads, width)
    output = segment_attention(
        query,
        key,
        value,
        segments,
        scaling=scaling,
        sliding_window=sliding_window,
        softcap=softcap,
        is_causal=causal_layers is None or _layer_of(module) < causal_layers,
    )
    return output[None], None


def _layer_of(module: torch.nn.Module) -> int:
    index = getattr(module, "layer_idx", None)
    if index is None:
        raise ModelError(f"{type(module).__name__} does not say which layer it is, so attention stays causal in it.")
    return int(index)


def segment_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Segments,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    is_causal: bool = True,
    ends_only: bool = False,
) -> torch.Tensor:
    """Attention within each segment and its prefix.

    Args:
        query: (N, heads, width), or with `ends_only` (S, heads, width): the last token of each segment.
        key, value: (N, KV heads, width).
        segments: where the segments lie; some with a prefix only where it `is_causal`.
        scaling: of the scores; None: one over the root of the width.
        sliding_window: tokens a query may look back, itself included, or None; as many ahead if not `is_causal`.
        softcap: c where scores become c tanh(score / c) before the softmax, or None.
        is_causal: whether a query sees no later key.
        ends_only: see `query`.

    Returns:
        Rows as `query`.
    """
    if segments.text_rows is not None:
        assert is_causal, "a prefix that saw what stands behind it would be another one for each text"
        key, value = (tensor.index_select(0, segments.text_rows) for tensor in (key, value))
    shape: dict[str, Any] = {
        "scaling": scaling,
        "sliding_window": sliding_window,
        "is_causal": is_causal,
        "ends_only": ends_only,
    }
    if softcap is None and takes_varlen(query):
        return _varlen(query, key, value, segments, **shape)
    if query.device.type != "cpu":
        return _by_similar_length(query, key, value, segments, softcap=softcap, **shape)
    return _by_length(query, key, value, segments, softcap=softcap, **shape)


def _by_length(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Segments,
    *,
    scaling: float | None,
    sliding_window: int | None,
    softcap: float | None,
    is_causal: bool,
    ends_only: bool,
) -> torch.Tensor:
    # float32: the bfloat16 backward of this function takes three times as long on a CPU (measured).
    dtype = query.dtype
    query, key, value = query.float(), key.float(), value.float()
    runs = list(segments.runs)
    # One split, not a slice per block: the backward of a slice fills a whole row of zeros.
    key_blocks, value_blocks = (tensor.split([n * (before + m) for n, m, before in runs]) for tensor in (key, value))
    query_blocks = query.split([n if ends_only else n * m for n, m, _ in runs])
    outputs = []
    for (count, own, before), *rows in zip(runs, query_blocks, key_blocks, value_blocks, strict=True):
        q, k, v = (tensor.unflatten(0, (count, -1)).transpose(1, 2) for tensor in rows)
        length = before + own
        is_windowed = sliding_window is not None and length > sliding_window
        mask = None
        if is_windowed or (before and not ends_only):  # torch's own causal mask lets the first query see the first key
            window = sliding_window if is_windowed else length
            mask = _window_mask(length, window, query.device, is_causal=is_causal)[-q.shape[2] :]
        if softcap is not None:
            seen = _window_mask(length, sliding_window or length, q.device, is_causal=is_causal)[-q.shape[2] :]
            output = _capped(q, k, v, seen=seen, scaling=scaling, softcap=softcap)
        else:
            output = scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=mask,
                is_causal=is_causal and mask is None and not ends_only,
                scale=scaling,
                enable_gqa=query.shape[1] != key.shape[1],
            )  # (count, heads, length, width)
        outputs.append(output.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs).to(dtype)


def _capped(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    seen: torch.Tensor,
    scaling: float | None,
    softcap: float,
) -> torch.Tensor:
    """As `scaled_dot_product_attention`, with soft capping; `seen`: its mask."""
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    scores = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    return (softcap * torch.tanh(scores / softcap)).masked_fill(~seen, -torch.inf).softmax(-1) @ v


def _by_similar_length(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Segments,
    *,
    scaling: float | None,
    sliding_window: int | None,
    softcap: float | None,
    is_causal: bool,
    ends_only: bool,
) -> torch.Tensor:
    """As `_by_length`, with segments up to the next power of two in one call, padded with copies of their last row."""
    dtype = query.dtype
    query, key, value = query.float(), key.float(), value.float()
    outputs = []
    for block in segments.padded_blocks:
        # index_select, as its backward adds without sorting first; what is added twice to a row is zero.
        k, v = (tensor.index_select(0, block.key_rows) for tensor in (key, value))
        q = query[block.segments] if ends_only else query.index_select(0, block.query_rows)
        q, k, v = (tensor.unflatten(0, (len(block.lengths), -1)).transpose(1, 2) for tensor in (q, k, v))
        seen = block.mask(window=sliding_window, is_causal=is_causal, ends_only=ends_only)
        if softcap is not None:
            output = _capped(q, k, v, seen=seen, scaling=scaling, softcap=softcap)
        else:
            output = scaled_dot_product_attention(
                q, k, v, attn_mask=seen, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
            )
        rows = output.transpose(1, 2).flatten(0, 1)
        outputs.append(rows if ends_only else rows.index_select(0, block.places))
    return torch.cat(outputs).to(dtype)


def _window_mask(length: int, window: int | None, device: torch.device, *, is_causal: bool) -> torch.Tensor:
    assert window is not None
    position = torch.arange(length, device=device)
    distance = position[:, None] - position[None, :]
    return (distance >= 0) & (distance < window) if is_causal else distance.abs() < window


def takes_varlen(query: torch.Tensor) -> bool:
    """Whether torch's flash attention runs on rows like these: on a GPU from Ampere on, in half precision."""
    width = query.shape[-1]
    return (
        query.is_cuda
        and query.dtype in (torch.bfloat16, torch.float16)
        and width % 8 == 0
        and width <= _WIDEST_HEAD
        and torch.cuda.get_device_capability(query.device) >= _AMPERE
        and has_varlen()
    )


def has_varlen() -> bool:
    """Whether this torch has the function with all that is asked of it; torch 2.10 has it without windows."""
    return {"scale", "window_size"} <= _varlen_parameters()


@cache
def _varlen_parameters() -> frozenset[str]:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return frozenset()
    return frozenset(inspect.signature(varlen_attn).parameters)


def _varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Segments,
    *,
    scaling: float | None,
    sliding_window: int | None,
    is_causal: bool,
    ends_only: bool,
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    # Fewer queries than keys: flash attention aligns them at the text's end, so the last one sees all of its text.
    query_seqlens = segments.cu_seqlens
    if ends_only:
        query_seqlens = torch.arange(len(query) + 1, dtype=torch.int32, device=query.device)
    # (look back, look ahead); -1 is "no limit". The query itself is not counted here.
    reach = -1 if sliding_window is None else sliding_window - 1
    window = (reach, 0 if is_causal else reach)
    # torch 2.11 takes fewer key heads than query heads without being told, later ones only when told.
    is_grouped = query.shape[1] != key.shape[1]
    options: dict[str, Any] = {"enable_gqa": is_grouped} if "enable_gqa" in _varlen_parameters() else {}
    output = varlen_attn(
        query.contiguous(),
        key.contiguous(),
        value.contiguous(),
        query_seqlens,
        segments.text_seqlens,
        1 if ends_only else segments.lengths[-1],
        segments.longest,
        scale=scaling,
        window_size=window,
        **options,
    )
    assert isinstance(output, torch.Tensor)
    return output


AttentionInterface.register(PACKED_ATTENTION, packed_attention)
