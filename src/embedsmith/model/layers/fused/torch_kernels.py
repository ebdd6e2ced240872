"""The kernels as torch operations: any device, and the reference the C kernels are tested against.

On a GPU the pointwise ones go through torch.compile (one Triton kernel each), attention through torch's varlen flash
attention.
"""

import logging
import math
from collections.abc import Callable
from typing import Any

import torch
from torch._dynamo.exc import TorchDynamoException
from torch.nn.functional import gelu, silu

from embedsmith.model.layers.attention import segment_attention
from embedsmith.model.layers.dropout import DropoutMask
from embedsmith.model.layers.fused.kernels import Activation, AttentionShape, Norm, NormState

log = logging.getLogger(__name__)


class TorchKernels:
    """Torch operations under the `Kernels` interface; `is_compiled` sends the pointwise ones through torch.compile."""

    name = "torch"
    products: None = None

    def __init__(self, *, is_compiled: bool = False) -> None:
        prepare = _Compiled if is_compiled else _as_it_is
        self._normalize = prepare(_normalize)
        self._norm_gradient = prepare(_norm_gradient)
        self._activate = prepare(_activate)
        self._activation_gradient = prepare(_activation_gradient)

    def add_norm(
        self,
        x: torch.Tensor,
        updates: tuple[torch.Tensor, ...],
        *,
        alpha: float,
        norm: Norm,
        dtype: torch.dtype,
        keep: bool,
    ) -> tuple[torch.Tensor, NormState | None]:
        """As `Kernels.add_norm`."""
        if updates:
            x.add_(sum(update.float() for update in updates), alpha=alpha)
        h, normed, scale = self._normalize(x, norm.weight, norm.bias, norm.eps, norm.is_centered, dtype)
        return h, NormState(normed, scale) if keep else None

    def norm_backward(
        self,
        gradients: tuple[torch.Tensor, ...],
        *,
        state: NormState,
        norm: Norm,
        dx: torch.Tensor,
        alpha: float,
    ) -> torch.Tensor:
        """As `Kernels.norm_backward`."""
        gradient = sum(gradient.float() for gradient in gradients)
        dx += self._norm_gradient(gradient, state.normed, state.scale, norm.weight, norm.is_centered)
        return (alpha * dx).to(state.normed.dtype)

    def activate(self, x: torch.Tensor, *, activation: Activation) -> torch.Tensor:
        """As `Kernels.activate`."""
        return self._activate(x, activation.kind, activation.is_gated)

    def activate_backward(self, x: torch.Tensor, dy: torch.Tensor, *, activation: Activation) -> None:
        """As `Kernels.activate_backward`."""
        x.copy_(self._activation_gradient(x, dy, activation.kind, activation.is_gated))

    def project(self, x: torch.Tensor, w: torch.Tensor, *, mask: DropoutMask, scale: float) -> torch.Tensor:
        """As `Kernels.project`."""
        return scale * (mask.apply(x) @ w.t())

    def expand_add(self, u: torch.Tensor, w: torch.Tensor, *, y: torch.Tensor, mask: DropoutMask, scale: float) -> None:
        """As `Kernels.expand_add`."""
        y.copy_(y.float() + scale * mask.apply(u @ w))

    def outer(self, u: torch.Tensor, x: torch.Tensor, *, mask: DropoutMask) -> torch.Tensor:
        """As `Kernels.outer`."""
        return u.t() @ mask.apply(x)

    def attention(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, shape: AttentionShape) -> torch.Tensor:
        """As `Kernels.attention`."""
        return _attend(q, k, v, shape).to(q.dtype)

    def attention_backward(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        dy: torch.Tensor,
        *,
        shape: AttentionShape,
        into: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    ) -> None:
        """As `Kernels.attention_backward`; the forward is run again under autograd."""
        with torch.enable_grad():
            q, k, v = inputs = tuple(tensor.detach().requires_grad_() for tensor in (q, k, v))
            gradients = torch.autograd.grad(_attend(q, k, v, shape), inputs, dy)
        for target, gradient in zip(into, gradients, strict=True):
            target.copy_(gradient)


class _Compiled:
    """A function through torch.compile; as it is where that fails (no C compiler, no Triton, a card too old for it).

    The functions write to none of their inputs, so one that failed may be called again.
    """

    def __init__(self, function: Callable) -> None:
        self._plain = function
        self._run = torch.compile(function, dynamic=True)

    def __call__(self, *arguments: Any) -> Any:
        try:
            return self._run(*arguments)
        except TorchDynamoException as error:
            lines = [line for line in str(error).split("\n") if line.strip() and not line.rstrip().endswith(":")]
            reason = lines[0].strip() if lines else type(error).__name__
            log.warning("torch.compile fails (%s); %s runs as it is, slower.", reason, self._plain.__name__.strip("_"))
            self._run = self._plain
            return self._plain(*arguments)


def _as_it_is(function: Callable) -> Callable:
    return function


def normalize(x: torch.Tensor, *, norm: Norm, dtype: torch.dtype) -> tuple[torch.Tensor, NormState]:
    """The norm of x (n, H) float32 as `dtype`, and what its backward needs."""
    h, normed, scale = _normalize(x, norm.weight, norm.bias, norm.eps, norm.is_centered, dtype)
    return h, NormState(normed, scale)


def norm_gradient(gradient: torch.Tensor, *, state: NormState, norm: Norm) -> torch.Tensor:
    """Gradient of x at the norm's gradient (n, H) float32."""
    return _norm_gradient(gradient, state.normed, state.scale, norm.weight, norm.is_centered)


def _normalize(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, eps: float, is_centered: bool, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    if is_centered:
        x = x - x.mean(-1, keepdim=True)
    scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    normed = x * scale
    h = normed * weight
    if bias is not None:
        h = h + bias
    return h.to(dtype), normed.to(dtype), scale[:, 0]


def _norm_gradient(
    gradient: torch.Tensor, normed: torch.Tensor, scale: torch.Tensor, weight: torch.Tensor, is_centered: bool
) -> torch.Tensor:
    gradient = gradient * weight
    normed = normed.float()
    slope = (gradient * normed).mean(-1, keepdim=True)
    if is_centered:
        gradient = gradient - gradient.mean(-1, keepdim=True)
    return scale[:, None] * (gradient - normed * slope)


def _activate(x: torch.Tensor, kind: str, is_gated: bool) -> torch.Tensor:
    gate, up = x.float().chunk(2, dim=-1) if is_gated else (x.float(), None)
    value = silu(gate) if kind == "silu" else gelu(gate, approximate="tanh")
    return (value if up is None else value * up).to(x.dtype)


def _activation_gradient(x: torch.Tensor, dy: torch.Tensor, kind: str, is_gated: bool) -> torch.Tensor:
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
    if up is None:
        return (dy * slope).to(x.dtype)
    return torch.cat([dy * up * slope, dy * gate * sigmoid], dim=-1).to(x.dtype)


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, shape: AttentionShape) -> torch.Tensor:
    segments = shape.segments
    positions = segments.positions
    heads = [tensor.unflatten(-1, (-1, shape.head_dim)) for tensor in (q, k, v)]  # (n, heads, width)
    output = segment_attention(
        _rotate(heads[0], shape, positions[segments.ends] if shape.ends_only else positions),
        _rotate(heads[1], shape, positions),
        heads[2],
        segments,
        scaling=shape.scaling,
        sliding_window=shape.window,
        is_causal=shape.is_causal,
        softcap=shape.softcap,
        ends_only=shape.ends_only,
    )
    return output.flatten(1)


def _rotate(x: torch.Tensor, shape: AttentionShape, positions: torch.Tensor) -> torch.Tensor:
    cos, sin = shape.cos[positions][:, None], shape.sin[positions][:, None]  # (n, 1, rotated width / 2)
    half = shape.cos.shape[1]
    a, b, rest = x.float().split([half, half, x.shape[-1] - 2 * half], dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], dim=-1).to(x.dtype)
