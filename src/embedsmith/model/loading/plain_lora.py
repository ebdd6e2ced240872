"""An adapter's files, whoever wrote them -> one plain LoRA in the backbone's names.

peft matches names and patterns with those of the class that an adapter was trained on, mostly the one with the LM head,
whose names have a part more (`model.layers.0 ...`). So peft itself reads them here, on that class without weights
(torch's meta device). What comes out, every adapted layer with its rank and alpha, is written down as a configuration
of plain names, which means one thing only. Cost: tens of milliseconds.

A name or pattern that matches nothing is refused, as the adapter is then not what its configuration says.
"""

import copy
import logging
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear, LoraLayer
from peft.utils.other import ModulesToSaveWrapper

from embedsmith.model.loading.architecture import build_skeleton, head_names
from embedsmith.model.loading.backbone import ADAPTER_FILE, Backbone
from embedsmith.model.loading.layer_patterns import check_patterns_end
from embedsmith.model.loading.peft_config import (
    BESIDE_LORA,
    MERGE_ADVICE,
    READ_BY_PEFT,
    check_plain,
    listed,
    read_adapter_config,
)
from embedsmith.model.loading.weights import name_some
from embedsmith.support.errors import ModelError, list_faults

PEFT_PREFIX = "base_model.model."
_USUAL_RANKS = 4096

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlainLora:
    """A plain LoRA in the backbone's names.

    Attributes:
        config: has no pattern but whole names.
        weights: under peft's file names for the backbone.
    """

    config: LoraConfig
    weights: dict[str, torch.Tensor]


def read_plain_lora(folder: Path, *, weights: Mapping[str, torch.Tensor], backbone: Backbone) -> PlainLora:
    """What a folder's adapter_config.json means for the backbone, and its weights by the backbone's names.

    Raises:
        ModelError: it is damaged, more than a plain LoRA, or names what the model does not have.
    """
    values = read_adapter_config(folder)
    check_plain(values, folder=folder)
    if foreign := sorted(key for key in weights if not key.startswith(PEFT_PREFIX)):
        raise ModelError(
            f"The adapter {folder} has weights that peft would not name so: {name_some(foreign)}.\n"
            f"Names as peft's save_pretrained gives them start with {PEFT_PREFIX}"
        )
    _check_ranks(values, weights=weights, folder=folder)
    with_head = _uses_head(weights, backbone=backbone)
    skeleton = build_skeleton(backbone.model.config, with_head=with_head)
    prefix = f"{skeleton.base_model_prefix}." if with_head else ""
    heads = head_names(skeleton)
    names = [*heads, *(name for name, _ in skeleton.named_modules())]
    check_patterns_end(values, names=names, folder=folder)
    config = _resolve(values, skeleton, folder=folder)
    adapted = {name: module for name, module in skeleton.named_modules() if isinstance(module, LoraLayer)}
    _check_kinds(values, skeleton, adapted=adapted, prefix=prefix, folder=folder)
    _check_patterns(values, adapted=list(adapted), names=names, folder=folder)
    inside = {name.removeprefix(prefix): layer for name, layer in adapted.items() if name.startswith(prefix)}
    if not inside:
        raise ModelError(f"The adapter {folder} adapts no layer below the LM head, so no embedding depends on it.")
    head_weights = {key for key in weights if key.removeprefix(PEFT_PREFIX).split(".")[0] in heads}
    if head_weights:
        _check_heads(head_weights, is_tied=skeleton.config.tie_word_embeddings, folder=folder)
    kept = _by_own_names(weights.keys() - head_weights, weights, prefix=prefix, folder=folder)
    return PlainLora(_plain_config(config, inside, backbone=backbone), kept)


def _check_ranks(values: Mapping[str, Any], *, weights: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Refuse a rank far above that of the weights: peft would take memory for it before anything is compared."""
    rank = max(values.get("r", 0), *(values.get("rank_pattern") or {"": 0}).values())
    largest = max((len(weight) for weight in weights.values() if weight.ndim), default=0)
    if rank > max(largest, _USUAL_RANKS):
        raise ModelError(
            f"The adapter {folder} has rank {rank:,} in {ADAPTER_FILE}; its weights have {largest:,} rows at most.\n"
            "Get the file again, or mend it."
        )


def _names(value: Any) -> list[str]:
    """Of a list; a string is a pattern."""
    return [] if isinstance(value, str) else listed(value)


def _uses_head(weights: Iterable[str], *, backbone: Backbone) -> bool:
    """Whether the weights are named as in the class with a head: none by a part of the backbone alone."""
    parts = {name for name, _ in backbone.model.named_children()} - {backbone.model.base_model_prefix}
    firsts = {key.removeprefix(PEFT_PREFIX).split(".")[0] for key in weights}
    return not firsts & parts


def _resolve(values: Mapping[str, Any], skeleton: Any, *, folder: Path) -> LoraConfig:
    """Let peft put the adapter's layers on the skeleton."""
    known = {key: value for key, value in values.items() if key in READ_BY_PEFT | BESIDE_LORA}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # everything that peft warns of is looked at here
            config = LoraConfig(**known, task_type="FEATURE_EXTRACTION", init_lora_weights=False)
            get_peft_model(skeleton, copy.deepcopy(config))
    except (re.error, OverflowError) as error:
        raise ModelError(
            f"The adapter {folder} has a pattern that cannot be read in {ADAPTER_FILE}: {error}\n"
            "Get the file again, or mend it."
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError, ImportError, RuntimeError) as error:
        raise ModelError(
            f"The adapter {folder} does not fit the model '{skeleton.config.model_type}': {error}\n"
            "Name the base that it was trained on."
        ) from error
    return config


def _check_kinds(
    values: Mapping[str, Any], skeleton: Any, *, adapted: Mapping[str, LoraLayer], prefix: str, folder: Path
) -> None:
    """Whether all that it changes below the head is linear layers, by low-rank updates."""
    others = [f"{name} ({type(layer).__name__})" for name, layer in adapted.items() if type(layer) is not Linear]
    whole = [name for name, module in skeleton.named_modules() if isinstance(module, ModulesToSaveWrapper)]
    others += [f"{name} (modules_to_save)" for name in whole]
    others = [other for other in others if other.startswith(prefix)]
    bias = values.get("bias", "none")
    if bias != "none" and any(name.endswith(".bias") for name, _ in skeleton.named_parameters()):
        others.append(f"bias: {bias}")
    if others:
        raise ModelError(
            f"The adapter {folder} is more than a plain LoRA: it also changes {name_some(others)}.\n{MERGE_ADVICE}"
        )


def _check_patterns(values: Mapping[str, Any], *, adapted: list[str], names: list[str], folder: Path) -> None:
    """Every name, pattern and number of a layer must mean something, as peft's own matching reads it."""

    def ends_with(target: str, name: str) -> bool:
        return name == target or name.endswith(f".{target}")

    def at_end(pattern: str, name: str) -> bool:
        return re.match(rf"(.*\.)?({pattern})$", name) is not None

    def at_layers(pattern: str, name: str) -> bool:
        return re.match(rf"(?:^|.*?\.){pattern}\.(\d+)\.", name) is not None

    def of_layer(index: Any, name: str) -> bool:
        return f".{index}." in f".{name}."

    excluded = values.get("exclude_modules")
    checks: list[tuple[str, Iterable[Any], Callable[[Any, str], bool], list[str]]] = [
        ("target_modules", _names(values.get("target_modules")), ends_with, adapted),
        ("exclude_modules", _names(excluded), ends_with, names),
        ("rank_pattern", values.get("rank_pattern") or {}, at_end, adapted),
        ("alpha_pattern", values.get("alpha_pattern") or {}, at_end, adapted),
        ("layers_to_transform", listed(values.get("layers_to_transform")), of_layer, adapted),
        ("layers_pattern", listed(values.get("layers_pattern")), at_layers, adapted),
    ]
    faults = [
        f"{key}: {entry}"
        for key, entries, matches, candidates in checks
        for entry in entries
        if not any(matches(entry, name) for name in candidates)
    ]
    if isinstance(excluded, str) and not any(re.fullmatch(excluded, name) for name in names):
        faults.append(f"exclude_modules: {excluded}")
    if faults:
        headline = f"The adapter {folder} names in {ADAPTER_FILE} what matches none of its layers:"
        advice = f"It adapts {name_some(sorted(adapted))}.\nName the base that it was trained on, or take them out."
        raise ModelError(list_faults(headline, faults, advice=advice))


def _check_heads(head_weights: set[str], *, is_tied: bool, folder: Path) -> None:
    whole = sorted(key for key in head_weights if ".lora_" not in key)
    if whole and is_tied:
        raise ModelError(
            f"The adapter {folder} is more than a plain LoRA: its file holds {name_some(whole)}, and the model's "
            f"head is its token embedding.\n{MERGE_ADVICE}"
        )
    logger.info(
        "The adapter %s also changes the head, which no embedding depends on: %s",
        folder,
        name_some(sorted(head_weights)),
    )


def _by_own_names(
    keys: Iterable[str], weights: Mapping[str, torch.Tensor], *, prefix: str, folder: Path
) -> dict[str, torch.Tensor]:
    """Weights by the names that the backbone alone would give them."""
    others = sorted(key for key in keys if not key.endswith((".lora_A.weight", ".lora_B.weight")))
    if others:
        raise ModelError(
            f"The adapter {folder} is more than a plain LoRA: its file holds {name_some(others)}.\n"
            f"Biases, modules and embeddings that are saved whole, and parts of DoRA cannot be loaded. {MERGE_ADVICE}"
        )
    long = PEFT_PREFIX + prefix
    return {PEFT_PREFIX + key.removeprefix(long) if key.startswith(long) else key: weights[key] for key in sorted(keys)}


def _plain_config(config: LoraConfig, layers: Mapping[str, LoraLayer], *, backbone: Backbone) -> LoraConfig:
    ranks = {name: layer.r["default"] for name, layer in layers.items()}
    alphas = {name: layer.lora_alpha["default"] for name, layer in layers.items()}
    return LoraConfig(
        task_type="FEATURE_EXTRACTION",
        r=config.r,
        lora_alpha=config.lora_alpha,
        use_rslora=config.use_rslora,
        lora_dropout=config.lora_dropout,
        fan_in_fan_out=next(iter(layers.values())).fan_in_fan_out,
        target_modules=short_names(layers, backbone=backbone),
        rank_pattern={name: rank for name, rank in ranks.items() if rank != config.r},
        alpha_pattern={name: alpha for name, alpha in alphas.items() if alpha != config.lora_alpha},
    )


def short_names(layers: Iterable[str], *, backbone: Backbone) -> list[str]:
    """`q_proj` where all layers of that name are meant, else the whole names."""
    whole = set(layers)
    short = {name.rsplit(".", 1)[-1] for name in whole}
    meant = {name for name, _ in backbone.model.named_modules() if name.rsplit(".", 1)[-1] in short}
    return sorted(short if meant == whole else whole)
