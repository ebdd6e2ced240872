"""Tokenizers as the files define them: tokenizer.json unchanged, SentencePiece models as SentencePiece cuts."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer

from embedsmith.model.embedder import Embedder
from embedsmith.model.loading import tokenizer_files
from embedsmith.support.errors import ConfigError, MissingExtraError, ModelError
from tests.published import LIKE_LLAMA, SAVERS, save_gemma_2b, save_minicpm, train_pieces
from tests.tiny import TEXTS, save_model

TRICKY = [*TEXTS, "the  cat,  café\t 12.5 %", " rain 你好 🙂", "Ｆｕｌｌ x²"]


@pytest.mark.parametrize("name", SAVERS)
def test_ids_are_those_of_tokenizer_json_with_one_end_token(tmp_path: Path, name: str) -> None:
    folder = SAVERS[name](tmp_path / "m")
    reference = Tokenizer.from_file(str(folder / "tokenizer.json"))
    values = json.loads((folder / "config.json").read_text())
    start = [] if name == "phi-2" else [values["bos_token_id"]]
    for text, ids in zip(TRICKY, Embedder.load(str(folder)).tokenizer(TRICKY), strict=True):
        expected = reference.encode(text, add_special_tokens=False).ids
        assert ids.tolist() == [*start, *expected, values["eos_token_id"]]


def test_an_edited_tokenizer_config_changes_nothing(tmp_path: Path) -> None:
    folder = save_minicpm(tmp_path / "m")
    expected = [ids.tolist() for ids in Embedder.load(str(folder)).tokenizer(TRICKY)]
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "add_eos_token": True, "pad_token": "</s>"}))
    assert [ids.tolist() for ids in Embedder.load(str(folder)).tokenizer(TRICKY)] == expected


def test_a_sentencepiece_model_alone(tmp_path: Path) -> None:
    folder = save_minicpm(tmp_path / "m")
    (folder / "tokenizer.json").unlink()
    pieces = SentencePieceProcessor(model_file=str(train_pieces(folder / "tokenizer.model", **LIKE_LLAMA)))
    for text, ids in zip(TRICKY, Embedder.load(str(folder)).tokenizer(TRICKY), strict=True):
        assert ids.tolist() == [1, *pieces.encode(text), 2]


def test_tokenizer_json_goes_before_a_sentencepiece_model(tmp_path: Path) -> None:
    folder = save_minicpm(tmp_path / "m")
    expected = [ids.tolist() for ids in Embedder.load(str(folder)).tokenizer(TRICKY)]
    (folder / "tokenizer.model").write_bytes(b"never read")
    assert [ids.tolist() for ids in Embedder.load(str(folder)).tokenizer(TRICKY)] == expected


def test_a_sentencepiece_model_that_cannot_be_converted(tmp_path: Path) -> None:
    folder = save_minicpm(tmp_path / "m")
    (folder / "tokenizer.json").unlink()
    train_pieces(folder / "tokenizer.model", model_type="bpe")  # normalises, and drops spaces
    with pytest.raises(ModelError, match=r"(?s)cannot be converted faithfully: .* should be \[.*tokenizer\.json"):
        Embedder.load(str(folder))


def test_gemma_s_sentencepiece_model_alone(tmp_path: Path) -> None:
    folder = save_gemma_2b(tmp_path / "m")
    (folder / "tokenizer.json").unlink()
    settings = {**LIKE_LLAMA, "add_dummy_prefix": False, "pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3}
    settings |= {"pad_piece": "<pad>", "eos_piece": "<eos>", "bos_piece": "<bos>"}
    pieces = SentencePieceProcessor(model_file=str(train_pieces(folder / "tokenizer.model", **settings)))
    for text, ids in zip(TRICKY, Embedder.load(str(folder)).tokenizer(TRICKY), strict=True):
        assert ids.tolist() == [2, *pieces.encode(text), 1]


@pytest.mark.parametrize("module", ["sentencepiece", "google.protobuf"])
def test_what_reads_a_sentencepiece_model_may_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    folder = save_minicpm(tmp_path / "m")
    (folder / "tokenizer.json").unlink()
    train_pieces(folder / "tokenizer.model", **LIKE_LLAMA)
    real = tokenizer_files.find_spec
    monkeypatch.setattr(tokenizer_files, "find_spec", lambda name: None if name == module else real(name))
    with pytest.raises(MissingExtraError, match=r"(?s)The tokenizer of .* needs .*embedsmith\[sentencepiece\]"):
        Embedder.load(str(folder))


def test_no_tokenizer_files(tmp_path: Path) -> None:
    folder = save_minicpm(tmp_path / "m")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError):
        Embedder.load(str(folder))


def add_token(folder: Path, token: str, *, special: bool, index: int = 320) -> None:
    """As add_tokens writes it, without resize_token_embeddings; the table has 320 rows."""
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    entry = {"id": index, "content": token, "special": special}
    more = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    values["model"]["vocab"].setdefault(token, index)
    values["added_tokens"].append({**entry, **more})
    path.write_text(json.dumps(values))


def change_config(folder: Path, **values: object) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_token_of_texts_beyond_the_table(tmp_path: Path) -> None:
    folder = save_model("llama", tmp_path / "m")
    add_token(folder, "zebra", special=False)
    message = r"does not fit its model: 'zebra' \(id 320\) lies beyond the embedding table, which has 320 rows"
    with pytest.raises(ModelError, match=message):
        Embedder.load(str(folder))


@pytest.mark.parametrize("part", ["eos_token", "bos_token", "pad_token", "unk_token"])
def test_a_token_with_a_part_to_play_beyond_the_table(tmp_path: Path, part: str) -> None:
    folder = save_model("llama", tmp_path / "m")
    add_token(folder, "<new>", special=True)
    change_config(folder, **{part: "<new>"})
    with pytest.raises(ModelError, match=r"'<new>' \(id 320\) lies beyond the embedding table"):
        Embedder.load(str(folder))


def test_an_id_that_the_tokenizer_puts_around_texts_beyond_the_table(tmp_path: Path) -> None:
    folder = save_model("llama", tmp_path / "m")
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    values["post_processor"]["special_tokens"]["<s>"]["ids"] = [999]
    path.write_text(json.dumps(values))
    with pytest.raises(ModelError, match=r"\(id 999\) lies beyond the embedding table"):
        Embedder.load(str(folder))


def test_a_vocabulary_larger_than_the_table(tmp_path: Path) -> None:
    folder = save_model("llama", tmp_path / "m")
    table = len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]) - 5
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "vocab_size": table}))
    file = folder / "model.safetensors"
    weights = load_file(file)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = weights[name][:table].clone()
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"\(id {table}\), .* and 2 more lie beyond .* has {table} rows"):
        Embedder.load(str(folder))


def test_a_spare_control_token_beyond_the_table(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Gemma 3's tokenizer has a token for images that its models without images have no row for."""
    folder = save_model("llama", tmp_path / "m")
    expected = Embedder.load(str(folder), precision="fp32").encode(TEXTS)
    add_token(folder, "<image>", special=True)
    with caplog.at_level(logging.WARNING, logger="embedsmith"):
        found = Embedder.load(str(folder), precision="fp32").encode(TEXTS)
    assert "control tokens beyond the embedding table of 320 rows: '<image>' (id 320)." in caplog.text
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(ConfigError, match=r"prompt holds '<image>' \(id 320\), .* 320 rows"):
        Embedder.load(str(folder), prompt="<image> {text}")
