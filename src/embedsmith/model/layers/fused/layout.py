"""A transformers decoder -> the parts the fused decoder runs on: norms, merged linear groups, shapes, rotary tables.

The table `FUSED_FAMILIES` lists the architectures read here; whatever else a model of these families has that is not
computed (a quantised layer, another activation, rotary tables that change with the length) is named and left to the
plain path. Weights are shared with the model, not copied: merged ones become views.
"""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from embedsmith.model.layers.fused.kernels import Activation, Kernels, Norm
from embedsmith.model.layers.fused.linear import LinearGroup

FUSED_FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "granite", "gemma", "phi")
_ACTIVATIONS = {"silu": "silu", "gelu_new": "gelu", "gelu_pytorch_tanh": "gelu"}
# Rotary tables of these depend on the position alone, not on the length of the text.
_STATIC_ROTARY = ("default", "linear", "llama3", "yarn")


@dataclass(frozen=True)
class Layer:
    """One decoder layer.

    Attributes:
        norm, mlp_norm: before attention and MLP; `mlp_norm` None: both read the first norm, side by side (Phi).
        qkv: queries, keys and values in one product; `q` and `kv` the same in two, for a layer that needs few queries.
        head_norms: of query and key heads (Qwen3), or None.
        out, up, down: attention's output, the MLP's input (gate and up in one) and output.
        window: tokens a query may look back, or None.
        is_causal: whether a token sees no later one.
    """

    norm: Norm
    mlp_norm: Norm | None
    qkv: LinearGroup | None
    q: LinearGroup | None
    kv: LinearGroup | None
    head_norms: tuple[Norm, Norm] | None
    out: LinearGroup
    up: LinearGroup
    down: LinearGroup
    window: int | None
    is_causal: bool


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
    embedding_multiplier: float
    residual_multiplier: float
    dtype: torch.dtype


def why_not_fused(model: PreTrainedModel) -> str | None:
    """What keeps a model on the plain path, or None."""
    config = model.config
    if config.model_type not in FUSED_FAMILIES:
        return f"no fused blocks for model_type {config.model_type}"
    if config.hidden_act not in _ACTIVATIONS:
        return f"activation {config.hidden_act}"
    if (kind := config.rope_parameters.get("rope_type", "default")) not in _STATIC_ROTARY:
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


def read_layout(model: PreTrainedModel, *, kernels: Kernels, num_bidirectional: int = 0) -> Layout:
    """Read a model for which `why_not_fused` is None; merges its linear layers in place.

    In the last `num_bidirectional` layers a token sees later ones too.
    """
    config = model.config
    attention = model.layers[0].self_attn
    num_layers = len(model.layers)
    activation = Activation(_ACTIVATIONS[config.hidden_act], is_gated=hasattr(model.layers[0].mlp, "gate_proj"))
    return Layout(
        embed_tokens=model.embed_tokens,
        layers=[
            _read_layer(
                layer,
                config,
                kernels,
                activation,
                is_last=index == num_layers - 1,
                is_causal=index < num_layers - num_bidirectional,
            )
            for index, layer in enumerate(model.layers)
        ],
        final_norm=_read_norm(model.norm if hasattr(model, "norm") else model.final_layernorm, config),
        activation=activation,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_dim=attention.head_dim,
        scaling=attention.scaling,
        embedding_multiplier=getattr(config, "embedding_multiplier", 1.0),
        residual_multiplier=getattr(config, "residual_multiplier", 1.0),
        dtype=model.dtype,
    )


def rotary_tables(model: PreTrainedModel, num_positions: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines, (positions, rotated width / 2) float32 each."""
    positions = torch.arange(num_positions, device=model.device)[None]
    cos, sin = model.rotary_emb(torch.empty(0, dtype=torch.float32, device=model.device), positions)
    half = cos.shape[-1] // 2
    return cos[0, :, :half].contiguous(), sin[0, :, :half].contiguous()


def _read_layer(
    layer: Any, config: Any, kernels: Kernels, activation: Activation, *, is_last: bool, is_causal: bool
) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    is_parallel = not hasattr(layer, "post_attention_layernorm")

    def group(parent: Any, *names: str, into_stream: bool = False, activation: Activation | None = None) -> LinearGroup:
        return LinearGroup(parent, names, kernels=kernels, into_stream=into_stream, activation=activation)

    is_gated = activation.is_gated
    window = getattr(attention, "sliding_window", None)
    if config.model_type == "mistral":
        window = config.sliding_window
    return Layer(
        norm=_read_norm(layer.input_layernorm, config),
        mlp_norm=None if is_parallel else _read_norm(layer.post_attention_layernorm, config),
        qkv=None if is_last else group(attention, "q_proj", "k_proj", "v_proj"),
        q=group(attention, "q_proj") if is_last else None,
        kv=group(attention, "k_proj", "v_proj") if is_last else None,
        head_norms=(
            (_read_norm(attention.q_norm, config), _read_norm(attention.k_norm, config))
            if hasattr(attention, "q_norm")
            else None
        ),
        out=group(attention, "o_proj" if hasattr(attention, "o_proj") else "dense", into_stream=True),
        up=group(mlp, *(("gate_proj", "up_proj") if is_gated else ("fc1",)), activation=activation),
        down=group(mlp, "down_proj" if is_gated else "fc2", into_stream=True),
        window=window,
        is_causal=is_causal,
    )


def _read_norm(norm: Any, config: Any) -> Norm:
    is_centered = isinstance(norm, torch.nn.LayerNorm)
    eps = getattr(norm, "variance_epsilon", None)
    offset = 1.0 if config.model_type == "gemma" else 0.0
    return Norm(
        weight=norm.weight.data.float() + offset,
        bias=norm.bias.data.float() if is_centered and norm.bias is not None else None,
        eps=float(norm.eps if eps is None else eps),
        is_centered=is_centered,
    )
