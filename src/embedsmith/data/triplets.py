"""Sources -> TripletTable: validated once, kept in an Arrow file, memory-mapped from there.

Rows are triplets, pairs, or scored pairs; one run has one kind, and the columns of its files say which.

A source is a file, a glob, `sample`, or a hub dataset id (`owner/name` or `owner/name:config`). Invariant: a table
exists only if every row of every source is sound. Memory: one record batch while converting, mapped pages after.
"""

import hashlib
import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from embedsmith.data.columns import (
    TRAIN_FIELDS,
    TRAIN_PAIR_FIELDS,
    Fields,
    read_fields,
    row_faults,
    select_fields,
)
from embedsmith.data.readers import Faults, Row, expand_sources, is_data_file
from embedsmith.data.sample import SAMPLE, sample_triplets_path
from embedsmith.data.table import INSTRUCTION, IS_SYMMETRIC, TEXT_COLUMNS, TripletTable
from embedsmith.settings.config import TrainSource
from embedsmith.support import files
from embedsmith.support.errors import DataError, MissingExtraError

_FORMAT_VERSION = 2
_BATCH_ROWS = 8192
_PAIR_NAMES = ("sentence1", "sentence2", "score")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


def load_triplets(
    sources: Sequence[str | TrainSource],
    *,
    columns: Mapping[str, str] | None = None,
    cache_folder: Path | None = None,
) -> TripletTable:
    """Load triplets, pairs or scored pairs from files, globs, hub datasets or the built-in sample.

    Args:
        sources: see the file's docstring.
        columns: {"anchor": ..., "positive": ..., "negative": ..., "instruction": ...} where the names are unusual, or
            {"sentence1": ..., "sentence2": ..., "score": ...}.
        cache_folder: where the Arrow file is kept; None: in the user's cache.

    Raises:
        DataError: any source is missing, has faulty rows or rows of another kind; all are named. All scores are equal.
        MissingExtraError: a hub dataset is asked for without the `datasets` package.
    """
    faults = Faults()
    is_scored = bool(columns) and set(columns or {}) <= set(_PAIR_NAMES)
    unknown = [] if is_scored else sorted(set(columns or {}) - {*TEXT_COLUMNS, INSTRUCTION})
    if unknown:
        known = f"{', '.join((*TEXT_COLUMNS, INSTRUCTION))}, or {', '.join(_PAIR_NAMES)}"
        faults.add("data.columns", None, f"names {', '.join(unknown)}; it may name {known}")
    origins = [origin for source in sources for origin in _origins(source, faults=faults)]
    faults.raise_if_any(what="training data")

    folder = cache_folder or files.cache_root() / "triplets"
    target = folder / f"{_fingerprint(origins, columns)}.arrow"
    # A hub dataset may change under its name: it is read anew each time (its own cache makes that cheap).
    if any(isinstance(origin.place, str) for origin in origins) or not target.exists():
        layout = TRAIN_PAIR_FIELDS if is_scored else TRAIN_FIELDS
        _convert(_all_rows(origins, layout=layout, columns=columns, faults=faults), target, faults=faults)
    table = TripletTable(pa.ipc.open_file(pa.memory_map(str(target))).read_all())
    if table.has_scores and not table.scores_differ():
        names = ", ".join(str(origin.place) for origin in origins)
        raise DataError(f"All scores in {names} are equal: they order nothing, so nothing can be learned.")
    return table


@dataclass(frozen=True)
class _Origin:
    """A file, or a hub dataset by its id, and what its source says of all its rows."""

    place: Path | str
    instruction: str | None
    is_symmetric: bool


@dataclass(frozen=True)
class _Row:
    """One triplet, pair or scored pair on its way into the table."""

    texts: tuple[str, ...]
    instruction: str | None = None
    is_symmetric: bool = False
    score: float | None = None


def _origins(source: str | TrainSource, *, faults: Faults) -> list[_Origin]:
    source = TrainSource(files=source) if isinstance(source, str) else source
    name = str(sample_triplets_path()) if source.files == SAMPLE else source.files
    places: Sequence[Path | str] = [name] if is_hub_id(name) else expand_sources([name], faults=faults)
    return [_Origin(place, source.instruction, source.symmetric) for place in places]


def is_hub_id(source: str) -> bool:
    """Whether a source is a hub dataset, and no file, glob or `sample`."""
    is_local = Path(source).exists() or is_data_file(source) or any(mark in source for mark in "*?[")
    return not is_local and _HUB_ID.fullmatch(source) is not None


def _fingerprint(origins: Sequence[_Origin], columns: Mapping[str, str] | None) -> str:
    facts: list[Any] = [_FORMAT_VERSION, sorted((columns or {}).items())]
    for origin in origins:
        place = origin.place
        if isinstance(place, Path):
            status = place.stat()
            facts.append([str(place.resolve()), status.st_size, status.st_mtime_ns])
        facts.append([str(place), origin.instruction, origin.is_symmetric])
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


def _all_rows(
    origins: Sequence[_Origin], *, layout: Fields, columns: Mapping[str, str] | None, faults: Faults
) -> Iterator[_Row]:
    first: tuple[str, str] | None = None
    for origin in origins:
        for line, row in _rows_of(origin.place, layout=layout, columns=columns, faults=faults):
            instruction = row.pop(INSTRUCTION, None) or origin.instruction
            kind = _kind(row)
            first = first or (str(origin.place), kind)
            if kind != first[1]:
                faults.add(origin.place, None, f"holds {kind}, but {first[0]} holds {first[1]}; a run takes one kind")
                break
            for values in _triplets_of(row):
                bad = row_faults({**values, INSTRUCTION: instruction} if instruction is not None else values)
                for fault in bad:
                    faults.add(origin.place, line, fault)
                if not bad:
                    score = values.pop("score", None)
                    yield _Row(
                        texts=tuple(values.values()),
                        score=None if score is None else float(score),
                        instruction=instruction,
                        is_symmetric=origin.is_symmetric or score is not None,
                    )


def _rows_of(
    place: Path | str, *, layout: Fields, columns: Mapping[str, str] | None, faults: Faults
) -> Iterator[tuple[int, Row]]:
    if isinstance(place, Path):
        return read_fields(place, fields=layout, columns=columns, faults=faults)
    return select_fields(place, _hub_rows(place), fields=layout, columns=columns, faults=faults)


def _kind(row: Row) -> str:
    return "scored pairs" if "score" in row else "triplets" if "negative" in row else "pairs"


def _triplets_of(row: Row) -> Iterator[Row]:
    """One triplet, or one per positive where positives and negatives are lists; a scored pair as it is."""
    if not isinstance(row.get("positive"), list):
        yield row
        return
    negatives = row.get("negative")
    for index, positive in enumerate(row["positive"] or [None]):
        triplet = {"anchor": row["anchor"], "positive": positive}
        if "negative" in row:
            is_list = isinstance(negatives, list)
            triplet["negative"] = (negatives[index % len(negatives)] if negatives else None) if is_list else negatives
        yield triplet


def _convert(rows: Iterator[_Row], target: Path, *, faults: Faults) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: the processes of one run may all convert at once; the last to finish stays.
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    writer = None
    try:
        with pa.OSFile(str(temporary), "wb") as sink:
            for batch in _record_batches(rows):
                writer = writer or pa.ipc.new_file(sink, batch.schema)
                writer.write_batch(batch)
            if writer:
                writer.close()
        faults.raise_if_any(what="training data")
        if writer is None:
            raise DataError("The training data holds no triplet.")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _record_batches(rows: Iterator[_Row]) -> Iterator[pa.RecordBatch]:
    chunk: list[_Row] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == _BATCH_ROWS:
            yield _record_batch(chunk)
            chunk = []
    if chunk:
        yield _record_batch(chunk)


def _record_batch(rows: Sequence[_Row]) -> pa.RecordBatch:
    columns: dict[str, pa.Array] = {
        INSTRUCTION: pa.array([row.instruction for row in rows], pa.string()),
        IS_SYMMETRIC: pa.array([row.is_symmetric for row in rows], pa.bool_()),
    }
    if rows[0].score is not None:
        columns["score"] = pa.array([row.score for row in rows], pa.float64())
    for name, texts in zip(TEXT_COLUMNS, zip(*(row.texts for row in rows), strict=True), strict=False):
        columns[name] = pa.array(texts, pa.string())
        columns[f"{name}_id"] = pa.array([_text_id(text) for text in texts], pa.uint64())
    return pa.RecordBatch.from_pydict(columns)


def _text_id(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _hub_rows(name: str) -> Iterator[tuple[int, Row]]:
    try:
        import datasets
    except ImportError:
        raise MissingExtraError("datasets", extra="hub", needed_for=f"Reading the hub dataset '{name}'") from None
    dataset_id, _, config = name.partition(":")
    try:
        rows = datasets.load_dataset(dataset_id, config or None, split="train")
    except Exception as error:  # the library raises many kinds: not found, offline, no such config, no such split
        raise DataError(
            f"'{name}' is no file, and as a hub dataset it cannot be loaded: {error}\n"
            "Check the spelling, the network, and name a config as owner/name:config where it has several."
        ) from error
    yield from enumerate(rows, start=1)
