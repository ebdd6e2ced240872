"""Toy checkpoints of the paper's three models, written file by file as the published ones lie on the hub.

config.json has the published keys of its time, tokenizers are real (trained on the tiny texts), weights are random.
"""

import io
import json
import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, GemmaConfig, PhiConfig

from tests.tiny import TEXTS, WORDS

MINICPM = {
    "_name_or_path": "openbmb/CPM-2B",
    "architectures": ["MiniCPMForCausalLM"],
    "auto_map": {
        "AutoConfig": "configuration_minicpm.MiniCPMConfig",
        "AutoModel": "modeling_minicpm.MiniCPMModel",
        "AutoModelForCausalLM": "modeling_minicpm.MiniCPMForCausalLM",
    },
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 96,
    "initializer_range": 0.1,
    "intermediate_size": 80,
    "max_position_embeddings": 256,
    "model_type": "minicpm",
    "num_attention_heads": 6,
    "num_hidden_layers": 3,
    "num_key_value_heads": 6,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.36.0",
    "use_cache": True,
    "vocab_size": 480,
    "scale_emb": 12,
    "dim_model_base": 32,
    "scale_depth": 1.4,
}
PHI_2 = {
    "_name_or_path": "microsoft/phi-2",
    "architectures": ["PhiForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 400,
    "embd_pdrop": 0.0,
    "eos_token_id": 400,
    "hidden_act": "gelu_new",
    "hidden_size": 160,
    "initializer_range": 0.1,
    "intermediate_size": 96,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 256,
    "model_type": "phi",
    "num_attention_heads": 2,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "partial_rotary_factor": 0.4,
    "qk_layernorm": False,
    "resid_pdrop": 0.1,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.37.0",
    "use_cache": True,
    "vocab_size": 480,
}
GEMMA_2B = {
    "architectures": ["GemmaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "head_dim": 256,
    "hidden_act": "gelu",
    "hidden_size": 64,
    "initializer_range": 0.1,
    "intermediate_size": 96,
    "max_position_embeddings": 256,
    "model_type": "gemma",
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.38.0.dev0",
    "use_cache": True,
    "vocab_size": 480,
}
_BYTES = [f"<0x{number:02X}>" for number in range(256)]
CORPUS = [*TEXTS, *WORDS] * 4
LIKE_LLAMA = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False, "model_type": "bpe"}
"""How Llama's SentencePiece model was trained."""


def save_minicpm(folder: Path, *, changes: dict[str, object] | None = None, num_shards: int = 1) -> Path:
    """openbmb/MiniCPM-2B-dpo-bf16: Llama's weight names, code beside them, LlamaTokenizer."""
    values = {**MINICPM, **(changes or {})}
    write_json(folder / "config.json", {key: value for key, value in values.items() if value != "absent"})
    for name in ("configuration_minicpm.py", "modeling_minicpm.py"):
        (folder / name).write_text("raise RuntimeError('code of a checkpoint was run')\n")
    save_weights(folder, minicpm_weights(values), num_shards=num_shards)
    tokenizer = pieces_tokenizer(["<unk>", "<s>", "</s>"], prefix=True)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    write_minicpm_tokenizer_config(folder)
    return folder


def write_minicpm_tokenizer_config(folder: Path) -> None:
    added = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    names = {"0": "<unk>", "1": "<s>", "2": "</s>"}
    write_json(
        folder / "tokenizer_config.json",
        {
            "add_bos_token": True,
            "add_eos_token": False,
            "added_tokens_decoder": {key: {"content": name, **added} for key, name in names.items()},
            "bos_token": "<s>",
            "clean_up_tokenization_spaces": False,
            "eos_token": "</s>",
            "legacy": True,
            "model_max_length": 1000000000000000019884624838656,
            "pad_token": None,
            "sp_model_kwargs": {},
            "spaces_between_special_tokens": False,
            "tokenizer_class": "LlamaTokenizer",
            "unk_token": "<unk>",
            "use_default_system_prompt": False,
        },
    )
    write_json(folder / "special_tokens_map.json", {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})


def minicpm_weights(values: dict[str, object]) -> dict[str, torch.Tensor]:
    """Random weights under the published names."""
    torch.manual_seed(0)
    hidden, inner = int(values["hidden_size"]), int(values["intermediate_size"])
    kv_width = hidden // int(values["num_attention_heads"]) * int(values["num_key_value_heads"])
    weights = {
        "model.embed_tokens.weight": torch.randn(int(values["vocab_size"]), hidden) * 0.1,
        "model.norm.weight": 1 + 0.2 * torch.randn(hidden),
    }
    for layer in range(int(values["num_hidden_layers"])):
        shapes = {
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.k_proj": (kv_width, hidden),
            "self_attn.v_proj": (kv_width, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
        }
        for name, shape in shapes.items():
            weights[f"model.layers.{layer}.{name}.weight"] = torch.randn(shape) * 1.5 / math.sqrt(shape[1])
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"model.layers.{layer}.{name}.weight"] = 1 + 0.2 * torch.randn(hidden)
    return weights


def save_phi_2(folder: Path, *, changes: dict[str, object] | None = None, num_shards: int = 1) -> Path:
    """microsoft/phi-2: parallel block with biases, rotary on a part of the head, CodeGenTokenizer."""
    torch.manual_seed(0)
    values = {**PHI_2, **(changes or {})}
    model = AutoModelForCausalLM.from_config(PhiConfig(**values), dtype=torch.float32)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weight, std=0.2)
    save_weights(folder, model.state_dict(), num_shards=num_shards)
    write_json(folder / "config.json", values)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    # The published vocabulary ends with the end token, and runs of spaces are added behind it.
    vocabulary, merges = vocabulary_and_merges(tokenizer)
    assert len(vocabulary) == 400
    tokenizer.model = models.BPE(vocab=vocabulary, merges=merges)
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.add_tokens([" " * length for length in range(31, 1, -1)])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "vocab.json", vocabulary)
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges) + "\n")
    end = "<|endoftext|>"
    write_json(folder / "special_tokens_map.json", {"bos_token": end, "eos_token": end, "unk_token": end})
    added = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False, "special": False}
    write_json(
        folder / "tokenizer_config.json",
        {
            "add_bos_token": False,
            "add_prefix_space": False,
            "added_tokens_decoder": {
                "400": {**added, "content": end, "normalized": False, "special": True},
                **{str(401 + row): {**added, "content": " " * (31 - row)} for row in range(30)},
            },
            "bos_token": end,
            "clean_up_tokenization_spaces": True,
            "eos_token": end,
            "model_max_length": 2048,
            "return_token_type_ids": False,
            "tokenizer_class": "CodeGenTokenizer",
            "unk_token": end,
        },
    )
    return folder


def save_gemma_2b(folder: Path, *, changes: dict[str, object] | None = None, num_shards: int = 2) -> Path:
    """google/gemma-2b-it: one KV head of width 256, `1 + w` norms, tied embeddings, GemmaTokenizer, shards."""
    torch.manual_seed(0)
    values = {**GEMMA_2B, **(changes or {})}
    model = AutoModelForCausalLM.from_config(GemmaConfig(**values), dtype=torch.float32)
    for name, weight in model.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(weight, std=0.3)
    weights = {name: weight for name, weight in model.state_dict().items() if name != "lm_head.weight"}
    save_weights(folder, weights, num_shards=num_shards)
    write_json(folder / "config.json", values)
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
    tokenizer = pieces_tokenizer(names, prefix=False)
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    tokenizer.save(str(folder / "tokenizer.json"))
    added = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    write_json(
        folder / "tokenizer_config.json",
        {
            "add_bos_token": True,
            "add_eos_token": False,
            "added_tokens_decoder": {str(index): {"content": name, **added} for index, name in enumerate(names)},
            "additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"],
            "bos_token": "<bos>",
            "chat_template": "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}",
            "clean_up_tokenization_spaces": False,
            "eos_token": "<eos>",
            "legacy": None,
            "model_max_length": 1000000000000000019884624838656,
            "pad_token": "<pad>",
            "sp_model_kwargs": {},
            "spaces_between_special_tokens": False,
            "tokenizer_class": "GemmaTokenizer",
            "unk_token": "<unk>",
            "use_default_system_prompt": False,
        },
    )
    return folder


SAVERS = {"minicpm-2b": save_minicpm, "phi-2": save_phi_2, "gemma-2b": save_gemma_2b}


def pieces_tokenizer(special: list[str], *, prefix: bool) -> Tokenizer:
    """A BPE tokenizer with bytes to fall back on, as SentencePiece models are converted to tokenizer.json."""
    tokenizer = Tokenizer(models.BPE(fuse_unk=True, byte_fallback=True, unk_token="<unk>"))
    spaces = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if prefix else spaces
    # For training only: pieces start with the space before a word.
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("▁"), behavior="merged_with_next")
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=440, special_tokens=[*special, *_BYTES], show_progress=False)
    )
    vocabulary, merges = vocabulary_and_merges(tokenizer)
    result = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, fuse_unk=True, byte_fallback=True, unk_token="<unk>")
    )
    result.normalizer = tokenizer.normalizer
    result.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    result.add_special_tokens(special)
    return result


def train_pieces(path: Path, **settings: object) -> Path:
    """A SentencePiece model of the tiny texts."""
    from sentencepiece import SentencePieceTrainer  # an extra

    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        vocab_size=400,
        byte_fallback=True,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=3,
        **settings,
    )
    path.write_bytes(model.getvalue())
    return path


def vocabulary_and_merges(tokenizer: Tokenizer) -> tuple[dict[str, int], list[tuple[str, str]]]:
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def save_weights(folder: Path, weights: dict[str, torch.Tensor], *, num_shards: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if num_shards == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = list(weights)
    weight_map = {}
    for shard in range(num_shards):
        file = f"model-{shard + 1:05d}-of-{num_shards:05d}.safetensors"
        part = {name: weights[name] for name in names[shard::num_shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(part, file))
    size = sum(weight.nbytes for weight in weights.values())
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": weight_map})


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")
