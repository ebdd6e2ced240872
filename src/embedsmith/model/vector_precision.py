"""Unit vectors in float32 -> int8, uint8, or one bit a dimension: a quarter or a thirty-second of the bytes.

    float32 (K, D) --ranges--> int8, uint8 (K, D)        256 steps between the least and the largest value seen
    float32 (K, D) ----------> binary, ubinary (K, D/8)  whether a value is above 0, eight to a byte

Names, steps and bits are those of sentence-transformers' `quantize_embeddings`, byte for byte. A query and a corpus are
comparable only under the same ranges, so these are taken once, of vectors of texts like those to come, and kept.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedsmith.settings.choices import VectorPrecision
from embedsmith.support import files
from embedsmith.support.errors import ConfigError, DataError

log = logging.getLogger(__name__)

IN_STEPS = (VectorPrecision.INT8, VectorPrecision.UINT8)
"""Those that need ranges."""
_NUM_STEPS = 255
_OFFSET = 128
_USUAL_VECTORS = 100
"""Fewer say little of what values are to come; sentence-transformers warns below this number."""
_NAMES = ("model", "embedding", "num_vectors", "minimum", "maximum")


@dataclass(frozen=True, eq=False)
class Ranges:
    """Between what values the steps of int8 and uint8 lie, by dimension.

    Attributes:
        bounds: least and largest value, (2, D) float32: what sentence-transformers takes as `ranges`.
        num_vectors: how many they are of.
        model: what the user calls the model.
        embedding: all that its vectors depend on, as `describe` gives it; empty: nobody has said it.
    """

    bounds: np.ndarray
    num_vectors: int
    model: str = ""
    embedding: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, vectors: np.ndarray, *, model: str = "", embedding: Mapping[str, Any] | None = None) -> "Ranges":
        """Those of K vectors, (K, D) float32.

        Raises:
            ConfigError: there are fewer than two, so a range would be a point.
        """
        if vectors.ndim != 2 or len(vectors) < 2:
            raise ConfigError(
                "The ranges of int8 and uint8 vectors cannot be taken of a single vector.\n"
                "Take them of the vectors of some hundred texts, and give them as ranges."
            )
        if len(vectors) < _USUAL_VECTORS:
            log.warning("Ranges of only %d vectors: others may lie outside them, and are cut to them.", len(vectors))
        bounds = np.stack([vectors.min(axis=0), vectors.max(axis=0)]).astype(np.float32)
        return cls(bounds, num_vectors=len(vectors), model=model, embedding=embedding)

    @property
    def dim(self) -> int:
        """Width D of the vectors."""
        return int(self.bounds.shape[1])

    def save(self, path: Path | str) -> None:
        """Write them as JSON, atomically.

        Raises:
            OSError: as `files.write_bytes`.
        """
        minimum, maximum = self.bounds.tolist()
        values = (self.model, self.embedding, self.num_vectors, minimum, maximum)
        files.write_text(path, json.dumps(dict(zip(_NAMES, values, strict=True)), ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, path: Path | str) -> "Ranges":
        """Inverse of `save`.

        Raises:
            DataError: the file is missing or holds no ranges.
        """
        try:
            values = json.loads(files.read_text(Path(path)))
            bounds = np.array([values["minimum"], values["maximum"]], dtype=np.float32)
            if bounds.ndim != 2 or not bounds.size or not np.isfinite(bounds).all() or (bounds[0] > bounds[1]).any():
                raise ValueError("minimum and maximum are no finite numbers of one width, the lesser ones first")
            return cls(bounds, int(values["num_vectors"]), str(values["model"]), values["embedding"])
        except OSError as error:
            raise DataError(
                f"The ranges {path} cannot be read: {error.strerror or error}.\n"
                "Name a file that `embedsmith encode` wrote."
            ) from None
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise DataError(
                f"{path} holds no ranges of vectors ({type(error).__name__}: {error}).\n"
                "Write them with `embedsmith encode`, in Python with Ranges.of(vectors).save(path)."
            ) from None

    def check_embedding(self, embedding: Mapping[str, Any], *, where: str) -> None:
        """Raise ConfigError where vectors that depend on this are others than those that the ranges are of.

        Args:
            embedding: as `describe` gives it.
            where: what named the ranges, for the message.
        """
        embedding = json.loads(json.dumps(embedding))  # as the file has it
        own = self.embedding or embedding
        if others := [name for name in embedding if own.get(name) != embedding[name]]:
            raise ConfigError(
                f"{where} holds ranges of other vectors than these: of {self.model or 'a model'}, with another "
                f"{', '.join(others)}.\nTake the ranges of this model's vectors, embedded as these are."
            )


def check_vector_precision(
    vector_precision: VectorPrecision | str, *, ranges: Ranges | None, dim: int
) -> VectorPrecision:
    """The number format by its name, when vectors of width `dim` can be given out in it.

    Raises:
        ConfigError: there is no such format, or the ranges have no use or another width.
    """
    if vector_precision not in list(VectorPrecision):
        raise ConfigError(
            f"The precision of vectors is {str(vector_precision)!r}; it must be one of {', '.join(VectorPrecision)}."
        )
    precision = VectorPrecision(vector_precision)
    if ranges is None:
        return precision
    if precision not in IN_STEPS:
        raise ConfigError(f"{precision} vectors need no ranges.\nLeave them away, or ask for int8 or uint8.")
    if ranges.dim != dim:
        raise ConfigError(f"The ranges are of {ranges.dim} dimensions, and these vectors have {dim}.")
    return precision


def quantize_vectors(
    vectors: np.ndarray, *, vector_precision: VectorPrecision, ranges: Ranges | None = None
) -> np.ndarray:
    """K vectors (K, D) float32 in another number format.

    Args:
        vectors: unit length, or any.
        vector_precision: see `VectorPrecision`.
        ranges: of int8 and uint8; None: those of these very vectors, which is said.

    Returns:
        float32, int8 or uint8 (K, D); for `binary` int8 and for `ubinary` uint8 (K, D / 8 rounded up), the first
        dimension in the highest bit of the first byte. A value outside its range is the range's end.

    Raises:
        ConfigError: as `Ranges.of`.

    Reference: sentence-transformers 6.2, `quantize_embeddings`.
    """
    match vector_precision:
        case VectorPrecision.FLOAT32:
            return vectors
        case VectorPrecision.UBINARY:
            return np.packbits(vectors > 0, axis=-1)
        case VectorPrecision.BINARY:
            return (np.packbits(vectors > 0, axis=-1).astype(np.int16) - _OFFSET).astype(np.int8)
    if not len(vectors):
        return np.empty(vectors.shape, dtype=vector_precision)
    if ranges is None:
        ranges = Ranges.of(vectors)
        log.warning(
            "The %s vectors of these %d texts are calibrated on themselves: texts that are embedded apart from them, "
            "queries too, get other steps. Give ranges to have them alike.",
            vector_precision,
            len(vectors),
        )
    lowest, highest = ranges.bounds
    steps = (highest - lowest) / _NUM_STEPS
    numbers = np.clip(np.floor((vectors - lowest) / np.where(steps == 0, 1, steps)), 0, _NUM_STEPS)
    return (numbers - _OFFSET if vector_precision is VectorPrecision.INT8 else numbers).astype(vector_precision)


def as_numbers(vectors: np.ndarray, *, vector_precision: VectorPrecision, dim: int) -> np.ndarray:
    """K vectors in their number format -> (K, D) float32 whose cosine orders them as a search among them does.

    Of int8 and uint8 the numbers as they are, of bits -1 and 1: there the cosine is 1 less two D-ths of the number of
    bits that differ.

    Args:
        vectors: as `quantize_vectors` gives them.
        vector_precision: their format.
        dim: D.
    """
    if vector_precision is VectorPrecision.BINARY:
        vectors = (vectors.astype(np.int16) + _OFFSET).astype(np.uint8)
    if vector_precision in (VectorPrecision.BINARY, VectorPrecision.UBINARY):
        return 2 * np.unpackbits(vectors, axis=-1, count=dim).astype(np.float32) - 1
    return vectors.astype(np.float32)
