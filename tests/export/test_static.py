"""Static models: the table is the model's own vectors of tokens; model2vec and sentence-transformers read it alike."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

from embedsmith.cli import run_command
from embedsmith.export.static import embed_tokens, export_static, make_static_tokenizer, make_table
from embedsmith.model.embedder import Embedder
from embedsmith.model.sentence_encoder import SentenceEncoder
from embedsmith.settings.config import AdapterSection
from embedsmith.support.errors import ConfigError, MissingExtraError, ModelError, RunError
from tests.made_tokenizers import KINDS, save_with
from tests.tiny import TEXTS, write_pairs

PROMPTS = {"none": None, "before": "the cat {text}", "behind": "{text} runs away", "echo": "the {text} cat {text} runs"}


def _run(model: str, folder: Path, **settings: object) -> Embedder:
    embedder = Embedder.load(model, precision="fp32", **settings)
    embedder.add_adapter(AdapterSection())
    for weight in embedder.backbone.model.parameters():
        if weight.requires_grad:
            weight.data.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    embedder.save(folder / "adapter")
    return Embedder.load(str(folder))


def _means(tokenizer: Tokenizer, table: np.ndarray, texts: list[str]) -> np.ndarray:
    rows = np.array([table[tokenizer.encode(text).ids].mean(axis=0) for text in texts])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("prompt_tokens", ["apart", "joined"])
def test_a_token_s_vector_is_the_model_s_of_that_text(
    prompt: str, prompt_tokens: str, pooling: str, model_folders: dict[str, str]
) -> None:
    """In a tokenizer of whole words, a token under a prompt has the same ids whichever way they are cut."""
    live = Embedder.load(
        model_folders["llama"], prompt=PROMPTS[prompt], prompt_tokens=prompt_tokens, pooling=pooling, precision="fp32"
    )
    words = {word: live.backbone.tokenizer.convert_tokens_to_ids(word) for word in ("cat", "sea", "w7", "the")}
    done: list[int] = []
    vectors = embed_tokens(live, num_tokens=258, on_progress=done.append)
    assert (vectors.shape, sum(done)) == ((258, 64), 258)
    np.testing.assert_allclose(vectors[list(words.values())], live.encode(list(words)), atol=1e-5)


def test_the_table_is_model2vec_s_recipe() -> None:
    inference = pytest.importorskip(
        "model2vec.distill.inference",
        reason="model2vec and skeletoken are not installed: pip install 'embedsmith[dev]'",
    )
    vectors = np.random.default_rng(0).standard_normal((400, 24)).astype(np.float32) * np.linspace(3, 1, 24)
    for dim in (5, 24):
        expected = inference.apply_pca(vectors, dim) * inference.compute_weights(400, sif_coefficient=1e-4)[:, None]
        table, explained = make_table(vectors.astype(np.float32), dim=dim)
        np.testing.assert_allclose(table, expected, atol=1e-4)
        assert explained == pytest.approx(1.0) if dim == 24 else 0.2 < explained < 0.5


def test_sentence_transformers_reads_it(model_folders: dict[str, str], tmp_path: Path) -> None:
    live = _run(model_folders["llama"], tmp_path / "run", prompt="{text} runs away")
    made = export_static(str(tmp_path / "run"), folder=tmp_path / "out", dim=16)
    assert (made.num_tokens, made.dim) == (258, 16)
    assert made.smallest_cosine > 0.99999
    tokenizer = make_static_tokenizer(live)
    table, _ = make_table(embed_tokens(live, num_tokens=258), dim=16)
    table[0] = 0  # <unk>
    texts = [*TEXTS, "cat " * 700, "unknown cat"]
    expected = _means(tokenizer, table, texts)
    other = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    np.testing.assert_allclose(other.encode(texts), expected, atol=1e-5)
    np.testing.assert_allclose(SentenceEncoder.load(str(tmp_path / "out")).encode(texts), expected, atol=1e-5)


def test_model2vec_reads_it(model_folders: dict[str, str], tmp_path: Path) -> None:
    model2vec = pytest.importorskip("model2vec", reason="model2vec is not installed: pip install 'embedsmith[dev]'")
    export_static(model_folders["qwen3"], folder=tmp_path / "out", dim=16)
    theirs = model2vec.StaticModel.from_pretrained(tmp_path / "out")
    texts = [*TEXTS, "cat " * 700, "unknown cat", "unknown", ""]
    assert theirs.dim == 16
    expected = SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(texts)
    found = theirs.encode(texts)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not found[-2:].any()  # no token that is known


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_the_model_s_and_control_tokens_are_characters(kind: str, tmp_path: Path) -> None:
    live = Embedder.load(str(save_with(kind, tmp_path / "m")), precision="fp32")
    tokenizer = make_static_tokenizer(live)
    assert sorted(tokenizer.get_vocab().values()) == list(range(tokenizer.get_vocab_size()))
    encoder = live.tokenizer.encoder
    lead = "" if encoder.puts_blank else " "
    for text in ("a cat sleeps", "Stop at </s> and <|im_end|>.", "a cat remdesivir"):
        ids = tokenizer.encode(text).ids
        assert ids == encoder.encode_alone([lead + text])[0]
        assert not {*ids} & {*encoder.control_tokens.values()} - {_unknown(live)}
    if lead:
        assert tokenizer.encode("cat").ids == tokenizer.encode(" cat").ids


def _unknown(live: Embedder) -> int | None:
    return live.backbone.tokenizer.unk_token_id


def test_the_command_makes_a_model_that_can_be_scored(
    model_folders: dict[str, str], tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert run_command(["export", model_folders["llama"], out, "--to", "static"]) == 0
    assert "258 tokens of 64 dimensions, which hold 100 % of the variance; 66,048 bytes" in capsys.readouterr().out
    assert {path.name for path in Path(out).rglob("*") if path.is_file()} == {
        *("config.json", "config_sentence_transformers.json", "model.safetensors", "modules.json", "tokenizer.json"),
    }
    (tmp_path / "sts").mkdir()
    write_pairs(tmp_path / "sts" / "dev.tsv")
    scores = ["--data", str(tmp_path / "sts"), "--out", str(tmp_path / "scores.json")]
    assert run_command(["evaluate", out, *scores]) == 0
    assert json.loads((tmp_path / "scores.json").read_text())["tasks"]


def test_queries_are_embedded_as_documents_and_that_is_said(
    model_folders: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _run(model_folders["llama"], tmp_path / "run", query_prompt="the cat {text}")
    export_static(str(tmp_path / "run"), folder=tmp_path / "out", dim=8)
    assert "a static model embeds them as documents" in caplog.text


def test_what_cannot_be_is_refused_and_nothing_kept(
    model_folders: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, out = model_folders["llama"], tmp_path / "out"
    assert run_command(["export", model, str(out), "--to", "static", "--dtype", "bf16"]) == 2
    assert "a static model's table is stored as fp32" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="dim is 65"):
        export_static(model, folder=out, dim=65)
    with pytest.raises(ConfigError, match="only 3 tokens"):
        make_table(np.eye(3, dtype=np.float32), dim=3)
    assert run_command(["export", model, str(out), "--to", "merged", "--dim", "8"]) == 2
    assert "--dim is of a static model" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "sentence_transformers", None)
        with pytest.raises(MissingExtraError, match=r"embedsmith\[export\]"):
            export_static(model, folder=out)
    with monkeypatch.context() as patch:
        patch.setattr("embedsmith.export.static._TOLERANCE", 1.1)
        with pytest.raises(RunError, match="Nothing was kept"):
            export_static(model, folder=out, dim=8)
    assert not out.exists()
    out.mkdir()
    (out / "x").touch()
    with pytest.raises(RunError, match="not empty"):
        export_static(model, folder=out)


def test_a_tokenizer_that_knows_more_than_the_model_is_refused(model_folders: dict[str, str]) -> None:
    live = Embedder.load(model_folders["llama"], precision="fp32")
    live.backbone.model.resize_token_embeddings(100)
    with pytest.raises(ModelError, match="258 tokens with ids up to 257, and the model 100 rows"):
        make_static_tokenizer(live)
