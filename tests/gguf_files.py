"""Tiny GGUF files, written as llama.cpp's converter writes a Qwen2 model."""

from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from gguf.quants import quantize
from transformers import AutoModel, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

LETTERS = "abcdefghijklmnopqrstuvwxyz"
TOKENS = ["<|endoftext|>", *LETTERS, "Ġ", "Ġa", "th", "the", "Ġthe", "<|im_start|>"]
MERGES = ["Ġ a", "t h", "th e", "Ġ the"]
NAMES = {
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}


def make_model() -> PreTrainedModel:
    torch.manual_seed(3)
    config = CONFIG_MAPPING["qwen2"](
        vocab_size=len(TOKENS),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.3,
        tie_word_embeddings=True,
    )
    return AutoModel.from_config(config)


def save_gguf(
    path: Path,
    *,
    quantization: GGMLQuantizationType = GGMLQuantizationType.F32,
    architecture: str = "qwen2",
    num_parts: int = 1,
    leave_out: str | None = None,
) -> PreTrainedModel:
    """Write `make_model`'s model, matrices in a number format; returns it."""
    model = make_model()
    config = model.config
    writer = GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(TOKENS)
    writer.add_token_merges(MERGES)
    writer.add_token_types([TokenType.CONTROL if token.startswith("<|") else TokenType.NORMAL for token in TOKENS])
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(0)
    if num_parts > 1:
        writer.add_uint16("split.count", num_parts)
    for name, weight in model.state_dict().items():
        if leave_out and leave_out in name:
            continue
        values = weight.numpy().astype(np.float32)
        kind = quantization if values.ndim == 2 else GGMLQuantizationType.F32
        writer.add_tensor(_name(name), quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def _name(name: str) -> str:
    """`layers.0.self_attn.q_proj.bias` -> `blk.0.attn_q.bias`."""
    *path, module, kind = name.split(".")
    return ".".join([*(["blk", path[1]] if path else []), NAMES[module], kind])
