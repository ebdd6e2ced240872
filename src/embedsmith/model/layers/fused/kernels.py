"""What the fused decoder computes between two matrix products: records and the interface; `choice.py` chooses.

Two implementations, equal within rounding: `c_kernels` (CPU, built at first use) and `torch_kernels` (everything else).
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch

from embedsmith.model.layers.dropout import DropoutMask
from embedsmith.model.layers.segments import Segments


@dataclass(frozen=True)
class Norm:
    """RMSNorm, or LayerNorm if it is centered.

    Attributes:
        weight: (H,) float32; families that store weight - 1 have the 1 added.
        bias: (H,) float32 or None.
        eps: added to the variance.
        is_centered: whether the mean is taken off first.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    eps: float
    is_centered: bool


@dataclass(frozen=True)
class NormState:
    """What a norm's backward needs: its value before weight and bias (N, H), and one factor a row (N,) float32."""

    normed: torch.Tensor
    scale: torch.Tensor


@dataclass(frozen=True)
class Activation:
    """`silu`, or `gelu` in its tanh form; a gated one multiplies the second half of its input by the first's value."""

    kind: str
    is_gated: bool


@dataclass(frozen=True)
class AttentionShape:
    """One call of attention over packed segments.

    Attributes:
        segments: each attends to its prefix and itself only.
        num_heads, num_kv_heads, head_dim: heads and their width.
        scaling: of the scores.
        window: tokens a query may look back, itself included, or None; as many ahead where it is not causal.
        ends_only: queries are given for the last token of each segment only, one row a segment.
        is_causal: whether a query sees no later key.
        softcap: c > 0 where scores become c tanh(score / c) before the softmax, or None.
        cos, sin: (positions, rotated width / 2) float32.
    """

    segments: Segments
    num_heads: int
    num_kv_heads: int
    head_dim: int
    scaling: float
    window: int | None
    ends_only: bool
    cos: torch.Tensor
    sin: torch.Tensor
    is_causal: bool = True
    softcap: float | None = None


class Products(Protocol):
    """Products of bfloat16 rows (n, in) with a weight laid out by `panels.py`, and what follows each."""

    def multiply(
        self, x: torch.Tensor, panels: torch.Tensor, bias: torch.Tensor | None, *, num_out: int
    ) -> torch.Tensor:
        """x W^T + b, (n, num_out); b in float32."""

    def add(
        self, x: torch.Tensor, panels: torch.Tensor, bias: torch.Tensor | None, *, into: torch.Tensor, alpha: float
    ) -> None:
        """into (n, out) float32 += alpha * (x W^T + b), in place."""

    def activate(
        self,
        x: torch.Tensor,
        panels: torch.Tensor,
        bias: torch.Tensor | None,
        *,
        num_out: int,
        activation: Activation,
        keep: bool,
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        """y = x W^T + b, (n, num_out), if `keep`, and its activation; a gated W has its halves side by side."""

    def activate_backward(
        self, dy: torch.Tensor, panels: torch.Tensor, *, x: torch.Tensor, activation: Activation
    ) -> None:
        """Overwrite the activation's input `x` with its gradient, that of its output being dy W^T."""


class Kernels(Protocol):
    """The operations. Rows are (N, width) in the backbone's precision; the residual stream `x` is float32."""

    name: str

    @property
    def products(self) -> Products | None:
        """None where torch's own products serve better."""

    def together(self) -> AbstractContextManager[None]:
        """What the block asks for may be done at its end, or when `run` is called: until then no result is there."""

    def run(self) -> None:
        """Do what was asked for so far."""

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
        """x += alpha * sum of at most two updates, in place; returns x's norm as `dtype`, and its state if `keep`."""

    def norm_backward(
        self,
        gradients: tuple[torch.Tensor, ...],
        *,
        state: NormState,
        norm: Norm,
        dx: torch.Tensor,
        alpha: float,
    ) -> torch.Tensor:
        """dx += the norm's gradient at the sum of one or two `gradients`, in place; returns alpha * dx as rows."""

    def activate(self, x: torch.Tensor, *, activation: Activation) -> torch.Tensor:
        """The MLP's activation."""

    def activate_backward(self, x: torch.Tensor, dy: torch.Tensor, *, activation: Activation) -> None:
        """Overwrite the activation's input `x` with its gradient."""

    def project(self, x: torch.Tensor, w: torch.Tensor, *, mask: DropoutMask, scale: float) -> torch.Tensor:
        """scale * dropout(x) w^T: (n, width) and (r, width) -> (n, r) float32."""

    def expand_add(self, u: torch.Tensor, w: torch.Tensor, *, y: torch.Tensor, mask: DropoutMask, scale: float) -> None:
        """y += mask * scale * (u w), in place: (n, r) and (r, width) -> (n, width)."""

    def outer(self, u: torch.Tensor, x: torch.Tensor, *, mask: DropoutMask, scale: float) -> torch.Tensor:
        """scale * u^T dropout(x): (n, r) and (n, width) -> (r, width) float32; of what is done together, at the end."""

    def attention(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, shape: AttentionShape) -> torch.Tensor:
        """Rotary and attention; heads lie side by side in a row. Returns rows like `q`, contiguous."""

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
        """Write the gradients of q, k and v, laid out as they are, `into` three views."""
