"""A table of rows -> rows to train on, and a test of those that are held out and share no text with them.

    q1 - p1
    q2 - p1    hang together: q1 and q2 have one answer, q2 has two. They are held out together, or not at all.
    q2 - p2

Pairs and triplets become a retrieval set in BEIR's layout: held-out anchors are its queries, their positives what is
relevant, and further positives of the rows to train on stand among the documents, as they will in use. Scored pairs
stay scored pairs. Memory: every anchor and positive once.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedsmith.data.doubts import text_key
from embedsmith.data.table import TripletTable
from embedsmith.data.writers import write_rows, write_triplets
from embedsmith.support import files
from embedsmith.support.errors import DataError

TRAIN_FILE, TEST_FOLDER = "train.jsonl", "test"
_SCORED_FILE = "held-out.jsonl"
_MOST_ROWS = 1_000
_MOST_DOCUMENTS = 5_000


@dataclass(frozen=True)
class Split:
    """Which rows are held out.

    Attributes:
        train: numbers of the rows to train on, ascending.
        held_out: of the others.
    """

    train: np.ndarray
    held_out: np.ndarray


def split_rows(table: TripletTable, *, share: float, seed: int = 7) -> Split:
    """Hold out about a share of the rows, 1,000 at most, none of which has an anchor or positive of another row.

    Args:
        table: pairs, triplets or scored pairs.
        share: of the rows, between 0 and 1.
        seed: of the order in which rows are drawn.

    Raises:
        DataError: the rows hang together so that no such share can be taken out.
    """
    groups = _groups_of_rows(table)
    wanted = max(1, min(_MOST_ROWS, round(share * len(table))))
    held_out: list[int] = []
    for index in np.random.default_rng(seed).permutation(len(groups)):
        if len(held_out) + len(groups[index]) <= wanted:
            held_out += groups[index]
    if not held_out or len(held_out) == len(table):
        largest = max(map(len, groups))
        raise DataError(
            f"Of {len(table):,} rows {largest:,} hang together by common anchors or positives, so that {wanted:,} "
            "cannot be held out without leaving their texts in training.\n"
            "Hold out rows yourself, by page, product or date, and leave --held-out away."
        )
    train = np.setdiff1d(np.arange(len(table)), held_out)
    return Split(train, np.array(sorted(held_out)))


def write_split(folder: Path, table: TripletTable, split: Split) -> None:
    """Write `train.jsonl` and `test/` into a new folder, all of it or nothing."""
    with files.atomic_folder(folder) as made:
        write_triplets(made / TRAIN_FILE, table, indices=split.train)
        if table.has_scores:
            write_triplets(made / TEST_FOLDER / _SCORED_FILE, table, indices=split.held_out)
        else:
            _write_retrieval_set(made / TEST_FOLDER / folder.name, table, split)


def _groups_of_rows(table: TripletTable) -> list[list[int]]:
    """Rows that hang together by an equal anchor or positive, as numbers; each list ascending."""
    first_row: dict[str, int] = {}
    above = list(range(len(table)))

    def top(row: int) -> int:
        while above[row] != row:
            above[row] = above[above[row]]
            row = above[row]
        return row

    for row, texts in enumerate(_rows(table)):
        for key in map(text_key, texts):
            one, other = top(first_row.setdefault(key, row)), top(row)
            above[max(one, other)] = min(one, other)
    groups: dict[int, list[int]] = {}
    for row in range(len(table)):
        groups.setdefault(top(row), []).append(row)
    return list(groups.values())


def _rows(table: TripletTable, indices: np.ndarray | None = None) -> Iterator[tuple[str, str]]:
    for rows in table.chunks(indices):
        yield from zip(rows.anchors, rows.positives, strict=True)


def _write_retrieval_set(folder: Path, table: TripletTable, split: Split) -> None:
    queries: dict[str, str] = {}
    documents: dict[str, str] = {}
    judged: dict[tuple[str, str], None] = {}
    for query, document in _rows(table, split.held_out):
        query_id = queries.setdefault(query, f"q{len(queries)}")
        judged[query_id, documents.setdefault(document, f"d{len(documents)}")] = None
    for _, document in _rows(table, split.train):
        if len(documents) >= _MOST_DOCUMENTS:
            break
        documents.setdefault(document, f"d{len(documents)}")
    _write_texts(folder / "corpus.jsonl", documents)
    _write_texts(folder / "queries.jsonl", queries)
    write_rows(
        folder / "qrels" / "test.tsv",
        header=["query-id", "corpus-id", "score"],
        rows=[(query, document, 1) for query, document in judged],
    )


def _write_texts(path: Path, texts: Mapping[str, str]) -> None:
    lines = (json.dumps({"_id": name, "text": text}, ensure_ascii=False) + "\n" for text, name in texts.items())
    files.write_text(path, "".join(lines))
