"""The kernels as torch operations: any device, and the reference the C kernels are tested against.

On a GPU the pointwise ones (`pointwise.py`) go through torch.compile (one Triton kernel each), attention through
torch's varlen flash attention.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from embedsmith.model.layers.attention import segment_attention
from embedsmith.model.layers.dropout import DropoutMask
from embedsmith.model.layers.fused import pointwise
from embedsmith.model.layers.fused.kernels import Activation, AttentionShape, Norm, NormState

log = logging.getLogger(__name__)


class TorchKernels:
    """Torch operations under the `Kernels` interface; `is_compiled` sends the pointwise ones through torch.compile."""

    name = "torch"
    products: None = None

    def __init__(self, *, is_compiled: bool = False) -> None:
        prepare = _Compiled if is_compiled else _as_it_is
        self._add_into_and_normalize = prepare(pointwise.add_into_and_normalize)
        self._add_norm_gradient_into = prepare(pointwise.add_norm_gradient_into)
        self._activate = prepare(pointwise.activate)
        self._activation_gradient_into = prepare(pointwise.activation_gradient_into)
        self._drop = prepare(pointwise.drop)
        self._add_dropped_into = prepare(pointwise.add_dropped_into)
        self._rotate = prepare(pointwise.rotate)
        self._rotate_back_into = prepare(pointwise.rotate_back_into)

    def together(self) -> AbstractContextManager[None]:
        """As `Kernels.together`: everything is done at once."""
        return nullcontext()

    def run(self) -> None:
        """As `Kernels.run`."""

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
        h, normed, scale = self._add_into_and_normalize(
            x, updates, alpha, norm.weight, norm.bias, norm.eps, norm.is_centered, dtype
        )
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
        rows: torch.Tensor = self._add_norm_gradient_into(
            dx, gradients, state.normed, state.scale, norm.weight, norm.is_centered, alpha
        )
        return rows

    def activate(self, x: torch.Tensor, *, activation: Activation) -> torch.Tensor:
        """As `Kernels.activate`."""
        rows: torch.Tensor = self._activate(x, activation.kind, activation.is_gated)
        return rows

    def activate_backward(self, x: torch.Tensor, dy: torch.Tensor, *, activation: Activation) -> None:
        """As `Kernels.activate_backward`."""
        self._activation_gradient_into(x, dy, activation.kind, activation.is_gated)

    def project(self, x: torch.Tensor, w: torch.Tensor, *, mask: DropoutMask, scale: float) -> torch.Tensor:
        """As `Kernels.project`."""
        dropped = self._dropped(x, mask)
        return torch.addmm(dropped.new_empty(()), dropped, w.t(), beta=0, alpha=scale)  # beta 0: not even read

    def expand_add(self, u: torch.Tensor, w: torch.Tensor, *, y: torch.Tensor, mask: DropoutMask, scale: float) -> None:
        """As `Kernels.expand_add`."""
        numbers = mask.numbers(y.shape[1], device=y.device) if mask.p > 0 else None
        self._add_dropped_into(y, u @ w, scale, numbers, mask.rows, mask.keep_scale)

    def outer(self, u: torch.Tensor, x: torch.Tensor, *, mask: DropoutMask, scale: float) -> torch.Tensor:
        """As `Kernels.outer`."""
        return (scale * u).t() @ self._dropped(x, mask)

    def _dropped(self, x: torch.Tensor, mask: DropoutMask) -> torch.Tensor:
        if mask.p == 0:
            return x.float()
        numbers = mask.numbers(x.shape[1], device=x.device)
        dropped: torch.Tensor = self._drop(x, numbers, mask.rows, mask.keep_scale)
        return dropped

    def attention(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, shape: AttentionShape) -> torch.Tensor:
        """As `Kernels.attention`."""
        return _attend(self._turned(q, k, v, shape), shape).flatten(1).to(q.dtype)

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
        """As `Kernels.attention_backward`; the forward is run again under autograd, but for its rotations."""
        with torch.enable_grad():
            inputs = [heads.detach().requires_grad_() for heads in self._turned(q, k, v, shape)]
            gradients = torch.autograd.grad(_attend(inputs, shape).flatten(1), inputs, dy)
        positions = shape.segments.positions
        self._rotate_back_into(into[0], gradients[0], shape.cos, shape.sin, _query_positions(shape))
        self._rotate_back_into(into[1], gradients[1], shape.cos, shape.sin, positions)
        into[2].copy_(gradients[2].flatten(1))

    def _turned(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, shape: AttentionShape) -> list[torch.Tensor]:
        """Heads (n, heads, width), queries and keys in their positions."""
        return [
            self._rotate(q, shape.cos, shape.sin, _query_positions(shape), shape.head_dim),
            self._rotate(k, shape.cos, shape.sin, shape.segments.positions, shape.head_dim),
            v.unflatten(-1, (-1, shape.head_dim)),
        ]


class _Compiled:
    """A function through torch.compile; as it is where that fails (no C compiler, no Triton, a card too old for it).

    It fails before anything is computed, so the function may be called again.
    """

    def __init__(self, function: Callable) -> None:
        self._plain = function
        self._run = torch.compile(function, dynamic=True)

    def __call__(self, *arguments: Any) -> Any:
        from torch._dynamo.exc import TorchDynamoException  # most of a second, and only a GPU needs it

        try:
            return self._run(*arguments)
        except TorchDynamoException as error:
            lines = [line for line in str(error).split("\n") if line.strip() and not line.rstrip().endswith(":")]
            reason = lines[0].strip() if lines else type(error).__name__
            log.warning("torch.compile fails (%s); %s runs as it is, slower.", reason, self._plain.__name__)
            self._run = self._plain
            return self._plain(*arguments)


def _as_it_is(function: Callable) -> Callable:
    return function


def normalize(x: torch.Tensor, *, norm: Norm, dtype: torch.dtype) -> tuple[torch.Tensor, NormState]:
    """The norm of x (n, H) float32 as `dtype`, and what its backward needs."""
    h, normed, scale = pointwise.normalize(x, norm.weight, norm.bias, norm.eps, norm.is_centered, dtype)
    return h, NormState(normed, scale)


def norm_gradient(gradient: torch.Tensor, *, state: NormState, norm: Norm) -> torch.Tensor:
    """Gradient of x at the norm's gradient (n, H) float32."""
    return pointwise.norm_gradient(gradient, state.normed, state.scale, norm.weight, norm.is_centered)


def _query_positions(shape: AttentionShape) -> torch.Tensor:
    segments = shape.segments
    return segments.positions[segments.ends] if shape.ends_only else segments.positions


def _attend(heads: list[torch.Tensor], shape: AttentionShape) -> torch.Tensor:
    query, key, value = heads
    return segment_attention(
        query,
        key,
        value,
        shape.segments,
        scaling=shape.scaling,
        sliding_window=shape.window,
        is_causal=shape.is_causal,
        softcap=shape.softcap,
        ends_only=shape.ends_only,
    )
