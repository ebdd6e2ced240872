"""What mining asks for: texts once, an anchor's own texts known in whatever spelling, faults of a corpus by line."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from embedsmith.data.candidates import MiningTask, plan_mining, read_corpus
from embedsmith.data.table import TripletTable
from embedsmith.data.triplets import load_triplets
from embedsmith.settings.choices import CandidatePool
from embedsmith.support.errors import ConfigError, DataError

ROWS = [
    {"anchor": "A dog runs.", "positive": "an animal moves", "negative": "a cat sits"},
    {"anchor": "a dog  runs", "positive": "a dog is fast", "negative": "a bird sings"},
    {"anchor": "rain", "positive": "wet weather", "negative": "AN ANIMAL MOVES!"},
    {"anchor": "sun", "positive": "n/a", "negative": "a cat sits"},
]


@pytest.fixture
def table(tmp_path: Path, cache: Path) -> TripletTable:
    return _table(tmp_path, ROWS)


def _table(folder: Path, rows: Sequence[dict[str, Any]]) -> TripletTable:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_triplets([str(path)])


def _known(task: MiningTask, anchor: int) -> list[str]:
    return [task.documents[number] for number in task.known[anchor]]


def test_rows_with_one_anchor_share_what_is_known(table: TripletTable) -> None:
    task = plan_mining(table)
    assert task.documents[: task.num_candidates] == ["an animal moves", "a dog is fast", "wet weather"]
    assert task.num_placeholders == 1
    assert [anchor for _, anchor in task.anchors] == ["A dog runs.", "a dog  runs", "rain", "sun"]
    assert _known(task, 0) == _known(task, 1) == ["an animal moves", "a dog is fast"]
    assert _known(task, 2) == ["an animal moves", "wet weather"]  # its own negative stays, so it is not mined again
    assert [task.documents[number] for own in task.positives for number in own] == [row["positive"] for row in ROWS]
    assert task.anchor_of_row.tolist() == [0, 1, 2, 3]


def test_negatives_that_go_may_come_back(table: TripletTable) -> None:
    assert _known(plan_mining(table, keeps_negatives=False), 2) == ["wet weather"]


def test_several_positives_of_an_anchor(tmp_path: Path, cache: Path) -> None:
    table = _table(tmp_path, [{"query": "q", "pos": ["one", "two"]}, {"query": "r", "pos": ["one"]}])
    task = plan_mining(table)
    assert task.positives == [[0, 1], [0]]
    assert task.anchor_of_row.tolist() == [0, 0, 1]


def test_pools_and_the_corpus(table: TripletTable) -> None:
    corpus = ["WET weather", "snow", "-", "snow"]
    task = plan_mining(table, corpus=corpus, embeds_negatives=True)
    assert task.documents[: task.num_candidates] == ["WET weather", "snow", "an animal moves", "a dog is fast"]
    assert task.num_placeholders == 2
    assert task.documents[task.num_candidates :] == [
        "a cat sits",
        "a bird sings",
        "wet weather",
        "AN ANIMAL MOVES!",
        "n/a",
    ]
    assert _known(task, 2) == ["WET weather", "an animal moves"]
    alone = plan_mining(table, corpus=corpus, pools=[CandidatePool.CORPUS])
    assert alone.documents[: alone.num_candidates] == ["WET weather", "snow"]
    assert alone.positives[0] == [alone.number_of["an animal moves"]]
    both = plan_mining(table, pools=[CandidatePool.NEGATIVES, CandidatePool.ANCHORS])
    assert both.documents[: both.num_candidates] == [
        "A dog runs.",
        "rain",
        "sun",
        "a cat sits",
        "a bird sings",
        "AN ANIMAL MOVES!",
    ]
    assert _known(both, 1) == ["A dog runs.", "a cat sits", "a bird sings", "AN ANIMAL MOVES!"]


def test_instructions_part_anchors(tmp_path: Path, cache: Path) -> None:
    rows = [{"query": "q", "pos": text, "instruction": text} for text in ("one", "two")]
    table = _table(tmp_path, rows)
    task = plan_mining(table)
    assert task.anchors == [("one", "q"), ("two", "q")]
    assert _known(task, 0) == _known(task, 1) == ["one", "two"]
    assert task.positives == [[0], [1]]
    assert plan_mining(table, uses_instructions=False).anchors == [(None, "q")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pools": [CandidatePool.CORPUS]}, "names the corpus, and there is none"),
        ({"pools": [CandidatePool.POSITIVES], "corpus": ["x"]}, "--corpus is given, and --candidates does not name it"),
    ],
)
def test_pools_that_do_not_fit(table: TripletTable, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_mining(table, **options)


def test_rows_that_do_not_fit(tmp_path: Path, cache: Path) -> None:
    pairs = _table(tmp_path, [{"anchor": "a", "positive": "b"}])
    with pytest.raises(ConfigError, match="names negatives, and no row has one"):
        plan_mining(pairs, pools=[CandidatePool.NEGATIVES])
    with pytest.raises(DataError, match="no text that negatives could be taken from"):
        plan_mining(pairs, corpus=["-", "n/a"], pools=[CandidatePool.CORPUS])
    scored = _table(tmp_path, [{"sentence1": "a", "sentence2": "b", "score": score} for score in (1, 2)])
    with pytest.raises(DataError, match="these are scored pairs"):
        plan_mining(scored)


def test_a_corpus_from_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "texts.tsv").write_text("text\tlabel\none\t1\ntwo\t2\n")
    (tmp_path / "named.csv").write_text("passage,title\nthree,ignored\n")
    folder = tmp_path / "beir"
    folder.mkdir()
    documents = [{"_id": "1", "title": " T ", "text": "body"}, {"_id": "2", "title": "", "text": ""}]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(one) + "\n" for one in documents))
    assert read_corpus([str(tmp_path / "texts.tsv"), str(folder)]) == ["one", "two", "T body", ""]
    assert read_corpus([str(tmp_path / "named.csv")], column="passage") == ["three"]


def test_faults_of_a_corpus_come_together(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("passage\none\n")
    (tmp_path / "b.jsonl").write_text('{"text": 3}\n{"text": "x", "title": 4}\n')
    with pytest.raises(DataError, match="4 faults in the corpus") as error:
        read_corpus([*(str(tmp_path / name) for name in ("a.tsv", "b.jsonl", "none.jsonl"))])
    for part in (
        "a.tsv, line 2: has no 'text', but passage; name its column with --text-column",
        "b.jsonl, line 1: text must be a text",
        "b.jsonl, line 2: title must be",
        "no such file",
    ):
        assert part in str(error.value)
