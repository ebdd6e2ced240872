"""A mask that is open both ways, given to transformers' plain attention of some layers; padding stays closed.

For what runs transformers' own padded forward: the doctor's comparison, and graphs for other tools.
"""

from typing import Any

import torch
from torch.utils.hooks import RemovableHandle


def see_ahead(model: Any, *, causal_layers: int) -> list[RemovableHandle]:
    """Let every token of the layers from `causal_layers` on see later ones too, in `eager` attention; as far ahead as
    back where a layer has a window. Returns what takes it back."""

    def open_mask(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        mask = named["attention_mask"]  # (K, 1, longest, longest), 0 where a query sees a key
        seen = mask == 0
        is_text = seen.diagonal(dim1=-2, dim2=-1)[..., None, :]
        both_ways = (seen | seen.mT) & is_text
        return arguments, {**named, "attention_mask": torch.where(both_ways, 0.0, torch.finfo(mask.dtype).min)}

    layers = [module for module in model.modules() if getattr(module, "layer_idx", -1) >= causal_layers]
    return [layer.register_forward_pre_hook(open_mask, with_kwargs=True) for layer in layers]
