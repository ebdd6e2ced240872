"""Encoders: vectors are sentence-transformers' own, whatever the model is made of; what does not apply is refused."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer

from embedsmith.evaluation.mteb_encoder import model_meta
from embedsmith.model.embedder import Embedder
from embedsmith.model.embedding_model import load_embedding_model
from embedsmith.model.sentence_encoder import SentenceEncoder
from embedsmith.settings.choices import Pooling, Side
from embedsmith.support.errors import ConfigError, DataError, MissingExtraError, ModelError
from tests.tiny import TEXTS, save_encoder

KINDS: dict[str, dict[str, Any]] = {
    "bert, mean": {},
    "bert, first token, not normalised": {"pooling": "cls", "normalizes": False},
    "modernbert, dense": {"body": "modernbert", "dense_width": 12},
    "mpnet": {"body": "mpnet"},
    "prompts": {"prompts": {"query": "the cat ", "document": "rain falls "}},
    "prompts by other names": {"prompts": {"query": "", "passage": "rain falls "}, "pooling": "max"},
}


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(save_encoder(tmp_path / "encoder"))


def _theirs(folder: str, texts: list[str], side: Side, **options: Any) -> np.ndarray:
    network = SentenceTransformer(folder, device="cpu")
    run = network.encode_query if side is Side.QUERY else network.encode_document
    return run(texts, normalize_embeddings=True, show_progress_bar=False, **options)


@pytest.mark.parametrize("side", list(Side))
@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_the_packages_own(tmp_path: Path, kind: str, side: Side) -> None:
    folder = str(save_encoder(tmp_path / "encoder", **KINDS[kind]))
    texts = [*TEXTS, *(f"w{number} " * (number % 9 + 1) for number in range(40))]
    finished: list[int] = []
    encoder = load_embedding_model(folder)
    assert isinstance(encoder, SentenceEncoder)
    found = encoder.encode(texts, side=side, on_progress=finished.append)
    expected = _theirs(folder, texts, side)
    assert found.dtype == np.float32
    assert found.shape == (len(texts), encoder.dim) == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)  # other texts in a batch: other padding
    assert sum(finished) == len(texts)


def save_static(folder: Path) -> str:
    """A table of vectors by token, as model2vec's and sentence-transformers' static models."""
    tokenizer = Tokenizer.from_file(str(save_encoder(folder / "encoder") / "tokenizer.json"))
    weights = torch.randn(tokenizer.get_vocab_size(), 12, generator=torch.Generator().manual_seed(0))
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=weights)]).save(str(folder / "static"))
    return str(folder / "static")


def test_a_static_model(tmp_path: Path) -> None:
    folder = save_static(tmp_path)
    encoder = load_embedding_model(folder)
    assert isinstance(encoder, SentenceEncoder)
    texts = [*TEXTS, "w1 w2 " * 2000]
    np.testing.assert_array_equal(encoder.encode(texts, side="query"), _theirs(folder, texts, Side.QUERY))
    assert encoder.dim == 12
    assert encoder.count_cut(texts) == 0  # it takes any number of tokens
    assert not encoder.encode([""]).any()
    spelled, plain = encoder.encode(["the cat</s>", "the cat"])
    assert not np.allclose(spelled, plain)
    meta = model_meta(encoder, model=folder, embedding=encoder.describe(weights=["w"]))
    assert meta.n_parameters == meta.n_embedding_parameters == encoder.network[0].embedding.weight.numel()


def test_a_static_model_in_a_pickle_is_refused(tmp_path: Path) -> None:
    folder = Path(save_static(tmp_path))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="in a pickle"):
        load_embedding_model(str(folder))


def test_control_tokens_in_prompts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = str(save_encoder(tmp_path / "encoder", prompts={"query": "</s> "}))
    encoder = SentenceEncoder.load(folder)
    assert "has control tokens in a prompt" in caplog.text
    texts = [*TEXTS, "a cat </s> sleeps"]
    expected = _theirs(folder, texts, Side.QUERY)
    np.testing.assert_allclose(encoder.encode(texts, side="query"), expected, rtol=0, atol=1e-6)


def test_many_texts_in_any_form_keep_their_order(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedsmith.model.encoding._TEXTS_AT_ONCE", 3)
    encoder = SentenceEncoder.load(folder)
    finished: list[int] = []
    rows = encoder.encode((text for text in TEXTS), on_progress=finished.append)
    np.testing.assert_allclose(rows, _theirs(folder, TEXTS, Side.DOCUMENT), rtol=0, atol=1e-6)
    assert len(finished) == 2
    assert sum(finished) == len(TEXTS)
    assert encoder.encode([]).shape == (0, 32)
    with pytest.raises(TypeError, match="encode takes a list"):
        encoder.encode("rain falls")
    with pytest.raises(DataError, match="half a character"):
        encoder.encode(["\ud83d"])


def test_the_first_dimensions(folder: str) -> None:
    rows = SentenceEncoder.load(folder).encode(TEXTS, dim=7)
    np.testing.assert_allclose(rows, _theirs(folder, TEXTS, Side.DOCUMENT, truncate_dim=7), rtol=0, atol=1e-6)
    with pytest.raises(ConfigError, match="have 32 dimensions"):
        SentenceEncoder.load(folder).encode(TEXTS, dim=33)


def test_a_prompt_that_is_given_stands_in_front(tmp_path: Path) -> None:
    folder = str(save_encoder(tmp_path / "encoder", prompts={"query": "rain falls "}))
    for template, instruction, prompt in (
        ("the cat {text}", None, "the cat "),
        ("{text}", None, ""),
        ("{instruction} {text}", "an animal", "an animal "),
    ):
        encoder = SentenceEncoder.load(folder, prompt=template, instruction=instruction)
        for side in Side:
            expected = _theirs(folder, TEXTS, side, prompt=prompt)
            np.testing.assert_allclose(encoder.encode(TEXTS, side=side), expected, rtol=0, atol=1e-6)
    told = encoder.encode(TEXTS, instruction="the warm roof")
    expected = _theirs(folder, TEXTS, Side.DOCUMENT, prompt="the warm roof ")
    np.testing.assert_allclose(told, expected, rtol=0, atol=1e-6)


def test_long_texts_are_cut_and_counted(folder: str) -> None:
    encoder = SentenceEncoder.load(folder)
    assert encoder.max_length == 128
    fits, too_long = " ".join(["cat"] * 127), " ".join(["cat"] * 128)  # the start token counts
    assert encoder.count_cut([*TEXTS, fits, too_long]) == 1
    one, other = encoder.encode([too_long, too_long + " rain falls"])
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
    prompted = SentenceEncoder.load(folder, prompt="the cat {text}")
    assert prompted.count_cut([*TEXTS, fits, too_long]) == 2


def test_a_decoder_counts_what_it_cuts_too(llama: Embedder) -> None:
    assert llama.max_length == 64
    fits = " ".join(["cat"] * 62)  # start and end token
    assert llama.count_cut([*TEXTS, fits, fits + " rain"]) == 1


def test_the_number_format_asked_for(folder: str) -> None:
    dtypes = {precision: SentenceEncoder.load(folder, precision=precision) for precision in ("auto", "fp32", "bf16")}
    assert [one.transformer.dtype for one in dtypes.values()] == [torch.float32, torch.float32, torch.bfloat16]
    rounded, exact = dtypes["bf16"].encode(TEXTS), dtypes["fp32"].encode(TEXTS)
    assert rounded.dtype == np.float32
    assert 1e-6 < np.abs(rounded - exact).max() < 0.1


def test_float16_weights_are_computed_in_float32_on_a_cpu(folder: str, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    stored = SentenceTransformer(folder, device="cpu").half()
    stored.save(str(tmp_path / "half"))
    assert SentenceTransformer(str(tmp_path / "half"), device="cpu").transformers_model.dtype == torch.float16
    encoder = SentenceEncoder.load(str(tmp_path / "half"), device="cpu")
    assert encoder.transformer.dtype == torch.float32
    expected = stored.float().encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": Pooling.MEAN}, "cannot be given a pooling"),
        ({"end_token": False, "base_model": "x"}, "cannot be given whether texts end with the end token, a base model"),
        ({"prompt": "prompteol"}, "does not end with its one {text}"),
        ({"prompt": "echo"}, "does not end with its one {text}"),
        ({"prompt": "nothing"}, "must hold {text} once"),
        ({"prompt": "{instruction} {text}"}, "needs an instruction, and none is given"),
    ],
)
def test_what_an_encoder_cannot_be_given(folder: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_embedding_model(folder, **options)


def test_an_instruction_without_a_place(folder: str) -> None:
    with pytest.raises(ConfigError, match=r"no prompt holds \{instruction\}"):
        SentenceEncoder.load(folder).encode(TEXTS, instruction="x")


def test_other_faults(folder: str, model_folders: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"no sentence-transformers model: it has no modules\.json"):
        SentenceEncoder.load(model_folders["llama"])
    with pytest.raises(ModelError, match="is not a decoder language model"):
        Embedder.load(folder)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "sentence_transformers", None)
        with pytest.raises(MissingExtraError, match=r"embedsmith\[encoders\]"):
            load_embedding_model(folder)
    weights = Path(folder) / "model.safetensors"
    whole = weights.read_bytes()
    tensors = load_file(weights)
    name = "encoder.layer.1.attention.self.query.weight"
    save_file({**tensors, name: tensors[name] / 0}, weights, {"format": "pt"})
    with pytest.raises(ModelError, match="are damaged: NaN or infinity"):
        load_embedding_model(folder)
    del tensors[name], tensors["pooler.dense.weight"]  # the latter is no loss
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(ModelError, match=f"are incomplete: {name} are missing"):
        load_embedding_model(folder)
    weights.write_bytes(whole[:999])
    with pytest.raises(ModelError, match="cannot be loaded by sentence-transformers"):
        load_embedding_model(folder)
