"""What a folder of vectors holds, and what it was made from: a manifest once all is there, a journal until then.

    DIR/manifest.json       one JSON object
    DIR/unfinished.jsonl    the same as it becomes known, a line each: the head, then a shard or the ranges

Invariant: a line of the journal is on the disk before the next thing is done, so all lines but the last one are whole;
a last one that is torn is no line. Cost of a line: that line, however many there are.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from embedsmith.settings.choices import StoredPrecision
from embedsmith.support import files
from embedsmith.support.errors import RunError
from embedsmith.support.json_parts import JsonParts
from embedsmith.support.json_text import parse_json

MANIFEST_FILE, JOURNAL_FILE = "manifest.json", "unfinished.jsonl"
_OF_ITS_OWN = ("made_from", "ranges_sha256", "shards")


class _Input(JsonParts):
    file: str
    column: str


class _Embedding(JsonParts):
    weights: list[str]
    dim: int | None
    prompt: str | None = None
    query_prompt: str | None = None


class _MadeFrom(JsonParts):
    embedding: _Embedding
    inputs: list[_Input]
    shard_rows: int
    keep_text: bool
    vector_precision: str
    instruction: str | None


class _Manifest(JsonParts):
    made_from: _MadeFrom
    model: str
    dim: int
    num_texts: int
    computed_by: dict[str, Any]


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

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "Shard":
        """From JSON; raises KeyError, TypeError or ValueError."""
        counts = {name: int(values[name]) for name in ("num_rows", "num_cut", "size_bytes")}
        return cls(name=str(values["name"]), sha256=str(values["sha256"]), **counts)


@dataclass
class Manifest:
    """What a folder holds.

    Attributes:
        made_from: all that the shards depend on, as JSON has it, `embedding` and `inputs` among it.
        facts: what else is told: `model`, `dim`, `num_texts`, `num_empty`, `computed_by`; at the end `num_cut`.
        shards: those that are whole, by name.
        ranges_sha256: of the ranges' file; None: there is none.
    """

    made_from: dict[str, Any]
    facts: dict[str, Any]
    shards: dict[str, Shard] = field(default_factory=dict)
    ranges_sha256: str | None = None

    @classmethod
    def read(cls, folder: Path) -> "Manifest | None":
        """That of a folder, or what its journal has so far; None: it has neither.

        Raises:
            RunError: it is damaged, or none of ours.
        """
        for name, parse in ((MANIFEST_FILE, _parse_manifest), (JOURNAL_FILE, _parse_journal)):
            path = folder / name
            if path.exists():
                try:
                    return parse(files.read_text(path))
                except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
                    raise RunError(
                        f"{path} is damaged, or was not written by embedsmith encode ({type(error).__name__}: "
                        f"{error}).\nChoose another folder."
                    ) from None
        return None

    @property
    def num_done(self) -> int:
        """Texts whose shards are whole."""
        return sum(shard.num_rows for shard in self.shards.values())

    @property
    def num_cut(self) -> int:
        """Texts in them that were longer than the model takes."""
        return sum(shard.num_cut for shard in self.shards.values())

    @property
    def in_order(self) -> list[Shard]:
        """The shards in the order of their texts."""
        return [self.shards[name] for name in sorted(self.shards)]

    def save(self, folder: Path) -> None:
        """Write it under its last name; errors as `files.write_bytes`."""
        found = {"made_from": self.made_from, "ranges_sha256": self.ranges_sha256}
        shards = [asdict(shard) for shard in self.in_order]
        files.write_json(folder / MANIFEST_FILE, {**self.facts, "num_cut": self.num_cut, **found, "shards": shards})

    def begin_journal(self, folder: Path) -> None:
        """Write a journal of what is there; errors as `files.write_bytes`."""
        lines: list[Any] = [{**self.facts, "made_from": self.made_from}]
        lines += [{"ranges_sha256": self.ranges_sha256}] if self.ranges_sha256 else []
        lines += [{"shard": asdict(shard)} for shard in self.in_order]
        files.write_text(folder / JOURNAL_FILE, "".join(map(_line, lines)))

    def add_shard(self, shard: Shard, folder: Path) -> None:
        """Note that one is whole, on the disk too; errors as `files.write_bytes`."""
        self.shards[shard.name] = shard
        _append(folder / JOURNAL_FILE, {"shard": asdict(shard)})

    def set_ranges(self, sha256: str, folder: Path) -> None:
        """Note what the ranges are, on the disk too; errors as `files.write_bytes`."""
        self.ranges_sha256 = sha256
        _append(folder / JOURNAL_FILE, {"ranges_sha256": sha256})


def _parse_manifest(text: str) -> Manifest:
    values = parse_json(text)
    shards = [Shard.read(one) for one in values["shards"]]
    facts = {name: value for name, value in values.items() if name not in (*_OF_ITS_OWN, "num_cut")}
    return _checked(Manifest(values["made_from"], facts, {one.name: one for one in shards}, values["ranges_sha256"]))


def _parse_journal(text: str) -> Manifest:
    *lines, _torn = text.split("\n")  # what stands behind the last line end was under way
    head, *entries = map(parse_json, lines)
    manifest = Manifest(head.pop("made_from"), head)
    for entry in entries:
        if "ranges_sha256" in entry:
            manifest.ranges_sha256 = str(entry["ranges_sha256"])
        else:
            shard = Shard.read(entry["shard"])
            manifest.shards[shard.name] = shard
    return _checked(manifest)


def _checked(manifest: Manifest) -> Manifest:
    """It, with what everybody takes from it there; raises ValueError."""
    _Manifest.check({**manifest.facts, "made_from": manifest.made_from})
    StoredPrecision(manifest.made_from["vector_precision"])
    return manifest


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


def _append(path: Path, value: Any) -> None:
    with files.naming(path), path.open("ab") as file:
        file.write(_line(value).encode())
        file.flush()
        os.fsync(file.fileno())


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What two folders are made from, compared, in words."""
    names_then, names_now = ([one["file"] for one in made["inputs"]] for made in (then, now))
    if names_then != names_now:
        changed = [f"the inputs: they were {_few(names_then)}; now they are {_few(names_now)}"]
    else:
        changed = [_file_difference(*both) for both in zip(then["inputs"], now["inputs"], strict=True)]
    settings_then, settings_now = _flat(then), _flat(now)
    names = sorted({*settings_then, *settings_now} - {"inputs"})
    changed += [setting_difference(name, settings_then.get(name), settings_now.get(name)) for name in names]
    return [what for what in changed if what]


def setting_difference(name: str, then: Any, now: Any) -> str:
    """In words; empty: they are the same."""
    if then == now:
        return ""
    return "the model's files" if name == "weights" else f"{name}: it was {then!r:.60}, now it is {now!r:.60}"


def _file_difference(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    if then.get("sha256") != now.get("sha256"):
        return f"{now['file']}: its contents"
    if then.get("commit") != now.get("commit"):
        return (
            f"{now['file']}: its commit at the hub was {then.get('commit')}, now it is {now.get('commit')}; the one "
            f"that it was is named as {now['file']}@{then.get('commit')}"
        )
    if then["column"] != now["column"]:
        return f"{now['file']}: the column of its texts was {then['column']!r}, now it is {now['column']!r}"
    return ""


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")


def _flat(made_from: Mapping[str, Any]) -> dict[str, Any]:
    """`embedding`'s settings beside the others."""
    return {**made_from["embedding"], **{name: value for name, value in made_from.items() if name != "embedding"}}
