"""LoRA on a frozen backbone, in peft's own format (`adapter_config.json`, `adapter_model.safetensors`).

Adapter weights are float32 whatever the backbone's precision: early updates are below bf16's step. The backbone's own
dropout stays off while training; only the adapter's is switched.
"""

import json
import logging
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from transformers.pytorch_utils import Conv1D

from embedsmith.model.layers.dropout import AdapterDropout
from embedsmith.model.loading.backbone import Backbone
from embedsmith.model.loading.checkpoint_files import conversion_advice
from embedsmith.model.loading.peft_config import read_adapter_config
from embedsmith.model.loading.plain_lora import PlainLora, read_plain_lora
from embedsmith.model.loading.weights import check_finite, name_some
from embedsmith.settings.config import AdapterSection
from embedsmith.settings.families import lora_targets
from embedsmith.settings.model import DEFAULT_MAX_LENGTH, ModelSection
from embedsmith.support import files
from embedsmith.support.errors import ConfigError, ModelError, list_faults
from embedsmith.support.libraries import without_deferred

WEIGHTS_FILE = "adapter_model.safetensors"
PICKLED_FILE = "adapter_model.bin"

logger = logging.getLogger(__name__)


def add_adapter(backbone: Backbone, *, settings: AdapterSection) -> PeftModel:
    """Put a fresh LoRA adapter on the backbone; the random start comes from torch's global generator.

    Raises:
        ConfigError: the family's targets are unknown, or a named one is no linear layer of this model.
    """
    targets = _find_targets(
        backbone, names=settings.target_modules or list(lora_targets(backbone.model.config.model_type))
    )
    alpha = settings.lora_alpha
    config = LoraConfig(
        task_type="FEATURE_EXTRACTION",
        r=settings.lora_r,
        # As JSON writes it, whether a recipe says 32 or 32.0.
        lora_alpha=int(alpha) if alpha == int(alpha) else alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=targets,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in backbone.model.modules()),
        init_lora_weights="gaussian" if settings.init_lora_weights == "gaussian" else True,
    )
    model = _quietly(get_peft_model, backbone.model, config)
    # peft stores its own idea of the base's name; the user's is the one that can be loaded again.
    model.peft_config["default"].base_model_name_or_path = backbone.name
    _seed_dropout(model)
    return model


def _find_targets(backbone: Backbone, *, names: Sequence[str]) -> list[str]:
    """The names of layers to adapt, each of which means linear layers and nothing else.

    `all-linear` means all of them. Another layer's update could be trained, but not be loaded again.
    """
    modules = {name: module for name, module in backbone.model.named_modules() if name}
    linear = {name for name, module in modules.items() if _is_linear(module)}
    layers = sorted({name.rsplit(".", 1)[-1] for name in linear})
    if list(names) == ["all-linear"]:
        return layers
    faults = []
    for target in names:
        matched = {name for name in modules if name == target or name.endswith(f".{target}")}
        if not matched:
            faults.append(f"{target}: the model has no such layer")
        elif others := sorted(matched - linear):
            faults.append(f"{target}: {others[0]} is no linear layer but {type(modules[others[0]]).__name__}")
    if faults:
        advice = f"The linear layers of '{backbone.name}' are: {', '.join(layers)}.\nName some of them, or all-linear."
        raise ConfigError(list_faults("adapter.target_modules holds what cannot be adapted:", faults, advice=advice))
    return sorted(set(names))


def _is_linear(module: torch.nn.Module) -> bool:
    """Whether it is a linear layer as peft knows them: torch's, GPT-2's, or bitsandbytes' quantised ones."""
    return isinstance(module, torch.nn.Linear | Conv1D)


def load_adapter(backbone: Backbone, *, folder: Path) -> PeftModel:
    """Put a saved adapter on the backbone; one made on the model with its LM head fits as well.

    Raises:
        ModelError: the folder has no safetensors weights, they are not those of a plain LoRA, or they do not fit the
            backbone: every weight must find its place, and every place its weight.
    """
    if not (folder / WEIGHTS_FILE).exists():
        is_pickled = (folder / PICKLED_FILE).exists()
        advice = conversion_advice(str(folder), is_adapter=True) if is_pickled else "Get or save the adapter again."
        raise ModelError(f"The adapter {folder} has no {WEIGHTS_FILE}.\n{advice}")
    try:
        files.check_can_end(folder / WEIGHTS_FILE)
        weights = load_file(folder / WEIGHTS_FILE)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder / WEIGHTS_FILE} is damaged: {error}\nGet or save the adapter again.") from error
    check_finite(weights, owner=f"The weights of the adapter {folder}", advice="Get or save the adapter again.")
    plain = read_plain_lora(folder, weights=weights, backbone=backbone)
    try:
        return put_adapter(backbone, plain)
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"The adapter {folder} does not fit the model '{backbone.name}': {error}") from error


def put_adapter(backbone: Backbone, plain: PlainLora) -> PeftModel:
    """Put an adapter on a backbone that has none; raises ValueError when its weights have no place there."""
    model = _quietly(get_peft_model, backbone.model, plain.config)
    _check_same_places(plain.weights, adapter_state(model))
    set_peft_model_state_dict(model, plain.weights)
    plain.config.base_model_name_or_path = backbone.name
    _seed_dropout(model)
    return model


def assumed_settings(folder: Path) -> dict[str, Any]:
    """What `embedding.json` would say of an adapter that another tool wrote: the published method's settings.

    Raises:
        ModelError: adapter_config.json is damaged.
    """
    values = read_adapter_config(folder)
    base, revision = values.get("base_model_name_or_path"), values.get("revision")
    pooling = ModelSection().pooling
    logger.info(
        "The adapter %s was written by another tool and does not say how texts are embedded. Assumed: pooling %s, no "
        "prompt, at most %d tokens or what its base takes, the tokenizer of its base.",
        folder,
        pooling,
        DEFAULT_MAX_LENGTH,
    )
    if revision not in (None, "main"):
        logger.warning("The adapter %s names revision %s of its base; the newest one is used.", folder, revision)
    return {"base_model": base or "", "pooling": pooling, "prompt": None, "max_length": None}


def _check_same_places(weights: dict[str, torch.Tensor], places: dict[str, torch.Tensor]) -> None:
    faults = []
    if unknown := sorted(weights.keys() - places.keys()):
        faults.append(f"the model has no place for {name_some(unknown)}")
    if missing := sorted(places.keys() - weights.keys()):
        faults.append(f"the file lacks {name_some(missing)}")
    for key in sorted(weights.keys() & places.keys()):
        if weights[key].shape != places[key].shape:
            faults.append(f"{key} is {tuple(weights[key].shape)}, the model takes {tuple(places[key].shape)}")
            break
    if faults:
        raise ValueError("; ".join(faults))


def save_adapter(model: PeftModel, *, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write the adapter into an existing folder; the same weights always give the same bytes.

    Raises:
        ModelError: a weight is beyond what the number format holds.
    """
    state = {name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in adapter_state(model).items()}
    if dtype is not torch.float32:
        check_finite(state, owner=f"The adapter's weights as {dtype}", advice="Take another number format.")
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
    with warnings.catch_warnings(), without_deferred():
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
