"""Toy checkpoints of published embedding models with decoder bodies, file by file as they lie on the hub.

config.json, modules.json and what it names have the published keys of their time, tokenizers are real (trained on the
tiny texts), weights are random and bare of their `model.` prefix.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from tests.published import CORPUS, pieces_tokenizer, save_weights, vocabulary_and_merges, write_json

_SPECIAL = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
_SHAPE: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_hidden_layers": 3}
_POOLING_MODES = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
WEB_QUERY = "Instruct: Given a web search query, retrieve relevant passages that answer the query"


def save_qwen3_embedding(folder: Path) -> Path:
    """Qwen/Qwen3-Embedding-0.6B: last token, `<|endoftext|>` put by the tokenizer, whose eos_token is another one."""
    _save_body(
        folder,
        "qwen3",
        {
            "architectures": ["Qwen3ForCausalLM"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": 400,
            "eos_token_id": 400,
            "head_dim": 32,
            "hidden_act": "silu",
            "initializer_range": 0.3,
            "max_position_embeddings": 128,
            "max_window_layers": 3,
            "num_key_value_heads": 2,
            "rms_norm_eps": 1e-06,
            "rope_scaling": None,
            "rope_theta": 1000000,
            "sliding_window": None,
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
            "transformers_version": "4.51.3",
            "use_cache": True,
            "use_sliding_window": False,
            "vocab_size": 420,
        },
    )
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>"]
    tokenizer = byte_level_tokenizer(400, names)
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
            processors.TemplateProcessing(single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", 400)]),
        ]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {
            "add_prefix_space": False,
            "added_tokens_decoder": {str(400 + row): {"content": name, **_SPECIAL} for row, name in enumerate(names)},
            "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
            "bos_token": None,
            "chat_template": "{% for message in messages %}<|im_start|>{{ message['content'] }}<|im_end|>{% endfor %}",
            "clean_up_tokenization_spaces": False,
            "eos_token": "<|im_end|>",
            "errors": "replace",
            "model_max_length": 131072,
            "pad_token": "<|endoftext|>",
            "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": None,
        },
    )
    _describe(folder, pooling="lasttoken", prompts={"query": f"{WEB_QUERY}\nQuery:", "document": ""})
    return folder


def save_embedding_gemma(folder: Path) -> Path:
    """google/embeddinggemma-300m: Gemma 3 both ways, mean, two dense layers, prompts by name."""
    _save_body(
        folder,
        "gemma3_text",
        {
            "_sliding_window_pattern": 6,
            "architectures": ["Gemma3TextModel"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "attn_logit_softcapping": None,
            "bos_token_id": 2,
            "dtype": "float32",
            "eos_token_id": 1,
            "final_logit_softcapping": None,
            "head_dim": 32,
            "hidden_activation": "gelu_pytorch_tanh",
            "initializer_range": 0.3,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "max_position_embeddings": 64,
            "num_key_value_heads": 1,
            "pad_token_id": 0,
            "query_pre_attn_scalar": 32,
            "rms_norm_eps": 1e-06,
            "rope_local_base_freq": 10000.0,
            "rope_scaling": None,
            "rope_theta": 1000000.0,
            "sliding_window": 8,
            "transformers_version": "4.57.0.dev0",
            "use_bidirectional_attention": True,
            "use_cache": True,
            "vocab_size": 480,
        },
    )
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
    tokenizer = pieces_tokenizer(names, prefix=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 2), ("<eos>", 1)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {
            "add_bos_token": True,
            "add_eos_token": True,
            "added_tokens_decoder": {str(row): {"content": name, **_SPECIAL} for row, name in enumerate(names)},
            "bos_token": "<bos>",
            "clean_up_tokenization_spaces": False,
            "eos_token": "<eos>",
            "model_max_length": 2048,
            "pad_token": "<pad>",
            "padding_side": "right",
            "sp_model_kwargs": None,
            "spaces_between_special_tokens": False,
            "tokenizer_class": "GemmaTokenizer",
            "unk_token": "<unk>",
            "use_default_system_prompt": False,
        },
    )
    _describe(
        folder,
        pooling="mean_tokens",
        dense=[(64, 96), (96, 64)],
        length=64,
        prompts={
            "query": "task: search result | query: ",
            "document": "title: none | text: ",
            "Clustering": "task: clustering | query: ",
            "STS": "task: sentence similarity | query: ",
        },
    )
    return folder


def save_e5_mistral(folder: Path) -> Path:
    """intfloat/e5-mistral-7b-instruct and Salesforce/SFR-Embedding-Mistral: last token, a prompt for each task."""
    _save_body(folder, "mistral", _MISTRAL)
    _save_llama_tokenizer(folder, closing=True)
    prompts = {"web_search_query": f"{WEB_QUERY}\nQuery: ", "sts_query": "Instruct: Retrieve similar text.\nQuery: "}
    _describe(folder, pooling="lasttoken", length=96, prompts=prompts)
    return folder


def save_llm2vec_merged(folder: Path) -> Path:
    """A merged LLM2Vec model: `LLM2Vec.save(merge_before_save=True)`."""
    _save_body(folder, "mistral", {**_MISTRAL, "architectures": ["MistralBiModel"], "sliding_window": None})
    _save_llama_tokenizer(folder, closing=False)
    settings = {"pooling_mode": "mean", "max_length": 96, "doc_max_length": 80, "skip_instruction": True}
    write_json(folder / "llm2vec_config.json", settings)
    return folder


def save_llm2vec_modules(folder: Path) -> Path:
    """The same as sentence-transformers takes it: `is_causal` off in config.json, prompts left out of the mean."""
    _save_body(folder, "mistral", {**_MISTRAL, "is_causal": False, "sliding_window": None})
    _save_llama_tokenizer(folder, closing=False)
    prompts = {"query": "Retrieve the text that means the same: ", "document": ""}
    _describe(folder, pooling="mean_tokens", length=96, prompts=prompts, include_prompt=False, normalize=False)
    return folder


SAVERS: dict[str, Callable[[Path], Path]] = {
    "qwen3-embedding": save_qwen3_embedding,
    "embeddinggemma": save_embedding_gemma,
    "e5-mistral": save_e5_mistral,
    "llm2vec-modules": save_llm2vec_modules,
}
"""Those that sentence-transformers loads."""

_MISTRAL: dict[str, Any] = {
    "_name_or_path": "mistralai/Mistral-7B-v0.1",
    "architectures": ["MistralModel"],
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "initializer_range": 0.3,
    "max_position_embeddings": 128,
    "num_key_value_heads": 2,
    "pad_token_id": 2,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "sliding_window": 20,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.34.0",
    "use_cache": False,
    "vocab_size": 480,
}


def byte_level_tokenizer(size: int, special: list[str]) -> Tokenizer:
    """A BPE tokenizer over bytes, as GPT-2's descendants have it; control tokens stand behind `size` others."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    )
    vocabulary, merges = vocabulary_and_merges(tokenizer)
    assert len(vocabulary) == size
    tokenizer.model = models.BPE(vocab=vocabulary, merges=merges)
    tokenizer.add_special_tokens(special)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _save_llama_tokenizer(folder: Path, *, closing: bool) -> None:
    names = ["<unk>", "<s>", "</s>"]
    tokenizer = pieces_tokenizer(names, prefix=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"<s> $A{' </s>' if closing else ''}", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {
            "add_bos_token": True,
            "add_eos_token": closing,
            "added_tokens_decoder": {str(row): {"content": name, **_SPECIAL} for row, name in enumerate(names)},
            "bos_token": "<s>",
            "clean_up_tokenization_spaces": False,
            "eos_token": "</s>",
            "legacy": True,
            "model_max_length": 1000000000000000019884624838656,
            "pad_token": "</s>",
            "padding_side": "left",
            "sp_model_kwargs": {},
            "spaces_between_special_tokens": False,
            "tokenizer_class": "LlamaTokenizer",
            "unk_token": "<unk>",
            "use_default_system_prompt": False,
        },
    )


def _save_body(folder: Path, family: str, values: Mapping[str, Any]) -> None:
    torch.manual_seed(0)
    values = {**_SHAPE, "model_type": family, **values}
    model = AutoModel.from_config(CONFIG_MAPPING[family].from_dict(values), dtype=torch.float32)
    for name, weight in model.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(weight, mean=0.0 if family == "gemma3_text" else 1.0, std=0.3)
    save_weights(folder, model.state_dict(), num_shards=1)
    write_json(folder / "config.json", values)


def _describe(
    folder: Path,
    *,
    pooling: str,
    prompts: Mapping[str, str],
    length: int | None = None,
    dense: list[tuple[int, int]] | None = None,
    include_prompt: bool = True,
    normalize: bool = True,
) -> None:
    """sentence-transformers' files, in the form of its version 3."""
    kinds = ["Transformer", "Pooling", *["Dense"] * len(dense or []), *(["Normalize"] if normalize else [])]
    write_json(
        folder / "modules.json",
        [
            {
                "idx": index,
                "name": str(index),
                "path": f"{index}_{kind}" if index else "",
                "type": f"sentence_transformers.models.{kind}",
            }
            for index, kind in enumerate(kinds)
        ],
    )
    write_json(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": 64,
            **{f"pooling_mode_{mode}": mode == pooling for mode in _POOLING_MODES},
            "include_prompt": include_prompt,
        },
    )
    for index, (wide_in, wide_out) in enumerate(dense or [], start=2):
        write_json(
            folder / f"{index}_Dense" / "config.json",
            {
                "in_features": wide_in,
                "out_features": wide_out,
                "bias": False,
                "activation_function": "torch.nn.modules.linear.Identity",
            },
        )
        weight = torch.randn(wide_out, wide_in, generator=torch.Generator().manual_seed(index)) * 0.2
        save_file({"linear.weight": weight}, folder / f"{index}_Dense" / "model.safetensors", {"format": "pt"})
    if length:
        write_json(folder / "sentence_bert_config.json", {"max_seq_length": length, "do_lower_case": False})
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "__version__": {"sentence_transformers": "2.7.0", "transformers": "4.40.0", "pytorch": "2.2.2"},
            "prompts": dict(prompts),
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    )
