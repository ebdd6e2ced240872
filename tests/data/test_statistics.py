"""What is said of training data, against rows whose facts are known."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedsmith.cli import run_command
from embedsmith.data.statistics import describe_data, distribution
from embedsmith.data.triplets import load_triplets
from embedsmith.records.data_facts import DataFacts

ROWS = [
    ("a b", "a c", "d e"),
    ("a b", "a c", "d e"),  # stood there before
    ("a b", "d e", "x y z"),  # its positive is a negative above
    ("p q", "r", "q r"),  # its negative shares a word with the anchor, its positive none
    ("same", "same", "other one"),
]


def _describe(path: Path, rows: list[dict[str, object]]) -> DataFacts:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = load_triplets([str(path)])
    return describe_data(table, count_lengths=lambda texts: [len(text.split()) for text in texts])


def test_facts_of_known_triplets(tmp_path: Path) -> None:
    names = ("anchor", "positive", "negative")
    facts = _describe(tmp_path / "t.jsonl", [dict(zip(names, row, strict=True)) for row in ROWS])
    assert facts.kind == "triplets"
    assert facts.num_rows == 5
    assert facts.num_repeated_rows == 1
    assert facts.num_repeated_anchors == 2
    assert facts.most_rows_of_an_anchor == 3
    assert facts.num_rows_with_equal_texts == 1
    assert facts.num_contradictions == 1
    assert facts.num_closer_negatives == 1
    assert [(column.name, column.num_distinct) for column in facts.columns] == [
        ("anchor", 3),
        ("positive", 4),
        ("negative", 4),
    ]
    assert facts.columns[0].lengths.quantiles == pytest.approx((1, 1.2, 2, 2, 2))
    # Of two words each with one in common, three are in either: 1/3, twice; 0; 0; and 1 where the texts are equal.
    assert facts.overlaps["positive"].mean == pytest.approx((1 / 3 + 1 / 3 + 0 + 0 + 1) / 5)
    assert facts.overlaps["negative"].mean == pytest.approx((0 + 0 + 0 + 1 / 3 + 0) / 5)
    assert facts.scores is None
    assert len(facts.examples) == 3
    assert set(facts.examples) <= set(ROWS)


def test_facts_of_rows_with_several_negatives(tmp_path: Path) -> None:
    rows = [
        {"query": "a b", "pos": ["a c"], "neg": ["d e", "a b c d", "d  e"]},
        {"query": "a b", "pos": ["a c"], "neg": ["d e"]},  # not the row above again: it has other negatives
        {"query": "a b", "pos": ["d e"], "neg": []},  # its positive is a negative above
        {"query": "a b", "pos": ["a c"], "neg": ["d e", "a b c d", "d e"]},  # the first row again, white space aside
    ]
    facts = _describe(tmp_path / "t.jsonl", list(rows))
    assert (facts.kind, facts.num_rows, facts.negatives_per_row) == ("triplets", 4, (0, 3))
    assert facts.counts["negatives of a row"] == "0 to 3"
    assert (facts.num_repeated_rows, facts.num_repeated_anchors, facts.most_rows_of_an_anchor) == (1, 3, 4)
    assert (facts.num_rows_with_equal_texts, facts.num_contradictions, facts.num_closer_negatives) == (2, 1, 2)
    assert [(column.name, column.num_distinct) for column in facts.columns] == [
        ("anchor", 1),
        ("positive", 2),
        ("negative", 2),
    ]
    assert sum(facts.columns[2].lengths.counts) == sum(facts.overlaps["negative"].counts) == 7
    assert facts.overlaps["negative"].mean == pytest.approx(2 * 0.5 / 7)
    for row in facts.labelled_examples:
        assert [name for name, _ in row] == ["anchor", "positive", *["negative"] * (len(row) - 2)]


def test_facts_of_scored_pairs(tmp_path: Path) -> None:
    rows = [{"sentence1": f"one {number}", "sentence2": "two", "score": number} for number in range(6)]
    facts = _describe(tmp_path / "p.jsonl", list(rows))
    assert facts.kind == "scored pairs"
    assert [column.name for column in facts.columns] == ["sentence1", "sentence2"]
    assert facts.num_closer_negatives is None
    assert "negative shares more words" not in facts.counts
    assert facts.scores is not None
    assert facts.scores.quantiles[0] == 0
    assert facts.scores.quantiles[-1] == 5


@given(st.lists(st.integers(0, 500), min_size=1, max_size=60) | st.lists(st.floats(0, 5), min_size=1, max_size=60))
def test_a_histogram_holds_every_value_once(values: list[float]) -> None:
    found = distribution(values)
    assert sum(found.counts) == len(values)
    assert len(found.edges) == len(found.counts) + 1
    assert found.edges[0] <= min(values)
    assert found.edges[-1] >= max(values)
    assert list(found.edges) == sorted(found.edges)
    assert found.quantiles == pytest.approx(np.quantile(values, [0, 0.05, 0.5, 0.95, 1]))


def test_the_command_prints_counts_histograms_and_examples(
    model_folders: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "facts.json"
    assert run_command(["data", "stats", "sample", "--model", model_folders["llama"], "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    facts = json.loads(out.read_text())
    assert f"{facts['num_rows']:,} triplets" in printed
    assert "anchor, 1,202 distinct, length in tokens" in printed
    assert "█" in printed
    assert facts["examples"][0][0] in printed
    assert run_command(["data", "stats", str(tmp_path / "none.tsv")]) == 2


def test_texts_alone(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("a cat\nrain falls down\na  cat\n")
    table = load_triplets([str(tmp_path / "t.txt")], cache_folder=tmp_path / "cache")
    facts = describe_data(table, count_lengths=lambda texts: [len(text.split()) for text in texts])
    assert facts.counts == {"rows": "3 texts", "repeated rows": "1"}
    [column] = facts.columns
    assert (column.name, column.num_distinct, column.lengths.mean) == ("text", 2, 7 / 3)
    assert facts.overlaps == {}
    assert sorted(facts.labelled_examples) == [[("text", "a  cat")], [("text", "a cat")], [("text", "rain falls down")]]
