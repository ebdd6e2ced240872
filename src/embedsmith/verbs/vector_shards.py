"""A folder of vectors: Parquet shards of so many rows, and a manifest that tells what they are and their checksums.

    DIR/shards/000000.parquet ...   columns file, row, maybe id; vector: a list of fixed size
    DIR/ranges.json                 those of int8 and uint8
    DIR/unfinished.json             what they are made from, and the SHA-256 of each that is whole
    DIR/manifest.json               the same under its last name, once all are whole

Invariants: a shard is the rows of one place in the corpus, so it is written whole, or again with the same bytes; it
counts only if its checksum stands in the manifest and fits. A folder goes on only with what it was begun with. Memory:
one shard. Cost of finding what is whole: reading it once, half a second a gigabyte.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embedsmith.data.corpora import CorpusText
from embedsmith.model.vector_precision import Ranges
from embedsmith.support import files
from embedsmith.support.errors import RunError, list_faults
from embedsmith.support.json_text import parse_json
from embedsmith.support.lock import LOCK_FILE

log = logging.getLogger(__name__)

MANIFEST_FILE, UNFINISHED_FILE, RANGES_FILE = "manifest.json", "unfinished.json", "ranges.json"
SHARD_FOLDER = "shards"
_NUMBERS = "vector.list.element"  # of the vectors, as Parquet calls their column


@dataclass(frozen=True)
class Shard:
    """What the manifest says of one.

    Attributes:
        name: of its file, in the folder.
        num_rows: in it.
        num_cut: texts among them that were longer than the model takes.
        size_bytes: of the file.
        sha256: of the file.
    """

    name: str
    num_rows: int
    num_cut: int
    size_bytes: int
    sha256: str


def check_folder(folder: Path) -> None:
    """Raise RunError where a folder is neither empty nor one that was begun by `VectorShards`."""
    names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    others = [name for name in names if name != LOCK_FILE and not (name.startswith(".") and name.endswith(".tmp"))]
    if others and not {MANIFEST_FILE, UNFINISHED_FILE} & {*others}:
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
        self._made_from = json.loads(json.dumps(made_from))
        self._facts = dict(facts)
        self._shards: dict[str, Shard] = {}
        self._ranges_sha256: str | None = None

    def take_up(self) -> None:
        """Find what is whole; what is not is said, and no longer counts.

        Raises:
            RunError: the folder was begun with something else, and nothing was changed; or its manifest is damaged.
        """
        path = next((path for name in (MANIFEST_FILE, UNFINISHED_FILE) if (path := self.folder / name).exists()), None)
        if path is not None:
            self._take_sound(*self._read_own(path))
        for folder in (self.folder, self.folder / SHARD_FOLDER):
            files.remove_leftovers(folder)
        if self.num_done < self._num_texts:
            self._save(UNFINISHED_FILE)
            (self.folder / MANIFEST_FILE).unlink(missing_ok=True)

    def _read_own(self, path: Path) -> tuple[dict[str, Shard], str | None]:
        """The shards and the digest of the ranges that a manifest names, which must be made from the same."""
        try:
            kept = parse_json(path.read_text(encoding="utf-8"))
            changed = _differences(kept["made_from"], self._made_from)
            shards = {str(one["name"]): _read_shard(one) for one in kept["shards"]}
            facts = {name: kept[name] for name in self._facts}
            ranges_sha256 = kept["ranges_sha256"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(
                f"{path} is damaged, or was not written by this command ({type(error).__name__}: {error}).\n"
                "Choose another --out."
            ) from None
        if changed:
            headline = f"{self.folder} was begun with something else, and nothing was changed. Others by now are:"
            raise RunError(list_faults(headline, changed, advice="Put back what was there, or choose another --out."))
        if facts["computed_by"] != self._facts["computed_by"]:
            log.warning("%s was begun with other software, so last digits may differ: %s", path, facts["computed_by"])
        self._facts = facts
        return shards, ranges_sha256

    def _take_sound(self, shards: Mapping[str, Shard], ranges_sha256: str | None) -> None:
        damaged = []
        if ranges_sha256 is None or self._is_whole(RANGES_FILE, ranges_sha256):
            self._ranges_sha256 = ranges_sha256
            for number in range(self.num_shards):
                shard = shards.get(_name_of(number))
                if shard and shard.num_rows == self._rows_of(number) and self._is_whole(shard.name, shard.sha256):
                    self._shards[shard.name] = shard
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
        return sum(shard.num_rows for shard in self._shards.values())

    @property
    def num_cut(self) -> int:
        """Texts in them that were longer than the model takes."""
        return sum(shard.num_cut for shard in self._shards.values())

    @property
    def size_bytes(self) -> int:
        """Of their files."""
        return sum(shard.size_bytes for shard in self._shards.values())

    def has(self, number: int) -> bool:
        """Whether a shard need not be made."""
        return _name_of(number) in self._shards

    def read_ranges(self) -> Ranges | None:
        """Those that were kept here."""
        return None if self._ranges_sha256 is None else Ranges.read(self.folder / RANGES_FILE)

    def keep_ranges(self, ranges: Ranges) -> None:
        """Keep them beside the shards, before the first of those."""
        ranges.save(self.folder / RANGES_FILE)
        self._ranges_sha256 = files.read_digest(self.folder / RANGES_FILE)
        self._save(UNFINISHED_FILE)

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
        name, data = _name_of(number), _parquet(texts, vectors)
        files.write_bytes(self.folder / name, data)
        self._shards[name] = Shard(name, len(texts), num_cut, len(data), hashlib.sha256(data).hexdigest())
        self._save(UNFINISHED_FILE)

    def finish(self) -> None:
        """All shards are whole: the manifest gets its name."""
        assert self.num_done == self._num_texts, "a shard is missing"
        self._save(MANIFEST_FILE)
        (self.folder / UNFINISHED_FILE).unlink(missing_ok=True)

    def _save(self, name: str) -> None:
        counts = {"num_texts": self._num_texts, "num_cut": self.num_cut}
        shards = [asdict(self._shards[name]) for name in sorted(self._shards)]
        found = {"made_from": self._made_from, "ranges_sha256": self._ranges_sha256, "shards": shards}
        files.write_json(self.folder / name, {**self._facts, **counts, **found})


def _name_of(number: int) -> str:
    return f"{SHARD_FOLDER}/{number:06d}.parquet"


def _read_shard(values: Mapping[str, Any]) -> Shard:
    counts = {name: int(values[name]) for name in ("num_rows", "num_cut", "size_bytes")}
    return Shard(name=str(values["name"]), sha256=str(values["sha256"]), **counts)


def _parquet(texts: Sequence[CorpusText], vectors: np.ndarray) -> pa.Buffer:
    columns = {
        "file": pa.array([text.file for text in texts], pa.string()),
        "row": pa.array([text.row for text in texts], pa.int64()),
        "id": pa.array([text.id for text in texts], pa.string()),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1]),
    }
    if texts[0].id is None:
        del columns["id"]
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table(columns),
        sink,
        # Parquet stores a number of 8 bits in 32, and its place in a dictionary of 256 in 8. Floats are not shortened
        # by a dictionary, and hardly by compression.
        use_dictionary=["file", *([_NUMBERS] if vectors.itemsize == 1 else [])],
        write_statistics=[name for name in columns if name != "vector"],
        compression=dict.fromkeys(("file", "row", "id"), "zstd") | {_NUMBERS: "none"},
    )
    return sink.getvalue()


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What folders are made from, compared, in words."""
    names_then, names_now = ([one["file"] for one in made["inputs"]] for made in (then, now))
    if names_then != names_now:
        changed = [f"the inputs: they were {_few(names_then)}; now they are {_few(names_now)}"]
    else:
        changed = [_file_difference(*both) for both in zip(then["inputs"], now["inputs"], strict=True)]
    settings_then, settings_now = _flat(then), _flat(now)
    for name in sorted({*settings_then, *settings_now} - {"inputs"}):
        was, is_now = settings_then.get(name), settings_now.get(name)
        if was != is_now:
            changed.append(
                "the model's files" if name == "weights" else f"{name}: it was {was!r:.60}, now it is {is_now!r:.60}"
            )
    return [what for what in changed if what]


def _file_difference(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    if then["sha256"] != now["sha256"]:
        return f"{now['file']}: its contents"
    if then["column"] != now["column"]:
        return f"{now['file']}: the column of its texts was {then['column']!r}, now it is {now['column']!r}"
    return ""


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")


def _flat(made_from: Mapping[str, Any]) -> dict[str, Any]:
    """`embedding`'s settings beside the others."""
    return {**made_from["embedding"], **{name: value for name, value in made_from.items() if name != "embedding"}}
