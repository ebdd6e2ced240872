"""Triplets from labelled pairs, as SimCSE makes them."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from embedsmith.cli import run_command
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
    assert counts.num_unpaired == 2  # the dog's second entailment, and the rain's
    rows = load_triplets([str(out)]).rows(np.arange(2))
    assert rows.anchors == ["A man eats.", "A dog runs."]
    assert rows.positives == ["Someone eats.", "An animal runs."]
    assert rows.negatives == [["He sleeps."], ["It sits."]]


def test_rows_that_teach_the_wrong_thing_are_left_out_and_counted(tmp_path: Path, cache: Path) -> None:
    source, out = tmp_path / "nli.tsv", tmp_path / "t.jsonl"
    pairs = [
        ("A man eats.", "n/a", "entailment"),  # the next entailment takes its place
        ("A man eats.", "Someone eats.", "entailment"),
        ("A man eats.", "N/A", "contradiction"),
        ("A man eats.", "He sleeps.", "contradiction"),
        ("A dog runs.", "It moves.", "entailment"),
        ("A dog runs.", "It  moves.", "contradiction"),
        ("Rain.", "Rain.", "entailment"),
        ("Rain.", "Rain.", "contradiction"),
        ("-", "Nothing.", "neutral"),
    ]
    source.write_text("premise\thypothesis\tlabel\n" + "".join("\t".join(pair) + "\n" for pair in pairs))
    counts = make_triplets([str(source)], out=out)
    assert (counts.num_pairs, counts.num_placeholders, counts.num_triplets) == (6, 3, 1)
    assert counts.num_doubtful == {"a negative equals the positive": 1, "all texts are one": 1}
    assert load_triplets([str(out)]).rows(np.arange(1)).texts == [("A man eats.", "Someone eats.", "He sleeps.")]


def test_the_command_says_what_it_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "nli.tsv"
    source.write_text(PAIRS + "Snow.\tCold.\t0\nSnow.\tCold.\t2\nSnow.\tn/a\t0\n")
    assert run_command(["data", "triplets", str(source), "--out", str(tmp_path / "t.tsv")]) == 0
    printed = capsys.readouterr().out
    assert "2 triplets from 9 labelled pairs" in printed
    assert "1 pairs skipped: without a label" in printed
    assert "1 pairs skipped: a text such as n/a" in printed
    assert "1 triplets skipped: a negative equals the positive" in printed


@pytest.mark.parametrize("columns", ["{premise", "[premise]", "{premise: a, premise: b}"])
def test_columns_that_are_no_mapping_of_names(columns: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "nli.tsv"
    source.write_text(PAIRS)
    assert run_command(["data", "triplets", str(source), "--out", str(tmp_path / "t.tsv"), "--columns", columns]) == 2
    assert "--columns must be a mapping" in capsys.readouterr().err
    assert not (tmp_path / "t.tsv").exists()


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
