"""A finished folder of vectors, read: its manifest, its vectors block by block, and where each is from.

A shard counts if its SHA-256 is the one in the manifest, which is looked at as it is read: what is damaged, missing or
of another manifest is refused by name. Memory: one shard.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embedsmith.model.vector_precision import Ranges, as_numbers
from embedsmith.records.found import PLACES, Place
from embedsmith.settings.choices import StoredPrecision, VectorPrecision
from embedsmith.support import files
from embedsmith.support.errors import RunError
from embedsmith.verbs.vector_manifest import JOURNAL_FILE, MANIFEST_FILE, Manifest, Shard
from embedsmith.verbs.vector_shards import RANGES_FILE


class VectorFolder:
    """What `embedsmith encode` made.

    Args:
        path: of the folder.
        manifest: that is there.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self.model = str(manifest.facts["model"])
        self.dim = int(manifest.facts["dim"])
        self.precision = StoredPrecision(manifest.made_from["vector_precision"])
        self.num_texts = manifest.num_done

    @classmethod
    def open(cls, path: Path) -> "VectorFolder":
        """Read the manifest of a folder.

        Raises:
            RunError: it is no folder, holds no vectors or not yet all of them, or its manifest is damaged.
        """
        if not path.is_dir():
            what = "is a file" if path.exists() else "is not there"
            raise RunError(f"{path} {what}.\nName a folder that `embedsmith encode MODEL FILE --out FOLDER` made.")
        if not (path / MANIFEST_FILE).exists():
            if (path / JOURNAL_FILE).exists():
                raise RunError(f"Not all vectors of {path} are there yet.\nGive its `embedsmith encode` again first.")
            raise RunError(f"{path} has no {MANIFEST_FILE}.\nName a folder that `embedsmith encode --out FOLDER` made.")
        manifest = Manifest.read(path)
        assert manifest is not None
        return cls(path, manifest)

    @property
    def key(self) -> str:
        """Another one for other vectors, places or texts."""
        parts = [str(self.precision), str(self.dim), str(self.manifest.ranges_sha256)]
        return hashlib.sha256("\n".join([*parts, *(one.sha256 for one in self.manifest.in_order)]).encode()).hexdigest()

    @property
    def is_bits(self) -> bool:
        """Whether a vector is a bit a dimension."""
        return self.precision in (StoredPrecision.BINARY, StoredPrecision.UBINARY)

    def read_ranges(self) -> Ranges | None:
        """Those of int8 and uint8.

        Raises:
            RunError: they are not those that the vectors were made with.
        """
        if self.manifest.ranges_sha256 is None:
            return None
        path = self.path / RANGES_FILE
        if not path.is_file() or files.read_digest(path) != self.manifest.ranges_sha256:
            raise self._damaged(RANGES_FILE)
        return Ranges.read(path)

    def as_unit(self, stored: np.ndarray) -> np.ndarray:
        """Vectors in the folder's number format -> (K, D) float32 of unit length, whose products order as its do."""
        if self.precision is StoredPrecision.FLOAT16:
            rows = stored.astype(np.float32)
        else:
            rows = as_numbers(stored, vector_precision=VectorPrecision(self.precision), dim=self.dim)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        return rows / np.where(norms == 0, 1, norms)

    def blocks(self) -> Iterator[np.ndarray]:
        """All vectors in their order, a shard at a time, as `as_unit` gives them; errors as `tables`."""
        for table in self.tables(columns=["vector"]):
            yield self.as_unit(stored_vectors(table))

    def tables(self, *, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The shards in their order; None: all columns.

        Raises:
            RunError: one is missing or is not the one in the manifest.
        """
        for shard in self.manifest.in_order:
            yield self._read(shard, columns=columns)

    def places(self, numbers: Sequence[int]) -> list[Place]:
        """Of vectors by their numbers, from 0; errors as `tables`."""
        shards = self.manifest.in_order
        starts = np.cumsum([0, *(shard.num_rows for shard in shards)])
        found: dict[int, Place] = {}
        for index in sorted({int(np.searchsorted(starts, number, side="right")) - 1 for number in numbers}):
            own = [number for number in numbers if starts[index] <= number < starts[index + 1]]
            rows = self._read(shards[index], columns=PLACES).take([number - int(starts[index]) for number in own])
            found |= zip(own, map(Place.read, rows.to_pylist()), strict=True)
        return [found[number] for number in numbers]

    def _read(self, shard: Shard, *, columns: Sequence[str] | None) -> pa.Table:
        try:
            data = (self.path / shard.name).read_bytes()
        except FileNotFoundError:
            raise self._damaged(shard.name) from None
        if hashlib.sha256(data).hexdigest() != shard.sha256:
            raise self._damaged(shard.name)
        file = pq.ParquetFile(pa.BufferReader(data))
        there = set(file.schema_arrow.names)
        return file.read(columns=None if columns is None else [name for name in columns if name in there])

    def _damaged(self, name: str) -> RunError:
        return RunError(
            f"{self.path / name} is missing or is not the one that {MANIFEST_FILE} names.\n"
            "Give the folder's `embedsmith encode` again: it makes anew what is damaged."
        )


def stored_vectors(table: pa.Table) -> np.ndarray:
    """The vectors of a shard in its number format, (K, numbers of a vector)."""
    column = table["vector"].combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # of older pyarrows
        column = pa.concat_arrays(column.chunks)
    rows: np.ndarray = column.flatten().to_numpy().reshape(len(column), -1)
    return rows
