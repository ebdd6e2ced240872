"""Frozen linear layers that share their input, as one matrix product, with the adapters' low-rank updates inside.

    y = x W^T + b,   y[:, columns] += scaling * (dropout(x) A^T) B^T     for every adapted layer of the group

Backward gives gradients of x, A and B, and never of W.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from peft.tuners.lora import LoraLayer

from embedsmith.model.layers.dropout import DropoutMask, draw_mask
from embedsmith.model.layers.fused.kernels import Activation, Kernels
from embedsmith.model.layers.fused.products import ActivatedProduct, FrozenProduct, PanelProduct, Product, StreamProduct
from embedsmith.support.errors import ModelError

Gradients = dict[torch.nn.Parameter, torch.Tensor]
_NO_DROPOUT = DropoutMask()


@dataclass(frozen=True)
class Update:
    """The low-rank update of one adapted layer in one forward.

    Attributes:
        columns: of the group's output that belong to the layer.
        a, b: the parameters, (r, in) and (out, r).
        scaling: lora_alpha / r.
        mask: dropout of this forward.
        projected: dropout(x) A^T, (n, r) float32.
    """

    columns: slice
    a: torch.nn.Parameter
    b: torch.nn.Parameter
    scaling: float
    mask: DropoutMask
    projected: torch.Tensor


class LinearGroup:
    """Linear layers `names` of `parent`, merged into one product.

    The layers' own weights become views of the merged one, or, where it lies in another layout, NaN of the same shape:
    a weight is kept once, and whoever runs the layers themselves finds out.

    Args:
        parent: holds the layers.
        names: of the layers.
        kernels: that the decoder works with.
        into_stream: whether the output is for `onto`.
        activation: what follows, if the output is for `activate`.
    """

    def __init__(
        self,
        parent: torch.nn.Module,
        names: Sequence[str],
        *,
        kernels: Kernels,
        into_stream: bool = False,
        activation: Activation | None = None,
    ) -> None:
        self._parent = parent
        self._kernels = kernels
        layers = [_base_layer(getattr(parent, name)) for name in names]
        sizes = [layer.weight.shape[0] for layer in layers]
        weight: torch.Tensor = layers[0].weight.data
        bias: torch.Tensor | None = layers[0].bias
        if len(layers) > 1:
            weight = torch.cat([layer.weight.data for layer in layers])
            if bias is not None:
                bias = torch.cat([layer.bias.data for layer in layers])
        self._product: FrozenProduct
        products = kernels.products if weight.dtype is torch.bfloat16 else None
        if products and into_stream:
            self._product = StreamProduct(weight, bias, kernels=products)
        elif products and activation and ActivatedProduct.fits(weight):
            self._product = ActivatedProduct(weight, bias, activation=activation, kernels=products)
        elif products:
            self._product = PanelProduct(weight, bias, kernels=products)
        else:
            self._product = Product(weight, bias)
        self._base_layers = layers
        ends = list(accumulate(sizes))
        self._columns = {name: slice(end - size, end) for name, size, end in zip(names, sizes, ends, strict=True)}
        self.fill_layers()
        self.empty_layers()

    def fill_layers(self) -> None:
        """Give the layers their own weights, so that they can be run themselves."""
        weight = self._product.weight
        for layer, rows in zip(self._base_layers, self._columns.values(), strict=True):
            layer.weight.data = weight[rows]

    def empty_layers(self) -> None:
        """Take the weights back where they would be kept twice.

        Raises:
            ModelError: an adapter has been merged into them, which would be lost.
        """
        if self._product.owns_weight:
            if any(isinstance(layer, LoraLayer) and layer.merged for layer in self._layers()):
                raise ModelError(
                    "An adapter cannot be merged into fused blocks.\nLoad the model with fused=False to merge it."
                )
            for layer in self._base_layers:
                layer.weight.data = layer.weight.new_full((), torch.nan).expand(layer.weight.shape)

    def __call__(self, x: torch.Tensor, *, rows: torch.Tensor | None = None) -> tuple[torch.Tensor, list[Update]]:
        """(n, in) -> (n, out), and the updates that went into it. `rows`: where x's rows lie in the packed row.

        float32 rows are multiplied in float32 whatever the weight's precision.
        """
        product = self._product if x.dtype is self._product.dtype else self._product.exact
        self._await(product)
        y = product(x)
        return y, self._update(x, into=y, alpha=1.0, rows=rows)

    def onto(
        self, stream: torch.Tensor, x: torch.Tensor, *, alpha: float, rows: torch.Tensor | None = None
    ) -> tuple[tuple[torch.Tensor, ...], list[Update]]:
        """stream (n, out) float32 += alpha times the output, now if the product can; else what remains to be added."""
        if not isinstance(self._product, StreamProduct) or x.dtype is not self._product.dtype:
            y, updates = self(x, rows=rows)
            return (y,), updates
        self._product.add(x, into=stream, alpha=alpha)
        return (), self._update(x, into=stream, alpha=alpha, rows=rows)

    def activate(
        self, x: torch.Tensor, *, activation: Activation, rows: torch.Tensor | None, keep: bool
    ) -> tuple[torch.Tensor | None, torch.Tensor, list[Update]]:
        """The output before the activation if `keep`, and after it; and the updates."""
        if isinstance(self._product, ActivatedProduct) and x.dtype is self._product.dtype and not self.is_adapted:
            return *self._product.activate(x, keep=keep), []
        y, updates = self(x, rows=rows)
        return y if keep else None, self._kernels.activate(y, activation=activation), updates

    def backward_activation(
        self,
        dy: torch.Tensor,
        *,
        x: torch.Tensor,
        activation: Activation,
        updates: Sequence[Update],
        gradients: Gradients,
    ) -> None:
        """As `backward`, and on through the activation that made the input: `x`, before it, becomes its gradient."""
        if isinstance(self._product, StreamProduct) and not updates:
            self._product.backward_activation(dy, x=x, activation=activation)
            return
        activated = self._kernels.activate(x, activation=activation) if updates else None
        dactivated = self.backward(dy, x=activated, updates=updates, gradients=gradients)
        assert dactivated is not None
        self._kernels.activate_backward(x, dactivated, activation=activation)

    def _update(self, x: torch.Tensor, *, into: torch.Tensor, alpha: float, rows: torch.Tensor | None) -> list[Update]:
        updates = []
        for columns, layer in self._adapted():
            for name in layer.active_adapters:
                if name not in layer.lora_A:
                    continue
                p = _share_dropped(layer, name)
                mask = draw_mask(p, rows=rows) if p > 0 else _NO_DROPOUT
                a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
                scaling = float(layer.scaling[name])
                projected = self._kernels.project(x, a.data, mask=mask, scale=1.0)
                self._kernels.expand_add(
                    projected, b.data.t(), y=into[:, columns], mask=_NO_DROPOUT, scale=scaling * alpha
                )
                updates.append(Update(columns, a, b, scaling, mask, projected))
        return updates

    def backward(
        self,
        dy: torch.Tensor,
        *,
        x: torch.Tensor | None,
        updates: Sequence[Update],
        gradients: Gradients,
        needs_dx: bool = True,
    ) -> torch.Tensor | None:
        """Gradient of x, or None if not needed; those of A and B are put into `gradients`. x: None if no updates."""
        self._await(self._product)
        dx = self._product.backward(dy) if needs_dx else None
        for update in updates:
            assert x is not None
            dy_part = dy[:, update.columns]
            projected_gradient = self._kernels.project(
                dy_part, update.b.data.t(), mask=_NO_DROPOUT, scale=update.scaling
            )  # (n, r)
            gradients[update.b] = self._kernels.outer(
                update.projected, dy_part, mask=_NO_DROPOUT, scale=update.scaling
            ).t()
            gradients[update.a] = self._kernels.outer(projected_gradient, x, mask=update.mask, scale=1.0)
            if dx is not None:
                self._kernels.expand_add(projected_gradient, update.a.data, y=dx, mask=update.mask, scale=1.0)
        return dx

    def _await(self, product: FrozenProduct) -> None:
        """A product of torch's is taken at once, so what it reads must be there."""
        if isinstance(product, Product):
            self._kernels.run()

    @property
    def num_columns(self) -> int:
        """Width of the output."""
        return max(columns.stop for columns in self._columns.values())

    @property
    def num_weights(self) -> int:
        """Of the frozen layers, biases not counted."""
        return sum(layer.weight.numel() for layer in self._base_layers)

    @property
    def is_adapted(self) -> bool:
        """Whether any of the layers has an active adapter."""
        return bool(self._adapted())

    def parameters(self) -> list[torch.nn.Parameter]:
        """Of the active adapters."""
        return [
            weight
            for _, layer in self._adapted()
            for name in layer.active_adapters
            if name in layer.lora_A
            for weight in (layer.lora_A[name].weight, layer.lora_B[name].weight)
        ]

    def state(self) -> list[tuple[torch.nn.Parameter, float]]:
        """What an update depends on: weights of the active adapters, A's with its dropout, B's with its scaling."""
        found: list[tuple[torch.nn.Parameter, float]] = []
        for _, layer in self._adapted():
            for name in layer.active_adapters:
                if name in layer.lora_A:
                    found += [
                        (layer.lora_A[name].weight, _share_dropped(layer, name)),
                        (layer.lora_B[name].weight, float(layer.scaling[name])),
                    ]
        return found

    def _adapted(self) -> list[tuple[slice, LoraLayer]]:
        return [
            (columns, layer)
            for columns, layer in zip(self._columns.values(), self._layers(), strict=True)
            if isinstance(layer, LoraLayer) and not layer.disable_adapters and not layer.merged
        ]

    def _layers(self) -> list[torch.nn.Module]:
        return [getattr(self._parent, name) for name in self._columns]


def _share_dropped(layer: LoraLayer, name: str) -> float:
    dropout = layer.lora_dropout[name]
    return float(dropout.p) if dropout.training and hasattr(dropout, "p") else 0.0


def _base_layer(layer: Any) -> Any:
    return layer.get_base_layer() if isinstance(layer, LoraLayer) else layer
