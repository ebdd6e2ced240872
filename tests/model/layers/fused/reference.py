"""What the kernels compute, in float64 and by the book: masks by Python's integers, attention as a dense softmax."""

import math

import torch

from embedsmith.model.layers.dropout import DropoutMask
from embedsmith.model.layers.fused.kernels import Activation, AttentionShape, Norm


def rounding(dtype: torch.dtype) -> float:
    """Relative error to expect of a sum of a few hundred values stored as `dtype`.

    float32: 2^-24 a step, some hundreds of steps. bfloat16: 2^-8 when stored, and exp and 1/x to 14 bits.
    """
    return 2e-5 if dtype is torch.float32 else 2**-8 + 4e-4


def assert_close(
    actual: torch.Tensor, expected: torch.Tensor, *, dtype: torch.dtype, size: float | None = None
) -> None:
    """Equal within `rounding`, relative to each value, and to `size` (their typical magnitude) where terms cancel."""
    size = float(expected.abs().mean()) if size is None else size
    tolerance = rounding(dtype)
    torch.testing.assert_close(actual.double(), expected, rtol=tolerance, atol=tolerance * size)


def dropout_factors(mask: DropoutMask, num_rows: int, width: int) -> torch.Tensor:
    """0 or 1 / (1 - p) for each element, float64: the mask's definition on Python integers."""
    rows = range(num_rows) if mask.rows is None else mask.rows.tolist()
    factors = torch.zeros(num_rows, width, dtype=torch.float64)
    for i, row in enumerate(rows):
        for column in range(width):
            h = ((row + mask.first_row) * width + column) * 0x9E3779B1 + mask.seed[0]
            h %= 2**32
            h ^= h >> 16
            h = h * 0x7FEB352D % 2**32 ^ mask.seed[1]
            h ^= h >> 15
            h = h * 0x846CA68B % 2**32
            factors[i, column] = 0.0 if h < round(mask.p * 2**32) else 1 / (1 - mask.p)
    return factors


def normalize(x: torch.Tensor, norm: Norm) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The norm's output, its value before weight and bias, and one over the root of the variance."""
    x = x.double()
    if norm.is_centered:
        x = x - x.mean(1, keepdim=True)
    scale = (x.pow(2).mean(1, keepdim=True) + norm.eps).rsqrt()
    out = x * scale * norm.weight.double()
    return (out if norm.bias is None else out + norm.bias.double()), x * scale, scale[:, 0]


def activate(x: torch.Tensor, activation: Activation) -> torch.Tensor:
    gate, up = x.chunk(2, dim=1) if activation.is_gated else (x, torch.ones_like(x))
    if activation.kind == "silu":
        return gate / (1 + torch.exp(-gate)) * up
    return 0.5 * gate * (1 + torch.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3))) * up


def rotate(x: torch.Tensor, shape: AttentionShape, first: int) -> torch.Tensor:
    """x (n, heads, width), whose rows stand at positions from `first` on; halves of the rotated part are paired."""
    half = shape.cos.shape[1]
    angles = torch.complex(shape.cos.double(), shape.sin.double())[first : first + len(x), None]
    turned = torch.complex(x[..., :half], x[..., half : 2 * half]) * angles
    return torch.cat([turned.real, turned.imag, x[..., 2 * half :]], dim=-1)


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, shape: AttentionShape) -> torch.Tensor:
    """Segment by segment, dense, its prefix's keys before its own; rows as q."""
    outputs = []
    segments = shape.segments
    rows_of = torch.arange(len(k)).split(segments.lengths)
    for segment, prefix in enumerate(segments.prefixes or [-1] * len(rows_of)):
        rows = rows_of[segment]
        seen = rows if prefix < 0 else torch.cat([rows_of[prefix], rows])
        length = len(seen)
        first = length - 1 if shape.ends_only else length - len(rows)
        queries = q[segment : segment + 1] if shape.ends_only else q[rows]
        queries = rotate(queries.unflatten(1, (shape.num_heads, -1)), shape, first)
        keys = rotate(k[seen].unflatten(1, (shape.num_kv_heads, -1)), shape, 0)
        values = v[seen].unflatten(1, (shape.num_kv_heads, -1))
        group = shape.num_heads // shape.num_kv_heads
        keys, values = keys.repeat_interleave(group, dim=1), values.repeat_interleave(group, dim=1)
        scores = torch.einsum("qhd,khd->hqk", queries, keys) * shape.scaling
        if shape.softcap:
            scores = shape.softcap * torch.tanh(scores / shape.softcap)
        distance = torch.arange(first, length)[:, None] - torch.arange(length)
        hidden = distance.abs() >= (shape.window or length)
        if shape.is_causal:
            hidden |= distance < 0
        weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        outputs.append(torch.einsum("hqk,khd->qhd", weights, values).flatten(1))
    return torch.cat(outputs)
