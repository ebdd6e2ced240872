"""encode: texts of files and MODEL -> their vectors in a .npy file; beside int8 and uint8, the ranges of the steps."""

import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from embedsmith.data.candidates import TEXT, read_corpus
from embedsmith.support import files
from embedsmith.support.display import encoding_progress
from embedsmith.verbs.vector_maker import VectorMaker, VectorOptions

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
    options: VectorOptions | None = None,
    console: Console | None = None,
) -> Written:
    """Embed the texts of files, in their order.

    Args:
        model: any MODEL, or a sentence-transformers encoder.
        sources: files, globs, or folders in BEIR's layout.
        out: .npy file to write.
        column: of the text, in the files of `sources` and of those to calibrate on.
        options: how the vectors are asked for; without ranges and calibration, int8 and uint8 are calibrated on the
            texts themselves, which is said.
        console: where progress goes; None: nowhere.

    Raises:
        ConfigError: ranges or calibration are given and not used, or the ranges are of other vectors.
        DataError, ModelError, MissingExtraError: by their names.
    """
    options = options or VectorOptions()
    known = options.read_ranges()
    texts = read_corpus(sources, column=column)
    calibration_texts = read_corpus(options.calibration, column=column) if options.calibration else []
    maker = VectorMaker.load(model, options=options, ranges=known)
    with encoding_progress(console or Console(quiet=True)) as (start, advance):
        used = known
        if calibration_texts:
            start("calibration")
            used = maker.ranges_of(maker.embed(calibration_texts, on_progress=advance))
        start(out.name)
        vectors = maker.embed(texts, on_progress=advance)
    if options.in_steps and used is None:
        used = maker.ranges_of(vectors)
        log.warning(
            "The %s vectors are calibrated on themselves. Embed queries and later texts with --ranges %s.",
            options.vector_precision,
            ranges_path(out),
        )
    rows = maker.in_format(vectors, ranges=used)
    if used is not None and known is None:
        used.save(ranges_path(out))
    _write(out, rows)
    return Written(
        shape=rows.shape,
        size_bytes=rows.nbytes,
        dim=maker.width,
        num_cut=maker.count_cut(texts),
        ranges=None if used is None else options.ranges or ranges_path(out),
    )


def _write(path: Path, rows: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, rows, allow_pickle=False)
    files.write_bytes(path, buffer.getvalue())
