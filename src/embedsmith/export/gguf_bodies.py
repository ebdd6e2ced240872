"""A decoder -> what llama.cpp calls it: architecture, figures and weights of a GGUF file.

llama.cpp turns neighbouring numbers of a head where transformers turns the first half against the second; for the
architectures that it does so in, the rows of queries and keys are put in that order. The names of weights are those
that the package gguf knows.

Reference: llama.cpp's `conversion/` and `src/models/`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from gguf import MODEL_ARCH, GGUFWriter, get_tensor_name_map


@dataclass(frozen=True)
class Body:
    """What llama.cpp computes for one family.

    Attributes:
        architecture: its name there.
        activation: of the MLP, as a configuration spells it.
        turns_neighbours: whether rotary positions turn neighbouring numbers.
        takes_frequencies: whether a file may bring divisors of the rotary frequencies.
        norm_offset: what is added to the weights of norms.
        has_windows: whether some layers may see a window alone.
    """

    architecture: MODEL_ARCH
    activation: str = "silu"
    turns_neighbours: bool = False
    takes_frequencies: bool = False
    norm_offset: float = 0.0
    has_windows: bool = False


_LLAMA = Body(MODEL_ARCH.LLAMA, turns_neighbours=True, takes_frequencies=True)
BODIES = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "granite": Body(MODEL_ARCH.GRANITE, turns_neighbours=True, takes_frequencies=True),
    "qwen2": Body(MODEL_ARCH.QWEN2),
    "qwen3": Body(MODEL_ARCH.QWEN3),
    "gemma3_text": Body(MODEL_ARCH.GEMMA3, activation="gelu_pytorch_tanh", norm_offset=1.0, has_windows=True),
}
_SLIDING, _FULL = "sliding_attention", "full_attention"
# llama.cpp takes a Gemma 3 of this many layers for the one whose attention is scaled by its width.
_LAYERS_OF_GEMMA_27B = 62


def faults_of_body(config: Any, *, max_length: int, sees_both_ways: bool) -> list[str]:
    """What of a network llama.cpp computes otherwise, by name and value."""
    body = BODIES.get(config.model_type)
    if body is None:
        return [f"the family {config.model_type} (there are {', '.join(BODIES)})"]
    faults = []
    activation = getattr(config, "hidden_act", None) or getattr(config, "hidden_activation", None)
    if activation != body.activation:
        faults.append(f"activation {activation}")
    window = config.sliding_window if any(_slides(config)) else None
    if window and window < max_length and (sees_both_ways or not body.has_windows):
        faults.append(f"sliding_window {window}, below max_length {max_length}")
    known = ("default", "llama3") if body.takes_frequencies else ("default",)
    kinds = sorted({rope["rope_type"] for rope in _rope_of(config).values()} - set(known))
    faults += [f"rope_type {kind}" for kind in kinds]
    if body.has_windows and (
        config.query_pre_attn_scalar != config.head_dim or config.num_hidden_layers == _LAYERS_OF_GEMMA_27B
    ):
        faults.append(f"query_pre_attn_scalar {config.query_pre_attn_scalar} in {config.num_hidden_layers} layers")
    return faults


def describe_body(writer: GGUFWriter, config: Any, *, num_tokens: int, sees_both_ways: bool) -> None:
    """The network's figures, as llama.cpp reads them."""
    head_dim = _head_dim(config)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(num_tokens)
    writer.add_causal_attention(not sees_both_ways)
    rope = _rope_of(config)
    writer.add_rope_freq_base(rope[_FULL]["rope_theta"])
    if BODIES[config.model_type].has_windows:
        writer.add_rope_freq_base_swa(rope[_SLIDING]["rope_theta"])
        writer.add_sliding_window(config.sliding_window)
        writer.add_sliding_window_pattern(_slides(config))
    if config.model_type == "granite":
        writer.add_attention_scale(config.attention_multiplier)
        writer.add_embedding_scale(config.embedding_multiplier)
        writer.add_residual_scale(config.residual_multiplier)
        writer.add_logit_scale(config.logits_scaling)


def weights_of(network: Any, *, copies: Sequence[int] = ()) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and values (float32) of each weight, as llama.cpp has them.

    Args:
        network: of a family in `BODIES`.
        copies: ids whose embeddings stand once more behind all others.

    Raises:
        KeyError: a weight that the architecture does not have.
    """
    config = network.config
    body = BODIES[config.model_type]
    names = get_tensor_name_map(body.architecture, config.num_hidden_layers)
    for name, weight in network.state_dict().items():
        known = names.get_name(f"model.{name}", try_suffixes=(".weight", ".bias"))
        if known is None:
            raise KeyError(name)
        values = weight.detach().float()
        part = name.split(".")[-2]
        if part == "embed_tokens":
            values = torch.cat([values, values[list(copies)]])
        elif part.endswith("norm"):
            values = values + body.norm_offset
        elif body.turns_neighbours and part in ("q_proj", "k_proj"):
            values = _neighbours(values, head_dim=_head_dim(config))
        yield known, values
    if (divisors := _frequency_divisors(network)) is not None:
        yield "rope_freqs.weight", divisors


def _head_dim(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _slides(config: Any) -> list[bool]:
    """Whether each layer sees a window alone."""
    if kinds := getattr(config, "layer_types", None):
        return [kind == _SLIDING for kind in kinds]
    return [bool(getattr(config, "sliding_window", None))] * config.num_hidden_layers


def _rope_of(config: Any) -> dict[str, dict[str, Any]]:
    """Rotary parameters by the kind of layer."""
    given = config.rope_parameters
    return given if _FULL in given else {_FULL: given}


def _neighbours(rows: torch.Tensor, *, head_dim: int) -> torch.Tensor:
    """Rows of each head in the order first of the first half, first of the second, second of the first ..."""
    halves = rows.reshape(-1, 2, head_dim // 2, *rows.shape[1:])
    return halves.transpose(1, 2).reshape(rows.shape)


def _frequency_divisors(network: Any) -> torch.Tensor | None:
    """By what the plain rotary frequencies are divided, (head_dim / 2,), where they are."""
    rope = _rope_of(network.config)[_FULL]
    if rope["rope_type"] == "default":
        return None
    frequencies = network.rotary_emb.inv_freq.float()
    exponents = torch.arange(len(frequencies), dtype=torch.float32) / len(frequencies)
    return rope["rope_theta"] ** -exponents / frequencies.cpu()
