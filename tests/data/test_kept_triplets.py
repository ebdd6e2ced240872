"""What is kept of triplets: a table on disk under a name of all that it depends on, checked when it is taken; draws."""

import gzip
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedsmith.data import triplets as module
from embedsmith.data.triplets import load_triplets
from embedsmith.settings.data import TrainSource
from embedsmith.support.errors import DataError
from tests.data.rows import scored_rows, write_jsonl
from tests.tiny import write_triplets

ROW = {"anchor": "a", "positive": "p", "negative": "n"}


def _write_anchors(path: Path, anchors: list[str]) -> None:
    rows = [{**ROW, "anchor": anchor} for anchor in anchors]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        write_jsonl(path, *rows)


def test_what_is_kept_is_named_by_what_is_in_the_files(tmp_path: Path, cache: Path) -> None:
    """A file written anew with the size and the times of the old one is another one."""
    path = tmp_path / "t.jsonl"
    for anchor in ("a", "b"):
        write_jsonl(path, {**ROW, "anchor": anchor})
        os.utime(path, ns=(1, 1))
        assert load_triplets([str(path)]).rows(np.array([0])).anchors == [anchor]
    write_jsonl(path, {**ROW, "anchor": "a"})
    assert load_triplets([str(path)]).rows(np.array([0])).anchors == ["a"]
    assert len(list(cache.rglob("*.arrow"))) == 2


def test_everything_a_table_depends_on_is_in_its_name(tmp_path: Path, cache: Path) -> None:
    row = {**ROW, "other": "o"}
    one, two = write_jsonl(tmp_path / "1.jsonl", row), write_jsonl(tmp_path / "2.jsonl", row)
    loads: list[tuple[list[str | TrainSource], dict[str, str]]] = [
        ([one], {}),
        ([two], {}),  # its remarks name the file
        ([one, two], {}),
        ([TrainSource(files=one, instruction="i")], {}),
        ([TrainSource(files=one, instruction="j")], {}),
        ([TrainSource(files=one, symmetric=True)], {}),
        ([one], {"positive": "other"}),
        ([one], {"negative": "other"}),
    ]
    rows = []
    for number, (sources, columns) in enumerate(loads, start=1):
        table = load_triplets(sources, columns=columns)
        rows.append((table.rows(np.arange(len(table))), table.facts))
        assert len(list(cache.rglob("*.arrow"))) == number
    for (sources, columns), expected in zip(loads, rows, strict=True):
        table = load_triplets(sources, columns=columns)
        assert (table.rows(np.arange(len(table))), table.facts) == expected
    assert len(list(cache.rglob("*.arrow"))) == len(loads)


def test_unchanged_files_are_not_read_again(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_jsonl(tmp_path / "t.jsonl", ROW)
    load_triplets([source])
    monkeypatch.setattr(module, "read_rows", lambda *_, **__: pytest.fail("read again"))
    assert load_triplets([source]).rows(np.array([0])).negatives == [["n"]]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("change", ["written anew", "gone"])
def test_a_file_that_changes_while_it_is_converted_is_refused(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, change: str
) -> None:
    """Else its new rows would be kept under the name of its old ones."""
    path = tmp_path / f"t.{suffix}"

    def write(anchor: str) -> None:
        _write_anchors(path, [anchor] * 3)

    def find_roles_meanwhile(*arguments: Any, **options: Any) -> Any:
        write("new") if change == "written anew" else path.unlink(missing_ok=True)
        return find_roles(*arguments, **options)

    write("old")
    message = rf"t.{suffix}: (has changed while it was read|cannot be read: No such file)"
    find_roles = module.find_roles
    with monkeypatch.context() as meanwhile, pytest.raises(DataError, match=message):
        meanwhile.setattr(module, "find_roles", find_roles_meanwhile)
        load_triplets([str(path)])
    assert not list(cache.rglob("*.arrow"))
    write("old")
    assert load_triplets([str(path)]).rows(np.array([0])).anchors == ["old"]


@pytest.mark.parametrize("kept", [0, 7, 0.3, 0.7, -1, "garbage", "another table"])
def test_a_damaged_table_is_made_anew_and_said(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture, kept: float | str
) -> None:
    rows = [{"anchor": f"a{n}", "positive": f"p{n}", "negative": f"n{n}"} for n in range(100)]
    source = write_jsonl(tmp_path / "t.jsonl", *rows)
    load_triplets([source])
    [file] = cache.rglob("*.arrow")
    whole = file.read_bytes()
    if isinstance(kept, str):
        other = io.BytesIO()
        with pa.ipc.new_file(other, pa.schema([("x", pa.int8())])) as writer:
            writer.write_batch(pa.RecordBatch.from_pydict({"x": pa.array([1], pa.int8())}))
        file.write_bytes(other.getvalue() if kept == "another table" else b"garbage" * 1000)
    else:
        file.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    for _ in range(2):
        assert load_triplets([source]).rows(np.array([99])).negatives == [["n99"]]
    assert caplog.text.count(f"The table kept in {file} is damaged") == 1
    assert file.read_bytes() == whole


def test_many_rows_stay_on_disk(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "many.tsv.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("anchor\tpositive\tnegative\n")
        file.writelines(f"anchor {n}\tpositive {n}\tnegative {n % 100}\n" for n in range(200_000))
    table = load_triplets([str(path)])
    before = pa.total_allocated_bytes()
    table = load_triplets([str(path)])
    assert pa.total_allocated_bytes() - before < 100_000
    assert len(table) == 200_000
    usual_pool = pa.default_memory_pool()
    counting_pool = pa.proxy_memory_pool(usual_pool)
    pa.set_memory_pool(counting_pool)
    try:
        assert table.rows(np.array([150_001, 3])).anchors == ["anchor 150001", "anchor 3"]
    finally:
        pa.set_memory_pool(usual_pool)
    assert counting_pool.max_memory() < 100_000
    assert len({number for row in range(200_000) for number in table.text_ids[row].tolist()}) == 400_100
    assert len(table.draw(7)) == 7


def test_a_smaller_draw_is_part_of_a_larger_one(tmp_path: Path, cache: Path) -> None:
    table = load_triplets([write_jsonl(tmp_path / "s.jsonl", *scored_rows(*range(100)))])
    draws = [table.draw(num).rows(np.arange(num)).scores.tolist() for num in (10, 40)]
    assert draws[0] == draws[1][:10]
    assert len(set(draws[1])) == 40
    assert draws[0] != list(range(10))


def test_drawn_rows_keep_their_text_ids(cache: Path) -> None:
    table = load_triplets(["sample"])
    anchors = table.rows(np.arange(len(table))).anchors
    id_of = {anchor: table.text_ids[row][0] for row, anchor in enumerate(anchors)}
    drawn = table.draw(5)
    assert len(drawn) == 5
    drawn_ids = [drawn.text_ids[row][0] for row in range(5)]
    assert drawn_ids == [id_of[anchor] for anchor in drawn.rows(np.arange(5)).anchors]


def test_rows_know_which_source_they_are_from(tmp_path: Path, cache: Path) -> None:
    """What a glob finds is one source; the same kept table serves another grouping."""
    files = [write_triplets(tmp_path / f"{name}.tsv", num_rows=3, first=3 * index) for index, name in enumerate("abc")]
    apart = load_triplets([str(path) for path in files])
    assert apart.sources.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    grouped = load_triplets([str(tmp_path / "[ab].tsv"), str(files[2])])
    assert len([*cache.rglob("*.arrow")]) == 1
    assert grouped.sources.tolist() == [0] * 6 + [1] * 3
    assert grouped.fingerprint == apart.fingerprint
    assert grouped.source_fingerprint != apart.source_fingerprint
    drawn = grouped.draw(5)
    anchors = [*grouped.rows(np.arange(9)).anchors]
    assert drawn.sources.tolist() == [anchors.index(anchor) // 6 for anchor in drawn.rows(np.arange(5)).anchors]
