"""Products with a frozen weight: x -> x W^T + b and its gradient in x, never in W.

On a CPU the weight is laid out once instead of at every product. In oneDNN's layout bf16 products of 100 to 1,500
rows of the 135M model's shapes run 15 to 25 % faster, float32 ones more than twice as fast. In our own kernels' layout,
where the processor multiplies bfloat16 itself, they are as fast as oneDNN's, and what follows happens before the sums
leave the registers (`python -m benchmarks.products`). Either way the caller's weight can go; `weight` gives it back.
"""

from functools import cached_property

import torch
from torch.nn.functional import linear

from embedsmith.model.layers.fused.kernels import Activation, Products
from embedsmith.model.layers.fused.panels import from_panels, gate_beside_up, gate_then_up, to_panels
from embedsmith.model.layers.fused.rows import whole_block


class FrozenProduct:
    """What all of them share.

    Attributes:
        dtype: of the weight.
        owns_weight: whether the weight was copied into another layout, so that the caller's can go.
    """

    dtype: torch.dtype
    owns_weight = True

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.dtype = weight.dtype
        self._shape = (weight.shape[0], weight.shape[1])
        self._bias = bias

    @property
    def weight(self) -> torch.Tensor:
        """(out, in)."""
        raise NotImplementedError

    @cached_property
    def exact(self) -> "Product":
        """The same product in float32."""
        return Product(self.weight.float(), None if self._bias is None else self._bias.float())

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(n, in) -> (n, out)."""
        raise NotImplementedError

    def backward(self, dy: torch.Tensor) -> torch.Tensor:
        """(n, out) -> (n, in)."""
        return self._transposed(dy)

    @cached_property
    def _transposed(self) -> "FrozenProduct":
        return Product(self.weight.t().contiguous(), None)


class Product(FrozenProduct):
    """A product as torch has it."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__(weight, bias)
        self.owns_weight = weight.device.type == "cpu" and _can_pack(weight.dtype)
        self._weight = _pack(weight) if self.owns_weight else weight

    @property
    def weight(self) -> torch.Tensor:
        """(out, in)."""
        return self._weight.to_dense() if self.owns_weight else self._weight

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(n, in) -> (n, out)."""
        if self.owns_weight:
            return _multiply(x, self._weight, self._bias)
        return linear(x, self._weight, self._bias)

    def backward(self, dy: torch.Tensor) -> torch.Tensor:
        """(n, out) -> (n, in)."""
        return super().backward(dy) if self.owns_weight else dy @ self._weight


class PanelProduct(FrozenProduct):
    """A product of our own: no shape is compiled for, and its work is handed out in small shares."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, *, kernels: Products) -> None:
        super().__init__(weight, bias)
        self._kernels = kernels
        self._panels = to_panels(weight)
        self._panel_bias = None if bias is None else bias.float().contiguous()

    @property
    def weight(self) -> torch.Tensor:
        """(out, in)."""
        return from_panels(self._panels, shape=self._shape)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(n, in) -> (n, out)."""
        return self._kernels.multiply(x, self._panels, self._panel_bias, num_out=self._shape[0])

    @cached_property
    def _transposed(self) -> "PanelProduct":
        return PanelProduct(self.weight.t(), None, kernels=self._kernels)


class StreamProduct(PanelProduct):
    """A product that is added to the float32 residual stream as it is computed, and never rounded to bfloat16."""

    def add(self, x: torch.Tensor, *, into: torch.Tensor, alpha: float) -> None:
        """into (n, out) float32 += alpha * (x W^T + b)."""
        self._kernels.add(x, self._panels, self._panel_bias, into=into, alpha=alpha)

    def backward_activation(self, dy: torch.Tensor, *, x: torch.Tensor, activation: Activation) -> None:
        """Overwrite `x`, from which an activation made this product's input, with its gradient."""
        self._kernels.activate_backward(dy, self._transposed._panels, x=x, activation=activation)


class ActivatedProduct(FrozenProduct):
    """A product and the activation that follows it; `fits` tells for which widths."""

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, *, activation: Activation, kernels: Products
    ) -> None:
        super().__init__(weight, bias)
        self._kernels = kernels
        self._activation = activation
        if activation.is_gated:
            weight, bias = gate_beside_up(weight), None if bias is None else gate_beside_up(bias)
        self._panels = to_panels(weight)
        self._panel_bias = None if bias is None else bias.float().contiguous()

    @staticmethod
    def fits(weight: torch.Tensor) -> bool:
        """Whether the outputs fill panels: of 64 columns, or of 32 of the gate and 32 more."""
        return weight.shape[0] % 64 == 0

    @property
    def weight(self) -> torch.Tensor:
        """(out, in)."""
        weight = from_panels(self._panels, shape=self._shape)
        return gate_then_up(weight) if self._activation.is_gated else weight

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(n, in) -> (n, out), before the activation."""
        return self._plain(x)

    def activate(self, x: torch.Tensor, *, keep: bool) -> tuple[torch.Tensor | None, torch.Tensor]:
        """(n, in) -> the output before the activation if `keep`, and after it."""
        return self._kernels.activate(
            x, self._panels, self._panel_bias, num_out=self._shape[0], activation=self._activation, keep=keep
        )

    @cached_property
    def _plain(self) -> PanelProduct:
        return PanelProduct(self.weight, self._bias, kernels=self._kernels)

    @cached_property
    def _transposed(self) -> PanelProduct:
        return PanelProduct(self.weight.t(), None, kernels=self._kernels)


def _can_pack(dtype: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype is torch.float32 or (
        dtype is torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()  # the processor's own instructions
    )


def _pack(weight: torch.Tensor) -> torch.Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight)


def _multiply(x: torch.Tensor, pack: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    # Fewer shapes to compile for: `rows.py`.
    return torch.ops.mkldnn._linear_pointwise(whole_block(x), pack, bias, "none", [], "")[: len(x)]
