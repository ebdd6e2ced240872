"""Kinds of sets by their columns; what is of none, or of two, is refused by name."""

import gzip
from pathlib import Path

import pytest

from embedsmith.data.local_sets import SetKind, find_local_sets, kind_of_file
from embedsmith.support.errors import DataError

KINDS = {
    "sentence1\tsentence2\tscore\n": SetKind.SCORED_PAIRS,
    "label\tsentence1\tsentence2\tscore\n": SetKind.SCORED_PAIRS,
    "id\tsentence1\tsentence2\tlabel\n": SetKind.DUPLICATES,
    "label\ttext\n": SetKind.CLUSTERS,
}


def _write(path: Path, header: str) -> Path:
    path.write_text(header + "\t".join("1" * len(header.split("\t"))) + "\n")
    return path


@pytest.mark.parametrize(("header", "kind"), KINDS.items())
def test_columns_tell_the_kind(tmp_path: Path, header: str, kind: SetKind) -> None:
    assert kind_of_file(_write(tmp_path / "a.tsv", header)) is kind
    (tmp_path / "b.tsv.gz").write_bytes(gzip.compress((tmp_path / "a.tsv").read_bytes()))
    assert kind_of_file(tmp_path / "b.tsv.gz") is kind


def test_columns_of_other_names(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tsv", "one\ttwo\tsame\ttopic\n")
    named = {"sentence1": "one", "sentence2": "two"}
    assert kind_of_file(path, columns={**named, "label": "same"}) is SetKind.DUPLICATES
    assert kind_of_file(path, columns={**named, "score": "same"}) is SetKind.SCORED_PAIRS
    assert kind_of_file(path, columns={"text": "one", "label": "topic"}) is SetKind.CLUSTERS
    with pytest.raises(DataError, match="it is of no kind"):
        kind_of_file(path, columns={**named, "text": "one", "label": "same"})


def test_a_file_of_no_kind_is_refused_naming_columns_and_kinds(tmp_path: Path) -> None:
    _write(tmp_path / "good.tsv", "text\tlabel\n")
    _write(tmp_path / "other.tsv", "text\ttopic\n")
    with pytest.raises(DataError) as caught:
        find_local_sets(tmp_path)
    told = str(caught.value)
    assert f"{tmp_path / 'other.tsv'} is no evaluation set: it has the columns text, topic." in told
    for known in (
        "scored pairs (sentence1, sentence2, score)",
        "duplicate sets (sentence1, sentence2, label)",
        "clustering sets (text, label)",
    ):
        assert known in told
    assert list(find_local_sets(tmp_path, ["good"])) == ["good"]
    (tmp_path / "empty.tsv").touch()
    with pytest.raises(DataError, match=r"empty\.tsv: is empty"):
        find_local_sets(tmp_path, ["empty"])


def test_the_files_of_a_retrieval_set_are_no_sets(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "inner"):
        folder.mkdir(exist_ok=True)
        (folder / "corpus.jsonl").write_text('{"_id": "1", "text": "a", "label": "b"}\n')
    assert list(find_local_sets(tmp_path)) == [tmp_path.name, "inner"]
    (tmp_path / "corpus.jsonl").rename(tmp_path / "texts.jsonl")
    found = find_local_sets(tmp_path)
    assert {name: one.kind for name, one in found.items()} == {
        "texts": SetKind.CLUSTERS,
        "inner": SetKind.RETRIEVAL,
    }
