"""Many texts -> their vectors by one model, computed once: a memory-mapped (K, D) file in the cache.

    texts, model -> key -> CACHE/vectors/KEY/ : about.json, vectors.npy, chunks.txt (a digest for each chunk of rows)

Invariants: the key holds all that the vectors depend on: the model's files and settings, the side and instruction, the
number format, the device's kind, the versions that compute, the texts and their order. Texts are embedded in chunks
whose borders are places in the list, so what was interrupted and goes on ends with the bytes that it would have had (on
a CPU with as many threads; on a GPU within rounding). A chunk counts if its digest stands on the disk and fits. Cost of
finding what is kept: reading it once, half a second a gigabyte; memory: one chunk.
"""

import hashlib
import io
import json
import logging
import os
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from embedsmith.model.embedder import Embedder
from embedsmith.model.embedding_model import EmbeddingModel
from embedsmith.model.encoding import ENCODING_VERSION, read_texts
from embedsmith.settings.choices import Side
from embedsmith.support import files
from embedsmith.support.errors import ModelError

log = logging.getLogger(__name__)

CHUNK_TEXTS = 4096
"""Some seconds of a CPU's work, which is what an interruption costs."""
_LIBRARIES = ("embedsmith", "torch", "transformers")
_TYPE = np.dtype("<f4")
_FILE = "vectors.npy"


def keep_vectors(
    texts: Sequence[str],
    *,
    embedder: EmbeddingModel,
    weights: Sequence[str],
    name: str,
    side: Side = Side.DOCUMENT,
    instruction: str | None = None,
    chunk_texts: int = CHUNK_TEXTS,
    cache_folder: Path | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Vectors of K distinct texts, from the cache where they are there; else they are computed and kept.

    Processes that ask for the same vectors at one time wait for the one that computes them.

    Args:
        texts: K of them, at least one, no two the same.
        embedder: any model, as its files have it (not one that was trained since it was loaded).
        weights: of those files, as `fingerprint_model` gives them.
        name: what the user calls it, for messages and for people who look into the cache.
        side: whether the texts are queries or documents.
        instruction: fills `{instruction}` in the prompt; None: the model's own.
        chunk_texts: how many are embedded between two writings.
        cache_folder: None: `vectors` in the user's cache.
        on_progress: called with the number of texts finished, where any are computed.

    Returns:
        (K, D) float32, unit length, read-only, memory-mapped, in the order of the texts.

    Raises:
        RunError: the disk has not enough room for them.
        ModelError: a vector holds something else than finite numbers.
        OSError: the cache cannot be written.
        DataError, ConfigError, TypeError: as `Embedder.encode`.
    """
    texts = read_texts(texts)
    assert texts and len(set(texts)) == len(texts), "at least one text, no text twice"
    about = _describe(
        texts, embedder=embedder, weights=weights, side=side, instruction=instruction, chunk_texts=chunk_texts
    )
    folder = _folder_of(about, cache_folder=cache_folder)
    folder.mkdir(parents=True, exist_ok=True)
    kept = _KeptChunks(folder, shape=(len(texts), embedder.dim), chunk_texts=chunk_texts)
    with FileLock(folder / "lock"):
        num_sound = kept.take_up(name)
        if num_sound < kept.num_chunks:
            kept.check_room(num_sound)
            files.write_json(folder / "about.json", {"model": name, **about})
            for chunk in range(num_sound, kept.num_chunks):
                rows = embedder.encode(
                    texts[kept.rows_of(chunk)], side=side, instruction=instruction, on_progress=on_progress
                )
                check_finite(rows, name=name, first=chunk * chunk_texts)
                kept.write(chunk, rows)
            kept.finish()
    return np.load(kept.path, mmap_mode="r", allow_pickle=False)


def are_kept(
    texts: Sequence[str], *, embedder: EmbeddingModel, weights: Sequence[str], side: Side = Side.DOCUMENT
) -> bool:
    """Whether the cache has what `keep_vectors` returns for these arguments; whether it is sound is not looked at."""
    about = _describe(texts, embedder=embedder, weights=weights, side=side, instruction=None, chunk_texts=CHUNK_TEXTS)
    return (_folder_of(about) / _FILE).exists()


def _describe(
    texts: Sequence[str],
    *,
    embedder: EmbeddingModel,
    weights: Sequence[str],
    side: Side,
    instruction: str | None,
    chunk_texts: int,
) -> dict[str, Any]:
    """All that the vectors depend on."""
    return {
        "embedding": embedder.describe(weights=weights),
        "side": str(side),
        "instruction": instruction,
        "computed_by": describe_computing(embedder),
        "chunk_texts": chunk_texts,
        "num_texts": len(texts),
        "texts": digest_texts(texts),
    }


def _folder_of(about: dict[str, Any], *, cache_folder: Path | None = None) -> Path:
    key = _digest(json.dumps(about, sort_keys=True).encode())[:32]
    return (cache_folder or files.cache_root() / "vectors") / key


class _KeptChunks:
    """The rows of a folder: `vectors.npy`, or `vectors.npy.part` as long as some are missing, and `chunks.txt`.

    Args:
        folder: of one key.
        shape: (K, D).
        chunk_texts: rows of a chunk; the last one may have fewer.
    """

    def __init__(self, folder: Path, *, shape: tuple[int, int], chunk_texts: int) -> None:
        self.path = folder / _FILE
        self._part = folder / f"{_FILE}.part"
        self._digests = folder / "chunks.txt"
        self._chunk_texts = chunk_texts
        self._num_rows, dim = shape
        self._row_bytes = dim * _TYPE.itemsize
        self._header = _npy_header(shape)
        self.num_chunks = -(-self._num_rows // chunk_texts)

    def rows_of(self, chunk: int) -> slice:
        """The rows of a chunk."""
        return slice(chunk * self._chunk_texts, min((chunk + 1) * self._chunk_texts, self._num_rows))

    def take_up(self, name: str) -> int:
        """How many chunks, from the first on, are there and sound; what is not is said, and no longer counts."""
        was_finished = self.path.exists()
        path = self.path if was_finished else self._part
        digests = self._digests.read_text(encoding="ascii", errors="replace").split() if self._digests.exists() else []
        num_sound = self._count_sound(path, digests[: self.num_chunks]) if path.exists() else 0
        is_damaged = num_sound < (self.num_chunks if was_finished else len(digests))
        if is_damaged:
            log.warning(
                "The vectors kept in %s are damaged; those behind the first %d of %d are computed anew.",
                path,
                min(num_sound * self._chunk_texts, self._num_rows),
                self._num_rows,
            )
        elif num_sound:
            which = f"{self._num_rows:,} texts are"
            if not was_finished:
                which = (
                    f"{num_sound * self._chunk_texts:,} of {self._num_rows:,} texts, which were computed before, are"
                )
            log.info("%s: the vectors of %s kept in %s.", name, which, self.path.parent)
        if was_finished and is_damaged:
            self.path.replace(self._part)
        if num_sound < self.num_chunks:
            files.write_text(self._digests, "".join(f"{digest}\n" for digest in digests[:num_sound]))
        return num_sound

    def _count_sound(self, path: Path, digests: Sequence[str]) -> int:
        with path.open("rb") as file:
            if file.read(len(self._header)) != self._header:
                return 0
            for chunk, digest in enumerate(digests):
                if _digest(file.read(self._num_bytes(chunk))) != digest:
                    return chunk
            if len(digests) == self.num_chunks and file.read(1):  # something stands behind
                return 0
        return len(digests)

    def check_room(self, num_sound: int) -> None:
        """Raise RunError where the disk has not enough room for the other chunks."""
        files.check_room(
            self.path.parent,
            size_bytes=sum(map(self._num_bytes, range(num_sound, self.num_chunks))),
            what="The vectors",
            advice="name another folder for the cache with EMBEDSMITH_CACHE",
        )

    def _num_bytes(self, chunk: int) -> int:
        rows = self.rows_of(chunk)
        return (rows.stop - rows.start) * self._row_bytes

    def write(self, chunk: int, rows: np.ndarray) -> None:
        """Put the rows of a chunk in their place; once they are on the disk, their digest."""
        data = np.ascontiguousarray(rows, dtype=_TYPE).tobytes()
        # Never cut short first: somebody may still have a damaged file mapped.
        with self._part.open("r+b" if self._part.exists() else "w+b") as file:
            file.write(self._header)
            file.seek(len(self._header) + chunk * self._chunk_texts * self._row_bytes)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        with self._digests.open("a", encoding="ascii") as file:
            file.write(f"{_digest(data)}\n")

    def finish(self) -> None:
        """All chunks are there: the file gets its name."""
        os.truncate(self._part, len(self._header) + self._num_rows * self._row_bytes)
        self._part.replace(self.path)


def describe_computing(embedder: EmbeddingModel) -> dict[str, Any]:
    """What besides model and settings the last digits of a vector depend on, or all of them after a change of ours."""
    path = embedder.path if isinstance(embedder, Embedder) else None
    libraries = _LIBRARIES if embedder.run_by is None else (*_LIBRARIES, embedder.run_by)
    return {
        "version": ENCODING_VERSION,
        "libraries": {name: version(name) for name in libraries},
        "path": path,
        "precision": str(embedder.transformer.dtype),
        "device": embedder.transformer.device.type,
    }


def check_finite(rows: np.ndarray, *, name: str, first: int) -> None:
    """Raise ModelError where a vector holds something else than finite numbers; `first` texts came before them."""
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise ModelError(
            f"{name}: the vector of text {first + bad[0] + 1:,} ({len(bad)} of {len(rows)} around it) holds something "
            "else than finite numbers.\nTry the precision fp32, and `embedsmith doctor`."
        )


def _npy_header(shape: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": _TYPE.str, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def digest_texts(texts: Sequence[str]) -> str:
    """SHA-256 of texts in their order."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode()
        digest.update(b"%d\0" % len(data) + data)
    return digest.hexdigest()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
