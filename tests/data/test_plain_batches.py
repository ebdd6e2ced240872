"""Rows read many at once make the same table, remarks and faults as rows read one by one."""

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedsmith.data import parquet, plain_batches, table_file, triplets
from embedsmith.data.triplets import load_triplets
from embedsmith.settings.data import TrainSource
from embedsmith.support.errors import DataError

ODD = ["  two  spaces ", "n/a", "N.A..", "['a', 'b']", "über", "e\u0301", "\u00e9", "-", "tab\there", "\u3000x", "5"]
INSTRUCTIONS = [None, "", "find it", "find another"]


def _write(path: Path, *, num_rows: int, columns: tuple[str, ...], seed: int, odd: float = 0.1) -> Path:
    rng = random.Random(seed)

    def text(row: int, name: str) -> str:
        return rng.choice(ODD) if rng.random() < odd else f"{name} of {rng.choice(['it', row])} and {row % 7}"

    values: dict[str, Any] = {
        name: [rng.choice(INSTRUCTIONS) if name == "instruction" else text(row, name[:3]) for row in range(num_rows)]
        for name in columns
    }
    table = pa.table({name: pa.array(column, pa.string()) for name, column in values.items()})
    pq.write_table(table, path, row_group_size=1 + num_rows // 3)
    return path


def _load(sources: list[Any], cache: Path, **options: Any) -> tuple[bytes, Any]:
    table = load_triplets(sources, cache_folder=cache, **options)
    (path,) = cache.glob("*.arrow")
    return path.read_bytes(), table


def _one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triplets, "used_columns", lambda roles: None)


@pytest.mark.parametrize(
    "columns",
    [
        ("anchor", "positive"),
        ("anchor", "positive", "negative"),
        ("query", "pos", "neg_1", "neg_2", "neg_3", "instruction", "label"),
        ("instruction", "anchor", "positive", "negative"),
    ],
)
def test_the_table_is_the_same_to_the_last_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: tuple[str, ...]
) -> None:
    monkeypatch.setattr(table_file, "_BATCH_ROWS", 64)  # no file's number of rows is a multiple
    few, many = (_write(tmp_path / f"{rows}.parquet", num_rows=rows, columns=columns, seed=rows) for rows in (100, 333))
    given = {"instruction": "of the source"} if "instruction" in columns else {}
    sources = [str(few), TrainSource(files=str(many), symmetric=True, **given)]
    at_once, table = _load(sources, tmp_path / "a")
    _one_by_one(monkeypatch)
    one_by_one, other = _load(sources, tmp_path / "b")
    assert at_once == one_by_one
    assert (table.facts, table.fingerprint) == (other.facts, other.fingerprint)
    assert len(table.facts.remarks) >= 2


def test_long_texts_end_a_batch_at_the_same_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_file, "_BATCH_CHARACTERS", 700)
    path = _write(tmp_path / "t.parquet", num_rows=300, columns=("anchor", "positive", "negative"), seed=1, odd=0.2)
    at_once, _ = _load([str(path)], tmp_path / "a")
    _one_by_one(monkeypatch)
    assert at_once == _load([str(path)], tmp_path / "b")[0]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_every_type_of_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: pa.DataType) -> None:
    rows = {"anchor": ["a cat", "b"], "positive": ["n/a", "p"]}
    pq.write_table(pa.table({name: pa.array(texts).cast(kind) for name, texts in rows.items()}), tmp_path / "t.parquet")
    at_once, _ = _load([str(tmp_path / "t.parquet")], tmp_path / "a")
    _one_by_one(monkeypatch)
    assert at_once == _load([str(tmp_path / "t.parquet")], tmp_path / "b")[0]


@pytest.mark.parametrize("row", [0, 200])
@pytest.mark.parametrize("wrong", [None, "", " \u3000", b"caf\xe9"])
def test_faults_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: int, wrong: Any) -> None:
    """In a batch with faults all rows are read one by one, the others still at once."""
    monkeypatch.setattr(parquet, "_BATCH_ROWS", 64)
    anchors: list[Any] = [f"anchor {number}" for number in range(201)]
    anchors[row] = wrong
    stored = pa.array([text.encode() if isinstance(text, str) else text for text in anchors], pa.binary())
    texts = pa.Array.from_buffers(pa.string(), len(stored), stored.buffers())
    pq.write_table(pa.table({"anchor": texts, "positive": ["p"] * len(anchors)}), tmp_path / "t.parquet")
    messages = []
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            load_triplets([str(tmp_path / "t.parquet")], cache_folder=tmp_path / "cache")
        messages.append(str(caught.value))
        _one_by_one(monkeypatch)
    assert messages[0] == messages[1]
    assert f"row {row + 1}: anchor" in messages[0]
    assert not list((tmp_path / "cache").glob("*.arrow"))


def test_ordinary_rows_are_not_looked_at_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path / "t.parquet", num_rows=500, columns=("anchor", "positive", "negative"), seed=2, odd=0)
    monkeypatch.setattr(plain_batches, "row_doubts", lambda *_: pytest.fail("looked at"))
    monkeypatch.setattr(triplets, "read_row", lambda *_: pytest.fail("read by itself"))
    assert len(load_triplets([str(path)], cache_folder=tmp_path / "cache")) == 500
