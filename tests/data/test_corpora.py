"""Files of texts, streamed: every format, columns and ids, what is empty, and every fault by its place."""

import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedsmith.data.corpora import survey_corpus
from embedsmith.support import files
from embedsmith.support.errors import DataError

ROWS = [{"key": 7, "sentence": "a cat"}, {"key": 8, "sentence": " "}, {"key": 9, "sentence": "rain falls"}]


@pytest.fixture(autouse=True)
def work(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _write(name: str) -> str:
    match name.removesuffix(".gz").rpartition(".")[2]:
        case "jsonl":
            text = "\n".join(map(json.dumps, ROWS))
        case "parquet":
            pq.write_table(pa.Table.from_pylist(ROWS), name)
            return name
        case "txt":
            text = "\n".join(row["sentence"] for row in ROWS)
        case suffix:
            separator = "\t" if suffix == "tsv" else ","
            text = "\n".join(separator.join(map(str, row)) for row in [ROWS[0], *(row.values() for row in ROWS)])
    data = f"{text}\n".encode()
    Path(name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return name


@pytest.mark.parametrize("name", ["c.jsonl", "c.csv", "c.tsv", "c.parquet", "c.jsonl.gz"])
def test_each_format_gives_the_same_texts_rows_and_ids(name: str) -> None:
    corpus = survey_corpus([_write(name)], id_column="key")
    found = [(one.text, one.file, one.row, one.id) for one in corpus.texts()]
    assert found == [("a cat", name, 1, "7"), ("rain falls", name, 3, "9")]
    (file,) = corpus.files
    assert (file.column, file.num_texts, file.num_empty) == ("sentence", 2, 1)
    assert file.sha256 == files.read_digest(Path(name))


@pytest.mark.parametrize("name", ["c.txt", "c.txt.gz"])
def test_a_row_of_plain_text_is_its_line(name: str) -> None:
    corpus = survey_corpus([_write(name)])
    assert [(one.text, one.row, one.id) for one in corpus.texts()] == [("a cat", 1, None), ("rain falls", 3, None)]
    assert (corpus.num_texts, corpus.num_empty) == (2, 1)


def test_files_and_globs_come_one_after_the_other_each_by_its_own_usual_name() -> None:
    _write("b1.jsonl"), _write("b2.csv"), _write("a.txt")
    corpus = survey_corpus(["b*", "a.txt"])
    assert [file.column for file in corpus.files] == ["sentence", "sentence", "text"]
    assert [one.file for one in corpus.texts()] == ["b1.jsonl"] * 2 + ["b2.csv"] * 2 + ["a.txt"] * 2


def test_what_is_null_counts_as_empty_and_a_title_goes_before_its_text() -> None:
    rows = [{"text": None}, {"text": "a cat", "title": "Pets"}, {"text": "rain", "title": None}]
    Path("c.jsonl").write_text("\n".join(map(json.dumps, rows)))
    corpus = survey_corpus(["c.jsonl"])
    assert [one.text for one in corpus.texts()] == ["Pets a cat", "rain"]
    assert corpus.num_empty == 1


@pytest.mark.parametrize(
    ("rows", "named", "fault"),
    [
        ([{"a": "x", "b": "y"}], {}, "line 1: has the columns a, b, none of a usual name; name it with --text-column"),
        ([{"text": "x", "body": "y"}], {}, "several that may hold the texts: text, body; name it with --text-column"),
        ([{"text": "x"}], {"column": "body"}, "has no 'body', but text; name the texts' with --text-column"),
        ([{"text": "x"}], {"id_column": "key"}, "has no 'key', but text; name the ids' with --id-column"),
        ([{"text": "x"}, {"text": 3}], {}, "line 2: text must be a text, but is 3"),
        ([{"text": "x"}, {"body": "y"}], {}, "line 2: has no 'text', but body"),
        ([{"text": "x", "key": 1.5}], {"id_column": "key"}, "key must be a text or a whole number, but is 1.5"),
        ([{"text": "x", "key": True}], {"id_column": "key"}, "key must be a text or a whole number, but is True"),
        ([{"text": "x", "key": None}], {"id_column": "key"}, "key is missing"),
        ([{"text": "x"}, {"text": "\ud800"}], {}, "line 2: text holds half of a surrogate pair"),
        ([{"text": ""}, {"text": None}], {}, "There is no text: all 2 rows are empty"),
        ([], {}, "c.jsonl: is empty"),
    ],
)
def test_faults_are_named_by_their_places(rows: list[dict[str, object]], named: dict[str, str], fault: str) -> None:
    Path("c.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError) as caught:
        survey_corpus(["c.jsonl"], **named)
    assert fault in str(caught.value)


def test_what_can_be_read_only_once_is_refused_before_it_is_read() -> None:
    os.mkfifo("pipe.txt")
    with pytest.raises(DataError, match=r"pipe.txt: is no regular file, and is read more than once"):
        survey_corpus(["pipe.txt"])


def test_all_faults_of_all_files_are_gathered() -> None:
    Path("a.jsonl").write_text('{"text": 1}\n{"text": 2}\nno json\n')
    Path("b.txt").write_bytes(b"fine\n\xff\n")
    with pytest.raises(DataError, match=r"5 faults in the corpus") as caught:
        survey_corpus(["a.jsonl", "b.txt", "none.jsonl"])
    assert all(f"{place}: " in str(caught.value) for place in ("a.jsonl, line 3", "b.txt, line 2", "none.jsonl"))


@pytest.mark.parametrize("change", ["longer", "gone", "touched", "shorter"])
def test_a_file_that_changed_since_the_survey_is_refused(change: str) -> None:
    path = Path(_write("c.jsonl"))
    corpus = survey_corpus(["c.jsonl"])
    match change:
        case "longer":
            path.write_text(path.read_text() + '{"sentence": "more"}\n')
        case "gone":
            path.unlink()
        case "touched":
            os.utime(path, (1, 1))
        case "shorter":
            path.write_text(path.read_text().splitlines()[0])
    with pytest.raises(DataError, match=r"c.jsonl has changed while it was read"):
        list(corpus.texts())


def test_a_file_that_changes_while_it_is_read_is_refused() -> None:
    path = Path(_write("c.jsonl"))
    texts = survey_corpus(["c.jsonl"]).texts()
    next(texts)
    path.write_text(path.read_text() + '{"sentence": "more"}\n')
    with pytest.raises(DataError, match=r"c.jsonl has changed while it was read"):
        list(texts)
