"""Rows and a corpus -> what mining asks for: distinct anchors, distinct texts, and those that an anchor must not get.

Texts that are one to a reader (`normalise`) are one candidate, the first of them. An anchor must not get itself, nor a
positive of any row whose anchor is one with it; nor a negative of such a row, where those stay. Memory: the distinct
texts, and some numbers a row.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedsmith.data.beir import find_corpus
from embedsmith.data.columns import text_fault
from embedsmith.data.doubts import is_placeholder
from embedsmith.data.faults import Faults
from embedsmith.data.normalise import normalise
from embedsmith.data.readers import FileRow, expand_sources, read_rows
from embedsmith.data.table import TripletTable
from embedsmith.settings.choices import CandidatePool
from embedsmith.support.errors import ConfigError, DataError

TEXT, TITLE = "text", "title"


@dataclass(frozen=True)
class MiningTask:
    """What is to be asked for.

    Attributes:
        documents: distinct texts to embed; the first `num_candidates` are the candidates, the others are positives
            whose similarity counts, or negatives that rows have already.
        num_candidates: see there.
        num_placeholders: texts such as n/a that are no candidates.
        anchors: distinct (instruction, anchor).
        anchor_of_row: for each row of the table, its number among them.
        positives: of each anchor, numbers of documents.
        known: of each anchor, numbers of the candidates that it must not get.
        number_of: document -> its number.
    """

    documents: list[str]
    num_candidates: int
    num_placeholders: int
    anchors: list[tuple[str | None, str]]
    anchor_of_row: np.ndarray
    positives: list[list[int]]
    known: list[np.ndarray]
    number_of: dict[str, int]


def plan_mining(
    table: TripletTable,
    *,
    corpus: Sequence[str] = (),
    pools: Sequence[CandidatePool] = (),
    uses_instructions: bool = True,
    keeps_negatives: bool = True,
    embeds_negatives: bool = False,
) -> MiningTask:
    """What mining asks for.

    Args:
        table: pairs or triplets.
        corpus: texts besides those of the rows.
        pools: where candidates come from; none: the rows' positives, and the corpus where there is one.
        uses_instructions: whether an anchor under two instructions is two anchors.
        keeps_negatives: whether rows keep the negatives that they have.
        embeds_negatives: whether these are documents though they are no candidates.

    Raises:
        ConfigError, DataError: as `choose_pools`; or no pool holds a text.
    """
    chosen = choose_pools(table, pools=pools, has_corpus=bool(corpus))
    candidates: dict[str, str] = {}
    placeholders: set[str] = set()
    for text in _pooled(table, corpus, chosen):
        if is_placeholder(text):
            placeholders.add(text)
        else:
            candidates.setdefault(normalise(text), text)
    if not candidates:
        raise DataError("There is no text that negatives could be taken from.\nGive a --corpus, or other --candidates.")
    number_of = {text: number for number, text in enumerate(candidates.values())}
    number_of_key = {key: number for number, key in enumerate(candidates)}

    anchors: dict[tuple[str | None, str], int] = {}
    anchor_of_row = np.empty(len(table), dtype=np.int64)
    positives: dict[int, dict[int, None]] = defaultdict(dict)
    keys_of_group: dict[str, set[str]] = defaultdict(set)
    row = 0
    for rows in table.chunks():
        for instruction, (anchor, positive, *negatives) in zip(rows.instructions, rows.texts, strict=True):
            number = anchors.setdefault((instruction if uses_instructions else None, anchor), len(anchors))
            anchor_of_row[row] = number
            positives[number][number_of.setdefault(positive, len(number_of))] = None
            known = [anchor, positive, *(negatives if keeps_negatives else [])]
            keys_of_group[normalise(anchor)].update(map(normalise, known))
            for negative in negatives if embeds_negatives else ():
                number_of.setdefault(negative, len(number_of))
            row += 1
    return MiningTask(
        documents=list(number_of),
        num_candidates=len(candidates),
        num_placeholders=len(placeholders),
        anchors=list(anchors),
        anchor_of_row=anchor_of_row,
        positives=[list(positives[number]) for number in range(len(anchors))],
        known=[_numbers(keys_of_group[normalise(anchor)], number_of_key) for _, anchor in anchors],
        number_of=number_of,
    )


def read_corpus(sources: Sequence[str], *, column: str = TEXT) -> list[str]:
    """Texts of files, or of the corpus of a folder in BEIR's layout; a `title` comes before its text.

    Args:
        sources: files, globs, or such folders.
        column: of the text.

    Raises:
        DataError: a source is missing or has faulty rows; all are named.
    """
    faults = Faults()
    names = [str(find_corpus(Path(source)) or source) for source in sources]
    texts = []
    for path in expand_sources(names, faults=faults):
        for line, row in read_rows(path, faults=faults):
            if column not in row:
                known = ", ".join(row)
                faults.add(path, line, f"has no '{column}', but {known}; name its column with --text-column")
                break
            text, fault = read_document(row, column)
            if fault:
                faults.add(path, line, fault)
            else:
                texts.append(text)
    faults.raise_if_any(what="corpus")
    return texts


def read_document(row: FileRow, column: str) -> tuple[str, str | None]:
    """A row's text, a `title` before a `text`, and what is wrong with it, if anything."""
    text, title = row[column], row.get(TITLE) if column == TEXT else None
    if (fault := text_fault(text)) and not (isinstance(text, str) and not text.strip()):
        return "", f"{column} {fault}"  # one without a character is no candidate, which is counted
    if title in (None, "") or (isinstance(title, str) and not title.strip()):
        return str(text), None
    if fault := text_fault(title):
        return "", f"{TITLE} {fault}"
    return f"{title.strip()} {text}", None


def choose_pools(table: TripletTable, *, pools: Sequence[CandidatePool], has_corpus: bool) -> Sequence[CandidatePool]:
    """Where candidates come from: `pools`, or what is usual for none.

    Raises:
        ConfigError: a pool is asked for that holds nothing, or a corpus is given and not asked for.
        DataError: the rows are scored pairs or texts.
    """
    if table.has_scores or table.has_texts:
        advice = "Give others." if table.has_scores else "Give them as the --corpus of others."
        raise DataError(f"Negatives are mined for pairs and triplets, and these are {table.kind}.\n{advice}")
    if not pools:
        return [CandidatePool.POSITIVES, *([CandidatePool.CORPUS] if has_corpus else [])]
    if CandidatePool.CORPUS in pools and not has_corpus:
        raise ConfigError("--candidates names the corpus, and there is none.\nName its files with --corpus.")
    if has_corpus and CandidatePool.CORPUS not in pools:
        raise ConfigError("--corpus is given, and --candidates does not name it.\nAdd corpus to --candidates.")
    if CandidatePool.NEGATIVES in pools and not table.has_negatives:
        raise ConfigError("--candidates names negatives, and no row has one.\nLeave negatives away.")
    return pools


def _pooled(table: TripletTable, corpus: Sequence[str], pools: Sequence[CandidatePool]) -> Iterable[str]:
    """The texts of the pools; the corpus first, as its texts are what a search would find."""
    if CandidatePool.CORPUS in pools:
        yield from corpus
    groups = [
        number
        for number, pool in enumerate((CandidatePool.ANCHORS, CandidatePool.POSITIVES, CandidatePool.NEGATIVES))
        if pool in pools
    ]
    for rows in table.chunks() if groups else ():
        for group in groups:
            yield from rows.groups()[group]


def _numbers(keys: Iterable[str], number_of_key: dict[str, int]) -> np.ndarray:
    return np.array(sorted(number_of_key[key] for key in keys if key in number_of_key), dtype=np.int64)
