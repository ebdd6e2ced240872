"""LoRA on a frozen backbone, in peft's own format (`adapter_config.json`, `adapter_model.safetensors`).

Adapter weights are float32 whatever the backbone's precision: early updates are below bf16's step. The backbone's own
dropout stays off while training; only the adapter's is switched.
"""

import json
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from embedsmith import files
from embedsmith.config import AdapterSection
from embedsmith.errors import ConfigError, ModelError
from embedsmith.families import lora_targets
from embedsmith.model.backbone import Backbone
from embedsmith.model.dropout import AdapterDropout

WEIGHTS_FILE = "adapter_model.safetensors"


def add_adapter(backbone: Backbone, *, settings: AdapterSection) -> PeftModel:
    """Put a fresh LoRA adapter on the backbone; the random start comes from torch's global generator.

    Raises:
        ConfigError: the family's targets are unknown, or the named ones do not exist in this model.
    """
    targets = settings.target_modules or list(lora_targets(backbone.model.config.model_type))
    config = LoraConfig(
        task_type="FEATURE_EXTRACTION",
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=targets,
        init_lora_weights="gaussian" if settings.init_lora_weights == "gaussian" else True,
    )
    leaves = {
        name.split(".")[-1]
        for name, module in backbone.model.named_modules()
        if not any(module.children()) and getattr(module, "weight", torch.empty(0)).dim() == 2
    }
    missing = [target for target in targets if target.split(".")[-1] not in leaves]
    if missing:
        raise ConfigError(
            f"adapter.target_modules: the model has no layer {', '.join(missing)}.\n"
            f"Its linear layers are: {', '.join(sorted(leaves))}."
        )
    model = _quietly(get_peft_model, backbone.model, config)
    # peft stores its own idea of the base's name; the user's is the one that can be loaded again.
    model.peft_config["default"].base_model_name_or_path = backbone.name
    _seed_dropout(model)
    return model


def load_adapter(backbone: Backbone, *, folder: Path) -> PeftModel:
    """Put a saved adapter on the backbone.

    Raises:
        ModelError: the folder has no safetensors weights, or they do not fit the backbone.
    """
    if not (folder / WEIGHTS_FILE).exists():
        raise ModelError(f"The adapter {folder} has no {WEIGHTS_FILE}.")
    try:
        model = _quietly(PeftModel.from_pretrained, backbone.model, str(folder))
    except (RuntimeError, ValueError, SafetensorError) as error:
        raise ModelError(f"The adapter {folder} does not fit the model '{backbone.name}': {error}") from error
    _seed_dropout(model)
    return model


def save_adapter(model: PeftModel, *, folder: Path) -> None:
    """Write the adapter into an existing folder; the same weights always give the same bytes."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in adapter_state(model).items()}
    files.write_bytes(folder / WEIGHTS_FILE, save(state, metadata={"format": "pt"}))
    config = model.peft_config["default"]
    was_inference = config.inference_mode
    config.inference_mode = True
    config.save_pretrained(str(folder))
    config.inference_mode = was_inference
    # peft keeps the targets as a set, whose order changes from process to process.
    path = folder / "adapter_config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(values["target_modules"], list):
        values["target_modules"].sort()
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def adapter_state(model: PeftModel) -> dict[str, torch.Tensor]:
    """The adapter's weights under peft's file names."""
    return get_peft_model_state_dict(model, save_embedding_layers=False)


def _quietly(make: Callable[..., PeftModel], *arguments: Any) -> PeftModel:
    """peft 0.21 reads an attribute that transformers 5.23 has renamed, which warns; users can do nothing about it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        return make(*arguments)


def set_adapter_weights(model: PeftModel, *, folder: Path) -> None:
    """Set an adapter of the same shape to the weights saved in `folder`."""
    set_peft_model_state_dict(model, load_file(folder / WEIGHTS_FILE))


def _seed_dropout(model: PeftModel) -> None:
    """Put dropout that is a function of a seed in the place of peft's, switched off."""
    layers = lora_layers(model)
    for layer in layers:
        for name, dropout in layer.lora_dropout.items():
            layer.lora_dropout[name] = AdapterDropout(getattr(dropout, "p", 0.0))
    set_adapter_dropout(layers, is_on=False)


def lora_layers(model: torch.nn.Module) -> list[LoraLayer]:
    """The layers with an adapter; finding them takes a walk through all modules, milliseconds."""
    return [module for module in model.modules() if isinstance(module, LoraLayer)]


def set_adapter_dropout(layers: Iterable[LoraLayer], *, is_on: bool) -> None:
    """Switch the adapter's dropout, and nothing else."""
    for layer in layers:
        layer.lora_dropout.train(is_on)
