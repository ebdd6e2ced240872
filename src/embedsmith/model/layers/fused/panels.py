"""A weight (out, in) in the layout `products.h` multiplies by: panels of 64 outputs, each (in / 2, outputs, 2)."""

from collections.abc import Iterator

import torch

_PANEL = 64


def to_panels(weight: torch.Tensor) -> torch.Tensor:
    """(out, in) bfloat16 -> flat; `in` is even, `out` a multiple of 16."""
    pairs = weight.contiguous().view(
        torch.int32
    )  # two inputs as one number, which torch transposes several times faster
    flat = pairs.new_empty(pairs.numel())
    for panel, rows in _panels_and_rows(flat, pairs):
        panel.copy_(rows.t())
    return flat.view(weight.dtype)


def from_panels(panels: torch.Tensor, *, shape: tuple[int, int]) -> torch.Tensor:
    """What `to_panels` was given."""
    num_out, num_in = shape
    flat = panels.view(torch.int32)
    pairs = flat.new_empty(num_out, num_in // 2)
    for panel, rows in _panels_and_rows(flat, pairs):
        rows.copy_(panel.t())
    return pairs.view(panels.dtype)


def _panels_and_rows(flat: torch.Tensor, pairs: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Each panel (in / 2, outputs), and the rows of the weight (outputs, in / 2) that it holds."""
    parts = pairs.split(_PANEL)
    panels = flat.split([part.numel() for part in parts])
    return ((panel.view(-1, len(rows)), rows) for panel, rows in zip(panels, parts, strict=True))


def gate_beside_up(rows: torch.Tensor) -> torch.Tensor:
    """All rows of the gate, then all of the other half -> 32 of the one, 32 of the other, in turns."""
    return rows.unflatten(0, (2, -1, _PANEL // 2)).transpose(0, 1).flatten(0, 2)


def gate_then_up(rows: torch.Tensor) -> torch.Tensor:
    """What `gate_beside_up` was given."""
    return rows.unflatten(0, (-1, 2, _PANEL // 2)).transpose(0, 1).flatten(0, 2)
