"""A folder of vectors as a LanceDB table beside its shards: made once, and made anew when the shards are others.

    DIR/lance/vectors.lance   number, file, row, maybe id and text, vector: float32 of unit length
    DIR/lance/store.json      the key of the shards it was made of; of an index, its recall

Search is exact, or through an index: an HNSW graph over vectors in 8 bits, whose best candidates are compared again in
float32. How many of the nearest it finds is measured as it is made, on vectors of the corpus.

Reference: Malkov and Yashunin 2016, HNSW (arXiv 1603.09320).
"""

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import FileLock

from embedsmith.records.found import PLACES, Place
from embedsmith.support import files
from embedsmith.support.errors import EmbedsmithError, MissingExtraError
from embedsmith.verbs.vector_folder import VectorFolder, stored_vectors

log = logging.getLogger(__name__)

STORE_FOLDER, STORE_FILE, TABLE = "lance", "store.json", "vectors"
RECALL_OF = 10
"""The recall of an index is that of so many nearest vectors."""
_FORMAT = 1
_NUM_MEASURED = 100  # vectors of the corpus whose nearest are searched for both ways
_REFINED = 10  # so many times the wanted are compared in float32
_LEAST_EXPLORED = 200  # candidates of the graph at one time
_QUERIES_AT_ONCE = 64


class LanceStore:
    """The table of a folder; see `Search` in `model/nearest.py`.

    Args:
        folder: of vectors, none of them bits.

    Raises:
        MissingExtraError: lancedb is not installed.
        RunError: the disk has no room for the table, or a shard is damaged.
        OSError: the folder cannot be written, and there is no table yet.
    """

    def __init__(self, folder: VectorFolder) -> None:
        assert not folder.is_bits
        self._lancedb = import_lancedb()
        self._folder = folder
        self._path = folder.path / STORE_FOLDER
        if not self._is_of_these():
            self._build()
        self._table = self._open()

    def find(self, queries: np.ndarray, *, k: int) -> tuple[np.ndarray, np.ndarray]:
        """All vectors looked at."""
        return self._find(queries, k=k, through_index=False)

    def find_through_index(self, queries: np.ndarray, *, k: int) -> tuple[np.ndarray, np.ndarray]:
        """A near one may be missed; similarities are exact."""
        return self._find(queries, k=k, through_index=True)

    def places(self, numbers: Sequence[int]) -> list[Place]:
        """Of vectors by their numbers."""
        names = [name for name in PLACES if name in self._table.schema.names]
        rows = self._table.take_offsets(list(numbers)).select(["number", *names]).to_arrow().to_pylist()
        found = {row["number"]: Place.read(row) for row in rows}
        return [found[number] for number in numbers]

    def _open(self) -> Any:
        try:
            return self._lancedb.connect(str(self._path)).open_table(TABLE)
        except (ValueError, OSError, RuntimeError) as error:  # what the package raises for a table that is damaged
            log.warning("%s cannot be opened (%.100s); it is made anew.", self._path, error)
            (self._path / STORE_FILE).unlink(missing_ok=True)
            self._build()
            return self._lancedb.connect(str(self._path)).open_table(TABLE)

    def make_index(self) -> float:
        """Make it if it is not there; returns its recall, the share of the nearest `RECALL_OF` vectors found."""
        with self._lock():
            about = self._read_about()
            if "recall" not in about:
                from lancedb.index import HnswSq

                log.info("Making the index of %d vectors in %s; once.", self._folder.num_texts, self._path)
                self._table.create_index("vector", config=HnswSq(distance_type="cosine"))
                files.write_json(self._path / STORE_FILE, {**about, "index": "HNSW", "recall": self._measure()})
            return float(self._read_about()["recall"])

    def _measure(self) -> float:
        """The recall for vectors of the corpus, each left out of its own nearest."""
        places = np.unique(np.linspace(0, self._folder.num_texts - 1, _NUM_MEASURED).astype(int))
        rows = self._table.take_offsets(places.tolist()).select(["number", "vector"]).to_arrow().sort_by("number")
        vectors, found = stored_vectors(rows), []
        expected, near = (find(vectors, k=RECALL_OF + 1)[0] for find in (self.find, self.find_through_index))
        for own, right, seen in zip(places, expected, near, strict=True):
            others = right[(right != own) & (right >= 0)][:RECALL_OF]
            found.append(np.isin(others, seen).mean() if len(others) else 1.0)
        return float(np.mean(found))

    def _find(self, queries: np.ndarray, *, k: int, through_index: bool) -> tuple[np.ndarray, np.ndarray]:
        numbers = np.full((len(queries), k), -1, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            asked = [row.astype(np.float32) for row in queries[start : start + _QUERIES_AT_ONCE]]
            plan = self._table.search(asked).distance_type("cosine").limit(k).select(["number", "_distance"])
            if through_index:
                plan = plan.refine_factor(_REFINED).ef(max(_LEAST_EXPLORED, k * _REFINED))
            else:
                plan = plan.bypass_vector_index()
            hits = plan.to_arrow()
            of_query = hits["query_index"].to_numpy() if "query_index" in hits.schema.names else np.zeros(len(hits))
            for query in range(len(asked)):
                own = of_query == query
                found, cosines = hits["number"].to_numpy()[own], 1 - hits["_distance"].to_numpy()[own]
                order = np.lexsort((found, -cosines))[:k]
                numbers[start + query, : len(order)], scores[start + query, : len(order)] = found[order], cosines[order]
        return numbers, scores

    def _lock(self) -> FileLock:
        return FileLock(self._folder.path / ".search.lock")

    def _read_about(self) -> dict[str, Any]:
        return dict(json.loads((self._path / STORE_FILE).read_text(encoding="utf-8")))

    def _is_of_these(self) -> bool:
        """Whether the table is there, whole, and of the shards as they are."""
        try:
            about = self._read_about()
            return about["key"] == self._folder.key and about["format"] == _FORMAT
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _build(self) -> None:
        folder = self._folder
        with self._lock():
            if self._is_of_these():  # another process was first
                return
            if (self._path / STORE_FILE).exists():
                log.warning("%s is of other vectors than the shards by now; it is made anew.", self._path)
            else:
                log.info("Making %s of the %d vectors in %s; once.", self._path, folder.num_texts, folder.path)
            for leftover in folder.path.glob(f".{STORE_FOLDER}.*.tmp"):
                files.remove_folder(leftover)
            files.check_room(
                folder.path,
                size_bytes=folder.num_texts * folder.dim * 4,
                what="LanceDB's vectors",
                advice="search in the shards: --store shards",
            )
            with files.atomic_folder(self._path) as new:
                database, batches = self._lancedb.connect(str(new)), _batches(folder)
                first = next(batches)
                errors: list[EmbedsmithError] = []
                rows = pa.RecordBatchReader.from_batches(first.schema, _and_then(first, batches, errors=errors))
                try:
                    database.create_table(TABLE, data=rows)
                except Exception:  # one of its own, whatever the rows' was
                    if errors:
                        raise errors[0] from None
                    raise
                files.write_json(new / STORE_FILE, {"format": _FORMAT, "key": folder.key, "model": folder.model})


def import_lancedb() -> Any:
    """The package; raises MissingExtraError."""
    try:
        import lancedb
    except ImportError:
        raise MissingExtraError("lancedb", extra="search", needed_for="A search in LanceDB") from None
    return lancedb


def has_store(path: Path) -> bool:
    """Whether a folder has a table, of whatever shards."""
    return (path / STORE_FOLDER / STORE_FILE).exists()


def _batches(folder: VectorFolder) -> Iterator[pa.RecordBatch]:
    first = 0
    for table in folder.tables():
        vectors = folder.as_unit(stored_vectors(table))
        columns = {
            "number": pa.array(np.arange(first, first + len(vectors))),
            **{name: table[name].combine_chunks() for name in PLACES if name in table.schema.names},
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), folder.dim),
        }
        first += len(vectors)
        yield from pa.table(columns).to_batches()


def _and_then(
    first: pa.RecordBatch, others: Iterator[pa.RecordBatch], *, errors: list[EmbedsmithError]
) -> Iterator[pa.RecordBatch]:
    """One and the others; an error that ends them is put into `errors`."""
    yield first
    try:
        yield from others
    except EmbedsmithError as error:
        errors.append(error)
        raise
