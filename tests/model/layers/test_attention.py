"""Packed attention by itself: against one text at a time, with a window, and its refusals."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from embedsmith.model.layers.attention import packed_attention
from embedsmith.model.layers.segments import Segments
from embedsmith.support.errors import ModelError

LENGTHS = (2, 2, 5, 9)
SEGMENTS = Segments(LENGTHS, torch.tensor([0, 2, 4, 9, 18], dtype=torch.int32))


def _inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(1, heads, 18, 8, generator=generator) for heads in (4, 2, 2))


class Layer(torch.nn.Identity):
    layer_idx = 2


@pytest.mark.parametrize("softcap", [None, 0.5])
@pytest.mark.parametrize("causal_layers", [None, 3, 2])
@pytest.mark.parametrize("window", [None, 3, 20])
def test_each_segment_sees_itself_only(window: int | None, causal_layers: int | None, softcap: float | None) -> None:
    query, key, value = _inputs()
    output, weights = packed_attention(
        Layer(),
        query,
        key,
        value,
        None,
        scaling=0.3,
        sliding_window=window,
        softcap=softcap,
        segments=SEGMENTS,
        causal_layers=causal_layers,
    )
    assert weights is None
    parts = [tensor.split(LENGTHS, dim=2) for tensor in (query, key, value)]
    for part, *qkv in zip(output.split(LENGTHS, dim=1), *parts, strict=True):
        length = part.shape[1]
        distance = torch.arange(length)[:, None] - torch.arange(length)
        mask = distance.abs() < (window or length)
        if causal_layers != 2:
            mask &= distance >= 0
        if softcap is None:
            expected = scaled_dot_product_attention(*qkv, attn_mask=mask, scale=0.3, enable_gqa=True)
        else:
            expected = _capped(*qkv, mask=mask, softcap=softcap)
        torch.testing.assert_close(part, expected.transpose(1, 2))


def _capped(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, mask: torch.Tensor, softcap: float
) -> torch.Tensor:
    """Head by head; two query heads share a key head."""
    heads = []
    for head in range(query.shape[1]):
        scores = 0.3 * query[0, head] @ key[0, head // 2].T
        weights = (softcap * torch.tanh(scores / softcap)).masked_fill(~mask, -torch.inf).softmax(-1)
        heads.append(weights @ value[0, head // 2])
    return torch.stack(heads)[None]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"segments": None}, "does not pass its attention arguments"),
        ({"s_aux": torch.zeros(1)}, "s_aux"),
        ({"dropout": 0.1}, "attention dropout"),
        ({"causal_layers": 1}, "does not say which layer it is"),
    ],
)
def test_what_it_cannot_compute_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        packed_attention(torch.nn.Identity(), *_inputs(), None, **{"segments": SEGMENTS, **arguments})
