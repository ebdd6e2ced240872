"""`adapter_config.json`, whoever wrote it: read, and refused where it describes more than a plain LoRA or is damaged.

What is refused is named, with what it means. Which layers the names and patterns mean is read in `plain_lora.py`.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from peft import LoraConfig

from embedsmith.model.loading.backbone import ADAPTER_FILE
from embedsmith.model.loading.weights import name_some
from embedsmith.support import files
from embedsmith.support.errors import ModelError, list_faults
from embedsmith.support.json_text import parse_json

# Starts that leave the base as it is; others move a part of it into the adapter.
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
# Of the start and of training alone, or of parts that are refused by their own settings.
_WITHOUT_EFFECT = {
    *("auto_mapping", "inference_mode", "megatron_core", "peft_type", "peft_version", "runtime_config", "task_type"),
    *("corda_config", "eva_config", "loftq_config", "lora_ga_config", "ensure_weight_tying", "qalora_group_size"),
    *("base_model_name_or_path", "revision", "init_lora_weights"),
}
BESIDE_LORA = {"bias", "modules_to_save"}
"""Settings that may change more than the updates, or nothing at all: which of it, the model says."""
READ_BY_PEFT = {
    *("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "lora_dropout", "fan_in_fan_out"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
}
"""Settings that say where plain low-rank updates stand and how they are scaled."""
MERGE_ADVICE = (
    "Let peft merge it into its base and load the merged model:\n"
    "PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(folder), and the tokenizer beside it."
)
"""What to do about an adapter that cannot be loaded as it is."""
_LARGEST = float(np.finfo(np.float32).max)
_MEANINGS = {
    "alora_invocation_tokens": "an activated LoRA",
    "arrow_config": "routing between adapters",
    "kasa_config": "KaSA, which changes the base model too",
    "layer_replication": "layers of the base run several times",
    "lora_bias": "biases on the updates",
    "megatron_config": "layers of Megatron's",
    "monteclora_config": "sampled updates",
    "target_parameters": "updates of single tensors, as of experts",
    "trainable_token_indices": "changed token embeddings",
    "use_bdlora": "block-diagonal updates",
    "use_dora": "DoRA",
    "use_qalora": "QALoRA",
}
logger = logging.getLogger(__name__)


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """The values of a folder's adapter_config.json.

    Raises:
        ModelError: it is not there or damaged.
    """
    path = folder / ADAPTER_FILE
    try:
        values = parse_json(files.read_text(path))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is damaged: {error}\nGet the file again.") from error
    if not isinstance(values, dict) or "peft_type" not in values:
        raise ModelError(f"{path} is damaged: it names no peft_type.\nGet the file again.")
    return values


def check_plain(values: Mapping[str, Any], *, folder: Path) -> None:
    """Check all that can be told without a model.

    Raises:
        ModelError: it is no LoRA or more than a plain one, has settings that are not known, or wrong values.
    """
    if (kind := values["peft_type"]) != "LORA":
        raise ModelError(f"The adapter {folder} is of type {kind}.\nOnly LoRA adapters can be loaded. {MERGE_ADVICE}")
    if (start := values.get("init_lora_weights", True)) not in _PLAIN_STARTS:
        raise ModelError(
            f"The adapter {folder} was started with init_lora_weights {start!r}, which changes the base model too.\n"
            "Let peft convert it to a plain LoRA (save_pretrained with path_initial_model_for_weight_conversion)."
        )
    _check_known(values, folder=folder)
    defaults = LoraConfig().to_dict()
    more = [
        f"{key}: {value}" + (f" ({_MEANINGS[key]})" if key in _MEANINGS else "")
        for key, value in values.items()
        if key not in READ_BY_PEFT | _WITHOUT_EFFECT | BESIDE_LORA and value and value != defaults.get(key)
    ]
    if more:
        raise ModelError(f"The adapter {folder} is more than a plain LoRA: {name_some(more)}.\n{MERGE_ADVICE}")
    _check_types(values, folder=folder)


def _check_known(values: Mapping[str, Any], *, folder: Path) -> None:
    unknown = values.keys() - {field.name for field in fields(LoraConfig)}
    what = f"settings that the peft installed here does not know{_written_by(values)}"
    if used := sorted(f"{key}: {values[key]}" for key in unknown if values[key]):
        raise ModelError(
            f"The adapter {folder} has {what}: {name_some(used)}.\n"
            f"Install a newer peft, or take out of {ADAPTER_FILE} what does not change the computation."
        )
    if unknown:
        logger.info("The adapter %s has %s, all of them off: %s", folder, what, name_some(sorted(unknown)))


def _written_by(values: Mapping[str, Any]) -> str:
    return f" (peft {values['peft_version']} wrote them)" if values.get("peft_version") else ""


def _check_types(values: Mapping[str, Any], *, folder: Path) -> None:
    faults = [f"{key} is {value!r}, not {meaning}" for key, value, meaning in _wrong_types(values)]
    if faults:
        headline = f"The adapter {folder} has wrong values in {ADAPTER_FILE}:"
        raise ModelError(list_faults(headline, faults, advice="Get the file again, or mend it."))


def _wrong_types(values: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    for key, pattern_key, is_right, meaning in (
        ("r", "rank_pattern", _is_rank, "a whole number above 0"),
        ("lora_alpha", "alpha_pattern", _is_finite, "a finite number of float32"),
    ):
        patterns = values.get(pattern_key) or {}
        if not isinstance(patterns, dict):
            yield pattern_key, patterns, "names with numbers"
        else:
            yield from ((f"{pattern_key} of {name}", x, meaning) for name, x in patterns.items() if not is_right(x))
        if key in values and not is_right(values[key]):
            yield key, values[key], meaning
    if not _is_finite(values.get("lora_dropout", 0)) or not 0 <= values.get("lora_dropout", 0) < 1:
        yield "lora_dropout", values["lora_dropout"], "a number from 0 up to 1"
    for key in ("target_modules", "exclude_modules", "layers_pattern", "modules_to_save"):
        if not isinstance(values.get(key), str) and not all(isinstance(x, str) for x in listed(values.get(key))):
            yield key, values[key], "names or a pattern"
    if not all(isinstance(index, int) for index in listed(values.get("layers_to_transform"))):
        yield "layers_to_transform", values["layers_to_transform"], "numbers of layers"


def listed(value: Any) -> list[Any]:
    """A setting that may hold nothing, one thing or a list."""
    return [] if value is None else list(value) if isinstance(value, list) else [value]


def _is_rank(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -_LARGEST <= value <= _LARGEST
