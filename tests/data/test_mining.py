"""Which near texts become negatives: each rule against plain loops, their order, and what is counted."""

from typing import Any

import numpy as np
import pytest

from embedsmith.data.mining import NOTHING, MiningRules, choose_negatives, count_disjoint
from embedsmith.records.mined import Dropped
from embedsmith.settings.choices import NegativeChoice
from embedsmith.support.errors import ConfigError

NUM_ANCHORS, NUM_NEAR = 40, 30
RULES: list[dict[str, Any]] = [
    {"relative_margin": None},
    {"relative_margin": 0.05},
    {"relative_margin": None, "absolute_margin": 0.1},
    {"relative_margin": 0.2, "absolute_margin": 0.1, "max_score": 0.6, "min_score": -0.3},
    {"relative_margin": 0.05, "first_rank": 4, "last_rank": 12},
    {"relative_margin": None, "max_score": 0.5, "first_rank": 2},
]


def near(seed: int = 0) -> dict[str, Any]:
    """Candidates in random order with falling scores; some lists end early, some positives point away."""
    stream = np.random.default_rng(seed)
    numbers = np.stack([stream.permutation(100)[:NUM_NEAR] for _ in range(NUM_ANCHORS)])
    scores = -np.sort(-stream.uniform(-1, 1, size=numbers.shape).astype(np.float32), axis=1)
    numbers[::7, -5:], scores[::7, -5:] = NOTHING, -np.inf
    return {
        "numbers": numbers,
        "scores": scores,
        "known": [np.sort(stream.choice(row[row >= 0], size=3, replace=False)) for row in numbers],
        "positive_scores": stream.uniform(-0.5, 1, size=NUM_ANCHORS).astype(np.float32),
    }


def by_loops(data: dict[str, Any], rules: MiningRules) -> list[list[int]]:
    found = []
    for numbers, scores, known, positive in zip(*data.values(), strict=True):
        others = [(n, s) for n, s in zip(numbers, scores, strict=True) if n != NOTHING and n not in known]
        left = [
            n
            for n, s in others[: rules.num_ranks]
            if (rules.absolute_margin is None or s + rules.absolute_margin <= positive)
            and (rules.relative_margin is None or s <= positive - abs(positive) * rules.relative_margin)
            and (rules.max_score is None or s <= rules.max_score)
            and (rules.min_score is None or s >= rules.min_score)
        ]
        found.append([int(n) for n in left[rules.first_rank - 1 :][: rules.num_negatives]])
    return found


def lists(numbers: np.ndarray) -> list[list[int]]:
    return [[int(number) for number in row if number != NOTHING] for row in numbers]


@pytest.mark.parametrize("options", RULES, ids=str)
def test_the_rules_are_what_plain_loops_say(options: dict[str, Any]) -> None:
    data, rules = near(), MiningRules(num_negatives=4, **options)
    chosen = choose_negatives(**data, rules=rules, anchors=range(NUM_ANCHORS))
    assert lists(chosen.numbers) == by_loops(data, rules)
    for row, (numbers, scores) in enumerate(zip(chosen.numbers, chosen.scores, strict=True)):
        score_of = dict(zip(data["numbers"][row], data["scores"][row], strict=True))
        assert [score_of[number] for number in numbers if number != NOTHING] == scores[numbers != NOTHING].tolist()
        assert np.isnan(scores[numbers == NOTHING]).all()


def test_a_margin_leaves_out_what_is_nearer_than_95_percent_of_the_positive() -> None:
    for positive, scores, expected in [(0.8, [0.77, 0.75, 0.5], [1, 2]), (-0.4, [-0.41, -0.43, -0.6], [1, 2])]:
        chosen = choose_negatives(
            np.array([[0, 1, 2]]),
            np.array([scores], dtype=np.float32),
            known=[np.array([], dtype=int)],
            positive_scores=np.array([positive], dtype=np.float32),
            rules=MiningRules(),
            anchors=[0],
        )
        assert lists(chosen.numbers) == [expected]
        assert chosen.dropped[Dropped.RELATIVE_MARGIN] == 1


def test_what_is_looked_at_is_left_out_once_or_left() -> None:
    rules = MiningRules(
        num_negatives=30, first_rank=3, relative_margin=0.2, absolute_margin=0.1, max_score=0.5, min_score=-0.5
    )
    chosen = choose_negatives(**near(), rules=rules, anchors=range(NUM_ANCHORS))
    assert chosen.num_looked_at == chosen.dropped.total() + (chosen.numbers != NOTHING).sum()
    assert chosen.dropped[Dropped.KNOWN] == 3 * NUM_ANCHORS
    assert all(chosen.dropped[rule] for rule in Dropped)


def test_a_random_choice_is_of_the_same_texts_whatever_the_grouping() -> None:
    data = near()
    rules = MiningRules(num_negatives=3, choice=NegativeChoice.RANDOM, relative_margin=None, last_rank=10)
    chosen = choose_negatives(**data, rules=rules, anchors=range(NUM_ANCHORS))
    allowed = by_loops(data, MiningRules(num_negatives=10, relative_margin=None, last_rank=10))
    assert all(set(own) <= set(row) for own, row in zip(lists(chosen.numbers), allowed, strict=True))
    assert (np.diff(chosen.scores, axis=1) <= 0).all()
    assert lists(chosen.numbers) != [row[:3] for row in allowed]
    part = {name: values[10:20] for name, values in data.items()}
    again = choose_negatives(**part, rules=rules, anchors=range(10, 20))
    np.testing.assert_array_equal(again.numbers, chosen.numbers[10:20])
    other = choose_negatives(**part, rules=MiningRules(**{**vars(rules), "seed": 8}), anchors=range(10, 20))
    assert lists(other.numbers) != lists(again.numbers)


def test_rows_without_a_common_text() -> None:
    texts = [[1, 2], [2, 3], [3, 4, 5], [6], [5, 7]]
    assert count_disjoint([np.array(row) for row in texts]) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_negatives": 0}, "--num-negatives is 0"),
        ({"first_rank": 0}, "--first-rank is 0"),
        ({"num_negatives": 5, "first_rank": 8, "last_rank": 11}, "from rank 8 on need 12"),
        ({"max_score": float("nan")}, "--max-score is nan"),
        ({"relative_margin": float("inf")}, "--relative-margin is inf"),
        ({"max_score": 0.2, "min_score": 0.3}, "nothing lies between"),
    ],
)
def test_rules_that_leave_nothing(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MiningRules(**options)
