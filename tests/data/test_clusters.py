"""Clustering sets: labels as text or whole numbers; faults by line."""

from pathlib import Path

import pytest

from embedsmith.data.clusters import load_clustering_set
from embedsmith.support.errors import DataError


def test_labels_are_text_or_whole_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "label": 1}\n{"text": "b", "label": "1"}\n{"text": "c", "label": -1}\n')
    found = load_clustering_set(path)
    assert (found.texts, found.labels) == (["a", "b", "c"], ["1", "1", "-1"])
    (tmp_path / "b.tsv").write_text("kind\tbody\n1\ta\n1\tb\n-1\tc\n")
    other = load_clustering_set(tmp_path / "b.tsv", columns={"text": "body", "label": "kind"})
    assert (other, other.fingerprint) == (found, found.fingerprint)


def test_faults(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "label": true}\n{"text": " ", "label": 1.5}\n{"text": "b", "label": ""}\n')
    with pytest.raises(DataError) as caught:
        load_clustering_set(path)
    for fault in (
        "line 1: label must be a text, but is True",
        "line 2: text is empty",
        "line 2: label must be a text, but is 1.5",
        "line 3: label is empty",
    ):
        assert fault in str(caught.value)


@pytest.mark.parametrize("labels", ["xxx", "xyz"])
def test_labels_that_group_nothing(tmp_path: Path, labels: str) -> None:
    rows = "".join(f"{text}\t{label}\n" for text, label in zip("abc", labels, strict=True))
    (tmp_path / "a.tsv").write_text("text\tlabel\n" + rows)
    with pytest.raises(DataError, match="it needs two labels or more, and some text that shares its label"):
        load_clustering_set(tmp_path / "a.tsv")
