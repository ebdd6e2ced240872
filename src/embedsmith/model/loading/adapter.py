"""LoRA on a frozen backbone, in peft's own format (`adapter_config.json`, `adapter_model.safetensors`).

Adapter weights are float32 whatever the backbone's precision: early updates are below bf16's step. The backbone's own
dropout stays off while training; only the adapter's is switched.
"""

import json
import logging
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from embedsmith.model.layers.dropout import AdapterDropout
from embedsmith.model.loading.backbone import ADAPTER_FILE, Backbone
from embedsmith.model.loading.checkpoint_files import conversion_advice
from embedsmith.settings.config import AdapterSection, ModelSection
from embedsmith.settings.families import lora_targets
from embedsmith.support import files
from embedsmith.support.errors import ConfigError, ModelError

WEIGHTS_FILE = "adapter_model.safetensors"
PICKLED_FILE = "adapter_model.bin"
_PEFT_PREFIX = "base_model.model."
# Starts that leave the base as it is; others (PiSSA, OLoRA, LoftQ ...) move a part of it into the adapter.
_PLAIN_STARTS = (True, False, "gaussian")
# Settings that say where plain low-rank updates stand and how they are scaled, or nothing about them.
_PLAIN_SETTINGS = {
    *("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "lora_dropout", "init_lora_weights"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "fan_in_fan_out"),
    *("peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision"),
    *("inference_mode", "loftq_config", "megatron_core", "qalora_group_size", "ensure_weight_tying"),
}

logger = logging.getLogger(__name__)


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
    """Put a saved adapter on the backbone; one made on the model with its LM head fits as well.

    Raises:
        ModelError: the folder has no safetensors weights, they are not those of a plain LoRA, or they do not fit the
            backbone: every weight must find its place, and every place its weight.
    """
    if not (folder / WEIGHTS_FILE).exists():
        advice = f"\n{conversion_advice(str(folder), is_adapter=True)}" if (folder / PICKLED_FILE).exists() else ""
        raise ModelError(f"The adapter {folder} has no {WEIGHTS_FILE}.{advice}")
    try:
        config = PeftConfig.from_pretrained(str(folder))
        weights = load_file(folder / WEIGHTS_FILE)
        _check_plain_lora(config, weights, folder=folder)
        # A class of peft's for another task would look for a head; here there is none.
        config.task_type = "FEATURE_EXTRACTION"
        config.base_model_name_or_path = None  # else peft warns that the base lies elsewhere now
        model = _quietly(get_peft_model, backbone.model, config)
        weights = _without_head(weights, backbone=backbone)
        _check_same_places(weights, adapter_state(model))
        set_peft_model_state_dict(model, weights)
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise ModelError(f"The adapter {folder} does not fit the model '{backbone.name}': {error}") from error
    config.base_model_name_or_path = backbone.name
    _seed_dropout(model)
    return model


def assumed_settings(folder: Path) -> dict[str, Any]:
    """What `embedding.json` would say of an adapter that another tool wrote: the published method's settings.

    Raises:
        ModelError: adapter_config.json is damaged.
    """
    path = folder / ADAPTER_FILE
    try:
        base = json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is damaged: {error!r}") from error
    defaults = ModelSection()
    logger.info(
        "The adapter %s was written by another tool and does not say how texts are embedded. Assumed: pooling %s, no "
        "prompt, at most %d tokens.",
        folder,
        defaults.pooling,
        defaults.max_length,
    )
    return {
        "base_model": base or "",
        "pooling": defaults.pooling,
        "prompt": None,
        "max_length": defaults.max_length,
    }


def _check_plain_lora(config: PeftConfig, weights: dict[str, torch.Tensor], *, folder: Path) -> None:
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    if kind != "LORA":
        raise ModelError(f"The adapter {folder} is of type {kind}.\nOnly LoRA adapters can be loaded.")
    if config.init_lora_weights not in _PLAIN_STARTS:
        raise ModelError(
            f"The adapter {folder} was started with init_lora_weights {config.init_lora_weights!r}, which changes the "
            "base model too.\nLet peft convert it to a plain LoRA (path_initial_model_for_weight_conversion)."
        )
    defaults = LoraConfig().to_dict()
    others = [
        f"{key}: {value}"
        for key, value in config.to_dict().items()
        if key not in _PLAIN_SETTINGS and value != defaults.get(key)
    ]
    others += sorted(key for key in weights if not key.endswith((".lora_A.weight", ".lora_B.weight")))
    if others:
        raise ModelError(
            f"The adapter {folder} is more than a plain LoRA: {_some(others)}.\n"
            "DoRA and its like, biases and modules that are saved whole cannot be loaded."
        )


def _without_head(weights: dict[str, torch.Tensor], *, backbone: Backbone) -> dict[str, torch.Tensor]:
    """Names as the backbone has them: in the model with its LM head they have one part more, usually `model`."""
    long, short = f"{_PEFT_PREFIX}{backbone.model.base_model_prefix}.", _PEFT_PREFIX
    return {short + key.removeprefix(long) if key.startswith(long) else key: value for key, value in weights.items()}


def _check_same_places(weights: dict[str, torch.Tensor], places: dict[str, torch.Tensor]) -> None:
    faults = []
    if unknown := sorted(weights.keys() - places.keys()):
        faults.append(f"the model has no place for {_some(unknown)}")
    if missing := sorted(places.keys() - weights.keys()):
        faults.append(f"the file lacks {_some(missing)}")
    for key in sorted(weights.keys() & places.keys()):
        if weights[key].shape != places[key].shape:
            faults.append(f"{key} is {tuple(weights[key].shape)}, the model takes {tuple(places[key].shape)}")
            break
    if faults:
        raise ValueError("; ".join(faults))


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


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
