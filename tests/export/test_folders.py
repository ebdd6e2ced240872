"""Exported == live, through transformers and sentence-transformers, over families, prompts and poolings."""

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

from embedsmith.cli import run_command
from embedsmith.export import folders, parity
from embedsmith.export.folders import Format, export
from embedsmith.model.embedder import Embedder
from embedsmith.model.loading.settings import EmbeddingSettings
from embedsmith.settings.config import AdapterSection
from embedsmith.support.errors import ConfigError, RunError
from tests.published import SAVERS
from tests.tiny import TEXTS, save_model

LONG = " ".join(f"w{n}" for n in range(80))


def _run(model: str, folder: Path, **settings: object) -> Embedder:
    embedder = Embedder.load(model, precision="fp32", **{"max_length": 40, **settings})
    embedder.add_adapter(AdapterSection())
    for weight in embedder.backbone.model.parameters():
        if weight.requires_grad:
            weight.data.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    embedder.save(folder / "adapter")
    return embedder


@pytest.mark.parametrize("family", ["llama", "gemma", "phi", "granite", "qwen3", "mistral"])
@pytest.mark.parametrize("pooling", ["last", "mean", "weighted_mean"])
def test_exported_equals_live(family: str, pooling: str, model_folders: dict[str, str], tmp_path: Path) -> None:
    live = _run(model_folders[family], tmp_path / "run", pooling=pooling, prompt="the cat {text}")
    expected = live.encode([*TEXTS, LONG])
    for to in Format:
        assert export(str(tmp_path / "run"), folder=tmp_path / to, to=to) > 0.99999
        loaded = Embedder.load(str(tmp_path / to), precision="fp32")
        np.testing.assert_allclose(loaded.encode([*TEXTS, LONG]), expected, atol=1e-5)
    other = SentenceTransformer(str(tmp_path / "sentence-transformers"), device="cpu")
    np.testing.assert_allclose(other.encode([*TEXTS, LONG]), expected, atol=1e-5)
    np.testing.assert_allclose(other.encode(TEXTS[:1]), expected[:1], atol=1e-5)


@pytest.mark.parametrize("with_start", [True, False])
def test_the_tokenizer_puts_the_end_token_once(with_start: bool, tmp_path: Path) -> None:
    model = save_model("llama", tmp_path / "m", with_start_token=with_start)
    export(str(model), folder=tmp_path / "out", to=Format.SENTENCE_TRANSFORMERS)
    live = Embedder.load(str(model), precision="fp32")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    for num_words in (0, 1, 125, 126, 127, 128, 200):  # around the limit of 128
        text = " ".join(["cat"] * num_words)
        ids = tokenizer(text, truncation=True)["input_ids"]
        assert ids == live.tokenizer([text])[0].tolist()
    assert tokenizer.chat_template is None


def test_merged_is_a_plain_model(model_folders: dict[str, str], tmp_path: Path) -> None:
    live = _run(model_folders["llama"], tmp_path / "run")
    export(str(tmp_path / "run"), folder=tmp_path / "out", to=Format.MERGED)
    model = AutoModel.from_pretrained(tmp_path / "out", dtype=torch.float32)
    ids = torch.from_numpy(live.tokenizer(TEXTS[:1])[0])[None]
    with torch.no_grad():
        state = model(ids).last_hidden_state[0, -1]
    np.testing.assert_allclose(torch.nn.functional.normalize(state, dim=0), live.encode(TEXTS[:1])[0], atol=1e-5)
    assert json.loads((tmp_path / "out" / "embedding.json").read_text())["max_length"] == 40


@pytest.mark.parametrize("name", SAVERS)
def test_the_paper_s_models_in_their_published_layout(name: str, tmp_path: Path) -> None:
    _run(str(SAVERS[name](tmp_path / "model")), tmp_path / "run")
    for to in Format:
        assert run_command(["export", str(tmp_path / "run"), str(tmp_path / to), "--to", to]) == 0


def test_queries_get_their_prompt(model_folders: dict[str, str], tmp_path: Path) -> None:
    live = _run(model_folders["llama"], tmp_path / "run", query_prompt="{instruction} runs {text}", instruction="rain")
    export(str(tmp_path / "run"), folder=tmp_path / "out", to=Format.SENTENCE_TRANSFORMERS)
    other = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    np.testing.assert_allclose(other.encode(TEXTS), live.encode(TEXTS), atol=1e-5)
    queries = other.encode(TEXTS, prompt_name="query")
    np.testing.assert_allclose(queries, live.encode(TEXTS, side="query"), atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"pooling": "concat"}, "pooling concat"),
        ({"bidirectional_layers": 1}, "bidirectional_layers 1"),
        ({"prompt": "echo"}, "goes on behind the text"),
        ({"prompt": "{text} cat"}, "goes on behind the text"),
        ({"query_prompt": "{text} cat"}, "query_prompt"),
    ],
)
def test_what_cannot_be_expressed_is_refused_by_name(
    settings: dict[str, object], fault: str, model_folders: dict[str, str], tmp_path: Path
) -> None:
    _run(model_folders["llama"], tmp_path / "run", **settings)
    with pytest.raises(ConfigError, match=f"Cannot be expressed in sentence-transformers: .*{fault}"):
        export(str(tmp_path / "run"), folder=tmp_path / "out", to=Format.SENTENCE_TRANSFORMERS)
    assert export(str(tmp_path / "run"), folder=tmp_path / "merged", to=Format.MERGED) > 0.99999


def test_every_setting_has_been_thought_about() -> None:
    assert {field.name for field in fields(EmbeddingSettings)} == folders._CARRIED


def test_a_folder_that_embeds_otherwise_is_not_kept(
    model_folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run(model_folders["llama"], tmp_path / "run")
    base = Embedder.load(model_folders["llama"], precision="fp32", fused=False)
    monkeypatch.setattr(folders, "_merged", lambda live, model, base_model: base)
    with pytest.raises(RunError, match="does not embed as the model does"):
        export(str(tmp_path / "run"), folder=tmp_path / "out", to=Format.MERGED)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_taken_folders_and_empty_adapters(model_folders: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("mine")
    with pytest.raises(RunError, match="exists already"):
        export(model_folders["llama"], folder=tmp_path / "taken", to=Format.MERGED)
    embedder = Embedder.load(model_folders["llama"], precision="fp32", max_length=40)
    embedder.add_adapter(AdapterSection())
    embedder.save(tmp_path / "run" / "adapter")
    with pytest.raises(RunError, match="changes no embedding"):
        export(str(tmp_path / "run"), folder=tmp_path / "out", to=Format.MERGED)
    assert run_command(["export", str(tmp_path / "run"), str(tmp_path / "x"), "--to", "onnx"]) == 2


def test_probe_texts_hold_long_and_odd_ones() -> None:
    texts = parity.probe_texts()
    assert max(len(text.split()) for text in texts) > 300
    assert any(not text.isascii() for text in texts)
