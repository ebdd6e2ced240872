"""What is held out shares no anchor and no positive with what is trained on."""

import json
from pathlib import Path

import numpy as np
import pytest

from embedsmith.data.beir import load_retrieval_set
from embedsmith.data.held_out import split_rows, write_split
from embedsmith.data.local_sets import SetKind, find_local_sets
from embedsmith.data.table import TripletTable
from embedsmith.data.triplets import load_triplets
from embedsmith.support.errors import DataError
from tests.tiny import write_pairs


def _table(folder: Path, rows: list[tuple[str, str]]) -> TripletTable:
    path = folder / "rows.jsonl"
    lines = [json.dumps({"anchor": anchor, "positive": positive}) for anchor, positive in rows]
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return load_triplets([str(path)])


# Ten questions, three answers a piece; questions 0 and 1 share one, so they hang together.
ROWS = [(f"question {n}", f"answer {0 if n < 2 and part == 0 else n} {part}") for n in range(10) for part in range(3)]


def test_rows_that_hang_together_stay_together(tmp_path: Path, cache: Path) -> None:
    table = _table(tmp_path, ROWS)
    together = False
    for seed in range(20):
        split = split_rows(table, share=0.25, seed=seed)
        assert sorted([*split.train, *split.held_out]) == list(range(30))
        assert len(split.held_out) in (6, 3)
        train, held_out = ({text for row in rows for text in ROWS[row]} for rows in (split.train, split.held_out))
        assert not train & held_out
        together |= set(range(6)) <= set(split.held_out)
    assert together
    assert np.array_equal(split.held_out, split_rows(table, share=0.25, seed=19).held_out)


def test_one_that_cannot_be_split_is_refused(tmp_path: Path, cache: Path) -> None:
    table = _table(tmp_path, [(f"question {n}", "yes") for n in range(20)])
    with pytest.raises(DataError, match="Of 20 rows 20 hang together"):
        split_rows(table, share=0.1)


def test_the_files_hold_every_row_once(tmp_path: Path, cache: Path) -> None:
    table = _table(tmp_path, ROWS)
    split = split_rows(table, share=0.25)
    write_split(tmp_path / "held", table, split)
    train = load_triplets([str(tmp_path / "held" / "train.jsonl")])
    texts = [row for rows in train.chunks() for row in rows.texts]
    assert texts == [ROWS[row] for row in split.train]
    found = load_retrieval_set(tmp_path / "held" / "test" / "held")
    pairs = {
        (found.queries[query], found.documents[document][1])
        for query, grades in found.judgements.items()
        for document in grades
    }
    assert pairs == {ROWS[row] for row in split.held_out}
    assert {text for _, text in found.documents.values()} == {positive for _, positive in ROWS}


def test_scored_pairs_stay_scored_pairs(tmp_path: Path, cache: Path) -> None:
    table = load_triplets([str(write_pairs(tmp_path / "s.tsv"))])
    split = split_rows(table, share=0.3)
    write_split(tmp_path / "held", table, split)
    held_out = load_triplets([str(tmp_path / "held" / "test" / "held-out.jsonl")])
    assert held_out.has_scores
    assert len(held_out) == len(split.held_out)
    [found] = find_local_sets(tmp_path / "held" / "test").values()
    assert found.kind is SetKind.SCORED_PAIRS
