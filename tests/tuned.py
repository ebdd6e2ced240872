"""Tiny runs whose adapters change something."""

from pathlib import Path

import torch

from embedsmith.model.embedder import Embedder
from embedsmith.settings.config import AdapterSection


def save_tuned(model: str, folder: Path, **settings: object) -> Embedder:
    """A model with a random adapter, as the run `folder` holds it."""
    embedder = Embedder.load(model, precision="fp32", **{"max_length": 40, **settings})
    embedder.add_adapter(AdapterSection())
    for weight in embedder.backbone.model.parameters():
        if weight.requires_grad:
            weight.data.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    embedder.save(folder / "adapter")
    return embedder
