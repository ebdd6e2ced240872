"""search: MODEL, a folder of vectors and queries -> the texts nearest to each query, by cosine.

    queries --MODEL--> vectors in the folder's number format --exactly, or through an index--> numbers -> places, texts

Invariants: MODEL is the one that the folder was made with, by the hashes of its files; a query is compared in the
folder's number format, under its ranges; a LanceDB table is of the shards as they are.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from embedsmith.model.loading.fingerprint import fingerprint_model
from embedsmith.model.nearest import MOST_EXACT, QUERIES_AT_ONCE, find_in_blocks
from embedsmith.records.found import Found, Hit, Place
from embedsmith.settings.choices import SearchKind, Side, StoreKind
from embedsmith.support.errors import ConfigError, MissingExtraError, RunError, list_faults
from embedsmith.verbs.lance_store import RECALL_OF, LanceStore, has_store, import_lancedb
from embedsmith.verbs.vector_folder import VectorFolder
from embedsmith.verbs.vector_maker import VectorMaker, VectorOptions
from embedsmith.verbs.vector_manifest import setting_difference

log = logging.getLogger(__name__)

_OF_QUERIES = ("prompt", "query_prompt", "instruction")  # may be others than those of the documents


class _Searched(Protocol):
    def find(self, queries: np.ndarray, *, k: int) -> tuple[np.ndarray, np.ndarray]: ...

    def places(self, numbers: Sequence[int]) -> list[Place]: ...


class ShardSearch:
    """All products with the vectors in the shards, block by block; see `Search` in `model/nearest.py`.

    Args:
        folder: of vectors.
    """

    def __init__(self, folder: VectorFolder) -> None:
        self._folder = folder
        self.places = folder.places

    def find(self, queries: np.ndarray, *, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Each shard is read once for a thousand queries."""
        parts = [queries[start : start + QUERIES_AT_ONCE] for start in range(0, len(queries), QUERIES_AT_ONCE)]
        cpu = torch.device("cpu")  # reading takes longer than the products
        found = [find_in_blocks(part, self._folder.blocks(), k=k, device=cpu) for part in parts]
        numbers, scores = (np.concatenate(each) for each in zip(*found, strict=True))
        return numbers, scores


def search(
    model: str,
    *,
    folder: Path,
    queries: Sequence[str],
    top_k: int = 10,
    search: SearchKind = SearchKind.AUTO,
    store: StoreKind = StoreKind.AUTO,
    options: VectorOptions | None = None,
    measures_recall: bool = False,
) -> Found:
    """Find the texts nearest to queries.

    Args:
        model: the MODEL that the folder was made with.
        folder: of vectors, as `encode` makes it.
        queries: K texts, none of them white space alone.
        top_k: how many to find for each.
        search: all vectors looked at, or through LanceDB's index; `auto`: all, up to a million.
        store: where.
        options: prompt and instruction of the queries, and how the model is loaded; the rest is the folder's.
        measures_recall: compare what the index finds with an exact search.

    Raises:
        ConfigError: there is no query, or what is asked for does not go together.
        RunError: the folder is not finished, damaged, or of another model.
        ModelError, MissingExtraError: by their names.
    """
    if not queries or not all(map(str.strip, queries)):
        raise ConfigError("A query is empty, or there is none.\nGive texts behind the folder, or --queries FILE.")
    vectors = VectorFolder.open(folder)
    search, store = _choose(vectors, search=search, store=store)
    maker = _load(model, vectors, options=options or VectorOptions())
    if num_cut := maker.count_cut(queries):
        log.warning("%d of the queries are longer than the model takes, and are cut.", num_cut)
    asked = vectors.as_unit(maker.in_format(maker.embed(list(queries)), ranges=vectors.read_ranges()))
    searched: _Searched = LanceStore(vectors) if store is StoreKind.LANCEDB else ShardSearch(vectors)
    k = min(top_k, vectors.num_texts)
    where = f"in {folder / 'lance'}" if store is StoreKind.LANCEDB else "in the shards"
    if search is SearchKind.EXACT:
        numbers, scores = searched.find(asked, k=k)
        return Found(_hits(searched, numbers, scores), f"exact: all {vectors.num_texts:,} vectors compared, {where}")
    assert isinstance(searched, LanceStore)
    known = searched.make_index()
    numbers, scores = searched.find_through_index(asked, k=k)
    recall = _recall(numbers, searched.find(asked, k=k)[0]) if measures_recall else None
    how = (
        f"approximate: through the index {where}, which finds {100 * known:.1f} % of the nearest {RECALL_OF} texts "
        "(recall against exact search, measured for texts of the folder)"
    )
    return Found(_hits(searched, numbers, scores), how, recall)


def _choose(folder: VectorFolder, *, search: SearchKind, store: StoreKind) -> tuple[SearchKind, StoreKind]:
    """What is done of what is asked; raises ConfigError or MissingExtraError where that cannot be."""
    if folder.is_bits:
        if store is StoreKind.LANCEDB or search is SearchKind.INDEX:
            raise ConfigError(
                f"{folder.path} holds {folder.precision} vectors, which are compared by equal bits: in the shards and "
                "exactly, which 32 times fewer bytes make quick.\nLeave --store and --search away."
            )
        return SearchKind.EXACT, StoreKind.SHARDS
    if store is StoreKind.SHARDS and search is SearchKind.INDEX:
        raise ConfigError("An index is LanceDB's, and --store shards has none.\nLeave one of them away.")
    if store is StoreKind.LANCEDB or search is SearchKind.INDEX:
        import_lancedb()
        store = StoreKind.LANCEDB
    if store is StoreKind.AUTO:
        store = _find_store(folder)
    if search is SearchKind.AUTO:
        is_large = folder.num_texts > MOST_EXACT and store is StoreKind.LANCEDB
        search = SearchKind.INDEX if is_large else SearchKind.EXACT
    return search, store


def _find_store(folder: VectorFolder) -> StoreKind:
    try:
        import_lancedb()
    except MissingExtraError:
        log.info("LanceDB is not installed (pip install 'embedsmith[search]'), so the shards are searched, exactly.")
        return StoreKind.SHARDS
    if not os.access(folder.path, os.W_OK) and not has_store(folder.path):
        log.warning("%s cannot be written, so the shards are searched.", folder.path)
        return StoreKind.SHARDS
    return StoreKind.LANCEDB


def _load(model: str, folder: VectorFolder, *, options: VectorOptions) -> VectorMaker:
    """The model of the folder, as it embeds queries; raises RunError where it is another one."""
    made_from = folder.manifest.made_from
    then: dict[str, Any] = made_from["embedding"]
    weights = list(fingerprint_model(model, base_model=options.base_model))
    if weights != then["weights"]:
        raise _other(model, folder, ["the model's files"])
    asked = replace(
        options,
        side=Side.QUERY,
        prompt=None,
        instruction=options.instruction or made_from["instruction"],
        dim=then["dim"],
        vector_precision=folder.precision,
    )
    maker = VectorMaker.load(model, options=asked, ranges=None)
    names = sorted({*then, *maker.embedding} - {*_OF_QUERIES})
    # as JSON has them: lists for tuples
    now = {name: list(value) if isinstance(value, tuple) else value for name, value in maker.embedding.items()}
    if changed := [what for name in names if (what := setting_difference(name, then.get(name), now.get(name)))]:
        raise _other(model, folder, changed)
    prompt = options.prompt
    if prompt is None and _query_prompt(then) != _query_prompt(now):
        prompt = _query_prompt(then)
        log.info("The queries stand under the prompt that the folder was made with: %r.", prompt)
    if prompt is not None:
        maker.embedder.change_prompt(prompt)
    return maker


def _query_prompt(embedding: dict[str, Any]) -> Any:
    return embedding.get("query_prompt") or embedding.get("prompt")


def _other(model: str, folder: VectorFolder, changed: Sequence[str]) -> RunError:
    headline = f"{folder.path} holds vectors of {folder.model}, and {model} makes others. They differ in:"
    advice = "Search with the model that made them, or encode the texts with this one into another folder."
    return RunError(list_faults(headline, changed, advice=advice))


def _hits(searched: _Searched, numbers: np.ndarray, scores: np.ndarray) -> tuple[tuple[Hit, ...], ...]:
    wanted = sorted({int(number) for number in numbers.reshape(-1) if number >= 0})
    place_of = dict(zip(wanted, searched.places(wanted), strict=True))
    return tuple(
        tuple(Hit(float(score), place_of[number]) for number, score in zip(row, cosines, strict=True) if number >= 0)
        for row, cosines in zip(numbers.tolist(), scores, strict=True)
    )


def _recall(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.mean([np.isin(right[right >= 0], row).mean() for row, right in zip(found, expected, strict=True)]))
