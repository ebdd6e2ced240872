"""The nearest candidates: exact search against a full sort, whatever the blocks; an index by its recall."""

import sys

import numpy as np
import pytest
import torch

from embedsmith.model import nearest
from embedsmith.model.nearest import ExactSearch, IndexSearch, find_usearch, measure_recall
from embedsmith.support.errors import MissingExtraError

CPU = torch.device("cpu")


def unit_vectors(count: int, *, dim: int = 16, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


QUERIES, CANDIDATES = unit_vectors(30, seed=1), unit_vectors(500)


@pytest.mark.parametrize("products", [30, 30 * 7, 30 * 500])
def test_exact_search_is_a_full_sort(monkeypatch: pytest.MonkeyPatch, products: int) -> None:
    monkeypatch.setattr(nearest, "_PRODUCTS_AT_ONCE", products)
    numbers, scores = ExactSearch(CANDIDATES, device=CPU).find(QUERIES, k=20)
    every = QUERIES @ CANDIDATES.T
    np.testing.assert_array_equal(numbers, np.argsort(-every, axis=1)[:, :20])
    np.testing.assert_allclose(scores, np.take_along_axis(every, numbers, axis=1), atol=1e-6)


def test_equal_ones_come_by_their_numbers_and_missing_ones_are_marked() -> None:
    candidates = CANDIDATES[[3, 4, 3, 4]]
    numbers, scores = ExactSearch(candidates, device=CPU).find(CANDIDATES[3:5], k=6)
    assert numbers.tolist() == [[0, 2, 1, 3, -1, -1], [1, 3, 0, 2, -1, -1]]
    assert np.isneginf(scores[:, 4:]).all()
    assert np.isfinite(scores[:, :4]).all()


def test_an_index_finds_nearly_all_with_exact_similarities(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("usearch")
    monkeypatch.setattr(nearest, "_ADDED_AT_ONCE", 100)
    monkeypatch.setattr(nearest, "_GATHERED_AT_ONCE", 20 * 16 * 7)
    taken: list[int] = []
    index = IndexSearch(CANDIDATES, most=20, on_progress=taken.append)
    assert taken == [100] * 5
    exact = ExactSearch(CANDIDATES, device=CPU)
    assert measure_recall(index, exact, QUERIES, k=20) > 0.98
    numbers, scores = index.find(QUERIES, k=20)
    np.testing.assert_allclose(scores, np.einsum("kd,knd->kn", QUERIES, CANDIDATES[numbers]), atol=1e-6)
    few, few_scores = IndexSearch(CANDIDATES[:3], most=5).find(QUERIES[:2], k=5)
    assert (few[:, 3:] == -1).all()
    assert np.isneginf(few_scores[:, 3:]).all()


def test_recall_is_the_share_that_is_found() -> None:
    exact = ExactSearch(CANDIDATES, device=CPU)
    without_best = np.setdiff1d(np.arange(500), exact.find(QUERIES[:1], k=1)[0])

    class Partial(ExactSearch):
        def find(self, queries: np.ndarray, *, k: int) -> tuple[np.ndarray, np.ndarray]:
            numbers, scores = super().find(queries, k=k)
            return without_best[numbers], scores

    partial = Partial(CANDIDATES[without_best], device=CPU)
    assert measure_recall(exact, exact, QUERIES, k=10) == 1
    assert measure_recall(partial, exact, QUERIES[:1], k=10) == pytest.approx(0.9)


def test_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'embedsmith\[index\]'"):
        find_usearch()
