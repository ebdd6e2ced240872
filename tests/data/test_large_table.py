"""A table larger than memory: opened by what is noted of it, read where rows lie, and nothing held for each row."""

import json
import os
import tracemalloc
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedsmith.data import mapped, table_notes, triplets
from embedsmith.data.rows import Triplets
from embedsmith.data.table import TripletTable
from embedsmith.data.triplets import load_triplets
from embedsmith.training import order
from embedsmith.training.batching import contrastive_batches
from tests.tiny import write_pairs, write_ragged_triplets


@pytest.fixture(autouse=True)
def all_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (mapped, table_notes):
        monkeypatch.setattr(module, "_LEAST_BYTES", 1)


def _write(folder: Path, *, num_rows: int, num_files: int = 2) -> str:
    folder.mkdir(exist_ok=True)
    for number, rows in enumerate(np.array_split(np.arange(num_rows), num_files)):
        columns = {
            role: [f"{role} {row} of many" for row in rows.tolist()] for role in ("anchor", "positive", "negative")
        }
        pq.write_table(pa.table(columns), folder / f"{number}.parquet")
    return f"{folder}/*.parquet"


def _facts(table: TripletTable) -> list[object]:
    return [table.fingerprint, table.source_fingerprint, table.size, table.rows_by_source(), len(table)]


def test_what_is_noted_is_what_is_found(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = _write(tmp_path / "d", num_rows=20_000)
    noted = _facts(load_triplets([source]))
    drawn = load_triplets([source]).draw(100).fingerprint
    (notes,) = (cache / "triplets").glob("*.json")
    kept = notes.read_text()
    with monkeypatch.context() as patch:
        patch.setattr(TripletTable, "_read_fingerprint", lambda self: pytest.fail("read through again"))
        assert _facts(load_triplets([source])) == noted
        assert load_triplets([source]).draw(100).fingerprint == drawn
    notes.write_text("{")
    assert _facts(load_triplets([source])) == noted
    notes.unlink()
    assert _facts(load_triplets([source])) == noted
    assert json.loads(notes.read_text())["notes"].keys() <= json.loads(kept)["notes"].keys()


def test_notes_of_another_file_do_not_count(tmp_path: Path, cache: Path) -> None:
    table = load_triplets([_write(tmp_path / "d", num_rows=100)])
    before = table.fingerprint
    (path,) = (cache / "triplets").glob("*.arrow")
    other = load_triplets([_write(tmp_path / "e", num_rows=90)], cache_folder=tmp_path / "other")
    (other_path,) = (tmp_path / "other").glob("*.arrow")
    other_path.replace(path)
    assert other.fingerprint != before  # its file is gone, as where somebody empties the cache
    assert TripletTable.open(path).fingerprint == other.fingerprint


def test_files_of_the_data_are_not_read_for_a_second_start(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedsmith.support import digests

    monkeypatch.setattr(digests, "_LEAST_BYTES", 1)
    monkeypatch.setattr(digests, "_SETTLED_NS", -1)
    source = _write(tmp_path / "d", num_rows=100)
    table = load_triplets([source])
    monkeypatch.setattr(digests.files, "read_digest", lambda path: pytest.fail("read again"))
    monkeypatch.setattr(triplets, "write_table", lambda *_, **__: pytest.fail("made again"))
    assert load_triplets([source]).fingerprint == table.fingerprint
    os.utime(tmp_path / "d" / "0.parquet", ns=(1, 1))
    with pytest.raises(pytest.fail.Exception, match="read again"):
        load_triplets([source])


def _held(work: Callable[[], object]) -> int:
    """Bytes that Python and numpy hold at the worst moment of it."""
    tracemalloc.start()
    work()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_nothing_is_held_for_each_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second start and some batches: with 100,000 rows more a pointer a row would be 800,000 bytes more."""
    monkeypatch.setattr(order, "SHUFFLED_ROWS", 1000)
    held = []
    for num_rows in (20_000, 120_000):
        source = _write(tmp_path / str(num_rows), num_rows=num_rows)
        start = partial(_start_and_train, source, cache=tmp_path / "cache", num_rows=num_rows)
        start()  # makes the table
        before = pa.total_allocated_bytes()
        held.append(_held(start))
        assert pa.total_allocated_bytes() - before < 100_000
    assert held[1] - held[0] < 100_000


def _start_and_train(source: str, *, cache: Path, num_rows: int) -> None:
    table = load_triplets([source], cache_folder=cache)
    assert (table.size, table.has_instructions) == (f"{num_rows:,} triplets", False)
    _ = (table.fingerprint, table.instructions(), table.source_fingerprint)
    for rows in islice(contrastive_batches(table.text_ids, batch_size=32, seed=7), 50):
        assert len(table.rows(rows).texts) == 32


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="tells of mapped pages are Linux's")
def test_pages_that_were_read_are_let_go_of(tmp_path: Path, cache: Path) -> None:
    table = load_triplets([_write(tmp_path / "d", num_rows=100_000)])
    (path,) = (cache / "triplets").glob("*.arrow")
    assert path.stat().st_size > 10_000_000
    for _ in table.chunks():
        pass
    resident = 0
    is_ours = False
    for line in Path("/proc/self/smaps").read_text().split("\n"):
        if "-" in line.split(" ")[0]:
            is_ours = str(path) in line
        elif is_ours and line.startswith("Rss:"):
            resident += 1024 * int(line.split()[1])
    assert resident < 2_000_000


def test_batches_from_the_disk_are_those_from_memory(tmp_path: Path, cache: Path) -> None:
    table = load_triplets([_write(tmp_path / "d", num_rows=20_000)])
    in_memory = TripletTable(pa.table(table._table.to_pydict(), table._table.schema), facts=table.facts)
    ids = np.array([table.text_ids[row] for row in range(len(table))])
    streams = [contrastive_batches(one, batch_size=64, seed=7) for one in (table.text_ids, in_memory.text_ids, ids)]
    for batches in islice(zip(*streams, strict=True), 400):
        assert batches[0].tolist() == batches[1].tolist() == batches[2].tolist()
        assert table.rows(batches[0]) == in_memory.rows(batches[0])


def test_what_a_killed_conversion_left_is_removed(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = _write(tmp_path / "d", num_rows=100)
    table = load_triplets([source])
    (path,) = (cache / "triplets").glob("*.arrow")
    whole = path.read_bytes()
    path.with_name(f".{path.name}.0123.tmp").write_bytes(whole[:1000])
    path.with_name(".another.arrow.0123.tmp").write_bytes(b"")  # somebody may be writing it
    path.unlink()
    assert load_triplets([source]).fingerprint == table.fingerprint
    assert path.read_bytes() == whole
    assert [one.name for one in path.parent.glob(".*.tmp")] == [".another.arrow.0123.tmp"]


def test_the_shares_of_two_processes_are_the_batch_of_one(tmp_path: Path, cache: Path) -> None:
    ragged = write_ragged_triplets(tmp_path / "t.jsonl", counts=[3, 0, 1, 4, 0, 2] * 5)
    pairs = write_pairs(tmp_path / "p.tsv")
    (tmp_path / "x.txt").write_text("a cat\nrain falls\nthe sea\nthe roof\n" * 2)
    for path in (ragged, pairs, tmp_path / "x.txt"):
        table = load_triplets([str(path)])
        rows = np.array([5, 2, 7, 0, 6, 3])
        whole = table.rows(rows)
        for own in (slice(0, 3), slice(3, 6)):
            share = table.share(rows, own=own)
            assert _parts(share.slice(own)) == _parts(whole.slice(own))
            assert share.negative_rows == whole.negative_rows
            assert [*map(len, share.groups())] == [*map(len, whole.groups())]
            assert share.scores is None or share.scores.tolist() == whole.scores.tolist()
            others = [text for row in {*range(6)} - {*range(6)[own]} for text in share.texts[row]]
            assert set(others) == {""}


def _parts(rows: Triplets) -> list[object]:
    scores = None if rows.scores is None else rows.scores.tolist()
    return [rows.texts, rows.instructions, rows.are_symmetric, scores]
