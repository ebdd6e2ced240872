"""A transformers decoder -> the parts the fused decoder runs on: norms, merged linear groups, shapes, rotary tables.

`families.py` says what each architecture calls them; whatever else a model has that is not computed (a quantised layer,
another activation, rotary tables that change with the length) is named and left to the plain path. Weights are shared
with the model, not copied: merged ones become views.
"""

import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from embedsmith.model.layers.fused.families import FUSED_FAMILIES, Family
from embedsmith.model.layers.fused.kernels import Activation, Kernels, Norm
from embedsmith.model.layers.fused.linear import LinearGroup

_ACTIVATIONS = {"silu": "silu", "gelu_new": "gelu", "gelu_pytorch_tanh": "gelu"}
# Rotary tables of these depend on the position alone. longrope's too, up to the length of its first training.
_STATIC_ROTARY = ("default", "linear", "llama3", "yarn", "longrope")
NO_ROTARY = "none"
"""In the place of a layer type: the layer turns nothing."""


@dataclass(frozen=True)
class Layer:
    """One decoder layer: x += out_norm(attention(norm(x))), then x += down_norm(mlp(mlp_norm(x))).

    Attributes:
        norm, out_norm, mlp_norm, down_norm: None where a family has none there.
        is_parallel: the MLP reads what attention reads, the first norm's value (Phi).
        qkv: queries, keys and values in one product; `q` and `kv` the same in two, for a layer that needs few queries.
        head_norms: of queries and keys, each head's (Qwen3, Gemma 3) or all heads' together (OLMo 2), or None.
        out, up, down: attention's output, the MLP's input (gate and up in one) and output.
        window: tokens a query may look back, or None.
        is_causal: whether a token sees no later one.
        rotary: the tables it turns by: a layer type, "" where all have the same, or `NO_ROTARY`.
    """

    norm: Norm | None
    out_norm: Norm | None
    mlp_norm: Norm | None
    down_norm: Norm | None
    is_parallel: bool
    qkv: LinearGroup | None
    q: LinearGroup | None
    kv: LinearGroup | None
    head_norms: tuple[Norm, Norm] | None
    out: LinearGroup
    up: LinearGroup
    down: LinearGroup
    window: int | None
    is_causal: bool
    rotary: str


@dataclass(frozen=True)
class Layout:
    """A decoder.

    Attributes:
        embed_tokens: token ids -> (N, H).
        layers: from the first to the last.
        final_norm: of the residual stream.
        activation: the MLPs'.
        num_heads, num_kv_heads, head_dim: of attention.
        scaling: of attention's scores.
        softcap: c in c tanh(score / c) (Gemma 2), or None.
        embedding_multiplier, residual_multiplier: Granite's and MiniCPM's; else 1.
        dtype: of the weights.
    """

    embed_tokens: torch.nn.Module
    layers: list[Layer]
    final_norm: Norm
    activation: Activation
    num_heads: int
    num_kv_heads: int
    head_dim: int
    scaling: float
    softcap: float | None
    embedding_multiplier: float
    residual_multiplier: float
    dtype: torch.dtype


def why_not_fused(model: PreTrainedModel) -> str | None:
    """What keeps a model on the plain path, or None."""
    config = model.config
    if is_sharded(model):
        return "several processes hold the base together"
    if config.model_type not in FUSED_FAMILIES:
        return f"no fused blocks for model_type {config.model_type}"
    if (name := _activation_name(config)) not in _ACTIVATIONS:
        return f"activation {name}"
    for parameters in _rotary_parameters(config).values():
        if (kind := parameters.get("rope_type", "default")) not in _STATIC_ROTARY:
            return f"rotary embedding of type {kind}"
    if getattr(config, "qk_layernorm", False):
        return "layer norms on queries and keys"
    if model.dtype not in (torch.bfloat16, torch.float32):
        return f"weights of type {model.dtype}"
    linears = (
        module for name, module in model.layers.named_modules() if name.endswith(("_proj", "dense", "fc1", "fc2"))
    )
    if any(type(module) is not torch.nn.Linear for module in linears):
        return "linear layers of another kind, perhaps quantised"
    if any(parameter.requires_grad for parameter in model.parameters()):
        return "weights that are trained themselves"
    return None


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether several processes hold the weights together, each some rows of them."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def read_layout(model: PreTrainedModel, *, kernels: Kernels, num_bidirectional: int = 0) -> Layout:
    """Read a model for which `why_not_fused` is None; merges its linear layers in place.

    In the last `num_bidirectional` layers a token sees later ones too.
    """
    config = model.config
    family = FUSED_FAMILIES[config.model_type]
    attention = model.layers[0].self_attn
    num_layers = len(model.layers)
    activation = Activation(_ACTIVATIONS[_activation_name(config)], is_gated=family.is_gated)
    return Layout(
        embed_tokens=model.embed_tokens,
        layers=[
            _read_layer(
                layer,
                config,
                family,
                kernels,
                activation,
                is_last=index == num_layers - 1,
                is_causal=index < num_layers - num_bidirectional,
            )
            for index, layer in enumerate(model.layers)
        ],
        final_norm=_read_norm(model.norm if hasattr(model, "norm") else model.final_layernorm, family),
        activation=activation,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_dim=attention.head_dim,
        scaling=attention.scaling,
        softcap=getattr(config, "attn_logit_softcapping", None),
        embedding_multiplier=getattr(config, "embedding_multiplier", 1.0),
        residual_multiplier=getattr(config, "residual_multiplier", 1.0),
        dtype=model.dtype,
    )


def rotary_tables(model: PreTrainedModel, num_positions: int, *, kind: str = "") -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines, (positions, rotated width / 2) float32 each.

    Args:
        model: has the frequencies.
        num_positions: from 0 on; fewer where the tables of longer texts are others (longrope).
        kind: as `Layer.rotary`.
    """
    if kind == NO_ROTARY:
        nothing = torch.empty(num_positions, 0, device=model.device)
        return nothing, nothing
    positions = torch.arange(min(num_positions, longest_static(model.config)), device=model.device)[None]
    x = torch.empty(0, dtype=torch.float32, device=model.device)
    cos, sin = model.rotary_emb(x, positions, kind) if kind else model.rotary_emb(x, positions)
    half = cos.shape[-1] // 2
    return cos[0, :, :half].contiguous(), sin[0, :, :half].contiguous()


def longest_static(config: Any) -> int:
    """Tokens of the longest text whose rotary tables do not depend on its length; of any architecture."""
    limits = (
        parameters["original_max_position_embeddings"]
        for parameters in _rotary_parameters(config).values()
        if parameters.get("rope_type") == "longrope"
    )
    return min(limits, default=sys.maxsize)


def _read_layer(
    layer: Any,
    config: Any,
    family: Family,
    kernels: Kernels,
    activation: Activation,
    *,
    is_last: bool,
    is_causal: bool,
) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp

    def group(parent: Any, *names: str, into_stream: bool = False, activation: Activation | None = None) -> LinearGroup:
        return LinearGroup(parent, names, kernels=kernels, into_stream=into_stream, activation=activation)

    def norm(parent: Any, name: str | None) -> Norm | None:
        return _read_norm(getattr(parent, name), family) if name and hasattr(parent, name) else None

    splits_queries = is_last and family.splits_queries
    query_norm, key_norm = norm(attention, "q_norm"), norm(attention, "k_norm")
    return Layer(
        norm=norm(layer, family.norms.attention),
        out_norm=norm(layer, family.norms.attention_output),
        mlp_norm=norm(layer, family.norms.mlp),
        down_norm=norm(layer, family.norms.mlp_output),
        is_parallel=family.is_parallel,
        qkv=None if splits_queries else group(attention, *family.qkv),
        q=group(attention, *family.qkv[:1]) if splits_queries else None,
        kv=group(attention, *family.qkv[1:]) if splits_queries else None,
        head_norms=(query_norm, key_norm) if query_norm and key_norm else None,
        out=group(attention, family.out, into_stream=True),
        up=group(mlp, *family.up, activation=activation),
        down=group(mlp, family.down, into_stream=True),
        window=config.sliding_window if family.window_in_config else getattr(attention, "sliding_window", None),
        is_causal=is_causal,
        rotary=_rotary_kind(attention, config),
    )


def _activation_name(config: Any) -> str:
    return str(getattr(config, "hidden_activation", None) or config.hidden_act)


def _rotary_parameters(config: Any) -> dict[str, dict[str, Any]]:
    """By layer type, "" where all layers have the same."""
    parameters = getattr(config, "rope_parameters", None) or {}
    is_by_type = all(isinstance(value, dict) or value is None for value in parameters.values())
    return {kind: value for kind, value in parameters.items() if value} if is_by_type else {"": parameters}


def _rotary_kind(attention: Any, config: Any) -> str:
    if not getattr(attention, "use_rope", True):
        return NO_ROTARY
    return "" if "" in _rotary_parameters(config) else str(attention.layer_type)


def _read_norm(norm: Any, family: Family) -> Norm:
    is_centered = isinstance(norm, torch.nn.LayerNorm)
    eps = getattr(norm, "variance_epsilon", None)
    return Norm(
        weight=norm.weight.data.float() + family.norm_offset,
        bias=norm.bias.data.float() if is_centered and norm.bias is not None else None,
        eps=float(norm.eps if eps is None else eps),
        is_centered=is_centered,
    )
