"""Triplets from labelled pairs, as SimCSE makes them."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from embedsmith.data.nli import make_triplets
from embedsmith.data.triplets import load_triplets
from embedsmith.support.errors import DataError

PAIRS = """premise\thypothesis\tlabel
A man  eats.\tSomeone eats.\tentailment
A man eats.\tHe sleeps.\tcontradiction
A man eats.\tHe is hungry.\tneutral
A dog runs.\tAn animal runs.\t0
A dog runs.\tIt moves.\tEntailment
A dog runs.\tIt sits.\t2
A dog runs.\tA cat runs.\t-
Rain.\tWet.\tentailment
"""


@pytest.mark.parametrize("suffix", ["tsv", "csv", "jsonl", "tsv.gz"])
def test_the_nth_entailment_goes_with_the_nth_contradiction(tmp_path: Path, cache: Path, suffix: str) -> None:
    source, out = tmp_path / "nli.tsv", tmp_path / f"t.{suffix}"
    source.write_text(PAIRS)
    counts = make_triplets([str(source)], out=out)
    assert (counts.num_pairs, counts.num_unlabelled, counts.num_triplets) == (7, 1, 2)
    rows = load_triplets([str(out)]).rows(np.arange(2))
    assert rows.anchors == ["A man eats.", "A dog runs."]
    assert rows.positives == ["Someone eats.", "An animal runs."]
    assert rows.negatives == ["He sleeps.", "It sits."]


def test_the_same_pairs_give_the_same_bytes(tmp_path: Path) -> None:
    source = tmp_path / "nli.tsv"
    source.write_text(PAIRS)
    for name in ("1.tsv.gz", "2.tsv.gz"):
        make_triplets([str(source)], out=tmp_path / name)
    assert (tmp_path / "1.tsv.gz").read_bytes() == (tmp_path / "2.tsv.gz").read_bytes()
    assert gzip.decompress((tmp_path / "1.tsv.gz").read_bytes()).startswith(b"anchor\tpositive\tnegative\n")


def test_faulty_labels_are_named_and_nothing_is_written(tmp_path: Path) -> None:
    source, out = tmp_path / "nli.tsv", tmp_path / "t.tsv"
    source.write_text("premise\thypothesis\tlabel\na\tb\tmaybe\na\t\t0\n")
    with pytest.raises(DataError, match=r"line 2: label 'maybe' is not one of[\s\S]*line 3: hypothesis is empty"):
        make_triplets([str(source)], out=out)
    assert not out.exists()


def test_outputs_that_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "nli.tsv"
    source.write_text(PAIRS)
    with pytest.raises(DataError, match="unknown format to write"):
        make_triplets([str(source)], out=tmp_path / "t.txt")
    with pytest.raises(DataError, match="exists already"):
        make_triplets([str(source)], out=source)
    source.write_text("premise\thypothesis\tlabel\na\tb\t0\n")
    with pytest.raises(DataError, match="no triplet to write"):
        make_triplets([str(source)], out=tmp_path / "t.tsv")
