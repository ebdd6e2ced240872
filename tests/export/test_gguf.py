"""GGUF files as llama.cpp alone runs them, and as transformers reads them: equal to the model."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from embedsmith.cli import run_command
from embedsmith.export import gguf_files, llama_runner
from embedsmith.export.gguf_files import GGUF_FILE, export_gguf, write_gguf
from embedsmith.export.gguf_prompts import HIDDEN, put_prompts
from embedsmith.export.gguf_vocabulary import read_vocabulary
from embedsmith.export.parity import probe_texts
from embedsmith.model.embedder import Embedder
from embedsmith.settings.choices import Side
from embedsmith.support.errors import ConfigError, MissingExtraError, RunError
from tests.made_tokenizers import KINDS, MARKS, SPECIAL
from tests.tiny import FAMILIES, SHAPE, TEXTS
from tests.tuned import save_tuned

ALL = [*TEXTS, "", "x", " a  cat ", "Ünï 東京 🙂", "1,234.5 % of it.", "stop at </s>", *SPECIAL, *MARKS]
COT = {"prompt": "pretended-cot", "end_token": False, "max_length": 120}
COPIED = {"prompt": "the cat {text}t runs", "query_prompt": "{text}t"}  # "a" and "t" are one token together
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
BODIES = {
    "llama": {},
    "llama with wide heads": {"head_dim": 32},
    "llama with biases": {"attention_bias": True, "mlp_bias": True},
    "llama with stretched positions": {"rope_parameters": LLAMA3},
    "mistral": {"sliding_window": None},
    "granite": {},
    "qwen2": {},
    "qwen3": {},
    "gemma3_text": {"query_pre_attn_scalar": 32},
}
# Of the others transformers makes none, or another network than llama.cpp does of the same file.
READ_BACK = ("llama", "llama with wide heads", "mistral", "qwen2")


def _save(name: str, folder: Path, *, kind: str = "bytes") -> str:
    family = name.partition(" ")[0]
    torch.manual_seed(0)
    shape = {**SHAPE, "vocab_size": 900, "initializer_range": 0.3, **FAMILIES.get(family, {}), **BODIES.get(name, {})}
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**shape))
    for weight_name, weight in model.named_parameters():  # all are ones or zeros at first
        if weight_name.endswith(("norm.weight", "bias")):
            weight.data += torch.randn_like(weight) / 4
    model.save_pretrained(folder)
    KINDS[kind]().save_pretrained(folder)
    return str(folder)


def _run(folder: Path, name: str = "llama", *, kind: str = "bytes", **settings: object) -> Embedder:
    return save_tuned(_save(name, folder / "base", kind=kind), folder / "run", **settings)


def _plain(folder: Path) -> Embedder:
    """That run, with weights that an adapter can be merged into."""
    return Embedder.load(str(folder / "run"), precision="fp32", fused=False)


def _write(live: Embedder, path: Path) -> Path:
    put = put_prompts(live, probe_texts(live))
    num_rows = live.backbone.model.get_input_embeddings().num_embeddings
    vocabulary = read_vocabulary(live.tokenizer, num_rows=num_rows, copies=put.copies)
    write_gguf(path, live=live, vocabulary=vocabulary, put=put, dtype="fp32")
    return path


class LlamaAlone:
    """llama-cpp-python, and what a file says is to be put around texts."""

    def __init__(self, path: Path, *, exact: bool = False) -> None:
        package = pytest.importorskip("llama_cpp", reason="pip install 'embedsmith[gguf]'")
        exactly = {"type_k": 0, "type_v": 0} if exact else {}  # float32 in the place of float16
        sizes = dict.fromkeys(("n_ctx", "n_batch", "n_ubatch"), 512)
        threads = dict.fromkeys(("n_threads", "n_threads_batch"), 1)
        self.llama = package.Llama(str(path), embedding=True, verbose=False, **sizes, **threads, **exactly)
        self.prompts = json.loads(self.llama.metadata["embedsmith.prompts"])

    def encode(self, texts: list[str], *, side: str = "document") -> np.ndarray:
        template = self.prompts.get(side, "{text}")
        return np.array([self.llama.embed(template.replace("{text}", text), normalize=True) for text in texts])


@pytest.mark.parametrize("name", BODIES)
def test_llama_cpp_computes_the_same_network(name: str, tmp_path: Path) -> None:
    live = Embedder.load(_save(name, tmp_path / "base"), precision="fp32", fused=False, pooling="mean")
    alone = LlamaAlone(_write(live, tmp_path / "model.gguf"), exact=True)
    assert np.einsum("kd,kd->k", alone.encode(ALL), live.encode(ALL)).min() > 0.999999
    assert alone.llama.pooling_type() == 1


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_attention_both_ways(pooling: str, tmp_path: Path) -> None:
    live = _run(tmp_path, pooling=pooling, bidirectional_layers="all")
    export_or_skip(tmp_path)
    alone = LlamaAlone(tmp_path / "out" / GGUF_FILE)
    assert np.einsum("kd,kd->k", alone.encode(ALL), live.encode(ALL)).min() > 0.999  # keys and values in float16
    causal = Embedder.load(str(tmp_path / "run"), precision="fp32", bidirectional_layers=0)
    assert np.einsum("kd,kd->k", alone.encode(TEXTS), causal.encode(TEXTS)).min() < 0.99


def export_or_skip(folder: Path, **named: str) -> gguf_files.GgufFacts:
    pytest.importorskip("llama_cpp", reason="pip install 'embedsmith[gguf]'")
    return export_gguf(str(folder / "run"), folder=folder / "out", **named)


@pytest.mark.parametrize(
    ("settings", "put"),
    [
        ({}, set()),
        (COT, {"document", "query"}),
        ({"query_prompt": "the cat: {text}", "end_token": True}, {"query"}),
        (COPIED, {"document", "query"}),
        ({"prompt": 'a "{text}" is:', "prompt_tokens": "joined"}, {"document", "query"}),
    ],
)
@pytest.mark.parametrize("kind", ["bytes", "pieces", "pieces without prefix"])
def test_prompts_are_put_around_texts(kind: str, settings: dict[str, object], put: set[str], tmp_path: Path) -> None:
    live = _run(tmp_path, kind=kind, **settings)
    if kind == "pieces" and settings.get("prompt") and "prompt_tokens" not in settings:
        with pytest.raises(ConfigError, match=r"llama\.cpp puts blanks otherwise"):
            put_prompts(live, TEXTS)
        return
    made = export_or_skip(tmp_path)
    alone = LlamaAlone(tmp_path / "out" / GGUF_FILE)
    assert set(made.prompts) == put == set(alone.prompts)
    if settings is COPIED:
        assert all(f"{{text}}{HIDDEN}t" in template for template in made.prompts.values())
    assert json.loads((tmp_path / "out" / "parity.json").read_text())["smallest"] == made.parity.smallest > 0.9999
    for side in Side:
        prompt = live.prompt_of(side)
        for text in ALL:
            ids = live.tokenizer.tokenize([text], prompts=prompt).ids[0].tolist()
            if len(ids) == live.max_length:
                continue
            template = alone.prompts.get(side, "{text}")
            for looks in (False, True):
                found = alone.llama.tokenize(template.replace("{text}", text).encode(), special=looks)
                assert len(found) == len(ids)
                assert [a for a in found if a < 900] == [b for a, b in zip(found, ids, strict=True) if a < 900]


def test_a_file_is_a_model_with_its_settings(tmp_path: Path, cache: Path) -> None:
    live = _run(tmp_path, query_prompt="the cat: {text}", pooling="mean", **COT)
    _write(_plain(tmp_path), tmp_path / "model.gguf")
    again = Embedder.load(str(tmp_path / "model.gguf"), precision="fp32")
    assert again.settings.pooling == "mean"
    assert again.max_length == live.max_length == 120
    # transformers loses added words that hold blanks, and some marks, out of a byte-level GGUF vocabulary.
    texts = [*TEXTS, "x", "Ünï 東京 🙂", "1,234.5 % of it.", "stop at </s>", *SPECIAL]
    np.testing.assert_allclose(again.encode(texts), live.encode(texts), atol=1e-5)
    np.testing.assert_allclose(again.encode(TEXTS, side="query"), live.encode(TEXTS, side="query"), atol=1e-5)


@pytest.mark.parametrize("name", READ_BACK)
def test_transformers_reads_the_same_network(name: str, tmp_path: Path, cache: Path) -> None:
    live = Embedder.load(_save(name, tmp_path / "base"), precision="fp32", fused=False)
    again = Embedder.load(str(_write(live, tmp_path / "model.gguf")), precision="fp32", fused=False)
    np.testing.assert_allclose(again.encode(TEXTS), live.encode(TEXTS), atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "least", "share"), [("fp16", 0.9999, 0.6), ("q8_0", 0.9, 0.4), ("q4_k_m", 0.2, 0.35)]
)
def test_fewer_bits(dtype: str, least: float, share: float, tmp_path: Path) -> None:
    _run(tmp_path)
    whole = _write(_plain(tmp_path), tmp_path / "whole.gguf").stat().st_size
    made = export_or_skip(tmp_path, dtype=dtype)
    assert made.size_bytes < share * whole
    assert least < made.parity.smallest
    assert {"F16": "fp16", "Q8_0": "q8_0", "Q5_0": "q4_k_m"}[
        next(one for one in GGUFReader(tmp_path / "out" / GGUF_FILE).tensors if "ffn_up" in one.name).tensor_type.name
    ] == dtype  # rows of 64 numbers have no blocks of 4 bits
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [GGUF_FILE, "parity.json"]


def test_the_command_says_what_to_put(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("llama_cpp", reason="pip install 'embedsmith[gguf]'")
    _run(tmp_path, **COPIED)
    capsys.readouterr()
    assert run_command(["export", str(tmp_path / "run"), str(tmp_path / "out"), "--to", "gguf"]) == 0
    printed = capsys.readouterr()
    assert "llama" not in printed.err
    assert r'{text}\ue000t runs"' in printed.out
    assert "none of more than 40 tokens" in printed.out


@pytest.mark.parametrize(
    ("name", "settings", "reason"),
    [
        ("phi", {}, "the family phi"),
        ("llama", {"pooling": "weighted_mean"}, "pooling weighted_mean"),
        ("llama", {"bidirectional_layers": 1}, "bidirectional_layers 1"),
        ("llama", {"pooling": "mean", "prompt": "echo"}, "second copy of an echo prompt"),
        ("gemma3_text", {"bidirectional_layers": "all"}, "sliding_window 6"),
    ],
)
def test_what_llama_cpp_does_not_compute_is_refused_by_name(
    name: str, settings: dict[str, object], reason: str, tmp_path: Path
) -> None:
    live = Embedder.load(_save(name, tmp_path / "base"), precision="fp32", **settings)
    assert any(reason in fault for fault in gguf_files.what_gguf_cannot_express(live))


@pytest.mark.parametrize("kind", ["merged", "whole words", "unigram"])
def test_tokenizers_without_a_name_are_refused(kind: str, tmp_path: Path) -> None:
    live = Embedder.load(_save("llama", tmp_path / "base", kind=kind), precision="fp32")
    with pytest.raises(ConfigError, match=r"llama\.cpp has no tokenizer"):
        read_vocabulary(live.tokenizer, num_rows=900)


def test_control_tokens_in_a_prompt_are_refused(tmp_path: Path) -> None:
    live = Embedder.load(_save("llama", tmp_path / "base"), precision="fp32", prompt="<|im_start|>a {text}")
    with pytest.raises(ConfigError, match=r"<\|im_start\|> would be characters there"):
        put_prompts(live, TEXTS)


def test_nothing_is_kept_of_a_file_that_embeds_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llama_cpp", reason="pip install 'embedsmith[gguf]'")
    _run(tmp_path)
    monkeypatch.setattr(gguf_files, "weights_of", _with_another_norm)
    with pytest.raises(RunError, match="does not embed as the model does"):
        export_gguf(str(tmp_path / "run"), folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".out")]


def _with_another_norm(network: object, **named: object) -> object:
    from embedsmith.export.gguf_bodies import weights_of

    for name, weight in weights_of(network, **named):
        yield name, weight.flip(0) if name == "blk.1.attn_q.weight" else weight


def test_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_runner, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"embedsmith\[gguf\]"):
        export_gguf("smollm2-135m", folder=tmp_path / "out")


def test_a_dtype_of_another_format(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="q4_k_m"):
        export_gguf("smollm2-135m", folder=tmp_path / "out", dtype="int8")
