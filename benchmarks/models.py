"""Model folders to measure on: the built-in model, the same with a plain tokenizer, random ones of other families."""

import shutil
from pathlib import Path

import torch
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    GemmaConfig,
    GraniteConfig,
    PhiConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)
from transformers.utils import logging

FAMILIES = ("gemma", "phi", "granite")


def make_plain_folder(model: Path, target: Path, *, end_token: bool = True) -> Path:
    """A folder with the same weights whose tokenizer has no chat template, and appends the end token.

    So the other tools compute the very tokens embedsmith does.
    """
    target.mkdir(parents=True)
    plain_tokenizer(model, end_token=end_token).save_pretrained(target)
    shutil.copy(model / "config.json", target)
    (target / "model.safetensors").symlink_to((model / "model.safetensors").resolve())
    return target


def plain_tokenizer(model: Path, *, end_token: bool = True) -> PreTrainedTokenizerFast:
    """The model's tokenizer, without chat template, appending the end token."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = None
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token  # some transformers read none from a GGUF file
    if end_token:
        end = (tokenizer.eos_token, tokenizer.eos_token_id)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"$A {end[0]}", special_tokens=[end])
    return tokenizer


def make_random_folder(family: str, target: Path, *, tokenizer: PreTrainedTokenizerFast) -> Path:
    """Save a randomly initialised model of a family, with the given tokenizer."""
    config = _random_config(family, tokenizer=tokenizer)
    torch.manual_seed(0)
    logging.disable_progress_bar()
    AutoModel.from_config(config, dtype=torch.bfloat16).save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target


def count_parameters(model: Path) -> int:
    """Parameters outside the token embedding."""
    with torch.device("meta"):
        network = AutoModel.from_config(AutoConfig.from_pretrained(model))
    total = sum(parameter.numel() for parameter in network.parameters())
    return total - network.get_input_embeddings().weight.numel()


def _random_config(family: str, *, tokenizer: PreTrainedTokenizerFast) -> PretrainedConfig:
    """Small models (about 100M parameters outside the embedding) in the proportions of each family, and one of 0.5B."""
    shared = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "max_position_embeddings": 2048,
    }
    if family == "gemma":  # one KV head, wide heads and MLP, as Gemma-2B
        return GemmaConfig(
            hidden_size=768,
            num_hidden_layers=12,
            num_attention_heads=6,
            num_key_value_heads=1,
            head_dim=128,
            intermediate_size=3072,
            **shared,
        )
    if family == "phi":  # LayerNorm, attention beside the MLP, biases, rotary on part of each head, as Phi-2
        return PhiConfig(
            hidden_size=768,
            num_hidden_layers=14,
            num_attention_heads=12,
            intermediate_size=3072,
            partial_rotary_factor=0.5,
            tie_word_embeddings=True,
            **shared,
        )
    if family == "granite":  # MiniCPM-2B's multipliers: scale_emb 12, scale_depth 1.4, dim_model_base 256
        return GraniteConfig(
            hidden_size=768,
            num_hidden_layers=15,
            num_attention_heads=12,
            num_key_value_heads=12,
            intermediate_size=1920,
            embedding_multiplier=12.0,
            residual_multiplier=1.4 / 15**0.5,
            attention_multiplier=64**-0.5,
            logits_scaling=3.0,
            tie_word_embeddings=True,
            **shared,
        )
    assert family == "qwen2", family  # as Qwen2-0.5B
    return Qwen2Config(
        hidden_size=896,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        intermediate_size=4864,
        tie_word_embeddings=True,
        **shared,
    )
