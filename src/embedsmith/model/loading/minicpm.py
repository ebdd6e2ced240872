"""MiniCPM's published configuration -> transformers' in-tree Granite, which computes the same.

MiniCPM (model_type `minicpm`) is Llama with three scalars; its checkpoints come with program code, which is not run.
Granite has the same layers, the same weight names and the scalars under other names:

    embedding_multiplier = scale_emb                                   token embeddings
    residual_multiplier  = scale_depth / sqrt(num_hidden_layers)       what attention and MLP add to the stream
    attention_multiplier = 1 / sqrt(head_dim)                          attention scores, as in Llama
    logits_scaling       = hidden_size / dim_model_base                logits, which no embedding needs

Variants whose layers differ (experts, sparse attention, rotary tables that depend on the length) are refused, and so is
a checkpoint with weights that this mapping would leave out.

Reference: Hu et al. 2024 (arXiv 2404.06395), table of muP operations; OpenBMB's `modeling_minicpm.py` and
`configuration_minicpm.py`, whose defaults stand in for keys that a config.json lacks.
"""

import math
from collections.abc import Mapping
from typing import Any

from transformers import GraniteConfig
from transformers.activations import ACT2FN

from embedsmith.support.errors import ModelError, list_faults

# The defaults of MiniCPMConfig; all of them mean the same to Granite.
_SHAPE = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "attention_dropout": 0.0,
}
_ARCHITECTURE = "MiniCPMForCausalLM"
OTHER_VARIANT = "It is a variant of MiniCPM that cannot be loaded; choose MiniCPM-2B or MiniCPM-1B (sft, dpo)."
"""What to do about weights that the mapping would leave out."""
_SCALARS = {"scale_emb": 1, "scale_depth": 1, "dim_model_base": 1}
_ROPE_THETA = 10000.0


def is_minicpm(values: Mapping[str, Any]) -> bool:
    """Whether a config.json is MiniCPM's; early ones name the architecture but no model_type."""
    if values.get("model_type") is None:
        return _ARCHITECTURE in (values.get("architectures") or [])
    return bool(values["model_type"] == "minicpm")


def granite_config(values: Mapping[str, Any], *, name: str) -> GraniteConfig:
    """The Granite configuration that computes what MiniCPM's `values` (a config.json) describe.

    Raises:
        ModelError: the checkpoint is of a variant that Granite does not compute; all reasons together.
    """
    shape = {key: values.get(key, default) for key, default in _SHAPE.items()}
    scalars = {key: values.get(key, default) for key, default in _SCALARS.items()}
    # transformers 5 writes both keys as one.
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    faults = [*_wrong_numbers({**shape, **scalars}), *_differences(values, shape, rope)]
    if faults:
        headline = f"'{name}' is a MiniCPM checkpoint of a kind that cannot be loaded:"
        raise ModelError(list_faults(headline, faults, advice="MiniCPM-2B and MiniCPM-1B (sft, dpo) can be loaded."))
    theta = rope.get("rope_theta", values.get("rope_theta", _ROPE_THETA))
    kind = _rope_kind(rope)
    factor = {"factor": rope["factor"]} if kind == "linear" else {}
    return GraniteConfig(
        **shape,
        architectures=["GraniteForCausalLM"],
        rope_parameters={"rope_type": kind, "rope_theta": theta, **factor},
        embedding_multiplier=scalars["scale_emb"],
        residual_multiplier=scalars["scale_depth"] / math.sqrt(shape["num_hidden_layers"]),
        attention_multiplier=(shape["hidden_size"] // shape["num_attention_heads"]) ** -0.5,
        logits_scaling=shape["hidden_size"] / scalars["dim_model_base"],
    )


def _wrong_numbers(values: Mapping[str, Any]) -> list[str]:
    keys = [*_SCALARS, "hidden_size", "num_hidden_layers", "num_attention_heads", "rms_norm_eps"]
    return [f"{key} is {values[key]!r}, not a positive number" for key in keys if not _is_positive(values[key])]


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _differences(values: Mapping[str, Any], shape: Mapping[str, Any], rope: Mapping[str, Any]) -> list[str]:
    faults = [
        f"{key} is set: {meaning}"
        for key, meaning in {
            "num_experts": "a mixture of experts",
            "sparse_config": "sparse attention",
            "quantization_config": "quantised weights",
        }.items()
        if values.get(key)
    ]
    # MiniCPM-Embedding and -Reranker share the model type; their attention looks both ways, or they have a head.
    if (names := values.get("architectures") or [_ARCHITECTURE]) != [_ARCHITECTURE]:
        faults.append(f"architectures is {names}, not [{_ARCHITECTURE}]")
    if values.get("is_causal") is False:
        faults.append("is_causal is false: attention looks both ways")
    if (kind := _rope_kind(rope)) not in ("default", "linear"):
        faults.append(f"rope_scaling is of type {kind!r}; known are none and linear")
    elif kind == "linear" and not _is_positive(rope.get("factor")):
        faults.append(f"rope_scaling has the factor {rope.get('factor')!r}, not a positive number")
    if shape["hidden_act"] not in ACT2FN:
        faults.append(f"hidden_act is {shape['hidden_act']!r}, which transformers does not know")
    for key in ("head_dim", "kv_channels"):
        if (width := values.get(key)) and width * shape["num_attention_heads"] != shape["hidden_size"]:
            faults.append(f"{key} is {width}, not hidden_size / num_attention_heads")
    return faults


def _rope_kind(rope: Mapping[str, Any]) -> str:
    return str(rope.get("rope_type", rope.get("type", "default")))
