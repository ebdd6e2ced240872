"""Vectors -> the candidates nearest to each query, by cosine: exactly, block by block, or through an index.

Exact search makes all K x C products in float32 and keeps the best k of each query; memory: a block of products,
whatever K and C are. Beyond a million candidates an HNSW graph (usearch) finds nearly all of them in a fraction of the
time of a CPU; similarities are exact there too, only a near one may be missed, and how many are is measured.

Reference: Malkov and Yashunin 2016, HNSW (arXiv 1603.09320).
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np
import torch

from embedsmith.support.errors import MissingExtraError

MOST_EXACT = 1_000_000
"""Candidates up to which search is exact if nobody says otherwise."""
QUERIES_AT_ONCE = 1024
_PRODUCTS_AT_ONCE = 2**25  # 128 MiB of float32
_CONNECTIVITY = 32
_EXPANSION_ADD = 128
_ADDED_AT_ONCE = 65_536
_GATHERED_AT_ONCE = 2**24  # numbers of the found candidates' vectors


class Search(Protocol):
    """Finds candidates."""

    def find(self, queries: np.ndarray, *, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest of each of K queries: numbers (K, k) int64 and cosines (K, k) float32, the nearest first, of
        equal ones the lower number; -1 and -inf where there are fewer candidates."""


class ExactSearch:
    """All products, block by block.

    Args:
        candidates: (C, D) float32, unit length; may be memory-mapped.
        device: where products are made.
    """

    def __init__(self, candidates: np.ndarray, *, device: torch.device) -> None:
        self._candidates = candidates
        self._device = device

    def find(self, queries: np.ndarray, *, k: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Search`."""
        return find_in_blocks(queries, [self._candidates], k=k, device=self._device)


def find_in_blocks(
    queries: np.ndarray, blocks: Iterable[np.ndarray], *, k: int, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """As `Search.find`, all products, among candidates that come block by block; each is looked at once.

    Args:
        queries: (K, D) float32, unit length.
        blocks: the candidates in their order, each (C, D) float32, unit length.
        k: how many to find for each query.
        device: where products are made.
    """
    asked = torch.from_numpy(np.array(queries)).to(device)
    scores = torch.empty((len(queries), 0), device=device)
    numbers = torch.empty((len(queries), 0), dtype=torch.int64, device=device)
    step, first = max(1, _PRODUCTS_AT_ONCE // max(1, len(queries))), 0
    for block in blocks:
        for start in range(0, len(block), step):
            part = torch.from_numpy(np.array(block[start : start + step])).to(device)
            best, places = torch.topk(asked @ part.T, min(k, len(part)), dim=1)
            scores, numbers = torch.cat([scores, best], dim=1), torch.cat([numbers, places + first + start], dim=1)
            if scores.shape[1] > k:
                scores, places = torch.topk(scores, k, dim=1)
                numbers = numbers.gather(1, places)
        first += len(block)
    return _ordered(numbers.cpu().numpy(), scores.cpu().numpy(), k=k)


class IndexSearch:
    """An HNSW graph over the candidates, made anew each time.

    Args:
        candidates: (C, D) float32, unit length; may be memory-mapped. The graph takes a copy of them.
        most: the largest k that will be asked for.
        num_threads: with more than one, the graph is not the same twice.
        on_progress: called with the number of candidates taken in, some ten thousands at a time.

    Raises:
        MissingExtraError: usearch is not installed.
    """

    def __init__(
        self,
        candidates: np.ndarray,
        *,
        most: int,
        num_threads: int = 1,
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        self._candidates = candidates
        self._num_threads = num_threads
        self._index: Any = _index_class()(
            ndim=candidates.shape[1],
            metric="ip",
            dtype="f32",
            connectivity=_CONNECTIVITY,
            expansion_add=_EXPANSION_ADD,
            expansion_search=2 * most,
        )
        for start in range(0, len(candidates), _ADDED_AT_ONCE):
            rows = np.array(candidates[start : start + _ADDED_AT_ONCE])
            self._index.add(np.arange(start, start + len(rows)), rows, threads=num_threads)
            if on_progress:
                on_progress(len(rows))

    def find(self, queries: np.ndarray, *, k: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Search`; a candidate may be missing."""
        queries = np.array(queries)
        found = self._index.search(queries, min(k, len(self._candidates)), threads=self._num_threads)
        numbers = found.keys.astype(np.int64)
        is_there = np.arange(numbers.shape[1]) < found.counts.astype(np.int64)[:, None]
        numbers[~is_there] = 0
        scores = np.empty(numbers.shape, dtype=np.float32)
        step = max(1, _GATHERED_AT_ONCE // (numbers.shape[1] * queries.shape[1]))
        for start in range(0, len(queries), step):
            rows = slice(start, start + step)
            scores[rows] = np.einsum("kd,knd->kn", queries[rows], self._candidates[numbers[rows]])
        numbers[~is_there], scores[~is_there] = -1, -np.inf
        return _ordered(numbers, scores, k=k)


def find_usearch() -> None:
    """Raise MissingExtraError where an index cannot be made."""
    _index_class()


def measure_recall(search: Search, exact: Search, queries: np.ndarray, *, k: int) -> float:
    """Share of the k nearest that `search` finds, over all queries (K, D)."""
    found, expected = (one.find(queries, k=k)[0] for one in (search, exact))
    pairs = zip(found, expected, strict=True)
    return float(np.mean([np.isin(row[row >= 0], own).mean() for own, row in pairs]))


def _index_class() -> Any:
    try:
        from usearch.index import Index
    except ImportError:
        needed_for = f"Searching beyond {MOST_EXACT:,} candidates, or --search index,"
        raise MissingExtraError("usearch", extra="index", needed_for=needed_for) from None
    return Index


def _ordered(numbers: np.ndarray, scores: np.ndarray, *, k: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.lexsort((numbers, -scores), axis=1)
    numbers, scores = (np.take_along_axis(array, order, axis=1) for array in (numbers, scores))
    missing = ((0, 0), (0, k - numbers.shape[1]))
    return np.pad(numbers, missing, constant_values=-1), np.pad(scores, missing, constant_values=-np.inf)
