"""mine: pairs or triplets, maybe a corpus, and MODEL -> the same rows with hard negatives, in a file that trains.

    rows -> anchors and documents -> vectors (kept in the cache) -> the nearest of each anchor -> rules -> file

Vectors are computed once, so what was interrupted, or is done again with other rules, goes on from them.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from embedsmith.data.candidates import MiningTask, choose_pools, plan_mining, read_corpus
from embedsmith.data.mining import NOTHING, MiningRules, choose_negatives, count_disjoint
from embedsmith.data.remarks import say_remarks
from embedsmith.data.roles import ColumnNames
from embedsmith.data.statistics import distribution
from embedsmith.data.table import TripletTable
from embedsmith.data.triplets import load_triplets
from embedsmith.data.writers import RowNegatives, check_output, check_texts, write_triplets
from embedsmith.model.nearest import (
    MOST_EXACT,
    QUERIES_AT_ONCE,
    ExactSearch,
    IndexSearch,
    Search,
    find_usearch,
    measure_recall,
)
from embedsmith.records.mined import Dropped, MinedExample, MiningReport
from embedsmith.settings.choices import CandidatePool, SearchKind, TooFew
from embedsmith.support.errors import DataError
from embedsmith.verbs.mining_vectors import MiningModel, MiningVectors, embed_task

log = logging.getLogger(__name__)

_NUM_EXAMPLES = 3
_SCORE_DIGITS = 6  # as many as a sum of float32 products has
_NUM_MEASURED = 100  # anchors whose nearest are searched exactly, too, to know the index's recall


def mine(
    sources: Sequence[str],
    *,
    out: Path,
    model: MiningModel,
    rules: MiningRules,
    corpus: Sequence[str] = (),
    text_column: str = "text",
    pools: Sequence[CandidatePool] = (),
    columns: ColumnNames | None = None,
    keeps_negatives: bool = True,
    too_few: TooFew = TooFew.KEEP,
    search: SearchKind = SearchKind.AUTO,
    with_scores: bool = False,
    console: Console | None = None,
) -> MiningReport:
    """Find hard negatives for every row and write all to `out`, which `load_triplets` reads.

    Args:
        sources: pairs or triplets, as `load_triplets` takes them.
        out: file to write.
        model: what embeds.
        rules: what may be taken.
        corpus: files, globs or folders in BEIR's layout, of texts that negatives may be taken from.
        text_column: of the corpus's text.
        pools: which texts negatives are taken from; none: the rows' positives, and the corpus.
        columns: as for `load_triplets`.
        keeps_negatives: whether rows keep those that they have; mined ones come behind them.
        too_few: what becomes of rows with fewer mined negatives than wanted.
        search: exact, through an index, or an index beyond a million candidates.
        with_scores: write similarities, too, in columns that training does not use.
        console: where progress goes; None: nowhere.

    Raises:
        DataError: as `load_triplets`, `read_corpus` and `write_rows`; or no negative was found.
        ConfigError, ModelError, MissingExtraError, RunError: by their names.
    """
    check_output(out)
    table = load_triplets(sources, columns=columns)
    say_remarks(table.facts.remarks)
    pools = choose_pools(table, pools=pools, has_corpus=bool(corpus))
    corpus_texts = read_corpus(corpus, column=text_column) if corpus else []
    embedder = model.load()
    if table.has_instructions and not embedder.takes_instruction:
        log.warning("The rows' instructions are not used: the model's prompt has no place for one ({instruction}).")
    task = plan_mining(
        table,
        corpus=corpus_texts,
        pools=pools,
        uses_instructions=embedder.takes_instruction,
        keeps_negatives=keeps_negatives,
        embeds_negatives=keeps_negatives and with_scores,
    )
    of_table = (text for chunk in table.chunks() for texts in chunk.texts for text in texts)
    check_texts(out, chain(task.documents, of_table))
    uses_index = search is SearchKind.INDEX or (search is SearchKind.AUTO and task.num_candidates > MOST_EXACT)
    if uses_index:
        find_usearch()
    vectors = embed_task(task, embedder=embedder, model=model, console=console or Console(quiet=True))
    found = _search(task, vectors, rules=rules, uses_index=uses_index)
    of_rows = found.counts[task.anchor_of_row]
    rows = np.flatnonzero(of_rows >= (rules.num_negatives if too_few is TooFew.DROP else 0))
    if not of_rows[rows].any():
        raise DataError(_why_none(found.dropped, task=task))
    negatives = _negatives_of(
        table, task, found, rows, keeps_negatives=keeps_negatives, vectors=vectors if with_scores else None
    )
    write_triplets(out, table, indices=rows, negatives=negatives)
    num_disjoint = count_disjoint(load_triplets([str(out)]).text_ids)
    return _report(table, task, found, rows, rules=rules, vectors=vectors, num_disjoint=num_disjoint)


@dataclass(frozen=True)
class _Found:
    """For each of A anchors: numbers and scores (A, num_negatives), and its farthest positive's similarity (A,)."""

    numbers: np.ndarray
    scores: np.ndarray
    positive_scores: np.ndarray
    num_looked_at: int
    dropped: Counter[Dropped]
    recall: float | None

    @property
    def counts(self) -> np.ndarray:
        """How many negatives each anchor has, (A,)."""
        return np.asarray((self.numbers != NOTHING).sum(axis=1))

    def mined(self, anchor: int) -> list[tuple[int, float]]:
        """An anchor's negatives: their numbers and similarities."""
        pairs = zip(self.numbers[anchor].tolist(), self.scores[anchor].tolist(), strict=True)
        return [(number, score) for number, score in pairs if number != NOTHING]


def _search(task: MiningTask, vectors: MiningVectors, *, rules: MiningRules, uses_index: bool) -> _Found:
    num_anchors = len(task.anchors)
    candidates = vectors.documents[: task.num_candidates]
    k = min(rules.num_ranks + max(map(len, task.known)), task.num_candidates)
    exact: Search = ExactSearch(candidates, device=vectors.device)
    search = exact
    if uses_index:
        log.info("Making an index of %s candidates ...", f"{task.num_candidates:,}")
        search = IndexSearch(candidates, most=k, num_threads=torch.get_num_threads())
    numbers = np.full((num_anchors, rules.num_negatives), NOTHING)
    scores = np.full(numbers.shape, np.nan, dtype=np.float32)
    positive_scores = np.empty(num_anchors, dtype=np.float32)
    num_looked_at, dropped = 0, Counter[Dropped]()
    for own, rows in vectors.anchors:
        for start in range(0, len(own), QUERIES_AT_ONCE):
            some, asked = own[start : start + QUERIES_AT_ONCE], rows[start : start + QUERIES_AT_ONCE]
            positive_scores[some] = [
                (vectors.documents[task.positives[anchor]] @ vector).min()  # the farthest one
                for anchor, vector in zip(some, asked, strict=True)
            ]
            chosen = choose_negatives(
                *search.find(asked, k=k),
                anchors=some,
                known=[task.known[anchor] for anchor in some],
                positive_scores=positive_scores[some],
                rules=rules,
            )
            numbers[some], scores[some] = chosen.numbers, chosen.scores
            num_looked_at += chosen.num_looked_at
            dropped += chosen.dropped
    recall = measure_recall(search, exact, vectors.anchors[0][1][:_NUM_MEASURED], k=k) if uses_index else None
    return _Found(numbers, scores, positive_scores, num_looked_at, dropped, recall)


def _why_none(dropped: Mapping[Dropped, int], *, task: MiningTask) -> str:
    counted = [f"  {rule.value}: {count:,}" for rule, count in dropped.items() if count]
    return "\n".join(
        [
            f"No row has enough negatives: of {task.num_candidates:,} candidates, those near an anchor were left out:",
            *counted,
            "Nothing was written. Give more candidates (--corpus), loosen these rules, or take a --model trained "
            "to embed: of an untrained one all similarities lie close together.",
        ]
    )


def _negatives_of(
    table: TripletTable,
    task: MiningTask,
    found: _Found,
    rows: np.ndarray,
    *,
    keeps_negatives: bool,
    vectors: MiningVectors | None,
) -> list[RowNegatives]:
    """What each row is written with: its own negatives, if they stay, then the mined ones; with `vectors`, similarities
    too."""
    result = []
    texts_of_rows = (texts for chunk in table.chunks(rows) for texts in chunk.texts)
    for row, (_, positive, *before) in zip(rows, texts_of_rows, strict=True):
        anchor = task.anchor_of_row[row]
        own = before if keeps_negatives else []
        mined = found.mined(anchor)
        texts = [*own, *(task.documents[number] for number, _ in mined)]
        if vectors is None:
            result.append(RowNegatives(texts))
        else:
            asked = [task.number_of[text] for text in (positive, *own)]
            scores = [*vectors.similarities(anchor, asked).tolist(), *(score for _, score in mined)]
            positive_score, *negative_scores = (round(score, _SCORE_DIGITS) for score in scores)
            result.append(RowNegatives(texts, positive_score, negative_scores))
    return result


def _report(
    table: TripletTable,
    task: MiningTask,
    found: _Found,
    rows: np.ndarray,
    *,
    rules: MiningRules,
    vectors: MiningVectors,
    num_disjoint: int,
) -> MiningReport:
    of_rows = found.counts[task.anchor_of_row]
    scores = found.scores[found.numbers != NOTHING]
    drawn = np.sort(np.random.default_rng(rules.seed).permutation(rows[of_rows[rows] > 0])[:_NUM_EXAMPLES])
    examples = []
    for row, (text, positive, *_) in zip(drawn, table.rows(drawn).texts, strict=True):
        anchor = task.anchor_of_row[row]
        (score,) = vectors.similarities(anchor, [task.number_of[positive]]).tolist()
        mined = tuple((task.documents[number], score) for number, score in found.mined(anchor))
        examples.append(MinedExample(text, positive, score, mined))
    return MiningReport(
        num_rows=len(table),
        num_written=len(rows),
        num_anchors=len(task.anchors),
        num_candidates=task.num_candidates,
        num_placeholders=task.num_placeholders,
        num_wanted=rules.num_negatives,
        num_negatives=int(of_rows[rows].sum()),
        num_short=int((of_rows < rules.num_negatives).sum()),
        num_none=int((of_rows == 0).sum()),
        num_disjoint=num_disjoint,
        num_looked_at=found.num_looked_at,
        dropped={rule: found.dropped[rule] for rule in Dropped if rule in found.dropped},
        positives=distribution(found.positive_scores.tolist()),
        negatives=distribution(scores.tolist()),
        recall=found.recall,
        examples=tuple(examples),
    )
