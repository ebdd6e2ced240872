"""Vectors in few bits: byte for byte sentence-transformers' own, of any model; ranges are kept and come back."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers.util import quantize_embeddings
from sentence_transformers.util.quantization import semantic_search_usearch

from embedsmith.model.embedder import Embedder
from embedsmith.model.sentence_encoder import SentenceEncoder
from embedsmith.model.vector_precision import Ranges, as_numbers, quantize_vectors
from embedsmith.settings.choices import VectorPrecision
from embedsmith.support.errors import ConfigError, DataError
from tests.tiny import TEXTS, save_encoder

IN_STEPS = ("int8", "uint8")
MANY = [f"w{number} cat w{number * 7 % 200}" for number in range(120)]


def _vectors(*, num_rows: int = 150, dim: int = 30, seed: int = 0) -> np.ndarray:
    """Unit vectors; one dimension is the same in all, one is 0 or -0 at times."""
    rows = np.random.default_rng(seed).standard_normal((num_rows, dim)).astype(np.float32)
    rows[:, 3] = 0.25
    rows[::3, 5], rows[1::3, 5] = 0.0, -0.0
    return rows / np.linalg.norm(rows, axis=1, keepdims=True) if num_rows else rows


def _same_bytes(found: np.ndarray, expected: np.ndarray) -> None:
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dim", [8, 30])  # with 30 the last byte of bits is filled up
@pytest.mark.parametrize("precision", list(VectorPrecision))
def test_bytes_are_those_of_sentence_transformers(precision: VectorPrecision, dim: int) -> None:
    rows, sample = _vectors(dim=dim), _vectors(num_rows=101, dim=dim, seed=1)
    _same_bytes(quantize_vectors(rows, vector_precision=precision), quantize_embeddings(rows, precision=precision))
    if precision in IN_STEPS:  # values outside the ranges, too
        expected = quantize_embeddings(rows, precision=precision, calibration_embeddings=sample)
        ranges = Ranges.of(sample)
        _same_bytes(quantize_vectors(rows, vector_precision=precision, ranges=ranges), expected)
        _same_bytes(quantize_embeddings(rows, precision=precision, ranges=ranges.bounds), expected)
        _same_bytes(quantize_vectors(rows[:1], vector_precision=precision, ranges=ranges), expected[:1])
    none = rows[:0]
    _same_bytes(quantize_vectors(none, vector_precision=precision), quantize_embeddings(none, precision=precision))


@pytest.mark.parametrize("precision", ["binary", "ubinary"])
def test_the_cosine_of_signs_counts_the_bits_that_differ(precision: str) -> None:
    first, second = _vectors(), _vectors(seed=1)
    one, other = (
        as_numbers(quantize_vectors(rows, vector_precision=kind), vector_precision=kind, dim=30)
        for kind in [VectorPrecision(precision)]
        for rows in (first, second)
    )
    num_different = np.sum((first > 0) != (second > 0), axis=1)
    np.testing.assert_allclose(np.sum(one * other, axis=1) / 30, 1 - 2 * num_different / 30, atol=1e-6)


@pytest.mark.parametrize("precision", list(VectorPrecision))
def test_models_of_both_kinds_give_them(precision: VectorPrecision, llama: Embedder, tmp_path: Path) -> None:
    encoder = SentenceEncoder.load(str(save_encoder(tmp_path / "encoder")))
    for model in (llama, encoder):
        for dim in (None, 12):
            ranges = Ranges.of(model.encode(MANY, dim=dim)) if precision in IN_STEPS else None
            found = model.encode(TEXTS, dim=dim, vector_precision=precision, ranges=ranges)
            bounds = None if ranges is None else ranges.bounds
            expected = quantize_embeddings(model.encode(TEXTS, dim=dim), precision=precision, ranges=bounds)
            _same_bytes(found, expected)


def test_sentence_transformers_own_encode_gives_the_same(tmp_path: Path) -> None:
    encoder = SentenceEncoder.load(str(save_encoder(tmp_path / "encoder")))
    for precision in ("int8", "ubinary"):
        found = encoder.encode(MANY, vector_precision=precision)
        theirs = encoder.network.encode(MANY, precision=precision, normalize_embeddings=True)
        assert found.dtype == theirs.dtype
        # Other texts in a batch, other padding: rounding may move a value over the edge of a step.
        assert np.mean(found != theirs) < 0.01


@pytest.mark.parametrize("precision", ["int8", "binary", "ubinary"])
def test_sentence_transformers_searches_them(precision: str, llama: Embedder) -> None:
    pytest.importorskip("usearch", reason="the index that sentence-transformers searches them with")
    vectors = llama.encode(MANY)
    ranges = Ranges.of(vectors) if precision == "int8" else None
    corpus = llama.encode(MANY, vector_precision=precision, ranges=ranges)
    bounds = None if ranges is None else ranges.bounds
    hits, _ = semantic_search_usearch(
        vectors, corpus_embeddings=corpus, corpus_precision=precision, ranges=bounds, top_k=1
    )
    assert [one[0]["corpus_id"] for one in hits] == list(range(len(MANY)))


def test_that_a_batch_is_calibrated_on_itself_is_said(llama: Embedder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        alone = llama.encode(MANY, vector_precision="int8")
    assert "int8 vectors of these 120 texts are calibrated on themselves" in caplog.text
    caplog.clear()
    ranges = Ranges.of(llama.encode(MANY))
    _same_bytes(llama.encode(MANY, vector_precision="int8", ranges=ranges), alone)
    assert not caplog.records
    Ranges.of(llama.encode(MANY[:9]))
    assert "only 9 vectors" in caplog.text


def test_ranges_come_back_from_their_file(tmp_path: Path) -> None:
    ranges = Ranges.of(_vectors(), model="mine", embedding={"pooling": "last", "dims": (1, 2)})
    ranges.save(tmp_path / "r.json")
    back = Ranges.read(tmp_path / "r.json")
    assert back.bounds.dtype == np.float32
    assert np.array_equal(back.bounds, ranges.bounds)
    assert (back.num_vectors, back.model, back.dim) == (150, "mine", 30)
    back.check_embedding({"pooling": "last", "dims": (1, 2)}, where="r.json")
    with pytest.raises(ConfigError, match=r"r\.json holds ranges of other vectors .* of mine, with another pooling"):
        back.check_embedding({"pooling": "mean", "dims": (1, 2)}, where="r.json")


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.pop("minimum"),
        lambda values: values.update(minimum=[0.0]),
        lambda values: values.update(maximum=["a"] * 30),
        lambda values: values.update(maximum=[float("nan")] * 30),
        lambda values: values.update(minimum=values["maximum"], maximum=values["minimum"]),
    ],
)
def test_a_file_that_holds_no_ranges_is_refused(change: Any, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    Ranges.of(_vectors()).save(path)
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(DataError, match=r"r\.json holds no ranges"):
        Ranges.read(path)
    for text in ("", "[1]", "[" * 100_000):
        path.write_text(text)
        with pytest.raises(DataError, match="holds no ranges"):
            Ranges.read(path)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        Ranges.read(tmp_path / "none.json")


def test_what_does_not_fit_is_refused_before_anything_is_embedded(
    llama: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranges = Ranges.of(_vectors(dim=llama.dim))
    with pytest.raises(ConfigError, match="cannot be taken of a single vector"):
        llama.encode(TEXTS[:1], vector_precision="int8")
    monkeypatch.setattr(llama, "encode_poolings", None)
    with pytest.raises(ConfigError, match="is 'int4'; it must be one of float32, int8, uint8, binary, ubinary"):
        llama.encode(TEXTS, vector_precision="int4")
    with pytest.raises(ConfigError, match="binary vectors need no ranges"):
        llama.encode(TEXTS, vector_precision="binary", ranges=ranges)
    with pytest.raises(ConfigError, match="ranges are of 64 dimensions, and these vectors have 12"):
        llama.encode(TEXTS, vector_precision="int8", ranges=ranges, dim=12)
