"""Batches: full, without false negatives, nothing lost, another order each epoch, a function of the seed."""

import json
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from embedsmith.data.triplets import load_triplets
from embedsmith.settings.recipe import load_config
from embedsmith.support.errors import ConfigError
from embedsmith.training import order
from embedsmith.training.batching import (
    Batches,
    Place,
    SourceDeal,
    contrastive_batches,
    count_steps,
    one_source_batches,
    replayed_batches,
    source_shares,
    training_batches,
)
from embedsmith.training.order import KEYED, SHUFFLED
from tests.tiny import write_triplets


def _ids(num_anchors: int, per_anchor: int) -> np.ndarray:
    rows = num_anchors * per_anchor
    return np.stack([np.repeat(np.arange(num_anchors), per_anchor), 1000 + np.arange(rows), 5000 + np.arange(rows)], 1)


def _take(ids: np.ndarray, size: int, count: int, seed: int = 0) -> list[list[int]]:
    return [batch.tolist() for batch in islice(contrastive_batches(ids, batch_size=size, seed=seed), count)]


def test_no_text_occurs_in_two_triplets_of_a_batch() -> None:
    ids = _ids(12, 4)
    ids[5, 2] = ids[40, 1]  # one text as negative here and as positive there
    for batch in _take(ids, 8, 60):
        assert len(batch) == 8
        texts = [text for row in batch for text in set(ids[row].tolist())]
        assert len(texts) == len(set(texts))


def test_every_row_is_shown_equally_often() -> None:
    counts = Counter(row for batch in _take(_ids(20, 3), 5, 12 * 10) for row in batch)
    assert set(counts) == set(range(60))
    assert max(counts.values()) - min(counts.values()) <= 2


def test_each_epoch_has_its_own_order() -> None:
    batches = _take(_ids(40, 1), 10, 8)
    assert batches[:4] != batches[4:]
    for epoch in (batches[:4], batches[4:]):
        assert sorted(row for batch in epoch for row in batch) == list(range(40))


def test_the_order_is_a_function_of_the_seed() -> None:
    assert _take(_ids(40, 2), 8, 20) == _take(_ids(40, 2), 8, 20)
    assert _take(_ids(40, 2), 8, 20) != _take(_ids(40, 2), 8, 20, seed=1)


def test_a_batch_that_cannot_be_filled() -> None:
    with pytest.raises(ConfigError, match="batch_size is 8, but only 5 rows without a common text"):
        _take(_ids(5, 100), 8, 1)


@pytest.mark.parametrize(("triplets", "size", "epochs", "steps"), [(100, 32, 1, 4), (64, 32, 2, 4), (3, 32, 0.1, 1)])
def test_steps_of_an_epoch(triplets: int, size: int, epochs: float, steps: int) -> None:
    assert count_steps(triplets, batch_size=size, num_epochs=epochs) == steps


SIZES = (30, 13, 7)


def _of_sources(
    *, batch_size: int, count: int, sizes: tuple[int, ...] = SIZES, per_anchor: int = 1, **settings: float
) -> tuple[np.ndarray, list[list[int]]]:
    """Sources side by side, some rows of each with one anchor; and so many batches."""
    sources = np.repeat(np.arange(len(sizes)), sizes)
    ids = _ids(len(sources), 1)
    ids[:, 0] //= per_anchor
    found = one_source_batches(
        ids,
        [np.flatnonzero(sources == number) for number in range(len(sizes))],
        names=[f"s{number}" for number in range(len(sizes))],
        batch_size=batch_size,
        **{"seed": 0, "temperature": 1.0, **settings},
    )
    return sources, [batch.tolist() for batch in islice(found, count)]


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_a_batch_is_of_one_source_and_full_and_no_text_occurs_twice(temperature: float) -> None:
    sources, batches = _of_sources(batch_size=3, count=200, per_anchor=2, temperature=temperature)
    assert {len(batch) for batch in batches} == {3}
    assert {len({sources[row] for row in batch}) for batch in batches} == {1}
    assert all(len({row // 2 for row in batch}) == 3 for batch in batches)
    assert {row for batch in batches for row in batch} == set(range(50))


def test_every_row_of_a_source_is_shown_equally_often_and_leftovers_go_on_into_its_next_pass() -> None:
    sources, batches = _of_sources(batch_size=5, count=400)
    counts = np.bincount([row for batch in batches for row in batch])
    for number in range(3):
        assert np.ptp(counts[sources == number]) <= 1
    # by size: 400 batches are 40 passes over everything, whatever does not divide
    assert counts == pytest.approx(40, abs=2)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 1e9])
@pytest.mark.parametrize("sizes", [(30, 13, 7), (10_000_000, 3), (5, 5, 5, 5, 90), (8, 8)])
def test_sources_get_their_shares_at_any_time(sizes: tuple[int, ...], temperature: float) -> None:
    weights = np.array([size ** (1 / temperature) for size in sizes])
    for seed in range(3):
        dealt = list(islice(SourceDeal(np.array(sizes), temperature=temperature, seed=seed), 500))
        counts = np.cumsum(np.eye(len(sizes))[dealt], axis=0)
        expected = np.arange(1, 501)[:, None] * weights / weights.sum()
        assert np.abs(counts - expected).max() < 2


def test_batches_of_one_source_are_a_function_of_the_seed() -> None:
    _, batches = _of_sources(batch_size=3, count=60)
    assert _of_sources(batch_size=3, count=60)[1] == batches
    assert _of_sources(batch_size=3, count=60, seed=1)[1] != batches
    # another order in each pass of a source
    of_first = [row for batch in batches if batch[0] < 30 for row in batch]
    assert sorted(of_first[:30]) == sorted(of_first[30:60]) == list(range(30))
    assert of_first[:30] != of_first[30:60]


def test_a_source_that_fills_no_batch_is_told_with_the_first_one() -> None:
    with pytest.raises(ConfigError, match="is 8, but only 7 rows without a common text were found among the 7 of s2"):
        _of_sources(batch_size=8, count=1)
    with pytest.raises(ConfigError, match=r"only 4 rows .* among the 7 of s2"):
        _of_sources(batch_size=6, count=1, per_anchor=2)
    with pytest.raises(ConfigError, match="s1 has no row among those that are drawn"):
        _of_sources(batch_size=2, count=1, sizes=(5, 0, 5))


def test_a_run_s_shares_are_those_of_its_batches(tmp_path: Path, cache: Path) -> None:
    names = [str(write_triplets(tmp_path / f"{rows}.tsv", num_rows=rows, first=rows)) for rows in (60, 20)]
    settings = {"output_dir": "x", "batch_size": "4", "data.train": f"[{', '.join(names)}]"}
    plain = load_config(overrides=settings)
    config = load_config(overrides={**settings, "one_source_batches": "true", "source_temperature": "2"})
    table = load_triplets(config.data.train)
    batches = [batch.tolist() for batch in islice(training_batches(table, config=config), 50)]
    counts = [sum(table.sources[batch[0]] == number for batch in batches) for number in range(2)]
    shares = source_shares(table, config=config, num_steps=50)
    assert [share.num_batches for share in shares] == counts
    assert [(share.name, share.num_rows) for share in shares] == list(zip(names, (60, 20), strict=True))
    assert [share.num_epochs for share in shares] == [counts[0] * 4 / 60, counts[1] * 4 / 20]
    assert counts[1] / 50 == pytest.approx(20**0.5 / (60**0.5 + 20**0.5), abs=0.03)
    # without: batches as ever, and no shares to tell
    expected = islice(contrastive_batches(table.text_ids, batch_size=4, seed=7), 50)
    for batch, other in zip(islice(training_batches(table, config=plain), 50), expected, strict=True):
        assert batch.tolist() == other.tolist()
    assert source_shares(table, config=plain, num_steps=50) == ()


@pytest.mark.parametrize("kind", [SHUFFLED, KEYED])
def test_batches_go_on_from_any_position_at_once(kind: str) -> None:
    """Over the ends of passes, with rows that wait, through JSON; what came before is not drawn again."""
    ids = _ids(12, 4)

    def start() -> Batches:
        return Batches([contrastive_batches(ids, batch_size=8, seed=7, place=Place(kind))])

    batches = start()
    positions = [json.loads(json.dumps(batches.position))]
    expected = []
    for _ in range(40):
        expected.append(next(batches).tolist())
        positions.append(json.loads(json.dumps(batches.position)))
    assert any(stream["waiting"] for position in positions for stream in position["streams"])
    for step, position in enumerate(positions):
        (place,) = position["streams"]
        asked: list[int] = []

        class Counting:
            def __len__(self) -> int:
                return len(ids)

            def __getitem__(self, row: int) -> np.ndarray:
                asked.append(row)  # noqa: B023
                return ids[row]

        later = contrastive_batches(Counting(), batch_size=8, seed=7, place=Place(**place))
        assert [batch.tolist() for batch in islice(later, 40 - step)] == expected[step:]
        if step == 39:
            assert len(asked) < 48


@pytest.mark.parametrize("shuffled_rows", [0, 10**6])
def test_batches_of_one_source_go_on_from_any_position(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, shuffled_rows: int
) -> None:
    monkeypatch.setattr(order, "SHUFFLED_ROWS", shuffled_rows)
    names = [str(write_triplets(tmp_path / f"{rows}.tsv", num_rows=rows, first=rows)) for rows in (60, 20)]
    settings = {"output_dir": "x", "batch_size": "4", "data.train": f"[{', '.join(names)}]"}
    config = load_config(overrides={**settings, "one_source_batches": "true", "source_temperature": "2"})
    table = load_triplets(config.data.train)
    batches = training_batches(table, config=config)
    positions, expected = [], []
    for _ in range(60):
        positions.append(json.loads(json.dumps(batches.position)))
        expected.append(next(batches).tolist())
    for step in (0, 1, 17, 40, 59):
        later = training_batches(table, config=config, position=positions[step])
        assert [batch.tolist() for batch in islice(later, 60 - step)] == expected[step:]
    if shuffled_rows:
        for step in (0, 7):  # a checkpoint of an earlier version, without a position
            later = replayed_batches(table, config=config, num_steps=step)
            assert [batch.tolist() for batch in islice(later, 60 - step)] == expected[step:]


def test_a_run_of_an_earlier_version_keeps_its_order(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(write_triplets(tmp_path / "t.tsv", num_rows=60))
    config = load_config(overrides={"output_dir": "x", "batch_size": "4", "data.train": path})
    table = load_triplets([path])
    expected = [batch.tolist() for batch in islice(training_batches(table, config=config), 30)]
    monkeypatch.setattr(order, "SHUFFLED_ROWS", 0)
    assert [batch.tolist() for batch in islice(training_batches(table, config=config), 30)] != expected
    later = replayed_batches(table, config=config, num_steps=9)
    assert [batch.tolist() for batch in islice(later, 21)] == expected[9:]
