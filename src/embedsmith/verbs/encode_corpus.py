"""encode into a folder: texts of any size, of files and hub datasets, and MODEL -> Parquet shards and a manifest.

What was killed goes on when it is given again: shards that are whole are kept. Memory: model, the texts and vectors
of one shard, and the texts of the next.
"""

import logging
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console

from embedsmith.data.candidates import TEXT
from embedsmith.data.corpora import Corpus, survey_corpus
from embedsmith.model.kept_vectors import check_finite, digest_texts
from embedsmith.model.vector_precision import Ranges
from embedsmith.settings.choices import EngineKind
from embedsmith.support import files
from embedsmith.support.display import corpus_progress
from embedsmith.support.errors import ConfigError, Interrupted
from embedsmith.support.lock import only_one
from embedsmith.verbs.ray_engine import RayEngine
from embedsmith.verbs.shard_engine import EmbeddedShard, LocalEngine, ShardEngine, TextShard
from embedsmith.verbs.vector_maker import VectorKind, VectorMaker, VectorOptions
from embedsmith.verbs.vector_shards import RANGES_FILE, VectorShards, check_folder

log = logging.getLogger(__name__)

SHARD_ROWS = 16_384
"""A CPU's minutes, a GPU's seconds: what a kill costs. 38 MB of 576 dimensions in float32."""


@dataclass(frozen=True)
class WrittenShards:
    """What a folder holds.

    Attributes:
        num_texts: vectors, in all shards.
        num_shards: files of them.
        size_bytes: of these.
        dim: dimensions of a vector.
        num_empty: rows without a text, which were left out.
        num_cut: texts that were longer than the model takes.
        num_found: vectors that were there before.
    """

    num_texts: int
    num_shards: int
    size_bytes: int
    dim: int
    num_empty: int
    num_cut: int
    num_found: int


def encode_corpus(
    model: str,
    *,
    sources: Sequence[str],
    out: Path,
    column: str | None = None,
    id_column: str | None = None,
    shard_rows: int = SHARD_ROWS,
    keep_text: bool = True,
    options: VectorOptions | None = None,
    engine: EngineKind = EngineKind.LOCAL,
    num_workers: int | None = None,
    console: Console | None = None,
) -> WrittenShards:
    """Embed the texts of files, in their order, shard by shard; what is there already is kept.

    Args:
        model: any MODEL, or a sentence-transformers encoder.
        sources: files, globs, folders in BEIR's layout, or hub datasets.
        out: folder, new, empty or begun by the same call.
        column: of the text; None: in each file the one that has a usual name.
        id_column: of ids that are kept; None: file and row alone tell where a vector is from.
        shard_rows: of each file but the last.
        keep_text: write the texts beside their vectors, for people who search.
        options: how the vectors are asked for; without ranges and calibration, int8 and uint8 are calibrated on the
            first shard's texts, which is said.
        engine: where they are computed; wherever it is, the files are the same.
        num_workers: of Ray; None: one for each GPU, or else each machine.
        console: where progress goes; None: nowhere.

    Raises:
        ConfigError: ranges or calibration are given and not used, or the ranges are of other vectors.
        RunError: `out` holds something else or was begun with something else, another process works there, its disk
            has no room for the vectors, or Ray does not answer or loses its workers.
        Interrupted: by Ctrl-C; what is whole is kept.
        DataError, ModelError, MissingExtraError: by their names.
    """
    options = options or VectorOptions()
    console = console or Console(quiet=True)
    check_folder(out)
    known = options.read_ranges()
    embeds = _start(engine, model, options=options, num_workers=num_workers)
    try:
        embeds.kind.check_ranges(known)
        return _encode(
            embeds,
            sources=sources,
            out=out,
            column=column,
            id_column=id_column,
            shard_rows=shard_rows,
            keep_text=keep_text,
            ranges=known,
            console=console,
        )
    finally:
        embeds.close()


def _start(kind: EngineKind, model: str, *, options: VectorOptions, num_workers: int | None) -> ShardEngine:
    if kind is EngineKind.RAY:
        return RayEngine(model, options=options, num_workers=num_workers)
    if num_workers is not None:
        raise ConfigError(
            "Workers are Ray's, and this machine alone has none.\nLeave --workers away, or add --engine ray."
        )
    return LocalEngine(VectorMaker.load(model, options=options, ranges=None))


def _encode(
    engine: ShardEngine,
    *,
    sources: Sequence[str],
    out: Path,
    column: str | None,
    id_column: str | None,
    shard_rows: int,
    keep_text: bool,
    ranges: Ranges | None,
    console: Console,
) -> WrittenShards:
    """See `encode_corpus`."""
    kind = engine.kind
    options = kind.options
    console.print("reading the texts ...")
    corpus = survey_corpus(sources, column=column, id_column=id_column)
    to_calibrate = survey_corpus(options.calibration, column=column).texts() if options.calibration else ()
    calibration = [one.text for one in to_calibrate]
    if column is None and (guessed := {file.column for file in corpus.files} - {TEXT}):
        log.info("The texts are in the column %s.", " or ".join(sorted(guessed)))
    made_from, computed_by = _describe(kind, corpus=corpus)
    made_from |= {
        "shard_rows": shard_rows,
        "keep_text": keep_text,
        "ranges": files.read_digest(options.ranges) if options.ranges else None,
        "calibration": digest_texts(calibration) if calibration else None,
    }
    facts = {"model": kind.model, "dim": kind.width, "num_empty": corpus.num_empty, "computed_by": computed_by}
    with only_one(out, what="encode"):
        shards = VectorShards(out, num_texts=corpus.num_texts, shard_rows=shard_rows, made_from=made_from, facts=facts)
        shards.take_up()
        num_found = shards.num_done
        if num_found:
            log.info("%s: %d of %d vectors are there already.", out, num_found, corpus.num_texts)
        if num_found < corpus.num_texts:
            _make_shards(shards, corpus=corpus, engine=engine, ranges=ranges, calibration=calibration, console=console)
        shards.finish()
    return WrittenShards(
        num_texts=corpus.num_texts,
        num_shards=shards.num_shards,
        size_bytes=shards.size_bytes,
        dim=kind.width,
        num_empty=corpus.num_empty,
        num_cut=shards.num_cut,
        num_found=num_found,
    )


def _describe(kind: VectorKind, *, corpus: Corpus) -> tuple[dict[str, Any], dict[str, Any]]:
    """All that the vectors depend on, and what besides may change their last digits."""
    computed_by = dict(kind.computed_by)
    made_from = {
        "embedding": kind.embedding,
        "side": str(kind.options.side),
        "instruction": kind.options.instruction,
        "precision": computed_by.pop("precision"),
        "encoding_version": computed_by.pop("version"),
        "vector_precision": str(kind.options.vector_precision),
        "id_column": corpus.id_column,
        "inputs": [file.describe() for file in corpus.files],
    }
    return made_from, computed_by


def _make_shards(
    shards: VectorShards,
    *,
    corpus: Corpus,
    engine: ShardEngine,
    ranges: Ranges | None,
    calibration: Sequence[str],
    console: Console,
) -> None:
    """Those that are missing."""
    kind, num_left = engine.kind, corpus.num_texts - shards.num_done
    files.check_room(
        shards.folder,
        size_bytes=num_left * kind.vector_bytes,
        what="The vectors",
        advice="choose another --out, or fewer bytes by --vector-precision or --dim",
    )
    if kind.options.in_steps and shards.read_ranges() is None and (ranges is not None or calibration):
        shards.keep_ranges(ranges or kind.ranges_of(engine.embed(calibration)))
    try:
        with corpus_progress(console, num_texts=corpus.num_texts, num_done=shards.num_done) as advance:
            for made in engine.embed_shards(_missing(shards, corpus=corpus), on_progress=advance):
                _write(shards, made, kind=kind)
                del made  # or its texts stay while the next are computed
    except KeyboardInterrupt:
        done = f"{shards.num_done:,} of {corpus.num_texts:,} vectors are in {shards.folder}."
        raise Interrupted(f"Stopped; {done}", folder=str(shards.folder), signal=signal.SIGINT) from None


def _missing(shards: VectorShards, *, corpus: Corpus) -> Iterator[TextShard]:
    """The texts of the shards that are not there; the others are read over."""
    stream = corpus.texts()
    is_there = [shards.has(number) for number in range(shards.num_shards)]
    for number in range(shards.num_shards):
        coming = islice(stream, shards.shard_rows)
        if is_there[number]:
            deque(coming, maxlen=0)
        else:
            yield TextShard(number, list(coming))
    next(stream, None)  # a look at whether the last file is still the same


def _write(shards: VectorShards, made: EmbeddedShard, *, kind: VectorKind) -> None:
    number = made.shard.number
    check_finite(made.vectors, name=kind.model, first=number * shards.shard_rows)
    ranges = shards.read_ranges()
    if kind.options.in_steps and ranges is None:
        ranges = kind.ranges_of(made.vectors)
        shards.keep_ranges(ranges)
        log.warning(
            "The %s vectors are calibrated on the first shard's. Embed queries and later texts with --ranges %s.",
            kind.options.vector_precision,
            shards.folder / RANGES_FILE,
        )
    shards.write(number, made.shard.rows, kind.in_format(made.vectors, ranges=ranges), num_cut=made.num_cut)
