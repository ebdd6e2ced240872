"""Failure analysis: each kind of pair is recognised; errors are distances of ranks, counted by hand."""

import numpy as np
import pytest

from embedsmith.data.pairs import ScoredPairs
from embedsmith.evaluation.failures import MIN_PAIRS_TO_SCORE, analyse_failures

EXAMPLES = [
    ("negation", "A man is eating.", "A man isn't eating.", 2.0),
    ("negation", "he does n't sing", "he does sing", 2.0),
    ("negation", "Nobody is there.", "Somebody is there.", 2.0),
    ("numbers and names", "He paid 10 euros to Anna.", "He paid 12 euros to Anna.", 3.0),
    ("numbers and names", "The trip to Paris was long.", "The trip to London was long.", 3.0),
    ("numbers and names", "two dogs run", "three dogs run", 3.0),
    ("word order", "The dog bites the man.", "The man bites the dog.", 2.5),
    ("length difference", "It rained.", "After a week of sunshine it rained hard all over the valley.", 3.0),
    ("low-overlap paraphrases", "a feline is dozing", "the cat sleeps", 5.0),
    ("high-overlap, not alike", "a man plays the guitar", "a man plays the piano", 0.5),
]


def _pairs(rows: list[tuple[str, str, str, float]]) -> ScoredPairs:
    _, first, second, scores = zip(*rows, strict=True)
    return ScoredPairs(list(first), list(second), np.array(scores))


@pytest.mark.parametrize("index", range(len(EXAMPLES)), ids=[f"{row[0]}-{row[1][:12]}" for row in EXAMPLES])
def test_each_kind_is_recognised(index: int) -> None:
    pairs = _pairs([*EXAMPLES, ("", "zero", "scale", 0.0)])
    slices = analyse_failures(pairs, {"m": np.linspace(0, 1, len(pairs))}, num_worst=100)
    inside = {found.name for found in slices if any(w.sentence1 == EXAMPLES[index][1] for w in found.worst)}
    assert EXAMPLES[index][0] in inside


def test_a_plain_pair_is_of_no_kind() -> None:
    pairs = _pairs([("", "a dog runs on grass", "a dog runs over grass", 4.0), ("", "x", "y", 0.0)])
    [found] = analyse_failures(pairs, {"m": np.array([0.9, 0.1])})
    assert (found.name, found.num_pairs) == ("all pairs", 2)
    assert [pair.kinds for pair in found.worst] == [(), ()]


def test_errors_are_distances_of_ranks_among_all_pairs() -> None:
    pairs = _pairs([("", f"text {chr(97 + row)}", f"word {chr(97 + row)}", float(row)) for row in range(4)])
    base, tuned = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.4, 0.2, 0.3, 0.1])
    found = analyse_failures(pairs, {"base": base, "tuned": tuned}, num_worst=2)[0]
    assert found.errors == {"base": 0.0, "tuned": pytest.approx((3 + 3) / 4 / 4)}
    assert found.biases == {"base": 0.0, "tuned": 0.0}
    assert [pair.gold for pair in found.worst] == [0.0, 3.0]
    assert found.worst[0].ranks == {"base": 0.25, "tuned": 1.0}
    assert found.worst[0].gold_rank == 0.25
    assert found.worst[0].cosines == {"base": 0.1, "tuned": 0.4}


def test_a_bias_has_the_sign_of_the_mistake() -> None:
    """The only pair with a negation is taken for more alike than people say."""
    rows = [("", "a cat sits", "a cat does not sit", 0.0), *(("", f"x{i}", f"y{i}", float(i)) for i in range(1, 5))]
    slices = analyse_failures(_pairs(rows), {"m": np.array([0.9, 0.1, 0.2, 0.3, 0.4])})
    negation = next(found for found in slices if found.name == "negation")
    assert negation.biases["m"] == pytest.approx(0.8)
    assert negation.errors["m"] == pytest.approx(0.8)


def test_few_pairs_or_one_score_give_no_correlation() -> None:
    rows = [("", f"{i} no", f"{i}", float(i)) for i in range(MIN_PAIRS_TO_SCORE - 1)]
    rows += [("", f"w{i}", f"v{i}", float(i)) for i in range(5)]
    slices = {one.name: one for one in analyse_failures(_pairs(rows), {"m": np.arange(len(rows)) / 100})}
    assert slices["all pairs"].scores["m"] is not None
    assert slices["negation"].num_pairs == MIN_PAIRS_TO_SCORE - 1
    assert slices["negation"].scores["m"] is None
