"""Parquet: columns are read when asked for, and whatever is no text is refused by row and column."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedsmith.data.faults import Faults
from embedsmith.data.readers import read_rows
from embedsmith.data.triplets import load_triplets
from embedsmith.support.errors import DataError


def _broken(values: list[Any]) -> pa.Array:
    """Bytes that claim to be UTF-8; as lists of them where they are lists."""
    nested = isinstance(values[0], list)
    stored = pa.array(values, pa.list_(pa.binary()) if nested else pa.binary())
    flat = stored.values if nested else stored
    texts = pa.Array.from_buffers(pa.string(), len(flat), flat.buffers())
    return pa.ListArray.from_arrays(stored.offsets, texts) if nested else texts


def _write(path: Path, **columns: Any) -> str:
    pq.write_table(pa.table(columns), path, row_group_size=2)
    return str(path)


def test_bytes_that_are_no_utf8_are_named_by_row_and_column(tmp_path: Path, cache: Path) -> None:
    values = [b"a"] * 4 + [b"caf\xe9"]
    path = _write(tmp_path / "t.parquet", anchor=_broken(values), positive=list("pqrst"))
    with pytest.raises(DataError, match=rf"{path}, row 5: anchor must be a text in UTF-8, but is the bytes b'caf"):
        load_triplets([path])


def test_so_are_those_inside_of_lists_and_dictionaries(tmp_path: Path, cache: Path) -> None:
    path = _write(tmp_path / "t.parquet", query=["a", "b"], pos=[["p"], ["q"]], neg=_broken([[b"n"], [b"n", b"\xff"]]))
    rows = [row["neg"] for _, row in read_rows(Path(path), faults=Faults())]
    assert rows == [["n"], ["n", b"\xff"]]
    path = _write(tmp_path / "d.parquet", anchor=_broken([b"\xff", b"x"]).dictionary_encode(), positive=["p", "q"])
    with pytest.raises(DataError, match=r"row 1: anchor must be a text in UTF-8, but is the bytes b'\\xff'"):
        load_triplets([path])


def test_columns_that_nobody_needs_are_not_read(tmp_path: Path, cache: Path) -> None:
    path = _write(
        tmp_path / "t.parquet",
        anchor=["a", "b"],
        positive=["p", "q"],
        broken=_broken([b"\xff", b"\xfe"]),
        time=pa.array([2**50, 0], pa.timestamp("s")),  # a year that Python does not have
    )
    assert len(load_triplets([path])) == 2


def test_a_damaged_column_is_named_where_it_is_needed(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "t.parquet"
    _write(path, anchor=["a" * 300, "b" * 300], positive=["p", "q"], junk=["j" * 300, "k" * 300])
    metadata = pq.read_metadata(path).row_group(0)
    data = bytearray(path.read_bytes())
    junk, anchor = metadata.column(2), metadata.column(0)
    for column in (junk, anchor):
        start = column.dictionary_page_offset
        data[start : start + column.total_compressed_size] = b"\x00" * column.total_compressed_size
        path.write_bytes(data)
        if column is junk:
            assert len(load_triplets([str(path)])) == 2
        else:
            with pytest.raises(DataError, match=r"t\.parquet: column 'anchor' cannot be read after row 0"):
                load_triplets([str(path)])


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())],
    ids=["string", "large", "view", "dictionary"],
)
def test_every_type_of_text_is_a_text(tmp_path: Path, cache: Path, kind: pa.DataType) -> None:
    path = _write(tmp_path / "t.parquet", anchor=pa.array(["é", "b"]).cast(kind), positive=["p", "q"])
    assert [row["anchor"] for _, row in read_rows(Path(path), faults=Faults())] == ["é", "b"]
    assert len(load_triplets([path])) == 2


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        (pa.nulls(1), "row 1: anchor is missing"),
        ([3], "row 1: anchor must be a text, but is 3"),
        ([True], "row 1: anchor must be a text, but is True"),
        (pa.array([b"abc"], pa.binary()), "row 1: anchor must be a text in UTF-8, but is the bytes b'abc'"),
        (pa.array([2**50], pa.timestamp("s")), "row 1: anchor must be a text, but is <"),
    ],
    ids=["null", "int", "bool", "binary", "time"],
)
def test_other_types_are_refused(tmp_path: Path, cache: Path, values: Any, fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        load_triplets([_write(tmp_path / "t.parquet", anchor=values, positive=["p"])])


def test_a_doubled_column_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table([["a"], ["p"], ["b"]], names=["anchor", "positive", "anchor"]), path)
    faults = Faults()
    assert list(read_rows(path, faults=faults)) == []
    assert faults.texts == [f"{path}: the name 'anchor' stands there twice, on columns 1 and 3; rename or remove one"]


def test_rows_may_be_kept_and_read_in_any_order(tmp_path: Path) -> None:
    path = _write(tmp_path / "t.parquet", a=list(range(20_000)), **{"a.b": list("xy") * 10_000})
    rows = [row for _, row in read_rows(Path(path), faults=Faults())]
    assert [rows[number]["a"] for number in (19_999, 0, 9000, 8191, 8192)] == [19_999, 0, 9000, 8191, 8192]
    assert (rows[1]["a.b"], list(rows[0])) == ("y", ["a", "a.b"])
