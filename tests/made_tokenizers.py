"""Fast tokenizers of every make, each with control tokens of its own: special ones, marks, and added text."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from tests.published import pieces_tokenizer
from tests.tiny import SHAPE, TEXTS, WORDS

SPECIAL = ["<unk>", "<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>"]
MARKS = ["<image>", "[toxicity=0]", "</tool_call>"]  # added, and not called special
TEXT_TOKENS = ["  ", "\n\n", "<h1>", "remdesivir"]  # added, and plain text
CORPUS = [*TEXTS, *WORDS, *SPECIAL, *MARKS, "<|/>[]=0"] * 4


def make_fast(tokenizer: Tokenizer, *, added: list[AddedToken] | None = None) -> PreTrainedTokenizerFast:
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens(added or [AddedToken(token, normalized=False) for token in [*MARKS, *TEXT_TOKENS]])
    start = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", start)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def make_bytes() -> PreTrainedTokenizerFast:
    """As GPT-2, Phi, SmolLM2, Qwen."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([*TEXTS, *WORDS] * 4, trainer)
    tokenizer.decoder = decoders.ByteLevel()
    return make_fast(tokenizer)


def _pieces() -> PreTrainedTokenizerFast:
    """As Llama 2, MiniCPM: SentencePiece's BPE with bytes to fall back on."""
    return make_fast(pieces_tokenizer(SPECIAL, prefix=True))


def _pieces_without_prefix() -> PreTrainedTokenizerFast:
    """As Gemma."""
    return make_fast(pieces_tokenizer(SPECIAL, prefix=False))


def _merged() -> PreTrainedTokenizerFast:
    """BPE whose merges put control tokens together out of characters."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer = Tokenizer(tokenizer.model)  # without added tokens
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    assert tokenizer.encode("</s>").tokens[-1].endswith("</s>")
    return make_fast(tokenizer)


def _whole_words() -> PreTrainedTokenizerFast:
    """As Llama 3: a word of the vocabulary is taken whole, whatever the merges say."""
    state = json.loads(make_bytes().backend_tokenizer.to_str())
    state["model"]["ignore_merges"] = True
    state["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": r" ?\S+"}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        ],
    }
    for token in state["added_tokens"]:
        state["model"]["vocab"].setdefault(token["content"], token["id"])
    return make_fast(Tokenizer.from_str(json.dumps(state)))


def _unigram() -> PreTrainedTokenizerFast:
    """As XGLM and LLM-jp: any piece of the vocabulary is found, those of control tokens too."""
    letters = sorted({letter for text in CORPUS for letter in text})
    pieces = [*((token, 0.0) for token in SPECIAL), *((f"▁{word}", -5.0) for word in WORDS)]
    pieces += [("▁", -6.0), *((letter, -8.0) for letter in letters)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    assert tokenizer.encode("</s>").tokens[-1] == "</s>"
    return make_fast(tokenizer)


KINDS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "bytes": make_bytes,
    "pieces": _pieces,
    "pieces without prefix": _pieces_without_prefix,
    "merged": _merged,
    "whole words": _whole_words,
    "unigram": _unigram,
}


def save_with(kind: str, folder: Path) -> Path:
    """A random Llama with one of these tokenizers."""
    torch.manual_seed(0)
    config = CONFIG_MAPPING["llama"](**{**SHAPE, "vocab_size": 900, "initializer_range": 0.3})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    KINDS[kind]().save_pretrained(folder)
    return folder
