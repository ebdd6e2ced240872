"""A retrieval set in BEIR's layout: read as it stands, or every fault named by file, line and id."""

import gzip
import json
from pathlib import Path

import pytest

from embedsmith.data.beir import find_retrieval_sets, load_retrieval_set
from embedsmith.support.errors import DataError

CORPUS = [{"_id": "d1", "title": "One", "text": "first\u2028text"}, {"_id": 2, "title": None, "text": ""}]
QUERIES = [{"_id": "q1", "text": "what?"}, {"_id": "q2", "text": "unjudged"}]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\t2\t0\n"


def _jsonl(rows: list[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _write(folder: Path, *, corpus: str = _jsonl(CORPUS), queries: str = _jsonl(QUERIES), qrels: str = QRELS) -> Path:
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    (folder / "corpus.jsonl").write_text(corpus)
    (folder / "queries.jsonl").write_text(queries)
    (folder / "qrels" / "test.tsv").write_text(qrels)
    return folder


def test_a_set_is_read_as_it_stands(tmp_path: Path) -> None:
    found = load_retrieval_set(_write(tmp_path / "own"))
    assert found.documents == {"d1": ("One", "first\u2028text"), "2": ("", "")}
    assert found.queries == {"q1": "what?"}
    assert found.judgements == {"q1": {"d1": 2, "2": 0}}
    assert find_retrieval_sets(tmp_path) == {"own": tmp_path / "own"}


def test_files_may_be_packed_but_not_stand_there_twice(tmp_path: Path) -> None:
    folder = _write(tmp_path / "own")
    plain = load_retrieval_set(folder)
    packed = folder / "corpus.jsonl.gz"
    packed.write_bytes(gzip.compress((folder / "corpus.jsonl").read_bytes()))
    with pytest.raises(DataError, match=r"corpus\.jsonl: stands there twice: .*corpus\.jsonl\.gz is there too"):
        load_retrieval_set(folder)
    (folder / "corpus.jsonl").unlink()
    assert load_retrieval_set(folder) == plain


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"corpus": _jsonl(CORPUS) + '{"_id": "d3", "text": "\\ud83d"}\n'},
         "corpus.jsonl, line 3: id 'd3': text holds half of a surrogate pair"),
        ({"corpus": '{"_id": "d1", "title": "\\ude00", "text": "x"}\n'},
         "corpus.jsonl, line 1: id 'd1': title holds half of a surrogate pair"),
        ({"corpus": '{"_id": "\\ud83d", "text": "x"}\n'}, r"corpus.jsonl, line 1: needs `_id`, .* has '\\ud83d'"),
        ({"corpus": '{"_id": "d1", "title": NaN, "text": "x"}\n'}, "id 'd1': title must be a text, but is nan"),
        ({"corpus": '{"_id": "d1", "text": 3}\n'}, "id 'd1': text must be a text, but is 3"),
        ({"corpus": '{"_id": "d1"}\n'}, "id 'd1': text is missing"),
        ({"corpus": '{"_id": 1.5, "text": "x"}\n'}, "needs `_id`, a text or a whole number, and has 1.5"),
        ({"corpus": _jsonl([*CORPUS, {"_id": "2", "text": "x"}])},
         "corpus.jsonl, line 3: the id '2' stands there twice, first on line 2"),
        ({"corpus": '{"_id": "d1", "text": "x", "text": "y"}\n'}, "the name 'text' stands there twice"),
        ({"queries": '{"_id": "q1", "text": "\\ud83d"}\n'}, "queries.jsonl, line 1: id 'q1': text holds half"),
        ({"qrels": "query-id\tcorpus-id\tscore\nq9\td1\t1\n"}, "test.tsv, line 2: there is no query with the id 'q9'"),
        ({"qrels": "query-id\tcorpus-id\tscore\nq1\td9\t1\n"}, "no document with the id 'd9'"),
        ({"qrels": f"{QRELS}q1\td1\t1\n"}, "test.tsv, line 4: query 'q1' and document 'd1' are judged twice"),
        ({"qrels": "query-id\tcorpus-id\tscore\nq1\td1\t--5\n"}, "score must be a whole number, but is '--5'"),
        ({"qrels": f"query-id\tcorpus-id\tscore\nq1\td1\t{'1' * 5000}\n"}, "score must be a whole number, but is '1"),
        ({"qrels": "q1\td1\t1\nq1\t2\t1\n"}, "has no column query-id, corpus-id, score"),
        ({"qrels": "query-id\tcorpus-id\tscore\nq1\td1\t0\n"}, "no document is relevant to any query"),
    ],
)  # fmt: skip
def test_faults_are_named_by_file_line_and_id(tmp_path: Path, changed: dict[str, str], fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        load_retrieval_set(_write(tmp_path, **changed))


def test_two_sets_of_one_name(tmp_path: Path) -> None:
    _write(tmp_path / "own")
    _write(tmp_path / "own" / "own")
    with pytest.raises(DataError, match="Two retrieval sets have the name own"):
        find_retrieval_sets(tmp_path / "own")
