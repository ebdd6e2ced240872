"""Every fault a file can have is named with its place; every format gives the same rows."""

import csv
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedsmith.data.readers import Faults, expand_sources, read_rows
from embedsmith.support.errors import DataError

ROWS = [
    {"anchor": 'He said "no".', "positive": "été — 漢字", "negative": "a, b; c"},
    {"anchor": "two", "positive": "it's", "negative": "'"},
]


def _write(path: Path, rows: list[dict[str, str]]) -> Path:
    kind = path.name.removesuffix(".gz")
    names = list(rows[0])
    if kind.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8", newline="") as file:
        if kind.endswith(".jsonl"):
            file.writelines(json.dumps(row) + "\n" for row in rows)
        elif kind.endswith(".csv"):
            csv.writer(file).writerows([names, *(row.values() for row in rows)])
        else:
            file.writelines("\t".join(fields) + "\n" for fields in (names, *(row.values() for row in rows)))
    return path


def _read(path: Path) -> tuple[list[dict[str, str]], list[str]]:
    faults = Faults()
    return [row for _, row in read_rows(path, faults=faults)], faults.texts


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "jsonl.gz", "csv.gz", "tsv.gz", "parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    assert _read(_write(tmp_path / f"data.{suffix}", ROWS)) == (ROWS, [])


def test_a_byte_order_mark_and_crlf_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "data.tsv"
    path.write_bytes(b"\xef\xbb\xbfanchor\tpositive\r\nx\ty\r\n")
    assert _read(path) == ([{"anchor": "x", "positive": "y"}], [])


def test_a_csv_field_may_hold_a_line_break(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(b'anchor,positive\r\n"one\r\ntwo\nthree",y\r\n')
    assert _read(path) == ([{"anchor": "one\r\ntwo\nthree", "positive": "y"}], [])


@pytest.mark.parametrize("mark", [";", "\t"])
def test_a_csv_may_be_parted_by_what_its_header_is_parted_by(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(f'\ufeff"anchor, ""short"""{mark}positive\r\n"1,5{mark} or so"{mark}one, and\n'.encode())
    assert _read(path) == ([{'anchor, "short"': f"1,5{mark} or so", "positive": "one, and"}], [])


def test_in_a_csv_with_a_comma_in_its_header_other_marks_are_text(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("anchor;a,positive;b\tc\n1;2,3\t4;5\n")
    assert _read(path) == ([{"anchor;a": "1;2", "positive;b\tc": "3\t4;5"}], [])


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": \n', ", line 2: is not valid JSON"),
        ("a.jsonl", b'{"a": ' + b"[" * 200_000, ", line 1: is not valid JSON"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', ", line 2: must be a JSON object, but is a list"),
        ("a.tsv", b"a\tb\nx\ty\nx\n", ", line 3: has 1 fields where the header has 2"),
        ("a.csv", b'a,b\nx,y\n"x,y\n', ", line 3: is not valid CSV"),
        ("a.csv", b"a,b\nx,y,z\n", ", line 2: has 3 fields where the header has 2"),
        ("a.tsv", b"a\tb\nx\t\xff\n", ", line 2: is not UTF-8 (byte 0xff at 3)"),
        ("a.tsv", b"a\tb\nx\t\0\n", ", line 2: holds a NUL byte"),
        ("a.tsv.gz", b"a\tb\nx\ty\n", ": is named .gz but is not gzip"),
        (
            "a.tsv.gz",
            gzip.compress(b"a\tb\n" + b"x\ty\n" * 9999, mtime=0)[:-9],
            "the gzip data is damaged or cut short",
        ),
        ("a.tsv", b"", ": is empty"),
        ("a.tsv", b"a\tb\n", ": is empty"),
        ("a.tsv.gz", b"", ": is empty"),
        ("a.parquet", b"PAR1 nonsense", ": is not a readable parquet file"),
        ("a.parquet", b"", ": is not a readable parquet file"),
        ("a.tsv", b"a\tb\ta\nx\ty\tz\n", ", line 1: the name 'a' stands there twice, on columns 1 and 3"),
        ("a.csv", b"b,a,a\nx,y,z\n", ", line 1: the name 'a' stands there twice, on columns 2 and 3"),
        ("a.jsonl", b'{"a": 1}\n{"a": 1, "a": 2}\n', ", line 2: the name 'a' stands there twice, with 1 and 2"),
        ("a.jsonl", b'{"x": {"a": 1, "a": 2}}\n', ", line 1: the name 'a' stands there twice, with 1 and 2"),
        ("a.jsonl", b'{"a": ' + b"1" * 5000 + b"}\n", ", line 1: is not valid JSON: Exceeds the limit"),
        ("a.jsonl", '{"a": "x"}\n'.encode("utf-16"), ": is UTF-16 or UTF-32, not UTF-8"),
        ("a.csv", "a,b\nx,y\n".encode("utf-16-le"), ": is UTF-16 or UTF-32, not UTF-8"),
        ("a.csv", "a,b\nx,y\n".encode("utf-16-be"), ": is UTF-16 or UTF-32, not UTF-8"),
        ("a.tsv", "a\tb\nx\ty\n".encode("utf-32"), ": is UTF-16 or UTF-32, not UTF-8"),
        ("a.tsv", gzip.compress(b"a\tb\nx\ty\n", mtime=0), ": is gzip, but is not named .gz"),
        ("a.tsv.gz", gzip.compress("a\tb\nx\ty\n".encode("utf-16"), mtime=0), ": is UTF-16 or UTF-32, not UTF-8"),
        ("a.jsonl", b"PAR1nonsense", ": is parquet, but is not named .parquet"),
        ("a.tsv", b"a\tb\rx\ty\r", ", line 1: a carriage return stands in the header"),
        ("a.csv", b"a,b\rx,y\r", ", line 1: is not valid CSV: a carriage return ends no line"),
        ("a.csv", b'a,b\nx,"y\nx,y\nx,y\n', ", line 2: is not valid CSV"),  # where the quote was opened
    ],
)
def test_faults_name_file_and_line(tmp_path: Path, name: str, content: bytes, fault: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    _, faults = _read(path)
    assert len(faults) == 1
    assert faults[0].startswith(str(path))
    assert fault in faults[0]


def test_a_column_without_a_name_is_kept_for_whoever_says_that_it_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,,\nx,1,2\n")
    assert _read(path) == ([{"a": "x", "": "2"}], [])


def test_a_csv_row_is_named_by_its_first_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('a,b\n"x\ny","z\n\nz"\n\n1,2\n')
    assert [line for line, _ in read_rows(path, faults=Faults())] == [2, 7]


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"])
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv"])
def test_only_a_line_feed_ends_a_line(tmp_path: Path, suffix: str, mark: str) -> None:
    path = tmp_path / f"a.{suffix}"
    row = {"a": f"x{mark}y", "b": mark}
    lines = {
        "jsonl": json.dumps(row, ensure_ascii=mark < " ") + "\n",
        "csv": f"a,b\nx{mark}y,{mark}\n",
        "tsv": f"a\tb\nx{mark}y\t{mark}\n",
    }
    path.write_bytes(lines[suffix].encode())
    assert _read(path) == ([row], [])


def test_reading_goes_on_after_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": "1"}\nbroken\n{"a": "3"}\nbroken\n')
    rows, faults = _read(path)
    assert [row["a"] for row in rows] == ["1", "3"]
    assert len(faults) == 2


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "jsonl.gz", "parquet"])
def test_a_file_that_changes_while_it_is_read_is_a_fault(tmp_path: Path, suffix: str) -> None:
    path = _write(tmp_path / f"data.{suffix}", ROWS)
    faults = Faults()
    rows = read_rows(path, faults=faults)
    next(rows)
    with path.open("ab") as file:
        file.write(b"\n")
    list(rows)
    assert any("has changed while it was read" in text for text in faults.texts)


def test_sources_that_are_none(tmp_path: Path) -> None:
    faults = Faults()
    (tmp_path / "a.doc").touch()
    sources = [str(tmp_path / name) for name in ("none.tsv", "*.csv", "a.doc", ".")]
    assert expand_sources(sources, faults=faults) == []
    with pytest.raises(DataError) as caught:
        faults.raise_if_any(what="data")
    for part in ("4 faults", "none.tsv: no such file", "matches none", "unknown format", "is a folder"):
        assert part in str(caught.value)


@pytest.mark.parametrize(("name", "cure"), [("a.json", ".jsonl"), ("a.xlsx", ".csv"), ("a.doc", "known are .jsonl")])
def test_a_format_that_is_not_read_comes_with_a_cure(tmp_path: Path, name: str, cure: str) -> None:
    (tmp_path / name).touch()
    faults = Faults()
    expand_sources([str(tmp_path / name)], faults=faults)
    assert "unknown format" in faults.texts[0] and cure in faults.texts[0]


def test_globs_are_sorted_and_a_file_named_twice_is_a_fault(tmp_path: Path) -> None:
    for name in ("b.tsv", "a.tsv"):
        (tmp_path / name).touch()
    pattern, faults = str(tmp_path / "*.tsv"), Faults()
    paths = expand_sources([pattern, str(tmp_path / "a.tsv")], faults=faults)
    assert [path.name for path in paths] == ["a.tsv", "b.tsv"]
    place = tmp_path / "a.tsv"
    assert faults.texts == [f"{place}: is named twice: by {pattern} ({place}) and by {place}"]


def test_only_so_many_faults_are_shown() -> None:
    faults = Faults(limit=5)
    for line in range(1, 5001):
        faults.add("f.tsv", line, "is empty")
    with pytest.raises(DataError, match=r"5000 faults[\s\S]*and 4995 more"):
        faults.raise_if_any(what="data")
    assert len(faults.texts) == 5


awkward = st.text(
    st.sampled_from("\"'\\,;\t\r\n\ufeff\u2028\x85é漢 a") | st.characters(exclude_categories=["Cs", "Cc"])
)
# .tsv has no way to write a tab or a line break in a field
forbidden_in_tsv = str.maketrans("\t\r\n", "   ")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(awkward, awkward), min_size=1, max_size=5), st.sampled_from(["csv", "tsv", "jsonl"]))
def test_any_text_survives(tmp_path: Path, texts: list[tuple[str, str]], suffix: str) -> None:
    rows = [{"anchor": first, "positive": second} for first, second in texts]
    if suffix == "tsv":
        rows = [{name: text.translate(forbidden_in_tsv) for name, text in row.items()} for row in rows]
    assert _read(_write(tmp_path / f"data.{suffix}", rows)) == (rows, [])


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["csv", "tsv", "jsonl", "csv.gz", "tsv.gz", "jsonl.gz", "parquet"]),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 20), st.binary(max_size=8)), min_size=1, max_size=4),
)
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, suffix: str, edits: list[tuple[float, int, bytes]]) -> None:
    path = _write(tmp_path / f"data.{suffix}", ROWS)
    data = bytearray(path.read_bytes())
    for place, num_removed, added in edits:
        start = int(place * len(data))
        data[start : start + num_removed] = added
    path.write_bytes(data)
    faults = Faults()
    try:
        rows = [dict(row) for _, row in read_rows(path, faults=faults)]
    except DataError:
        return
    assert rows or faults.count
