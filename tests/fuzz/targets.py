"""Bytes -> what reads such a file. Each ends in values or in an error of ours, whatever the bytes are.

The first byte, `0`, `1`, `2` ..., says which of a target's files the others are.
"""

import json
import struct
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import safetensors.torch
import torch
from transformers import AutoConfig

from embedsmith.cli.app import read_columns, read_overrides
from embedsmith.data.answers import read_tasks, read_triplet
from embedsmith.data.corpora import survey_corpus
from embedsmith.data.local_sets import kind_of_file
from embedsmith.data.nli import make_triplets
from embedsmith.data.pairs import load_duplicates, load_pairs
from embedsmith.data.triplets import load_triplets
from embedsmith.evaluation.saved import load_evaluation, similarities_path
from embedsmith.model.loading.backbone import Backbone, load_backbone
from embedsmith.model.loading.checkpoint_files import tensor_kinds
from embedsmith.model.loading.embedding_files import describe_model
from embedsmith.model.loading.gguf_header import GgufHeader
from embedsmith.model.loading.plain_lora import read_plain_lora
from embedsmith.model.loading.weight_files import check_weight_files
from embedsmith.model.vector_precision import Ranges
from embedsmith.settings.choices import Precision
from embedsmith.settings.recipe import load_config, read_text
from embedsmith.support.errors import EmbedsmithError
from embedsmith.training.checkpoint import find_fault
from embedsmith.verbs.optimize_space import make_search, read_search
from embedsmith.verbs.sweep import make_cells, read_sweep
from tests.tiny import save_model

Target = Callable[[str, bytes, Path], None]
"""(which file, content, an empty folder)."""
_DATA = ("a.jsonl", "a.csv", "a.tsv", "a.txt", "a.jsonl.gz", "a.csv.gz", "a.tsv.gz", "a.txt.gz", "a.parquet")
_RECIPES = ("recipe.yaml", "sweep.yaml", "search.yaml", "--columns", "--dev", "arguments")
_GGUF = ("model.gguf",)
_SAFETENSORS = ("header", "model.safetensors", "model.safetensors.index.json", "adapter header", "similarities")
_FILES = (
    "embedding.json",
    "adapter_config.json",
    "modules.json",
    "1_Pooling/config.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "results.json",
    "ranges.json",
    "llm2vec_config.json",
    "SHA256SUMS",
    "answer",
)
_RESULTS = json.dumps(
    {"model": "base", "tasks": {"dev": {"cosine_spearman": 0.8, "ci95": [0.7, 0.9], "num_pairs": 4}}, "average": 0.8}
)
_MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]


def run(name: str, data: bytes, folder: Path) -> None:
    """Give bytes to a target, in an empty folder; raises what is no error of ours."""
    kinds, target = TARGETS[name]
    kind = kinds[(data[0] - ord("0")) % len(kinds)] if data else kinds[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        target(kind, data[1:], folder)


def _each(*reads: Callable[[], object]) -> None:
    """Each of them, whatever the others say."""
    for read in reads:
        try:
            read()
        except EmbedsmithError as error:
            assert str(error).strip()


def _read_data(kind: str, content: bytes, folder: Path) -> None:
    """A data file, as everything that takes one reads it."""
    path = _put(folder / kind, content)
    _each(
        lambda: load_triplets([str(path)], cache_folder=folder),
        lambda: load_pairs(str(path)),
        lambda: load_duplicates(path),
        lambda: kind_of_file(path),
        lambda: list(survey_corpus([str(path)]).texts()),
        lambda: make_triplets([str(path)], out=folder / "out.jsonl"),
    )


def _read_recipe(kind: str, content: bytes, folder: Path) -> None:
    if kind.endswith(".yaml"):
        path = _put(folder / kind, content)
        read: dict[str, Callable[[], object]] = {
            "recipe.yaml": lambda: load_config(path, overrides={"output_dir": "x"}),
            "sweep.yaml": lambda: make_cells(read_sweep(path, overrides={})),
            "search.yaml": lambda: make_search(read_search(path, overrides={})),
        }
        _each(read[kind])
        return
    text = content.decode("utf-8", errors="replace")
    keys = (
        "adapter.target_modules",
        "data.columns",
        "data.train",
        "training.learning_rate",
        "training.matryoshka_dims",
    )
    _each(
        lambda: read_columns(text, takes_lists=True),
        *(lambda key=key: read_text(key, text) for key in keys),
        lambda: load_config(overrides={"output_dir": "x", **read_overrides(text.split("\n"))}),
    )


def _read_gguf(kind: str, content: bytes, folder: Path) -> None:
    _each(lambda: GgufHeader(_put(folder / kind, content)).check_can_convert())


def _read_safetensors(kind: str, content: bytes, folder: Path) -> None:
    header = struct.pack("<Q", len(content)) + content + bytes(256)
    if kind == "adapter header":
        _put(folder / "adapter_model.safetensors", header)
        return _read_adapter(folder)
    if kind == "similarities":
        path = folder / "results.json"
        _put(path, _RESULTS.encode())
        _put(similarities_path(path), header)
        return _each(lambda: load_evaluation(path))
    name = "model.safetensors" if kind == "header" else kind
    _put(folder / name, header if kind == "header" else content)
    config = AutoConfig.from_pretrained(_tiny(str(folder.parent)))

    def read() -> None:
        check_weight_files(str(folder), config=config)
        tensor_kinds(str(folder))  # is asked behind the check alone

    return _each(read)


def _read_adapter(folder: Path) -> None:
    """An adapter's two files, of which one was put there."""
    backbone = _backbone(str(folder.parent))
    weights, settings = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    names = [f"base_model.model.layers.{layer}.self_attn.q_proj" for layer in range(3)]
    if not weights.exists():
        parts = {f"{name}.lora_{part}.weight": torch.zeros(4, 64).T if part == "B" else torch.zeros(4, 64)
                 for name in names for part in "AB"}  # fmt: skip
        weights.write_bytes(safetensors.torch.save({name: part.contiguous() for name, part in parts.items()}))
    if not settings.exists():
        settings.write_text(json.dumps({"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"]}))

    def read() -> None:
        try:
            tensors = safetensors.torch.load_file(weights)
        except safetensors.SafetensorError:
            return
        read_plain_lora(folder, weights=tensors, backbone=backbone)

    _each(read)


def _read_files(kind: str, content: bytes, folder: Path) -> None:
    """The small files of models, exports, runs and results."""
    path = _put(folder / kind, content)
    if kind == "results.json":
        return _each(lambda: load_evaluation(path))
    if kind == "ranges.json":
        return _each(lambda: Ranges.read(path))
    if kind == "SHA256SUMS":
        return _each(lambda: find_fault(folder))
    if kind == "answer":
        text = content.decode("utf-8", errors="replace")
        return _each(lambda: read_triplet(text), lambda: read_tasks(text))
    if kind == "adapter_config.json":
        _read_adapter(folder)
    elif kind not in ("embedding.json", "llm2vec_config.json"):
        for name, value in (("modules.json", json.dumps(_MODULES)), ("1_Pooling/config.json", "{}")):
            if name != kind:
                _put(folder / name, value.encode())
    if kind != "adapter_config.json":
        _put(folder / "config.json", (Path(_tiny(str(folder.parent))) / "config.json").read_bytes())
    return _each(lambda: describe_model(str(folder)))


TARGETS: dict[str, tuple[Sequence[str], Target]] = {
    "data": (_DATA, _read_data),
    "recipes": (_RECIPES, _read_recipe),
    "gguf": (_GGUF, _read_gguf),
    "safetensors": (_SAFETENSORS, _read_safetensors),
    "files": (_FILES, _read_files),
}
"""Name -> its files, and what reads them."""


def _put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@cache
def _tiny(root: str) -> str:
    return str(save_model("llama", Path(root) / "tiny"))


@cache
def _backbone(root: str) -> Backbone:
    return load_backbone(_tiny(root), precision=Precision.FP32, device=torch.device("cpu"))
