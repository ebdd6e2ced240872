"""A folder with small stand-ins of everything that the pages name: models, training data, evaluation sets, recipes.

The stand-ins are whole: models of random weights that load and train, texts of the built-in sample.
"""

import csv
import gzip
import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from benchmarks.quality import FIVE
from embedsmith.data.sample import sample_pairs_path, sample_triplets_path
from embedsmith.model.loading.builtin import BUILTIN, find_installed
from embedsmith.model.loading.gguf import GgufFile, mark_made
from embedsmith.model.loading.shipped import SHIPPED
from tests.docs.pages import ROOT
from tests.hub import put_in_hub_cache
from tests.published import save_minicpm
from tests.published_adapter import save_adapter_folder
from tests.published_embedders import save_embedding_gemma, save_qwen3_embedding
from tests.tiny import save_model, save_teacher
from tests.tuned import save_tuned

NLI = ("snli", "mnli", "snli_dev", "snli_test", "mnli_dev", "cad")
STS = (*FIVE, "STSBenchmark-train", "STSBenchmark-dev")
_NUM_PAIRS = 16
_NUM_TRIPLETS = 48


def build_stage(folder: Path) -> Path:
    """Models, made once for all pages, and `data/`, which holds what a user's folder does."""
    pieces = find_installed("smollm2-135m").pieces
    small, gemma = (folder / "models" / GgufFile(pieces, name=name).folder.name for name in BUILTIN)
    save_small_smollm2(small)
    mark_made(small)
    shutil.copytree(small, gemma)
    save_model("llama", folder / "data" / "tiny-llama")
    for name in SHIPPED:
        save_tuned(str(small), folder / "shipped" / name)
    base = save_minicpm(folder / "hub-files" / "minicpm")
    save_adapter_folder(folder / "hub-files" / "adapter", base=base)
    on_the_hub = {
        "HuggingFaceTB/SmolLM2-135M": small,
        "openbmb/MiniCPM-2B-dpo-bf16": base,
        "trapoom555/MiniCPM-2B-Text-Embedding-cft": folder / "hub-files" / "adapter",
        "sentence-transformers/all-MiniLM-L6-v2": save_teacher(folder / "hub-files"),
        "intfloat/multilingual-e5-small": save_teacher(folder / "hub-files" / "e5"),
        "Qwen/Qwen3-Embedding-0.6B": save_qwen3_embedding(folder / "hub-files" / "qwen3"),
        "google/embeddinggemma-300m": save_embedding_gemma(folder / "hub-files" / "embeddinggemma"),
    }
    for repository, files in on_the_hub.items():
        put_in_hub_cache(folder / "hub", repository, {file.name: file for file in files.iterdir()})
    _write_data(folder / "data")
    (folder / "data" / "folder-of-base").symlink_to(base)
    (folder / "data" / "folder-of-adapter").symlink_to(folder / "hub-files" / "adapter")
    return folder


def save_small_smollm2(folder: Path) -> Path:
    """SmolLM2-135M's shape but for two layers, narrow MLPs and a small vocabulary; random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=600,
        hidden_size=576,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=2048,
        initializer_range=0.1,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    AutoModelForCausalLM.from_config(config).model.save_pretrained(folder)
    _make_tokenizer().save_pretrained(folder)
    return folder


def _make_tokenizer() -> PreTrainedTokenizerFast:
    """Pieces of bytes, learned from the sample; the control tokens of SmolLM2-Instruct."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([sample_triplets_path().read_text(encoding="utf-8")], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<|endoftext|>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
    )


def _write_data(folder: Path) -> None:
    triplets = _read_rows(sample_triplets_path(), columns=("anchor", "positive", "negative"))
    pairs = _read_rows(sample_pairs_path(), columns=("sentence1", "sentence2", "score"))
    for number, name in enumerate(NLI):
        own = triplets[number * _NUM_TRIPLETS : (number + 1) * _NUM_TRIPLETS]
        _write_table(folder / "nli" / f"{name}_triplets.tsv.gz", own)
    for number, name in enumerate(STS):
        _write_table(folder / "sts" / f"{name}.tsv.gz", pairs[number * _NUM_PAIRS : (number + 1) * _NUM_PAIRS])
    labelled = [
        {"premise": row["anchor"], "hypothesis": row[side], "label": label}
        for row in triplets[:20]
        for side, label in (("positive", "entailment"), ("negative", "contradiction"))
    ]
    _write_table(folder / "snli.tsv.gz", labelled)
    _write_table(folder / "dev.tsv", pairs[-_NUM_PAIRS:])
    faq = [f'"{row["anchor"]}","{row["positive"]}"' for row in triplets[:40]]
    (folder / "faq.csv").write_text("\n".join(["question,answer", *faq, ""]), encoding="utf-8")
    alone = [{"anchor": row["anchor"], "positive": row["anchor"], "negative": []} for row in triplets[:_NUM_TRIPLETS]]
    (folder / "nli" / "wikipedia.jsonl").write_text(_lines(alone), encoding="utf-8")
    for path in (folder / "mine.jsonl", folder / "mine" / "one.jsonl"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(_lines(triplets[-_NUM_TRIPLETS:]), encoding="utf-8")
    (folder / "mine" / "questions.txt").write_text("Who sleeps?\nWhere is it?\n", encoding="utf-8")
    for name in ("docs", "recipes"):
        (folder / name).symlink_to(ROOT / name)


def _lines(rows: Sequence[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _read_rows(path: Path, *, columns: Sequence[str]) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [{column: row[column] for column in columns} for row in rows]


def _write_table(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter="\t", quoting=csv.QUOTE_NONE, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    content = text.getvalue().encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
