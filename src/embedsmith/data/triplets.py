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

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedsmith import files
from embedsmith.data.columns import TRAIN_FIELDS, TRAIN_PAIR_FIELDS, Fields, read_fields, row_faults, select_fields
from embedsmith.data.readers import Faults, Row, expand_sources, is_data_file
from embedsmith.data.sample import SAMPLE, sample_triplets_path
from embedsmith.errors import DataError, MissingExtraError

_FORMAT_VERSION = 1
_BATCH_ROWS = 8192
_NAMES = ("anchor", "positive", "negative")
_PAIR_NAMES = ("sentence1", "sentence2", "score")
# A row's texts in the order of the names; a scored pair's score stands behind its two.
Values = tuple[Any, ...]
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


@dataclass(frozen=True)
class Triplets:
    """Some rows; lists of one length.

    Attributes:
        anchors: of scored pairs, the first sentence.
        positives: of scored pairs, the second sentence.
        negatives: None when the data has none.
        scores: (B,) float64 of scored pairs, else None.
    """

    anchors: list[str]
    positives: list[str]
    negatives: list[str] | None
    scores: np.ndarray | None = None


class TripletTable:
    """Memory-mapped triplets, pairs without a negative, or scored pairs.

    Args:
        table: columns anchor, positive, maybe negative (string), and for each NAME_id (uint64); maybe score (float64).
    """

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        names = [name for name in _NAMES if name in table.column_names]
        self._names = names
        ids = [table.column(f"{name}_id").to_numpy() for name in names]
        self.text_ids = np.arange(len(table))[:, None] if self.has_scores else np.stack(ids, axis=1)
        """(num_triplets, 2 or 3), equal where texts are equal; rows with a common one never meet in a batch. Scored
        pairs that share a text may, so each has an id of its own: (num_pairs, 1)."""

    def __len__(self) -> int:
        return self._table.num_rows

    @property
    def has_negatives(self) -> bool:
        """Whether every row has a hard negative."""
        return "negative" in self._names

    @property
    def has_scores(self) -> bool:
        """Whether the rows are scored pairs."""
        return "score" in self._table.column_names

    @property
    def kind(self) -> str:
        """What the rows are, for people to read."""
        return "scored pairs" if self.has_scores else "triplets" if self.has_negatives else "pairs"

    def rows(self, indices: np.ndarray) -> Triplets:
        """Texts of the rows numbered by `indices`."""
        names = [*self._names, "score"] if self.has_scores else self._names
        # Not `Table.take`: on a column of many batches it first copies the whole column into memory.
        columns = [[column[row].as_py() for row in indices.tolist()] for column in self._table.select(names)]
        return Triplets(
            anchors=columns[0],
            positives=columns[1],
            negatives=columns[2] if self.has_negatives else None,
            scores=np.array(columns[2]) if self.has_scores else None,
        )

    def scores_differ(self) -> bool:
        """Whether scored pairs have at least two different scores."""
        bounds = pc.min_max(self._table.column("score"))
        return bool(bounds["min"] != bounds["max"])

    def take_first(self, num_triplets: int) -> "TripletTable":
        """A view of the first rows."""
        return TripletTable(self._table.slice(0, num_triplets))


def load_triplets(
    sources: Sequence[str],
    *,
    columns: Mapping[str, str] | None = None,
    cache_folder: Path | None = None,
) -> TripletTable:
    """Load triplets, pairs or scored pairs from files, globs, hub datasets or the built-in sample.

    Args:
        sources: see the file's docstring.
        columns: {"anchor": ..., "positive": ..., "negative": ...} where the names are unusual, or
            {"sentence1": ..., "sentence2": ..., "score": ...}.
        cache_folder: where the Arrow file is kept; None: in the user's cache.

    Raises:
        DataError: any source is missing, has faulty rows or rows of another kind; all are named. All scores are equal.
        MissingExtraError: a hub dataset is asked for without the `datasets` package.
    """
    faults = Faults()
    is_scored = bool(columns) and set(columns or {}) <= set(_PAIR_NAMES)
    unknown = [] if is_scored else sorted(set(columns or {}) - set(_NAMES))
    if unknown:
        faults.add(
            "data.columns",
            None,
            f"names {', '.join(unknown)}; it may name {', '.join(_NAMES)}, or {', '.join(_PAIR_NAMES)}",
        )
    hub_ids = [source for source in sources if _is_hub_id(source)]
    names = [str(sample_triplets_path()) if source == SAMPLE else source for source in sources]
    paths = expand_sources([name for name in names if name not in hub_ids], faults=faults)
    faults.raise_if_any(what="training data")

    folder = cache_folder or files.cache_root() / "triplets"
    target = folder / f"{_fingerprint(paths, hub_ids, columns)}.arrow"
    # A hub dataset may change under its name: it is read anew each time (its own cache makes that cheap).
    if hub_ids or not target.exists():
        fields = TRAIN_PAIR_FIELDS if is_scored else TRAIN_FIELDS
        rows = _all_rows(paths, hub_ids, fields=fields, columns=columns, faults=faults)
        _convert(rows, target, faults=faults)
    table = TripletTable(pa.ipc.open_file(pa.memory_map(str(target))).read_all())
    if table.has_scores and not table.scores_differ():
        raise DataError(f"All scores in {', '.join(sources)} are equal: they order nothing, so nothing can be learned.")
    return table


def _is_hub_id(source: str) -> bool:
    is_local = Path(source).exists() or is_data_file(source) or any(mark in source for mark in "*?[")
    return not is_local and _HUB_ID.fullmatch(source) is not None


def _fingerprint(paths: Sequence[Path], hub_ids: Sequence[str], columns: Mapping[str, str] | None) -> str:
    facts: list[Any] = [_FORMAT_VERSION, sorted((columns or {}).items()), list(hub_ids)]
    for path in paths:
        status = path.stat()
        facts.append([str(path.resolve()), status.st_size, status.st_mtime_ns])
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


def _all_rows(
    paths: Sequence[Path],
    hub_ids: Sequence[str],
    *,
    fields: Fields,
    columns: Mapping[str, str] | None,
    faults: Faults,
) -> Iterator[Values]:
    first: tuple[str, str] | None = None
    sources: list[tuple[str, Iterator[tuple[int, Row]]]] = [
        (str(path), read_fields(path, fields=fields, columns=columns, faults=faults)) for path in paths
    ]
    sources += [
        (name, select_fields(name, _hub_rows(name), fields=fields, columns=columns, faults=faults)) for name in hub_ids
    ]
    for source, rows in sources:
        is_first = True
        for line, row in rows:
            if is_first:
                is_first = False
                kind = _kind(row)
                first = first or (source, kind)
                if kind != first[1]:
                    faults.add(source, None, f"holds {kind}, but {first[0]} holds {first[1]}; a run takes one kind")
                    break
            for values in _triplets_of(row):
                bad = row_faults(values)
                for fault in bad:
                    faults.add(source, line, fault)
                if not bad:
                    yield tuple(float(value) if name == "score" else value for name, value in values.items())


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


def _convert(rows: Iterator[Values], target: Path, *, faults: Faults) -> None:
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


def _record_batches(rows: Iterator[Values]) -> Iterator[pa.RecordBatch]:
    chunk: list[Values] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == _BATCH_ROWS:
            yield _record_batch(chunk)
            chunk = []
    if chunk:
        yield _record_batch(chunk)


def _record_batch(rows: Sequence[Values]) -> pa.RecordBatch:
    columns: dict[str, pa.Array] = {}
    for name, values in zip(_NAMES, zip(*rows, strict=True), strict=False):
        if isinstance(values[0], float):
            columns["score"] = pa.array(values, pa.float64())
        else:
            columns[name] = pa.array(values, pa.string())
            columns[f"{name}_id"] = pa.array([_text_id(text) for text in values], pa.uint64())
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
