"""Rows are written as one file, atomically, in batches of bounded size."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embedsmith.data import table_file as module
from embedsmith.data.readers import Faults
from embedsmith.data.table import TableFacts, TripletTable
from embedsmith.data.table_file import TableRow, write_table
from embedsmith.support.errors import DataError

FACTS = TableFacts(("a.tsv",), ("a remark",))


def _write(path: Path, rows: Iterator[TableRow]) -> TripletTable:
    write_table(rows, path, facts=lambda: FACTS, faults=Faults())
    return TripletTable.open(path)


def _rows(num_rows: int) -> Iterator[TableRow]:
    for row in range(num_rows):
        yield TableRow((f"a{row}", f"p{row}", *(f"n{row}-{k}" for k in range(row % 4))), line=row + 2)


@pytest.mark.parametrize(("limit", "value"), [("_BATCH_ROWS", 7), ("_BATCH_CHARACTERS", 60), (None, None)])
def test_batches_do_not_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str | None, value: int | None
) -> None:
    if limit:
        monkeypatch.setattr(module, limit, value)
    table = _write(tmp_path / "t.arrow", _rows(50))
    assert list(table.rows(np.arange(50)).texts) == [row.texts for row in _rows(50)]
    assert [len(table.text_ids[row]) for row in range(50)] == [len(row.texts) for row in _rows(50)]
    assert table.facts == FACTS
    assert table.place(49) == "a.tsv, line 51"
    assert table.negatives_per_row == (0, 3)
    drawn = table.draw(20)
    for row, texts in enumerate(drawn.rows(np.arange(20)).texts):
        original = int(texts[0][1:])
        assert drawn.place(row) == f"a.tsv, line {original + 2}"
        assert drawn.text_ids[row].tolist() == table.text_ids[original].tolist()


def test_two_processes_may_write_at_once(tmp_path: Path) -> None:
    def rows_with_another_one_writing_in_the_middle() -> Iterator[TableRow]:
        yield TableRow(("a", "p", "n"))
        _write(tmp_path / "t.arrow", _rows(3))

    assert len(_write(tmp_path / "t.arrow", rows_with_another_one_writing_in_the_middle())) == 1


def test_faults_and_no_rows_leave_nothing(tmp_path: Path) -> None:
    faults = Faults()
    faults.add("x", 1, "is wrong")
    for count, noted in ((0, Faults()), (3, faults)):
        with pytest.raises(DataError):
            write_table(_rows(count), tmp_path / "t.arrow", facts=lambda: FACTS, faults=noted)
    assert not list(tmp_path.iterdir())


def test_texts_that_differ_in_white_space_alone_have_one_number(tmp_path: Path) -> None:
    table = _write(tmp_path / "t.arrow", iter([TableRow(("a  b", "p")), TableRow(("q", " a b"))]))
    assert table.text_ids[0][0] == table.text_ids[1][1] != table.text_ids[0][1]
