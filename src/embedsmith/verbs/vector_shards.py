"""A folder of vectors: Parquet shards of so many rows, and a manifest that tells what they are and their checksums.

    DIR/shards/000000.parquet ...   columns file, row, maybe id and text; vector: a list of fixed size
    DIR/ranges.json                 those of int8 and uint8
    DIR/unfinished.jsonl            what they are made from, and the SHA-256 of each that is whole
    DIR/manifest.json               the same once all are whole

Invariants: a shard is the rows of one place in the corpus, so it is written whole, or again with the same bytes; it
counts only if its checksum stands in the manifest and fits. A folder goes on only with what it was begun with. Memory:
one shard. Cost of finding what is whole: reading it once, half a second a gigabyte.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embedsmith.data.corpora import CorpusText
from embedsmith.model.vector_precision import Ranges
from embedsmith.support import files
from embedsmith.support.errors import RunError, list_faults
from embedsmith.support.lock import LOCK_FILE
from embedsmith.verbs.vector_manifest import JOURNAL_FILE, MANIFEST_FILE, Manifest, Shard, differences

log = logging.getLogger(__name__)

RANGES_FILE = "ranges.json"
SHARD_FOLDER = "shards"
_NUMBERS = "vector.list.element"  # of the vectors, as Parquet calls their column


def check_folder(folder: Path) -> None:
    """Raise RunError where a folder is neither empty nor one that was begun by `VectorShards`."""
    names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    others = [name for name in names if name != LOCK_FILE and not (name.startswith(".") and name.endswith(".tmp"))]
    if others and not {MANIFEST_FILE, JOURNAL_FILE} & {*others}:
        raise RunError(
            f"{folder} holds other files than this command's: {', '.join(others[:3])}.\n"
            "Choose a new or empty folder as --out."
        )


class VectorShards:
    """The shards of a folder, by their numbers; for one process at a time.

    Args:
        folder: that is there.
        num_texts: of the corpus.
        shard_rows: rows of a shard; the last one may have fewer.
        made_from: all that the shards depend on, as JSON has it, `inputs` among it: file, column and sha256 of each.
        facts: what else the manifest tells, `computed_by` among it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        num_texts: int,
        shard_rows: int,
        made_from: Mapping[str, Any],
        facts: Mapping[str, Any],
    ) -> None:
        self.folder = folder
        self.num_shards = -(-num_texts // shard_rows)
        self._num_texts = num_texts
        self.shard_rows = shard_rows
        self._manifest = Manifest(json.loads(json.dumps(made_from)), {**facts, "num_texts": num_texts})

    def take_up(self) -> None:
        """Find what is whole; what is not is said, and no longer counts.

        Raises:
            RunError: the folder was begun with something else, and nothing was changed; or its manifest is damaged.
        """
        if found := Manifest.read(self.folder):
            self._take_sound(found)
        for folder in (self.folder, self.folder / SHARD_FOLDER):
            files.remove_leftovers(folder)
        if self.num_done < self._num_texts:
            self._manifest.begin_journal(self.folder)
            (self.folder / MANIFEST_FILE).unlink(missing_ok=True)

    def _take_sound(self, found: Manifest) -> None:
        own = self._manifest
        if changed := differences(found.made_from, own.made_from):
            headline = f"{self.folder} was begun with something else, and nothing was changed. Others by now are:"
            raise RunError(list_faults(headline, changed, advice="Put back what was there, or choose another --out."))
        if found.facts["computed_by"] != own.facts["computed_by"]:
            before = found.facts["computed_by"]
            log.warning("%s was begun with other software, so last digits may differ: %s", self.folder, before)
        own.facts = found.facts
        damaged = []
        if found.ranges_sha256 is None or self._is_whole(RANGES_FILE, found.ranges_sha256):
            own.ranges_sha256 = found.ranges_sha256
            for number in range(self.num_shards):
                shard = found.shards.get(name_of(number))
                if shard and shard.num_rows == self._rows_of(number) and self._is_whole(shard.name, shard.sha256):
                    own.shards[shard.name] = shard
                elif shard:
                    damaged.append(shard.name)
        else:
            damaged.append(f"{RANGES_FILE}, and with it all shards")
        if damaged:
            log.warning("%s: missing or damaged, and made anew: %s", self.folder, ", ".join(damaged))

    def _is_whole(self, name: str, sha256: str) -> bool:
        path = self.folder / name
        return path.is_file() and files.read_digest(path) == sha256

    def _rows_of(self, number: int) -> int:
        return min(self.shard_rows, self._num_texts - number * self.shard_rows)

    @property
    def num_done(self) -> int:
        """Texts whose shards are whole."""
        return self._manifest.num_done

    @property
    def num_cut(self) -> int:
        """Texts in them that were longer than the model takes."""
        return self._manifest.num_cut

    @property
    def size_bytes(self) -> int:
        """Of their files."""
        return sum(shard.size_bytes for shard in self._manifest.shards.values())

    def has(self, number: int) -> bool:
        """Whether a shard need not be made."""
        return name_of(number) in self._manifest.shards

    def read_ranges(self) -> Ranges | None:
        """Those that were kept here."""
        return None if self._manifest.ranges_sha256 is None else Ranges.read(self.folder / RANGES_FILE)

    def keep_ranges(self, ranges: Ranges) -> None:
        """Keep them beside the shards, before the first of those."""
        ranges.save(self.folder / RANGES_FILE)
        self._manifest.set_ranges(files.read_digest(self.folder / RANGES_FILE), self.folder)

    def write(self, number: int, texts: Sequence[CorpusText], vectors: np.ndarray, *, num_cut: int) -> None:
        """Write a shard, then that it is whole.

        Args:
            number: from 0 on.
            texts: its rows.
            vectors: (K, width), in the number format of the file.
            num_cut: of the texts.

        Raises:
            OSError: as `files.write_bytes`.
        """
        name, data = name_of(number), _parquet(texts, vectors, keep_text=self._manifest.made_from["keep_text"])
        files.write_bytes(self.folder / name, data)
        shard = Shard(name, len(texts), num_cut, len(data), hashlib.sha256(data).hexdigest())
        self._manifest.add_shard(shard, self.folder)

    def finish(self) -> None:
        """All shards are whole: the manifest gets its name."""
        assert self.num_done == self._num_texts, "a shard is missing"
        self._manifest.save(self.folder)
        (self.folder / JOURNAL_FILE).unlink(missing_ok=True)


def name_of(number: int) -> str:
    """A shard's, in its folder."""
    return f"{SHARD_FOLDER}/{number:06d}.parquet"


def _parquet(texts: Sequence[CorpusText], vectors: np.ndarray, *, keep_text: bool) -> pa.Buffer:
    columns = {
        "file": pa.array([text.file for text in texts], pa.string()),
        "row": pa.array([text.row for text in texts], pa.int64()),
        "id": pa.array([text.id for text in texts], pa.string()),
        "text": pa.array([text.text for text in texts], pa.string()),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1]),
    }
    if texts[0].id is None:
        del columns["id"]
    if not keep_text:
        del columns["text"]
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table(columns),
        sink,
        # Parquet stores a number of 8 bits in 32, and its place in a dictionary of 256 in 8. Floats are not shortened
        # by a dictionary, and hardly by compression.
        use_dictionary=["file", *([_NUMBERS] if vectors.itemsize == 1 else [])],
        write_statistics=[name for name in columns if name not in ("vector", "text")],
        compression=dict.fromkeys(("file", "row", "id", "text"), "zstd") | {_NUMBERS: "none"},
    )
    return sink.getvalue()
