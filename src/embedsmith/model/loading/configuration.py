"""config.json -> what a model is: its configuration, as transformers knows it, and whether it is a decoder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from embedsmith.model.loading.builtin import BUILTIN
from embedsmith.model.loading.checkpoint_files import conversion_advice, why_missing
from embedsmith.model.loading.minicpm import granite_config, is_minicpm
from embedsmith.model.loading.shipped import SHIPPED
from embedsmith.support.errors import ModelError

_LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")
_MOST_LAYERS = 10_000
_WITH_SWITCH = ("gemma3_text",)  # use_bidirectional_attention; Gemma 1 has the word too, and its masks go by no word


def check_there(model: str, source: str | None = None) -> None:
    """Raise ModelError where a model's source (None: its name) can be a folder's alone and there is none."""
    if missing := why_missing(source or model):
        raise _no_model(model, missing)


def load_config(model: str, source: str) -> tuple[Any, bool]:
    """The configuration, and whether it is another family's that stands for this one.

    Args:
        model: what the user called it.
        source: the folder or hub id of its files.

    Raises:
        ModelError: there is none, it needs program code of its own, or it names pickled weights.
    """
    check_there(model, source)
    try:
        values, _ = PreTrainedConfig.get_config_dict(source)
        _check_layers(values, name=f"config.json of '{model}'")
        if is_minicpm(values):
            config = granite_config(values, name=model)
            config._commit_hash = values.get("_commit_hash")
            return config, True
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)  # not given, a terminal is asked
    except ModelError:
        raise
    except Exception as error:  # a config.json may hold anything
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"'{model}' needs program code from its own folder, which embedsmith never runs.\n"
                "Choose a model whose architecture transformers knows, or MiniCPM."
            ) from error
        before = "" if Path(source).is_dir() else "there is no such folder, and the hub gives none: "
        raise _no_model(model, before + reason_of(error)) from error
    if (weights := str(getattr(config, "transformers_weights", None) or ".safetensors")).endswith(".bin"):
        raise ModelError(f"'{model}' names {weights} as its weights.\n{conversion_advice(source)}")
    return config, False


def _no_model(model: str, reason: str) -> ModelError:
    return ModelError(
        f"There is no model '{model}' that can be loaded: {reason}\n"
        f"It may be a built-in name ({', '.join((*BUILTIN, *SHIPPED))}), a hub id such as "
        "HuggingFaceTB/SmolLM2-135M, a folder with config.json, a .gguf file, or a run folder."
    )


def _check_layers(values: Mapping[str, Any], *, name: str) -> None:
    """Refuse a number of layers that no model has: some families' configurations list every one of them."""
    for key, value in values.items():
        if isinstance(value, dict):
            _check_layers(value, name=name)
        elif key in _LAYERS and isinstance(value, int) and value > _MOST_LAYERS:
            raise ModelError(f"{name} has {key}: {value:,}, more layers than a model can have.\nGet the file again.")


def find_model_type(source: str) -> str | None:
    """The family that a config.json names, MiniCPM's included, in a folder or on the hub; None if there is none."""
    try:
        values, _ = PreTrainedConfig.get_config_dict(source)
    except (OSError, ValueError):
        return None
    return "minicpm" if is_minicpm(values) else values.get("model_type")


def is_decoder(config: Any) -> bool:
    """Whether a configuration is a decoder language model's: by its family, unless it says otherwise itself."""
    kind = config.model_type
    is_masked = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
    return not config.is_encoder_decoder and not is_masked and kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def sees_both_ways(config: Any) -> bool:
    """Whether a decoder's configuration lets every token see later ones (Gemma 3's and transformers' own switches)."""
    return getattr(config, "use_bidirectional_attention", None) is True or getattr(config, "is_causal", True) is False


def let_see_both_ways(config: Any) -> None:
    """Say so in a configuration: by the family's switch, else by transformers' own, which it knows from 5.2 on."""
    if config.model_type in _WITH_SWITCH:
        config.use_bidirectional_attention = True
    else:
        config.is_causal = False


def can_say_both_ways(config: Any, *, max_length: int) -> bool:
    """Whether `let_see_both_ways` means the same as here, for texts of so many tokens."""
    window = getattr(config, "sliding_window", None)
    # By its own switch transformers lets a token see one further than a causal one's window reaches back.
    return config.model_type in _WITH_SWITCH or window is None or window >= max_length


def reason_of(error: Exception) -> str:
    """An error's first line, and what comes behind one that ends in a colon; the kind, where the words need it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    text = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return text if isinstance(error, OSError | ValueError | SafetensorError) else f"{type(error).__name__}: {text}"
