"""Attention of both kernels, forward and backward, against a dense float64 one."""

from dataclasses import dataclass

import pytest
import torch

from embedsmith.model.layers.fused.kernels import AttentionShape, Kernels
from embedsmith.model.layers.segments import Segments
from tests.model.layers.fused.cases import BOTH_KERNELS, make_kernels
from tests.model.layers.fused.reference import assert_close, attention

DTYPES = [pytest.param(torch.float32, id="float32"), pytest.param(torch.bfloat16, id="bfloat16")]
LENGTHS = (1, 1, 2, 15, 16, 17, 31, 32, 33, 48, 70)  # around the kernels' blocks of 16 keys and 32 queries


@dataclass(frozen=True)
class Case:
    lengths: tuple[int, ...] = LENGTHS
    heads: int = 4
    kv_heads: int = 2
    dim: int = 16
    rotated: int = 16
    window: int | None = None
    is_causal: bool = True
    softcap: float | None = None
    prefixes: tuple[int, ...] = ()


# A prefix of 3 tokens, one of 16 and one of 33, each of several texts, and a text without one.
PREFIXES = {"lengths": (*[1] * 9, 2, 3, 15, 16, 16, 17, 31, 32, 33, 48, 70), "prefixes": (
    10, 10, 10, 10, 10, 10, 13, 13, 17, 10, -1, 13, 13, -1, 10, -1, 17, -1, 17, 10
)}  # fmt: skip
CASES = {
    "one-head": Case(heads=1, kv_heads=1),
    "no-groups": Case(heads=2, kv_heads=2, dim=32, rotated=32),
    "groups-of-two": Case(),
    "groups-of-four": Case(heads=4, kv_heads=1, dim=64, rotated=64),
    "wide-heads": Case(heads=2, kv_heads=1, dim=48, rotated=48),
    "partial-rotary": Case(dim=32, rotated=16),
    "little-rotary": Case(dim=64, rotated=24),
    "window": Case(window=7),
    "window-of-one": Case(window=1),
    "wide-window": Case(window=33, dim=32, rotated=32),
    "window-beyond-all": Case(window=4096),
    "both-ways": Case(is_causal=False),
    "both-ways-groups": Case(heads=4, kv_heads=1, dim=64, rotated=64, is_causal=False),
    "both-ways-wide": Case(heads=2, kv_heads=1, dim=256, rotated=256, is_causal=False),
    "both-ways-window": Case(window=7, is_causal=False),
    "both-ways-window-of-one": Case(window=1, is_causal=False),
    "both-ways-wide-window": Case(window=33, is_causal=False),
    "soft-cap": Case(softcap=1.5),
    "soft-cap-window": Case(softcap=1.5, window=7, heads=4, kv_heads=1, dim=64, rotated=64),
    "soft-cap-both-ways": Case(softcap=0.5, is_causal=False),
    "prefixes": Case(**PREFIXES),
    "prefixes-one-head": Case(**PREFIXES, heads=1, kv_heads=1),
    "prefixes-wide-heads": Case(**PREFIXES, heads=2, kv_heads=1, dim=48, rotated=48),
    "prefixes-groups-of-four": Case(**PREFIXES, heads=4, kv_heads=1, dim=64, rotated=64),
    "prefixes-partial-rotary": Case(**PREFIXES, dim=32, rotated=16),
    "prefixes-no-rotary": Case(**PREFIXES, rotated=0),
    "prefixes-window": Case(**PREFIXES, window=7),
    "prefixes-window-of-one": Case(**PREFIXES, window=1),
    "prefixes-wide-window": Case(**PREFIXES, window=40, dim=32, rotated=32),
    "prefixes-soft-cap": Case(**PREFIXES, softcap=1.5),
    "prefixes-soft-cap-window": Case(**PREFIXES, softcap=1.5, window=20, heads=4, kv_heads=1, dim=64, rotated=64),
    "prefix-of-many": Case(lengths=(5, *range(6, 56)), prefixes=(-1, *[0] * 50)),
    "long-prefix": Case(lengths=(2, 2, 100), prefixes=(2, 2, -1)),
    "single-tokens": Case(lengths=(1, 1, 1)),
    "one-segment": Case(lengths=(37,)),
    "a-block-exactly": Case(lengths=(64,), dim=32, rotated=32),
}


@pytest.fixture(params=BOTH_KERNELS)
def kernels(request: pytest.FixtureRequest) -> Kernels:
    return make_kernels(request.param)


def make_shape(case: Case, *, ends_only: bool) -> AttentionShape:
    cu_seqlens = torch.tensor([0, *case.lengths]).cumsum(0).int()
    angles = torch.arange(128)[:, None] * 1e2 ** -torch.linspace(0, 1, case.rotated // 2)
    return AttentionShape(
        segments=Segments(lengths=case.lengths, cu_seqlens=cu_seqlens, prefixes=case.prefixes),
        num_heads=case.heads,
        num_kv_heads=case.kv_heads,
        head_dim=case.dim,
        scaling=0.3 if case.dim <= 64 else 0.1,  # wider heads have larger products, and sharper rounding with them
        window=case.window,
        ends_only=ends_only,
        is_causal=case.is_causal,
        softcap=case.softcap,
        cos=angles.cos().contiguous(),
        sin=angles.sin().contiguous(),
    )


def make_heads(case: Case, *, ends_only: bool, dtype: torch.dtype, size: float = 1.0) -> tuple[torch.Tensor, ...]:
    """q, k, v as views of one buffer, or with `ends_only` of two, as the decoder has them."""
    generator = torch.Generator().manual_seed(3)
    width, kv_width, num_tokens = case.heads * case.dim, case.kv_heads * case.dim, sum(case.lengths)
    buffer = (size * torch.randn(num_tokens, width + 2 * kv_width, generator=generator)).to(dtype)
    q, k, v = buffer.split([width, kv_width, kv_width], dim=1)
    return (q[: len(case.lengths)].clone(), k, v) if ends_only else (q, k, v)


def empty_like(heads: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """NaN of the same strides: whatever is not written shows."""
    return tuple(torch.empty_strided(x.shape, x.stride(), dtype=x.dtype).fill_(torch.nan) for x in heads)


def check(kernels: Kernels, case: Case, *, ends_only: bool, dtype: torch.dtype, size: float = 1.0) -> None:
    shape = make_shape(case, ends_only=ends_only)
    heads = make_heads(case, ends_only=ends_only, dtype=dtype, size=size)
    actual = kernels.attention(*heads, shape=shape)
    assert (actual.dtype, actual.shape) == (dtype, heads[0].shape)
    assert actual.is_contiguous()
    # The torch kernels round rotated queries and keys to the rows' type, as transformers does.
    slack = 16 if (kernels.name, dtype) == ("torch", torch.bfloat16) else 1
    inputs = [x.double().detach().requires_grad_() for x in heads]
    expected = attention(*inputs, shape)
    assert_close(actual, expected.detach(), dtype=dtype, size=slack * size)

    dy = torch.randn(actual.shape, generator=torch.Generator().manual_seed(4)).to(dtype)
    expected.backward(dy.double())
    into = empty_like(heads)
    kernels.attention_backward(*heads, dy, shape=shape, into=into)
    for gradient, tensor in zip(into, inputs, strict=True):
        # q's and k's gradients are differences of products with v, of size `size`
        scale = max(size**2, float(tensor.grad.abs().mean()))
        assert_close(gradient, tensor.grad, dtype=dtype, size=slack * scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ends_only", [False, True], ids=["all-queries", "ends-only"])
@pytest.mark.parametrize("case", CASES)
def test_attention_and_its_gradients(kernels: Kernels, case: str, ends_only: bool, dtype: torch.dtype) -> None:
    check(kernels, CASES[case], ends_only=ends_only, dtype=dtype)


@pytest.mark.parametrize("sign", [1, -1], ids=["all-high", "all-low"])
def test_scores_far_out_stay_right(kernels: Kernels, sign: int) -> None:
    """Scores around +-200, beyond e^x's range in float32: what counts is their distance from the highest."""
    case = Case(lengths=(3, 40), heads=1, kv_heads=1, rotated=0)
    shape = make_shape(case, ends_only=False)
    q, k, v = (x.clone() for x in make_heads(case, ends_only=False, dtype=torch.float32))
    q[:, 0], k[:, 0] = sign * 30.0, 200 / 30 / 0.3
    scores = 0.3 * q @ k.t()
    assert (sign * scores).min() > 180
    inputs = [x.double().requires_grad_() for x in (q, k, v)]
    expected = attention(*inputs, shape)
    # A score of 200 is known to 2e-5, and so is e^score relative to the others.
    torch.testing.assert_close(kernels.attention(q, k, v, shape=shape).double(), expected, rtol=0, atol=2e-4)
    dy = torch.ones_like(q)
    expected.backward(dy.double())
    into = empty_like((q, k, v))
    kernels.attention_backward(q, k, v, dy, shape=shape, into=into)
    for gradient, tensor in zip(into, inputs, strict=True):
        largest = float(tensor.grad.abs().max())
        # A weight's 2e-5 times keys of 22 and values that cancel: 8e-4 on every processor tried.
        torch.testing.assert_close(gradient.double(), tensor.grad.detach(), rtol=0, atol=2e-3 * largest)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_key_takes_all(kernels: Kernels, dtype: torch.dtype) -> None:
    """Scores 120 apart: the output is the value of the highest one, and nothing is NaN or denormal noise."""
    case = Case(lengths=(20,), heads=1, kv_heads=1, rotated=0)
    shape = make_shape(case, ends_only=False)
    _, k, v = (x.clone() for x in make_heads(case, ends_only=False, dtype=dtype))
    k.zero_()
    k[:, 0] = torch.arange(20) * 10  # the latest key scores highest
    q = torch.zeros_like(k)
    q[:, 0] = 40
    assert torch.equal(kernels.attention(q, k, v, shape=shape), v)
    into = empty_like((q, k, v))
    dy = torch.ones_like(q)
    kernels.attention_backward(q, k, v, dy, shape=shape, into=into)
    assert max(into[0].abs().max(), into[1].abs().max()) < 0.02  # zero but for rounding, times keys of 190
    torch.testing.assert_close(into[2], dy, rtol=0, atol=1e-3)  # a score of 2300 is known to 2e-4 in float32
