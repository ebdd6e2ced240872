"""What `torch_kernels` computes for each element or row: functions that torch.compile makes one GPU kernel of, each.

Some write into their arguments, as their names say.
"""

import math

import torch
from torch.nn.functional import gelu, silu

from embedsmith.model.layers.dropout import keep_factors


def normalize(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, eps: float, is_centered: bool, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The norm of x (n, H) float32 as `dtype`, its value before weight and bias, and its factor of each row (n,)."""
    if is_centered:
        x = x - x.mean(-1, keepdim=True)
    scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    normed = x * scale
    h = normed * weight
    if bias is not None:
        h = h + bias
    return h.to(dtype), normed.to(dtype), scale[:, 0]


def add_into_and_normalize(
    x: torch.Tensor,
    updates: tuple[torch.Tensor, ...],
    alpha: float,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    eps: float,
    is_centered: bool,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x += alpha * sum of updates, in place, and `normalize`."""
    if updates:
        total = sum(update.float() for update in updates)
        x += total if alpha == 1 else alpha * total  # `add_(alpha=)` would be compiled for one alpha alone
    return normalize(x, weight, bias, eps, is_centered, dtype)


def norm_gradient(
    gradient: torch.Tensor, normed: torch.Tensor, scale: torch.Tensor, weight: torch.Tensor, is_centered: bool
) -> torch.Tensor:
    """Gradient of x at the norm's gradient (n, H) float32."""
    gradient = gradient * weight
    normed = normed.float()
    slope = (gradient * normed).mean(-1, keepdim=True)
    if is_centered:
        gradient = gradient - gradient.mean(-1, keepdim=True)
    return scale[:, None] * (gradient - normed * slope)


def add_norm_gradient_into(
    dx: torch.Tensor,
    gradients: tuple[torch.Tensor, ...],
    normed: torch.Tensor,
    scale: torch.Tensor,
    weight: torch.Tensor,
    is_centered: bool,
    alpha: float,
) -> torch.Tensor:
    """dx += the norm's gradient at the sum of `gradients`, in place; returns alpha * dx in the rows' format."""
    gradient = sum(gradient.float() for gradient in gradients)
    assert isinstance(gradient, torch.Tensor)
    dx += norm_gradient(gradient, normed, scale, weight, is_centered)
    return (alpha * dx).to(normed.dtype)


def activate(x: torch.Tensor, kind: str, is_gated: bool) -> torch.Tensor:
    """The MLP's activation."""
    gate, up = x.float().chunk(2, dim=-1) if is_gated else (x.float(), None)
    value = silu(gate) if kind == "silu" else gelu(gate, approximate="tanh")
    return (value if up is None else value * up).to(x.dtype)


def activation_gradient_into(x: torch.Tensor, dy: torch.Tensor, kind: str, is_gated: bool) -> None:
    """Overwrite the activation's input with its gradient."""
    gate, up = x.float().chunk(2, dim=-1) if is_gated else (x.float(), None)
    dy = dy.float()
    # Both are gate * sigmoid(inner(gate)).
    inner, inner_slope = gate, torch.ones_like(gate)
    if kind == "gelu":
        factor = 2 * math.sqrt(2 / math.pi)
        inner = factor * (gate + 0.044715 * gate**3)
        inner_slope = factor * (1 + 3 * 0.044715 * gate**2)
    sigmoid = torch.sigmoid(inner)
    slope = sigmoid + gate * sigmoid * (1 - sigmoid) * inner_slope
    x.copy_(dy * slope if up is None else torch.cat([dy * up * slope, dy * gate * sigmoid], dim=-1))


def drop(x: torch.Tensor, numbers: torch.Tensor, rows: torch.Tensor | None, keep_scale: float) -> torch.Tensor:
    """x (n, width) with the elements of a mask dropped, float32; see `DropoutMask.numbers`."""
    return x.float() * keep_factors(numbers, rows, keep_scale, num_rows=x.shape[0], width=x.shape[1])


def add_dropped_into(
    y: torch.Tensor,
    update: torch.Tensor,
    scale: float,
    numbers: torch.Tensor | None,
    rows: torch.Tensor | None,
    keep_scale: float,
) -> None:
    """y += scale * update, (n, width) both, dropped where there is a mask."""
    if numbers is not None:
        update = drop(update, numbers, rows, keep_scale)
    y.copy_(y.float() + scale * update)


def rotate(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, positions: torch.Tensor, head_dim: int
) -> torch.Tensor:
    """Rotary embedding of the heads (n, heads, head_dim) that lie side by side in a row of x."""
    return _turn(x.unflatten(-1, (-1, head_dim)), cos[positions][:, None], sin[positions][:, None])


def rotate_back_into(
    target: torch.Tensor, gradient: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, positions: torch.Tensor
) -> None:
    """The gradient at `rotate`'s input, from that at its value, into rows with heads side by side."""
    target.copy_(_turn(gradient, cos[positions][:, None], -sin[positions][:, None]).flatten(1))


def _turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """cos, sin: (n, 1, half of the width that is turned); its halves are paired."""
    half = cos.shape[-1]
    a, b, rest = x.float().split([half, half, x.shape[-1] - 2 * half], dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], dim=-1).to(x.dtype)
