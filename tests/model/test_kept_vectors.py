"""Kept vectors: those that the model gives, computed once; the same bytes after an interruption; damage is noticed."""

import logging
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedsmith.model import kept_vectors
from embedsmith.model.embedder import Embedder
from embedsmith.model.embedding_model import EmbeddingModel, load_embedding_model
from embedsmith.model.kept_vectors import keep_vectors
from embedsmith.model.loading.fingerprint import fingerprint_model
from embedsmith.settings.choices import Side
from embedsmith.support.errors import ModelError, RunError
from tests.tiny import save_encoder

TEXTS = [" ".join(f"w{(7 * row + place) % 200}" for place in range(1 + row % 9)) for row in range(50)]
WEIGHTS = ("as on disk",)


class StoppedError(Exception):
    pass


class Watched:
    """A model that notes what it is asked for, and may stop at its n-th call."""

    def __init__(self, inner: EmbeddingModel, *, stops_at: int | None = None) -> None:
        self._inner = inner
        self._stops_at = stops_at
        self.calls: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def encode(self, texts: Iterable[str], **options: Any) -> np.ndarray:
        if len(self.calls) == self._stops_at:
            raise StoppedError
        self.calls.append(len(list(texts)))
        return self._inner.encode(texts, **options)


@pytest.fixture
def keep(llama: Embedder, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., np.ndarray]:
    # A watched model is none of ours by its type; what else computes is part of the key and the same here.
    monkeypatch.setattr(kept_vectors, "describe_computing", lambda _: {})

    def run(model: Any = llama, texts: list[str] = TEXTS, **options: Any) -> np.ndarray:
        return keep_vectors(texts, embedder=model, weights=WEIGHTS, name="llama", chunk_texts=8, **options)

    return run


def _folder(cache: Path) -> Path:
    (folder,) = (cache / "vectors").iterdir()
    return folder


def test_they_are_the_models_own(llama: Embedder, keep: Callable[..., np.ndarray], cache: Path) -> None:
    vectors = keep()
    assert vectors.dtype == np.float32
    assert isinstance(vectors, np.memmap)
    assert not vectors.flags.writeable
    by_chunks = np.concatenate([llama.encode(TEXTS[start : start + 8]) for start in range(0, len(TEXTS), 8)])
    np.testing.assert_array_equal(vectors, by_chunks)
    np.testing.assert_allclose(vectors, llama.encode(TEXTS), atol=1e-5)  # in other packed rows
    assert {path.name for path in _folder(cache).iterdir()} == {"about.json", "chunks.txt", "lock", "vectors.npy"}


def test_an_encoder_and_the_side(tmp_path: Path, cache: Path) -> None:
    folder = str(save_encoder(tmp_path / "encoder", prompts={"query": "the cat ", "document": ""}))
    encoder = load_embedding_model(folder)
    for side in Side:
        vectors = keep_vectors(TEXTS, embedder=encoder, weights=fingerprint_model(folder), name=folder, side=side)
        np.testing.assert_array_equal(vectors, encoder.encode(TEXTS, side=side))
    assert len(list((cache / "vectors").iterdir())) == 2


def test_they_are_computed_once(
    llama: Embedder, keep: Callable[..., np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first, again = Watched(llama), Watched(llama)
    done: list[int] = []
    vectors = keep(first, on_progress=done.append)
    assert first.calls == [8, 8, 8, 8, 8, 8, 2]
    assert sum(done) == len(TEXTS)
    np.testing.assert_array_equal(keep(again), vectors)
    assert again.calls == []
    assert "llama: the vectors of 50 texts are kept in" in caplog.text


def test_who_asks_at_the_same_time_waits(llama: Embedder, keep: Callable[..., np.ndarray]) -> None:
    models = [Watched(llama), Watched(llama)]
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(keep, models)
    assert sorted(len(model.calls) for model in models) == [0, 7]
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("stops_at", [0, 1, 5])
def test_resumed_is_uninterrupted(
    llama: Embedder,
    keep: Callable[..., np.ndarray],
    cache: Path,
    caplog: pytest.LogCaptureFixture,
    stops_at: int,
) -> None:
    keep()
    expected = (_folder(cache) / "vectors.npy").read_bytes()
    shutil.rmtree(cache)
    with pytest.raises(StoppedError):
        keep(Watched(llama, stops_at=stops_at))
    assert not (_folder(cache) / "vectors.npy").exists()
    again = Watched(llama)
    keep(again)
    assert len(again.calls) == 7 - stops_at
    assert (_folder(cache) / "vectors.npy").read_bytes() == expected
    assert "damaged" not in caplog.text


@pytest.mark.parametrize(
    "damage",
    {
        "a byte changed": lambda data: data[:3000] + bytes([data[3000] ^ 1]) + data[3001:],
        "cut short": lambda data: data[:5000],
        "something behind": lambda data: data + b"x",
        "another header": lambda data: b"\0" + data[1:],
        "empty": lambda data: b"",
    }.items(),
    ids=lambda damage: damage[0],
)
@pytest.mark.parametrize("is_finished", [True, False])
def test_damage_is_noticed(
    llama: Embedder,
    keep: Callable[..., np.ndarray],
    cache: Path,
    caplog: pytest.LogCaptureFixture,
    damage: tuple[str, Callable[[bytes], bytes]],
    is_finished: bool,
) -> None:
    keep()
    finished = _folder(cache) / "vectors.npy"
    expected = finished.read_bytes()
    path = finished
    if not is_finished:
        shutil.rmtree(cache)
        with pytest.raises(StoppedError):
            keep(Watched(llama, stops_at=6))
        path = _folder(cache) / "vectors.npy.part"
    path.write_bytes(damage[1](path.read_bytes()))
    keep()
    assert finished.read_bytes() == expected
    is_harmless = damage[0] == "something behind" and not is_finished  # it is written over
    assert ("damaged" in caplog.text) != is_harmless


def test_lost_digests_are_damage(
    keep: Callable[..., np.ndarray], cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    vectors = np.array(keep())
    (_folder(cache) / "chunks.txt").unlink()
    np.testing.assert_array_equal(keep(), vectors)
    assert "those behind the first 0 of 50 are computed anew" in caplog.text


def test_what_counts_is_part_of_the_key(llama: Embedder, cache: Path) -> None:
    def keep(texts: list[str] = TEXTS[:4], **options: Any) -> None:
        values = {"embedder": llama, "weights": WEIGHTS, "name": "llama", "chunk_texts": 8, **options}
        keep_vectors(texts, **values)

    def count() -> int:
        return len(list((cache / "vectors").iterdir()))

    keep()
    keep(name="another name")
    assert count() == 1
    variants: list[dict[str, Any]] = [
        {"texts": TEXTS[:3]},
        {"texts": TEXTS[3::-1]},
        {"texts": ["w0w7", *TEXTS[1:4]]},
        {"weights": ("others",)},
        {"side": Side.QUERY},
        {"chunk_texts": 2},
    ]
    for number, variant in enumerate(variants, start=2):
        keep(**variant)
        assert count() == number, variant
    llama.settings = replace(llama.settings, prompt="the {text}")
    keep()
    assert count() == len(variants) + 2


def test_no_room(keep: Callable[..., np.ndarray], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(cache.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(
        RunError, match=r"need 0\.\d+ MB in .*\nFree some space, or name another folder .* EMBEDSMITH_CACHE"
    ):
        keep()


def test_a_vector_without_numbers_is_not_kept(llama: Embedder, keep: Callable[..., np.ndarray], cache: Path) -> None:
    class Broken(Watched):
        def encode(self, texts: Iterable[str], **options: Any) -> np.ndarray:
            rows = super().encode(texts, **options)
            rows[1, 3] = np.nan
            return rows

    with pytest.raises(ModelError, match="vector of text 2 "):
        keep(Broken(llama))
    assert not (_folder(cache) / "vectors.npy.part").exists()
