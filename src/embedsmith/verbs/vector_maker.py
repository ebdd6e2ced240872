"""MODEL and what is asked of it -> what makes the vectors that go into files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedsmith.model.embedding_model import LoadedModel, load_embedding_model
from embedsmith.model.kept_vectors import describe_computing
from embedsmith.model.loading.fingerprint import fingerprint_model
from embedsmith.model.vector_precision import IN_STEPS, Ranges, check_vector_precision, quantize_vectors
from embedsmith.model.widths import check_dim
from embedsmith.settings.choices import Precision, Side, StoredPrecision, VectorPrecision
from embedsmith.support.errors import ConfigError


@dataclass(frozen=True)
class VectorOptions:
    """How vectors are asked for.

    Attributes:
        side: whether the texts are queries or documents.
        prompt: template or known name, in the place of the model's own.
        instruction: fills `{instruction}` in the prompt.
        dim: keep the first dimensions; None: all.
        vector_precision: number format of the vectors in a file.
        ranges: file with those of int8 and uint8, as `encode` writes it.
        calibration: files of texts that they are taken of, embedded as these are.
        base_model, precision, device: as `load_embedding_model`.
    """

    side: Side = Side.DOCUMENT
    prompt: str | None = None
    instruction: str | None = None
    dim: int | None = None
    vector_precision: StoredPrecision = StoredPrecision.FLOAT32
    ranges: Path | None = None
    calibration: Sequence[str] = ()
    base_model: str | None = None
    precision: Precision = Precision.AUTO
    device: str | None = None

    @property
    def in_steps(self) -> bool:
        """Whether the number format needs ranges."""
        return self.vector_precision in IN_STEPS

    def read_ranges(self) -> Ranges | None:
        """The ranges that are given.

        Raises:
            ConfigError: ranges or texts to calibrate on are given and not used.
            DataError: as `Ranges.read`.
        """
        if self.calibration and (self.ranges is not None or not self.in_steps):
            why = "the ranges are given already" if self.in_steps else f"{self.vector_precision} vectors have no ranges"
            raise ConfigError(f"Texts are given to calibrate on, but {why}.\nLeave one of them away.")
        if self.ranges is not None and not self.in_steps:
            raise ConfigError(
                f"{self.vector_precision} vectors need no ranges.\nLeave them away, or ask for int8 or uint8."
            )
        return Ranges.read(self.ranges) if self.ranges is not None else None


@dataclass(frozen=True)
class VectorKind:
    """What vectors are, wherever the model is that makes them.

    Attributes:
        model: what the user calls it.
        options: what is asked.
        embedding: all that its vectors depend on.
        width: dimensions D of a vector.
        computed_by: what besides may change their last digits.
    """

    model: str
    options: VectorOptions
    embedding: dict[str, Any]
    width: int
    computed_by: dict[str, Any]

    @property
    def vector_bytes(self) -> int:
        """Bytes of a vector in its number format."""
        stored = self.options.vector_precision
        if stored in (StoredPrecision.BINARY, StoredPrecision.UBINARY):
            return -(-self.width // 8)
        return self.width * np.dtype(stored.value).itemsize

    def check_ranges(self, ranges: Ranges | None) -> None:
        """Raise ConfigError where ranges that are given are of other vectors."""
        if ranges is not None:
            check_vector_precision(str(self.options.vector_precision), ranges=ranges, dim=self.width)
            ranges.check_embedding(self.embedding, where=str(self.options.ranges))

    def ranges_of(self, vectors: np.ndarray) -> Ranges:
        """Those of such vectors; errors as `Ranges.of`."""
        return Ranges.of(vectors, model=self.model, embedding=self.embedding)

    def in_format(self, vectors: np.ndarray, *, ranges: Ranges | None) -> np.ndarray:
        """(K, D) float32 -> as a file holds them: float32, float16, int8 or uint8 (K, D), or bits (K, D / 8)."""
        stored = self.options.vector_precision
        if stored is StoredPrecision.FLOAT16:
            return vectors.astype(np.float16)
        return quantize_vectors(vectors, vector_precision=VectorPrecision(stored), ranges=ranges)


@dataclass(frozen=True)
class VectorMaker(VectorKind):
    """A loaded model, and how its vectors are asked for.

    Attributes:
        embedder: the model.
    """

    embedder: LoadedModel

    @classmethod
    def load(cls, model: str, *, options: VectorOptions, ranges: Ranges | None) -> "VectorMaker":
        """Load the model; `ranges` are those that the options name.

        Raises:
            ConfigError: it has not so many dimensions, or the ranges are of other vectors.
            ModelError, MissingExtraError: as `load_embedding_model`.
        """
        embedder = load_embedding_model(
            model,
            prompt=options.prompt,
            instruction=options.instruction,
            base_model=options.base_model,
            precision=options.precision,
            device=options.device,
        )
        if options.dim is not None:
            check_dim(options.dim, width=embedder.dim)
        weights = fingerprint_model(model, base_model=options.base_model)
        embedding = embedder.describe(weights=weights, dim=options.dim)
        width = options.dim or embedder.dim
        maker = cls(model, options, embedding, width, describe_computing(embedder), embedder=embedder)
        maker.check_ranges(ranges)
        return maker

    def embed(self, texts: Sequence[str], *, on_progress: Callable[[int], None] | None = None) -> np.ndarray:
        """Vectors of K texts, (K, D) float32; errors as `Embedder.encode`."""
        options = self.options
        return self.embedder.encode(
            texts, side=options.side, instruction=options.instruction, dim=options.dim, on_progress=on_progress
        )

    def count_cut(self, texts: Sequence[str]) -> int:
        """How many texts are longer than the model takes."""
        return self.embedder.count_cut(texts, side=self.options.side, instruction=self.options.instruction)
