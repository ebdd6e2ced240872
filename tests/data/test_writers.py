"""What we write our own readers read again, character by character; what a format cannot hold is refused, unwritten."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from embedsmith.data.faults import Faults
from embedsmith.data.readers import read_rows
from embedsmith.data.triplets import load_triplets
from embedsmith.data.writers import write_rows, write_triplets
from embedsmith.settings.data import TrainSource
from embedsmith.support.errors import DataError
from tests.tiny import write_ragged_triplets

HEADER = ("anchor", "positive")
CANNOT_HOLD = {".jsonl": "", ".csv": "\0", ".tsv": "\t\r\n\0"}
awkward = st.text(
    st.sampled_from("\"'\\,;\t\r\n\0\ufeff\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e\x1f\x7f é漢a")
    | st.characters(exclude_categories=["Cs"])
)


@given(
    st.lists(st.tuples(awkward, awkward), min_size=1, max_size=4),
    st.sampled_from([".jsonl", ".csv", ".tsv", ".jsonl.gz", ".csv.gz", ".tsv.gz"]),
)
@example([('"', '""'), ('"quoted" first', "'")], ".tsv")
@example([('"', ","), ("\r", "x\r\ny\n")], ".csv")
@example([(" x ", ""), ("", "")], ".csv")
@example([("\ufeffx", "#"), ("-", "\x1a")], ".csv.gz")
def test_what_is_written_is_read_again(rows: list[tuple[str, str]], suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, faults = Path(folder) / f"rows{suffix}", Faults()
        if set("".join(map("".join, rows))) & set(CANNOT_HOLD[suffix.removesuffix(".gz")]):
            with pytest.raises(DataError, match=r"Write a \.jsonl"):
                write_rows(path, header=HEADER, rows=rows)
            assert list(Path(folder).iterdir()) == []
        else:
            write_rows(path, header=HEADER, rows=rows)
            assert [tuple(row.values()) for _, row in read_rows(path, faults=faults)] == rows
            assert faults.texts == []


def test_numbers_and_nothing(tmp_path: Path) -> None:
    for suffix, wanted in ((".jsonl", [0.1, None]), (".csv", ["0.1", ""]), (".tsv", ["0.1", ""])):
        path = tmp_path / f"rows{suffix}"
        write_rows(path, header=HEADER, rows=[(0.1, None)])
        assert [list(row.values()) for _, row in read_rows(path, faults=Faults())] == [wanted]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv.gz"])
@pytest.mark.parametrize("counts", [[1, 1, 1], [0, 0, 0], [0, 1, 1], [3, 0, 2], [2, 2, 2]])
@pytest.mark.parametrize("instruction", [None, "find it"])
def test_a_table_is_read_again_as_it_was(
    tmp_path: Path, cache: Path, suffix: str, counts: list[int], instruction: str | None
) -> None:
    source = TrainSource(files=str(write_ragged_triplets(tmp_path / "t.jsonl", counts=counts)), instruction=instruction)
    table = load_triplets([source])
    written = tmp_path / f"written{suffix}"
    write_triplets(written, table, indices=np.array([2, 0, 1]))
    again = load_triplets([str(written)])
    rows, expected = again.rows(np.arange(3)), table.rows(np.array([2, 0, 1]))
    assert rows == expected
    assert (again.kind, again.negatives_per_row) == (table.kind, table.negatives_per_row)
    assert again.facts.remarks == ()


def test_texts_alone_are_written_and_read_again(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("a cat\nrain\nthe sea\n")
    table = load_triplets([str(tmp_path / "t.txt")], cache_folder=tmp_path / "cache")
    write_triplets(tmp_path / "out.tsv", table, indices=np.array([2, 0]))
    assert (tmp_path / "out.tsv").read_text() == "text\nthe sea\na cat\n"
    again = load_triplets([str(tmp_path / "out.tsv")], cache_folder=tmp_path / "cache")
    assert again.rows(np.arange(2)).texts == [("the sea",), ("a cat",)]
