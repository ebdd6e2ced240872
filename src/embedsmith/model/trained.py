"""What a run trains: a LoRA adapter, or every weight of the backbone; its state, and how it is kept.

A run keeps an adapter in `adapter/`, in peft's format, and a fully trained model in `model/`: a folder as transformers
writes it, with `embedding.json` beside the weights, which loads wherever a model does. Full fine-tuning takes four
times the weights in memory: they, their gradients and AdamW's two averages, all float32.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoModel

from embedsmith.model.loading.adapter import WEIGHTS_FILE, adapter_state, save_adapter
from embedsmith.model.loading.backbone import Backbone

ADAPTER_FOLDER = "adapter"
MODEL_FOLDER = "model"


@dataclass(frozen=True)
class Trained:
    """What is trained of a backbone: its adapter, or all of it where there is none."""

    backbone: Backbone
    adapter: PeftModel | None

    @property
    def folder_name(self) -> str:
        """The folder of a run that holds it."""
        return ADAPTER_FOLDER if self.adapter else MODEL_FOLDER

    @property
    def state(self) -> dict[str, torch.Tensor]:
        """Its tensors, by name."""
        return adapter_state(self.adapter) if self.adapter else dict(self.backbone.model.state_dict())

    def set_state(self, state: dict[str, torch.Tensor]) -> None:
        """Inverse of `state`."""
        if self.adapter:
            set_peft_model_state_dict(self.adapter, state)
        else:
            self.backbone.model.load_state_dict(state)

    def write(self, folder: Path, *, dtype: torch.dtype = torch.float32) -> None:
        """Write an adapter in a number format, or else weights, configuration and tokenizer, into an existing folder.

        Raises:
            ModelError: the number format does not hold a weight.
            OSError: the disk is full.
        """
        if self.adapter:
            save_adapter(self.adapter, folder=folder, dtype=dtype)
        else:
            with _as_os_error():
                self.backbone.model.save_pretrained(folder)
            self.backbone.tokenizer.save_pretrained(folder)

    def reload(self, folder: Path) -> None:
        """Set it to what `write` wrote into `folder`."""
        self.set_state(load_file(folder / WEIGHTS_FILE) if self.adapter else read_weights(folder))


@contextmanager
def _as_os_error() -> Iterator[None]:
    """What safetensors says of a disk that is full, as Python says it."""
    try:
        yield
    except SafetensorError as error:
        if number := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1])), "model.safetensors") from error
        raise


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """All weights of a model's folder by the backbone's names, in float32."""
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False)
    return dict(model.state_dict())


def unfreeze(backbone: Backbone) -> None:
    """Let every weight be trained."""
    assert backbone.model.dtype is torch.float32, "updates would be lost below bfloat16's step"
    backbone.model.requires_grad_(True)
