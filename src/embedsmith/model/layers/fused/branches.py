"""Around a layer's branches: norms before, behind and on their heads, the residual stream, and the gradients of all."""

import torch

from embedsmith.model.layers.fused.kernels import Kernels, Norm, NormState
from embedsmith.model.layers.fused.linear import LinearGroup, Update


class Stream:
    """The residual stream x (n, H) float32. Branches read it, normed or as it is, and are added to it.

    Args:
        kernels: what computes.
        alpha: what branches are multiplied by as they are added.
    """

    def __init__(self, kernels: Kernels, *, alpha: float) -> None:
        self.kernels = kernels
        self.alpha = alpha

    def add(self, x: torch.Tensor, updates: tuple[torch.Tensor, ...]) -> None:
        """x += alpha * updates, in place."""
        self.kernels.run()
        for update in updates:
            x.add_(update, alpha=self.alpha)

    def enter(
        self,
        x: torch.Tensor,
        pending: tuple[torch.Tensor, ...],
        *,
        norm: Norm | None,
        dtype: torch.dtype,
        keep: bool,
    ) -> tuple[torch.Tensor, NormState | None]:
        """What a branch reads: x with what was pending added, in place, then normed; and the norm's state if `keep`."""
        if norm:
            return self.kernels.add_norm(x, pending, alpha=self.alpha, norm=norm, dtype=dtype, keep=keep)
        self.add(x, pending)
        h = x.to(dtype, copy=True)
        return h, NormState(h, h.new_empty(0)) if keep else None

    def leave(
        self,
        x: torch.Tensor,
        branch: torch.Tensor,
        *,
        group: LinearGroup,
        norm: Norm | None,
        rows: torch.Tensor | None,
        keep: bool,
    ) -> tuple[tuple[torch.Tensor, ...], list[Update], NormState | None]:
        """A branch's last product, normed if it is: what remains to be added to x, the updates, the norm's state."""
        if norm is None:
            pending, updates = group.onto(x, branch, alpha=self.alpha, rows=rows)
            return pending, updates, None
        y = torch.zeros_like(x)
        pending, updates = group.onto(y, branch, alpha=1.0, rows=rows)
        normed, state = self.kernels.add_norm(y, pending, alpha=1.0, norm=norm, dtype=branch.dtype, keep=keep)
        return (normed,), updates, state

    def enter_backward(
        self, gradients: tuple[torch.Tensor, ...], state: NormState, norm: Norm | None, *, dx: torch.Tensor
    ) -> torch.Tensor:
        """dx += the gradient at what branches read, in place; returns alpha * dx, as rows."""
        if norm:
            return self.kernels.norm_backward(gradients, state=state, norm=norm, dx=dx, alpha=self.alpha)
        self.kernels.run()
        for gradient in gradients:
            dx += gradient
        return (self.alpha * dx).to(state.normed.dtype)

    def leave_backward(self, dy: torch.Tensor, state: NormState | None, norm: Norm | None) -> torch.Tensor:
        """The gradient at a branch's last product, as rows; dy: at what was added."""
        if norm is None:
            return dy
        assert state is not None
        into = torch.zeros(dy.shape, device=dy.device)
        return self.kernels.norm_backward((dy,), state=state, norm=norm, dx=into, alpha=1.0)

    def norm_heads(self, x: torch.Tensor, norm: Norm) -> NormState:
        """Normalise x (n, heads * width) in place: each head, or all together, as wide as the norm's weight is."""
        heads = x.unflatten(1, (-1, len(norm.weight))).float().flatten(0, 1).contiguous()
        normed, state = self.kernels.add_norm(heads, (), alpha=1.0, norm=norm, dtype=x.dtype, keep=True)
        x.copy_(normed.view(x.shape))
        assert state is not None
        return state

    def norm_heads_backward(self, dx: torch.Tensor, state: NormState, norm: Norm) -> None:
        """The gradient at what `norm_heads` overwrote, in place of that at its value."""
        heads = dx.unflatten(1, (-1, len(norm.weight))).flatten(0, 1).contiguous()
        into = torch.zeros(heads.shape, device=dx.device)
        self.kernels.norm_backward((heads,), state=state, norm=norm, dx=into, alpha=1.0)
        dx.copy_(into.view(dx.shape))


def normed_rows(state: NormState, norm: Norm | None) -> torch.Tensor:
    """What a branch read, from what was kept of it."""
    if norm is None:
        return state.normed
    value = state.normed * norm.weight.to(state.normed.dtype)
    return value if norm.bias is None else value + norm.bias.to(value.dtype)
