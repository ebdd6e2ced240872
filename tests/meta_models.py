"""Embedders of real shapes without weights: torch's meta device knows every size and computes nothing."""

import torch
from transformers import AutoModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from embedsmith.model.embedder import Embedder
from embedsmith.model.layers.attention import PACKED_ATTENTION
from embedsmith.model.loading.backbone import Backbone
from embedsmith.model.loading.settings import EmbeddingSettings
from embedsmith.settings.config import AdapterSection
from tests.tiny import make_tokenizer

# From their config.json files; MiniCPM runs as Granite.
SHAPES: dict[str, tuple[str, dict[str, object]]] = {
    "SmolLM2-135M": (
        "llama",
        {
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "vocab_size": 49152,
        },
    ),
    "Gemma-2B": (
        "gemma",
        {
            "hidden_size": 2048,
            "intermediate_size": 16384,
            "num_hidden_layers": 18,
            "num_attention_heads": 8,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "vocab_size": 256000,
        },
    ),
    "Phi-2": (
        "phi",
        {
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "partial_rotary_factor": 0.4,
            "vocab_size": 51200,
        },
    ),
    "MiniCPM-2B": (
        "granite",
        {
            "hidden_size": 2304,
            "intermediate_size": 5760,
            "num_hidden_layers": 40,
            "num_attention_heads": 36,
            "num_key_value_heads": 36,
            "vocab_size": 122753,
        },
    ),
}


def make_config(name: str, **changes: object) -> object:
    """A configuration of one of `SHAPES`, with the tiny tokenizer's control tokens."""
    family, shape = SHAPES[name]
    return CONFIG_MAPPING[family](**{**shape, **changes}, bos_token_id=1, eos_token_id=2, pad_token_id=2)


def meta_embedder(
    name: str, *, fused: bool = True, dtype: torch.dtype = torch.bfloat16, method: str = "lora"
) -> Embedder:
    with torch.device("meta"):
        return make_embedder(make_config(name), dtype=dtype, adapter=AdapterSection(method=method), fused=fused)


def make_embedder(
    config: object, *, dtype: torch.dtype, adapter: AdapterSection, fused: bool = False, **settings: object
) -> Embedder:
    """An embedder on the device that is torch's at the moment; its tokenizer is the tiny one."""
    model = AutoModel.from_config(config, dtype=dtype, attn_implementation=PACKED_ATTENTION)
    model.requires_grad_(False).eval()
    backbone = Backbone(name="made", model=model, tokenizer=make_tokenizer())
    embedder = Embedder(backbone, settings=EmbeddingSettings(base_model="made", **settings), fused=fused)
    embedder.add_adapter(adapter)
    return embedder
