"""A weight (out, in) in the layout `products.h` multiplies by: panels of 64 outputs, each (in / 2, outputs, 2)."""

import torch

_PANEL = 64


def to_panels(weight: torch.Tensor) -> torch.Tensor:
    """(out, in) -> flat; `in` is even, `out` a multiple of 16."""
    parts = (part.unflatten(1, (-1, 2)).transpose(0, 1) for part in weight.split(_PANEL))  # (in / 2, outputs, 2)
    return torch.cat([part.flatten() for part in parts])


def from_panels(panels: torch.Tensor, *, shape: tuple[int, int]) -> torch.Tensor:
    """What `to_panels` was given."""
    num_out, num_in = shape
    parts = panels.split([num_in * min(_PANEL, num_out - first) for first in range(0, num_out, _PANEL)])
    return torch.cat([part.view(num_in // 2, -1, 2).transpose(0, 1).flatten(1) for part in parts])


def gate_beside_up(rows: torch.Tensor) -> torch.Tensor:
    """All rows of the gate, then all of the other half -> 32 of the one, 32 of the other, in turns."""
    return rows.unflatten(0, (2, -1, _PANEL // 2)).transpose(0, 1).flatten(0, 2)


def gate_then_up(rows: torch.Tensor) -> torch.Tensor:
    """What `gate_beside_up` was given."""
    return rows.unflatten(0, (-1, 2, _PANEL // 2)).transpose(0, 1).flatten(0, 2)
