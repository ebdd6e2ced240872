"""encode: texts of files and MODEL -> their vectors in a .npy file; beside int8 and uint8, the ranges of the steps."""

import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from embedsmith.data.candidates import TEXT, read_corpus
from embedsmith.model.embedding_model import load_embedding_model
from embedsmith.model.loading.fingerprint import fingerprint_model
from embedsmith.model.vector_precision import IN_STEPS, Ranges, check_vector_precision, quantize_vectors
from embedsmith.model.widths import check_dim
from embedsmith.settings.config import Precision, Side, VectorPrecision
from embedsmith.support import files
from embedsmith.support.display import encoding_progress
from embedsmith.support.errors import ConfigError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        shape: of the vectors, (K, bytes or numbers a vector).
        size_bytes: of their numbers.
        dim: dimensions of a vector.
        num_cut: texts that were longer than the model takes.
        ranges: where those of int8 and uint8 stand; None: there are none.
    """

    shape: tuple[int, ...]
    size_bytes: int
    dim: int
    num_cut: int
    ranges: Path | None


def ranges_path(out: Path) -> Path:
    """Where the ranges of `vectors.npy` are written."""
    return out.with_name(out.name.removesuffix(".npy") + ".ranges.json")


def encode(
    model: str,
    *,
    sources: Sequence[str],
    out: Path,
    column: str = TEXT,
    side: Side = Side.DOCUMENT,
    prompt: str | None = None,
    instruction: str | None = None,
    dim: int | None = None,
    vector_precision: VectorPrecision = VectorPrecision.FLOAT32,
    ranges: Path | None = None,
    calibration: Sequence[str] = (),
    base_model: str | None = None,
    precision: Precision = Precision.AUTO,
    device: str | None = None,
    console: Console | None = None,
) -> Written:
    """Embed the texts of files, in their order.

    Args:
        model: any MODEL, or a sentence-transformers encoder.
        sources: files, globs, or folders in BEIR's layout.
        out: .npy file to write.
        column: of the text, in the files of `sources` and `calibration`.
        side: whether the texts are queries or documents.
        prompt: template or known name, in the place of the model's own.
        instruction: fills `{instruction}` in the prompt.
        dim: keep the first dimensions.
        vector_precision: number format of the vectors.
        ranges: file with those of int8 and uint8, as this writes it.
        calibration: files of texts that they are taken of, embedded as these are; without either, of the texts
            themselves, which is said.
        base_model, precision, device: as `load_embedding_model`.
        console: where progress goes; None: nowhere.

    Raises:
        ConfigError: ranges or calibration are given and not used, or the ranges are of other vectors.
        DataError, ModelError, MissingExtraError: by their names.
    """
    in_steps = vector_precision in IN_STEPS
    if calibration and (ranges is not None or not in_steps):
        reason = "the ranges are given already" if in_steps else f"{vector_precision} vectors have no ranges"
        raise ConfigError(f"Texts are given to calibrate on, but {reason}.\nLeave one of them away.")
    known = Ranges.read(ranges) if ranges is not None else None
    texts = read_corpus(sources, column=column)
    calibration_texts = read_corpus(calibration, column=column) if calibration else []
    embedder = load_embedding_model(
        model, prompt=prompt, instruction=instruction, base_model=base_model, precision=precision, device=device
    )
    if dim is not None:
        check_dim(dim, width=embedder.dim)
    width = dim or embedder.dim
    check_vector_precision(vector_precision, ranges=known, dim=width)
    embedding = embedder.describe(weights=fingerprint_model(model, base_model=base_model), dim=dim)
    if known is not None:
        known.check_embedding(embedding, where=str(ranges))
    with encoding_progress(console or Console(quiet=True)) as (start, advance):

        def embed(those: list[str], name: str) -> np.ndarray:
            start(name)
            return embedder.encode(those, side=side, instruction=instruction, dim=dim, on_progress=advance)

        used = known
        if calibration_texts:
            used = Ranges.of(embed(calibration_texts, "calibration"), model=model, embedding=embedding)
        vectors = embed(texts, out.name)
    if in_steps and used is None:
        used = Ranges.of(vectors, model=model, embedding=embedding)
        log.warning(
            "The %s vectors are calibrated on themselves. Embed queries and later texts with --ranges %s.",
            vector_precision,
            ranges_path(out),
        )
    rows = quantize_vectors(vectors, vector_precision=vector_precision, ranges=used)
    if used is not None and known is None:
        used.save(ranges_path(out))
    _write(out, rows)
    return Written(
        shape=rows.shape,
        size_bytes=rows.nbytes,
        dim=width,
        num_cut=embedder.count_cut(texts, side=side, instruction=instruction),
        ranges=None if used is None else ranges or ranges_path(out),
    )


def _write(path: Path, rows: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, rows, allow_pickle=False)
    files.write_bytes(path, buffer.getvalue())
