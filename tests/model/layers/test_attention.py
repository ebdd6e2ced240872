"""Packed attention by itself: against one text at a time, with a window, and its refusals."""

import inspect
import sys
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from embedsmith.model.layers import attention
from embedsmith.model.layers.attention import has_varlen, packed_attention, segment_attention
from embedsmith.model.layers.segments import Segments
from embedsmith.support.errors import ModelError
from tests.model.layers.varlen import varlen_attn

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


@pytest.mark.parametrize("ends_only", [False, True])
@pytest.mark.parametrize(
    ("is_causal", "prefixes"), [(False, ()), (True, ()), (True, (2, -1, -1, 2)), (True, (1, -1, 1, -1))]
)
@pytest.mark.parametrize("window", [None, 3, 6, 20])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_the_way_of_a_gpu_is_the_same_with_its_gradients(
    ends_only: bool,
    is_causal: bool,
    prefixes: tuple[int, ...],
    window: int | None,
    scaling: float | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    segments = Segments(LENGTHS, SEGMENTS.cu_seqlens, prefixes=prefixes)
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
    shape = {"scaling": scaling, "sliding_window": window, "is_causal": is_causal, "ends_only": ends_only}
    found = []
    for is_on_gpu in (False, True):
        monkeypatch.setattr(attention, "takes_varlen", lambda query, answer=is_on_gpu: answer)
        q, k, v = (tensor[0].transpose(0, 1).clone().requires_grad_() for tensor in _inputs())
        queries = q[segments.ends] if ends_only else q
        output = segment_attention(queries, k, v, segments, **shape)
        found.append([output, *torch.autograd.grad(output.square().sum(), [q, k, v])])
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize("softcap", [None, 0.5])
@pytest.mark.parametrize("window", [None, 1, 3, 6, 20])
def test_a_segment_sees_its_prefix_and_itself(window: int | None, softcap: float | None) -> None:
    """As if the prefix stood before each text that has it."""
    query, key, value = (tensor[0].transpose(0, 1) for tensor in _inputs())
    segments = Segments(LENGTHS, SEGMENTS.cu_seqlens, prefixes=(2, -1, -1, 2))
    shape = {"scaling": 0.3, "sliding_window": window, "softcap": softcap}
    output = segment_attention(query, key, value, segments, **shape)
    bounds = SEGMENTS.cu_seqlens.tolist()
    spans = [torch.arange(*bounds[index : index + 2]) for index in range(4)]
    for own, prefix in zip(spans, segments.prefixes, strict=True):
        rows = own if prefix < 0 else torch.cat([spans[prefix], own])
        alone = Segments((len(rows),), torch.tensor([0, len(rows)], dtype=torch.int32))
        expected = segment_attention(query[rows], key[rows], value[rows], alone, **shape)
        torch.testing.assert_close(output[own], expected[-len(own) :])


def test_torch_has_the_function_that_is_called() -> None:
    from torch.nn.attention.varlen import varlen_attn as real

    assert has_varlen()
    theirs, ours = (inspect.signature(function).parameters for function in (real, varlen_attn))
    assert list(ours)[:7] == list(theirs)[:7]
    assert set(ours) - {"enable_gqa"} <= set(theirs)  # torch 2.11 need not be told


@pytest.mark.parametrize(
    ("capability", "dtype", "width", "is_there", "expected"),
    [
        ((8, 0), torch.bfloat16, 64, True, True),
        ((9, 0), torch.float16, 256, True, True),
        ((7, 5), torch.bfloat16, 64, True, False),  # T4
        ((8, 0), torch.float32, 64, True, False),
        ((8, 0), torch.bfloat16, 288, True, False),
        ((8, 0), torch.bfloat16, 20, True, False),
        ((8, 0), torch.bfloat16, 64, False, False),  # a torch without it
    ],
)
def test_flash_attention_is_asked_only_for_what_it_can(
    capability: tuple[int, int],
    dtype: torch.dtype,
    width: int,
    is_there: bool,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Rows:  # as much of a tensor on a GPU as is looked at
        is_cuda, device, shape = True, torch.device("cuda", 0), (18, 4, width)

    Rows.dtype = dtype  # type: ignore[attr-defined]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(attention, "has_varlen", lambda: is_there)
    assert attention.takes_varlen(Rows()) is expected


def test_a_torch_without_windows_or_without_the_module_has_it_not(monkeypatch: pytest.MonkeyPatch) -> None:
    _put_varlen(monkeypatch, lambda query, key, value, is_causal: query)
    assert not has_varlen()
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", None)
    assert not has_varlen()


def test_a_torch_that_need_not_be_told_of_grouped_heads_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = (tensor[0].transpose(0, 1) for tensor in _inputs())
    expected = segment_attention(q, k, v, SEGMENTS)
    monkeypatch.setattr(attention, "takes_varlen", lambda query: True)

    def torch_2_11(*rows: Any, scale: float | None = None, window_size: tuple[int, int] = (-1, -1)) -> torch.Tensor:
        return varlen_attn(*rows, scale=scale, window_size=window_size, enable_gqa=True)

    _put_varlen(monkeypatch, torch_2_11)
    assert has_varlen()
    torch.testing.assert_close(segment_attention(q, k, v, SEGMENTS), expected)


def _put_varlen(monkeypatch: pytest.MonkeyPatch, function: Any) -> None:
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", function)
    monkeypatch.setattr(attention, "_varlen_parameters", attention._varlen_parameters.__wrapped__)


def test_positions_count_from_each_start() -> None:
    assert SEGMENTS.positions.tolist() == [number for length in LENGTHS for number in range(length)]
