"""The built-in sample keeps what docs/sample.md says of it."""

import re
from collections import Counter
from statistics import fmean

import numpy as np

from embedsmith.data.pairs import load_pairs
from embedsmith.data.readers import Faults, Row, read_rows
from embedsmith.data.sample import sample_pairs_path, sample_triplets_path
from embedsmith.data.triplets import load_triplets

DOMAINS = {"everyday", "news", "science", "work", "sport", "nature", "instructions", "questions"}


def _rows(path) -> list[Row]:
    faults = Faults()
    rows = [row for _, row in read_rows(path, faults=faults)]
    assert not faults.texts
    return rows


def _words(text: str) -> list[str]:
    return re.sub(r"[^a-z0-9 ]", "", text.lower()).split()


TRIPLETS, PAIRS = _rows(sample_triplets_path()), _rows(sample_pairs_path())


def test_it_is_large_enough_in_every_domain(cache) -> None:
    assert len(load_triplets(["sample"])) == len(TRIPLETS) >= 600
    assert len(load_pairs("sample")) == len(PAIRS) >= 150
    triplets, pairs = (Counter(row["domain"] for row in rows) for rows in (TRIPLETS, PAIRS))
    assert set(triplets) == set(pairs) == DOMAINS
    assert min(triplets.values()) >= 60
    assert min(pairs.values()) >= 18


def test_no_sentence_is_repeated_or_shared() -> None:
    training = [row[name] for row in TRIPLETS for name in ("anchor", "positive", "negative")]
    development = [row[name] for row in PAIRS for name in ("sentence1", "sentence2")]
    counts = Counter(" ".join(_words(text)) for text in training + development)
    assert [text for text, count in counts.items() if count > 1] == []


def test_no_training_sentence_is_nearly_one_of_development() -> None:
    development = [set(_words(row[name])) for row in PAIRS for name in ("sentence1", "sentence2")]
    for row in TRIPLETS:
        for name in ("anchor", "positive", "negative"):
            words = set(_words(row[name]))
            assert all(len(words & other) <= 0.5 * len(words | other) for other in development), row[name]


def test_negatives_look_more_like_the_anchor_than_positives_do() -> None:
    def overlap(row: Row, name: str) -> float:
        anchor = set(_words(row["anchor"]))
        return len(anchor & set(_words(row[name]))) / len(anchor)

    assert fmean(overlap(row, "positive") for row in TRIPLETS) < 0.25
    assert fmean(overlap(row, "negative") for row in TRIPLETS) > 0.6


def test_scores_cover_the_scale() -> None:
    scores = load_pairs("sample").scores
    counts, _ = np.histogram(scores, bins=5, range=(0, 5))
    assert scores.min() == 0
    assert scores.max() == 5
    assert counts.min() >= 20
