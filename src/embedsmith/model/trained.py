"""What a run trains: a LoRA adapter, or every weight of the backbone; its state, and how it is kept.

A run keeps an adapter in `adapter/`, in peft's format, and a fully trained model in `model/`: a folder as transformers
writes it, with `embedding.json` beside the weights, which loads wherever a model does. Full fine-tuning takes four
times the weights in memory: they, their gradients and AdamW's two averages, all float32.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from peft import set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModel

from embedsmith.model.adapter import WEIGHTS_FILE, adapter_state, save_adapter
from embedsmith.model.backbone import Backbone

if TYPE_CHECKING:
    from embedsmith.model.embedder import Embedder


def unfreeze(backbone: Backbone) -> None:
    """Let every weight be trained."""
    assert backbone.model.dtype is torch.float32, "updates would be lost below bfloat16's step"
    backbone.model.requires_grad_(True)


def kept_in(embedder: "Embedder") -> str:
    """The folder of a run that holds what was trained."""
    return "adapter" if embedder.adapter else "model"


def trained_state(embedder: "Embedder") -> dict[str, torch.Tensor]:
    """What is trained, by name."""
    return adapter_state(embedder.adapter) if embedder.adapter else dict(embedder.backbone.model.state_dict())


def set_trained_state(embedder: "Embedder", state: dict[str, torch.Tensor]) -> None:
    """Inverse of `trained_state`."""
    if embedder.adapter:
        set_peft_model_state_dict(embedder.adapter, state)
    else:
        embedder.backbone.model.load_state_dict(state)


def write_trained(embedder: "Embedder", *, folder: Path) -> None:
    """Write an adapter, or else weights, configuration and tokenizer, into an existing folder."""
    if embedder.adapter:
        save_adapter(embedder.adapter, folder=folder)
    else:
        embedder.backbone.model.save_pretrained(folder)
        embedder.backbone.tokenizer.save_pretrained(folder)


def reload_trained(embedder: "Embedder", *, folder: Path) -> None:
    """Set what is trained to what `Embedder.save` wrote into `folder`."""
    if embedder.adapter:
        state = load_file(folder / WEIGHTS_FILE)
    else:
        state = dict(AutoModel.from_pretrained(folder, dtype=torch.float32, use_safetensors=True).state_dict())
    set_trained_state(embedder, state)
