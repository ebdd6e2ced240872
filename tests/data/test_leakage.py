"""Overlaps of training and evaluation data: planted ones are found, each under its kind, and nothing else."""

import json
from pathlib import Path

import numpy as np
import pytest

from embedsmith.cli import run_command
from embedsmith.data.clusters import ClusteringSet
from embedsmith.data.leakage import LeakageCheck, normalise, write_clean
from embedsmith.data.pairs import ScoredPairs
from embedsmith.data.triplets import load_triplets
from embedsmith.records.data_facts import Leakage, LeakageReport, Match

EVALUATED = ScoredPairs(
    ["A man is playing a guitar.", "The cat sat on the mat.", "a quick brown fox jumps over dogs", "Nothing like it."],
    ["A person plays music.", "A dog ran through the park.", "foxes jump over dogs at night", "It is unlike others."],
    np.array([4.0, 1.0, 3.0, 2.0]),
)


def _check(tmp_path: Path, rows: list[tuple[str, ...]], *, threshold: float | None = 0.8) -> LeakageReport:
    path = tmp_path / "train.jsonl"
    names = ("anchor", "positive", "negative")
    path.write_text("".join(json.dumps(dict(zip(names, row, strict=False))) + "\n" for row in rows))
    report, is_shared = LeakageCheck({"set": EVALUATED}, threshold=threshold).run(load_triplets([str(path)]))
    assert report.num_shared_rows == is_shared.sum()
    return report


@pytest.mark.parametrize(
    ("trained", "kind"),
    [
        ("A man is playing a guitar.", Match.EXACT),
        ("a man is playing a  GUITAR", Match.NORMALISED),
        ("A man is playing a guitar ﹗", Match.NORMALISED),
        ("A man is playing a guitars.", Match.NEAR),
    ],
)
def test_a_text_is_found_under_its_kind(tmp_path: Path, trained: str, kind: Match) -> None:
    report = _check(tmp_path, [("one thing", trained, "another"), ("unrelated", "words", "here")])
    assert report.verdict is Leakage.TEXTS
    assert report.num_shared_rows == 1
    [overlap] = report.overlaps
    assert overlap.texts == {Match.EXACT: 0, Match.NORMALISED: 0, Match.NEAR: 0} | {kind: 1}
    assert sum(overlap.pairs.values()) == 0
    [example] = overlap.examples
    assert (example.evaluated, example.trained, example.match) == ("A man is playing a guitar.", trained, kind)


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (("The cat sat on the mat.", "A dog ran through the park.", "x"), Match.EXACT),
        (("x", "A dog ran through the park.", "The cat sat on the mat."), Match.EXACT),
        (("the cat sat on the mat", "A dog ran through the park.", "x"), Match.NORMALISED),
        (("The cat sat on the mats.", "A dog ran through the park.", "x"), Match.NEAR),
    ],
)
def test_a_pair_is_as_near_as_the_less_near_of_its_texts(tmp_path: Path, row: tuple[str, ...], kind: Match) -> None:
    report = _check(tmp_path, [row])
    assert report.verdict is Leakage.PAIRS
    assert report.overlaps[0].pairs == {Match.EXACT: 0, Match.NORMALISED: 0, Match.NEAR: 0} | {kind: 1}


def test_every_negative_is_looked_at(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "train.jsonl"
    negatives = [["x", "y"], ["x", "The cat sat on the mat.", "y", "A dog ran through the park."], []]
    rows = [{"query": f"a{k}", "pos": [f"p{k}"], "neg": own} for k, own in enumerate(negatives)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = load_triplets([str(path)])
    report, is_shared = LeakageCheck({"set": EVALUATED}, threshold=None).run(table)
    assert is_shared.tolist() == [False, True, False]
    assert report.overlaps[0].texts[Match.EXACT] == 2
    assert report.overlaps[0].pairs[Match.EXACT] == 1
    assert write_clean(tmp_path / "clean.csv", table, is_shared=is_shared) == 2
    assert [texts[2:] for texts in load_triplets([str(tmp_path / "clean.csv")]).rows(np.arange(2)).texts] == [
        ("x", "y"),
        (),
    ]


def test_texts_of_two_rows_are_no_pair(tmp_path: Path) -> None:
    report = _check(tmp_path, [("The cat sat on the mat.", "y"), ("A dog ran through the park.", "x")])
    assert report.verdict is Leakage.TEXTS
    assert report.overlaps[0].texts[Match.EXACT] == 2


def test_unrelated_data_is_clean(tmp_path: Path) -> None:
    report = _check(tmp_path, [("A woman is dancing.", "Someone dances.", "Nobody moves.")])
    assert report.verdict is Leakage.NONE
    assert report.num_shared_rows == 0


def test_without_near_only_equal_ones_are_found(tmp_path: Path) -> None:
    rows = [("A man is playing a guitars.", "x"), ("THE CAT SAT ON THE MAT", "y")]
    report = _check(tmp_path, rows, threshold=None)
    assert report.overlaps[0].texts == {Match.EXACT: 0, Match.NORMALISED: 1, Match.NEAR: 0}


def test_hashing_finds_what_comparing_all_with_all_finds(tmp_path: Path) -> None:
    """Against brute force on texts with changed words: nothing wrong is found, and next to nothing missed."""
    random = np.random.default_rng(0)
    words = np.array([f"w{number:03}" for number in range(300)])
    texts = [" ".join(words[random.integers(300, size=12)]) for _ in range(150)]
    changed = [" ".join(w if random.random() > 0.06 else "zzz" for w in text.split()) for text in texts]
    path = tmp_path / "train.tsv"
    path.write_text("anchor\tpositive\n" + "".join(f"{text}\tp{i}\n" for i, text in enumerate(changed)))
    sets = {"set": ScoredPairs(texts, [f"q{i}" for i in range(150)], np.arange(150.0))}
    report, is_shared = LeakageCheck(sets, threshold=0.7).run(load_triplets([str(path)]))

    def ngrams(text: str) -> set[str]:
        key = normalise(text)
        return {key[i : i + 4] for i in range(len(key) - 3)}

    similarity = [max(len(ngrams(a) & ngrams(b)) / len(ngrams(a) | ngrams(b)) for b in texts) for a in changed]
    wanted = np.array(similarity) >= 0.7
    assert not (is_shared & ~wanted).any()
    assert (wanted & ~is_shared).sum() <= 2
    assert 20 < wanted.sum() < 150
    assert report.overlaps[0].texts[Match.NEAR] > 0


def test_texts_without_letters_are_themselves() -> None:
    assert normalise("?!") != normalise("...")
    assert normalise("Ｃａｆé, 2") == "café2"


def test_the_clean_file_trains_and_is_clean(tmp_path: Path) -> None:
    source = tmp_path / "train.tsv"
    source.write_text(
        "anchor\tpositive\tnegative\nThe cat sat on the mat.\ta\tb\nfree\tc\td\nother\te\tA man is playing a guitars.\n"
    )
    evaluated = tmp_path / "dev.tsv"
    rows = zip(EVALUATED.sentence1, EVALUATED.sentence2, EVALUATED.scores, strict=True)
    evaluated.write_text("sentence1\tsentence2\tscore\n" + "".join(f"{a}\t{b}\t{c}\n" for a, b, c in rows))
    clean = tmp_path / "clean.jsonl"
    found = tmp_path / "found.json"
    arguments = ["data", "check", str(source), "--against", str(evaluated)]
    assert run_command([*arguments, "--drop", str(clean), "--out", str(found)]) == 0
    assert [json.loads(line) for line in clean.read_text().splitlines()] == [
        {"anchor": "free", "positive": "c", "negative": "d"}
    ]
    report = json.loads(found.read_text())
    assert report["verdict"] == "texts overlap"
    assert report["overlaps"][0]["texts"] == {"exact": 1, "normalised": 0, "near": 1}
    assert run_command(["data", "check", str(clean), "--against", str(evaluated), "--out", str(found)]) == 0
    assert json.loads(found.read_text())["verdict"] == "clean"


def test_scored_pairs_and_instructions_are_kept_in_the_clean_file(tmp_path: Path) -> None:
    scored = tmp_path / "scored.tsv"
    scored.write_text("sentence1\tsentence2\tscore\none\ttwo\t3\nThe cat sat on the mat.\tx\t1\n")
    table = load_triplets([str(scored)])
    _, is_shared = LeakageCheck({"set": EVALUATED}).run(table)
    assert write_clean(tmp_path / "clean.tsv", table, is_shared=is_shared) == 1
    assert (tmp_path / "clean.tsv").read_text() == "sentence1\tsentence2\tscore\none\ttwo\t3.0\n"
    instructed = tmp_path / "instructed.jsonl"
    instructed.write_text(
        '{"anchor": "q", "positive": "d", "instruction": "find"}\n'
        '{"anchor": "r", "positive": "e", "instruction": null}\n'
    )
    table = load_triplets([str(instructed)])
    write_clean(tmp_path / "all.jsonl", table, is_shared=np.zeros(2, dtype=bool))
    assert (tmp_path / "all.jsonl").read_text() == instructed.read_text()


def test_a_taken_name_is_refused_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = tmp_path / "taken.jsonl"
    taken.write_text("")
    assert run_command(["data", "check", "sample", "--against", "sample", "--drop", str(taken)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_rows_that_differ_in_what_carries_meaning_are_no_leaks_and_are_kept(tmp_path: Path) -> None:
    evaluated, source, clean = tmp_path / "dev.jsonl", tmp_path / "train.jsonl", tmp_path / "clean.csv"
    pairs = [("What is C++ ?", "किताब", 1), ("It costs $5", "x = y", 2)]
    names = ("sentence1", "sentence2", "score")
    evaluated.write_text("".join(json.dumps(dict(zip(names, pair, strict=True))) + "\n" for pair in pairs))
    rows = [("what is c#", "कुताब"), ("it costs 5%", "x != y"), ("what is c++", '\r, " and\u2028'), ("ok", '\r" x\x85y')]
    source.write_text("".join(json.dumps({"anchor": one, "positive": two}) + "\n" for one, two in rows))
    assert (
        run_command(["data", "check", str(source), "--against", str(evaluated), "--no-near", "--drop", str(clean)]) == 0
    )
    kept = load_triplets([str(clean)])
    assert [tuple(texts) for texts in kept.rows(np.arange(len(kept))).texts] == [rows[0], rows[1], rows[3]]


def test_outputs_are_checked_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine, both = tmp_path / "mine.json", str(tmp_path / "x.jsonl")
    mine.write_text('{"text": "mine"}')
    arguments = ["data", "check", "sample", "--against", "sample", "--no-near"]
    for options, message in (
        (["--out", str(mine)], "is there and was not written by this command"),
        (["--out", str(tmp_path)], "is a folder"),
        (["--out", both, "--drop", both], "--drop and --out are both"),
        (["--drop", "/proc/nowhere/x.jsonl"], "cannot be written"),
    ):
        assert run_command([*arguments, *options]) == 2
        assert message in capsys.readouterr().err
    assert run_command(["data", "stats", "sample", "--out", str(mine)]) == 2
    assert mine.read_text() == '{"text": "mine"}'
    assert [path.name for path in tmp_path.iterdir()] == ["mine.json"]


def test_a_nul_is_written_where_the_format_has_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, evaluated = tmp_path / "train.jsonl", tmp_path / "dev.tsv"
    source.write_text('{"anchor": "a\\u0000b", "positive": "c"}\n')
    evaluated.write_text("sentence1\tsentence2\tscore\nx\ty\t1\nz\tw\t2\n")
    arguments = ["data", "check", str(source), "--against", str(evaluated), "--no-near", "--drop"]
    assert run_command([*arguments, str(tmp_path / "c.csv")]) == 2
    assert "a text holds a NUL, which a .csv cannot.\nWrite a .jsonl." in capsys.readouterr().err
    assert not (tmp_path / "c.csv").exists()
    assert run_command([*arguments, str(tmp_path / "c.jsonl")]) == 0
    assert load_triplets([str(tmp_path / "c.jsonl")]).rows(np.arange(1)).anchors == ["a\0b"]


def test_texts_of_a_clustering_set_are_looked_for_alone(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(
        '{"anchor": "A dog runs!", "positive": "rain"}\n{"anchor": "a", "positive": "b"}\n'
    )
    topics = ClusteringSet(["a dog runs", "It snows.", "rain"], ["animals", "weather", "weather"])
    report, is_shared = LeakageCheck({"topics": topics}, threshold=None).run(
        load_triplets([str(tmp_path / "train.jsonl")])
    )
    assert report.verdict is Leakage.TEXTS
    assert is_shared.tolist() == [True, False]
    [overlap] = report.overlaps
    assert (overlap.num_texts, overlap.num_pairs) == (3, 0)
    assert overlap.texts == {Match.EXACT: 1, Match.NORMALISED: 1, Match.NEAR: 0}
