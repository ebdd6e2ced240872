"""Tiny random models and a word-level tokenizer, written to folders as the hub's files lie."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

TEXTS = [
    "a cat sleeps on the warm roof",
    "an animal is asleep",
    "the cat runs away from the roof",
    "rain falls",
    "a cat sleeps on the warm roof",
    "two old men play chess in the park while it rains and the wind blows from the sea",
    "the",
]
WORDS = [
    *sorted({word for text in TEXTS for word in text.split()} | set("abcdefghijklmnopqrstuvwxyz")),
    *(f"w{number}" for number in range(200)),
]
SHAPE = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
# Initialised wider than by default, so that a fault in attention shows in the outputs.
_WIDE = {"initializer_range": 0.3}
FAMILIES: dict[str, dict[str, object]] = {
    "llama": {},
    "granite": {"embedding_multiplier": 3.0, "residual_multiplier": 0.4, "attention_multiplier": 0.2},
    "phi": {"num_key_value_heads": 4, "partial_rotary_factor": 0.5, "resid_pdrop": 0.1},
    "gemma": {"head_dim": 32},
    "qwen2": {},
    "qwen3": {"head_dim": 32},
    "mistral": {"sliding_window": 6},
    "gemma2": {"head_dim": 32, "query_pre_attn_scalar": 20, "attn_logit_softcapping": 2.0, "sliding_window": 6},
    "gemma3_text": {
        "head_dim": 32,
        "sliding_window": 6,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "phi3": {"partial_rotary_factor": 0.75, "sliding_window": 6},
    "smollm3": {"no_rope_layers": [1, 0, 1]},
    "olmo2": {},
}


def save_model(family: str, folder: Path, *, with_start_token: bool = True, **shape: object) -> Path:
    """Write a random model of a family and its tokenizer; `shape`: what of its configuration is otherwise."""
    torch.manual_seed(0)
    config = CONFIG_MAPPING[family](**{**SHAPE, **_WIDE, **FAMILIES.get(family, {}), **shape})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    make_tokenizer(with_start_token=with_start_token).save_pretrained(folder)
    return folder


def make_tokenizer(*, with_start_token: bool = True, with_end_token: bool = False) -> PreTrainedTokenizerFast:
    """Words by white space; adds the start token, or even the end token, by itself if told so."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, **{word: index for index, word in enumerate(WORDS, start=3)}}
    assert len(vocabulary) <= SHAPE["vocab_size"]
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    template = f"{'<s> ' if with_start_token else ''}$A{' </s>' if with_end_token else ''}"
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


def write_triplets(path: Path, *, num_rows: int, first: int = 0) -> Path:
    """A TSV of distinct triplets over the tiny vocabulary."""
    lines = ["anchor\tpositive\tnegative"]
    for row in range(first, first + num_rows):
        a, b, c = row % 200, (row * 7 + 1) % 200, (row * 13 + 2) % 200
        lines.append(f"w{a} cat w{b}\tw{a} animal w{c} w{b}\tw{c} roof w{a}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_ragged_triplets(path: Path, *, counts: Sequence[int]) -> Path:
    """A .jsonl of distinct rows over the tiny vocabulary, each with so many hard negatives."""
    with path.open("w", encoding="utf-8") as file:
        for row, count in enumerate(counts):
            negatives = [
                f"w{(row * 13 + number) % 200} roof w{(row * 7 + 3 * number) % 200}" for number in range(count)
            ]
            texts = {"query": f"w{row} cat", "pos": [f"w{row} animal w{(row * 5) % 200}"], "neg": negatives}
            file.write(json.dumps(texts) + "\n")
    return path


def write_pairs(path: Path, *, num_rows: int = 24) -> Path:
    """A TSV of scored pairs over the tiny vocabulary."""
    lines = ["sentence1\tsentence2\tscore"]
    for row in range(num_rows):
        lines.append(f"w{row} cat w{row + 1}\tw{row if row % 2 else 90 + row} animal w{row + 1}\t{(row * 5) % 11 / 2}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def save_teacher(folder: Path) -> Path:
    """Write a random sentence-transformers model: a small BERT, mean pooling, unit length."""
    return save_encoder(folder / "teacher")


def save_encoder(
    folder: Path,
    *,
    body: str = "bert",
    pooling: str = "mean",
    dense_width: int | None = None,
    normalizes: bool = True,
    prompts: dict[str, str] | None = None,
) -> Path:
    """Write a random sentence-transformers model of an encoder's family, as that package saves it."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

    torch.manual_seed(5)
    shape = {name: value for name, value in SHAPE.items() if name not in ("num_key_value_heads", "hidden_size")}
    config = CONFIG_MAPPING[body](**shape, hidden_size=32, initializer_range=0.3)
    AutoModel.from_config(config).save_pretrained(folder.parent / "body")
    make_tokenizer().save_pretrained(folder.parent / "body")
    modules = [Transformer(str(folder.parent / "body")), Pooling(32, pooling_mode=pooling)]
    modules += [Dense(32, dense_width)] if dense_width else []
    modules += [Normalize()] if normalizes else []
    SentenceTransformer(modules=modules, device="cpu", prompts=prompts).save(str(folder))
    return folder
