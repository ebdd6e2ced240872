"""Training data + evaluation sets -> the texts and pairs they have in common: exact, normalised and near.

Near: Jaccard similarity of character n-grams. Candidates come from MinHash locality-sensitive hashing, and each is
then checked exactly, so nothing is called near that is not; of texts right at the default threshold two in a hundred
are missed, of those at 0.9 two in a hundred thousand. Cost: one hash per distinct text; memory: the evaluation texts,
and a note per distinct training text.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np

from embedsmith.data.clusters import ClusteringSet
from embedsmith.data.normalise import normalise
from embedsmith.data.pairs import ScoredPairs
from embedsmith.data.statistics import jaccard
from embedsmith.data.table import TripletTable
from embedsmith.data.writers import write_triplets
from embedsmith.records.data_facts import LeakageReport, Match, Overlap, SharedText
from embedsmith.support.errors import MissingExtraError

NEAR_THRESHOLD = 0.8
_NGRAM = 4
_NUM_EXAMPLES = 5
Pair = tuple[int, int]
"""Two numbers of keys, the smaller one first."""


class LeakageCheck:
    """Evaluation sets, ready to be looked for in training data.

    Args:
        sets: name -> pairs, or texts alone.
        threshold: Jaccard similarity from which texts are near; None: do not look for near ones.

    Raises:
        MissingExtraError: near ones are asked for, and datasketch is not installed.
    """

    def __init__(
        self, sets: Mapping[str, ScoredPairs | ClusteringSet], *, threshold: float | None = NEAR_THRESHOLD
    ) -> None:
        self.threshold = threshold
        self._sets = {name: one.rows for name, one in sets.items()}
        texts = dict.fromkeys(text for rows in self._sets.values() for row in rows for text in row)
        self._keys: dict[str, int] = {}
        self._key_of = {text: self._keys.setdefault(normalise(text), len(self._keys)) for text in texts}
        self._near = _NearTexts(list(self._keys), threshold=threshold) if threshold is not None else None
        self._matches: dict[str, dict[int, Match]] = {}  # by training text

    def run(self, table: TripletTable) -> tuple[LeakageReport, np.ndarray]:
        """Look through the training data.

        Returns:
            What was found, and for every row whether one of its texts matches an evaluation text, (num_rows,).
        """
        found = _Found()
        is_shared = np.zeros(len(table), dtype=bool)
        rows = (texts for chunk in table.chunks() for texts in chunk.texts)
        for row, texts in enumerate(rows):
            matches = [self._matches_of(text) for text in texts]
            is_shared[row] = any(matches)
            found.add(texts, matches)
        overlaps = tuple(self._overlap(name, found) for name in self._sets)
        return LeakageReport(len(table), int(is_shared.sum()), self.threshold, overlaps), is_shared

    def _matches_of(self, text: str) -> dict[int, Match]:
        """Number of a key -> how this text matches it; exact ones are told from normalised ones later."""
        if text not in self._matches:
            key = normalise(text)
            matches = dict.fromkeys(self._near.find(key), Match.NEAR) if self._near else {}
            if key in self._keys:
                matches[self._keys[key]] = Match.NORMALISED
            self._matches[text] = matches
        return self._matches[text]

    def _overlap(self, name: str, found: "_Found") -> Overlap:
        of_set = self._sets[name]
        texts = list(dict.fromkeys(text for pair in of_set for text in pair))
        shared = {}
        for text in texts:
            if text in found.texts:
                shared[text] = SharedText(text, text, Match.EXACT)
            elif self._key_of[text] in found.keys:
                match, trained = found.keys[self._key_of[text]]
                shared[text] = SharedText(text, trained, match)
        pairs: dict[Pair, Match] = {}
        by_key: dict[Pair, tuple[str, str]] = {}
        for first, second in (row for row in of_set if len(row) == 2):
            pair = _ordered(self._key_of[first], self._key_of[second])
            by_key.setdefault(pair, (first, second))
            if frozenset((first, second)) in found.text_pairs:
                pairs[pair] = Match.EXACT
            elif pair in found.key_pairs:
                pairs.setdefault(pair, found.key_pairs[pair])
        of_pairs = [text for pair in pairs for text in by_key[pair]]
        ordered = list(dict.fromkeys([*of_pairs, *sorted(shared, key=lambda text: -shared[text].match)]))
        return Overlap(
            name=name,
            num_texts=len(texts),
            num_pairs=len(by_key),
            texts=_count(one.match for one in shared.values()),
            pairs=_count(pairs.values()),
            examples=tuple(shared[text] for text in ordered[:_NUM_EXAMPLES]),
        )


@dataclass
class _Found:
    """What training rows had in common with evaluation texts.

    Attributes:
        texts: of the training data that match anything, as they are.
        text_pairs: two such texts of one row.
        keys: number of an evaluation text's key -> the nearest match, and the training text.
        key_pairs: two keys matched by one row -> the weaker of the two matches.
    """

    texts: set[str] = field(default_factory=set)
    text_pairs: set[frozenset[str]] = field(default_factory=set)
    keys: dict[int, tuple[Match, str]] = field(default_factory=dict)
    key_pairs: dict[Pair, Match] = field(default_factory=dict)

    def add(self, texts: tuple[str, ...], matches: Sequence[Mapping[int, Match]]) -> None:
        """Take the texts of one row, and what each of them matches."""
        for text, matched in zip(texts, matches, strict=True):
            if matched:
                self.texts.add(text)
            for key, match in matched.items():
                if key not in self.keys or match > self.keys[key][0]:
                    self.keys[key] = (match, text)
        found = [(text, matched) for text, matched in zip(texts, matches, strict=True) if matched]
        for (one, of_one), (two, of_two) in combinations(found, 2):
            self.text_pairs.add(frozenset((one, two)))
            for first, second in product(of_one, of_two):
                pair = _ordered(first, second)
                self.key_pairs[pair] = max(self.key_pairs.get(pair, Match.NEAR), min(of_one[first], of_two[second]))


def write_clean(path: Path, table: TripletTable, *, is_shared: np.ndarray) -> int:
    """Write the rows that share no text with the evaluation; returns their number.

    Raises:
        DataError: the file exists, its format is unknown, or cannot hold a text.
    """
    kept = np.flatnonzero(~is_shared)
    write_triplets(path, table, indices=kept)
    return len(kept)


def _ordered(first: int, second: int) -> Pair:
    return (first, second) if first <= second else (second, first)


def _count(matches: Iterable[Match]) -> dict[Match, int]:
    found = list(matches)
    return {kind: found.count(kind) for kind in sorted(Match, reverse=True)}


class _NearTexts:
    """Normalised texts, found again by most of their character n-grams."""

    def __init__(self, keys: list[str], *, threshold: float) -> None:
        try:
            import datasketch
        except ImportError:
            raise MissingExtraError("datasketch", extra="leakage", needed_for="Finding near duplicates") from None
        self._threshold = threshold
        self._sketch = datasketch.MinHash
        self._ngrams = [_ngrams(key) for key in keys]
        # The weights ask for few misses; the candidates that are no matches are thrown out below.
        self._index = datasketch.MinHashLSH(threshold=threshold, num_perm=128, weights=(0.02, 0.98))
        for number, ngrams in enumerate(self._ngrams):
            self._index.insert(number, self._hashed(ngrams), check_duplication=False)

    def find(self, key: str) -> list[int]:
        """Numbers of the keys that are near, an equal one included."""
        ngrams = _ngrams(key)
        return [
            number
            for number in self._index.query(self._hashed(ngrams))
            if jaccard(ngrams, self._ngrams[number]) >= self._threshold
        ]

    def _hashed(self, ngrams: frozenset[str]) -> Any:
        sketch = self._sketch(num_perm=128)
        sketch.update_batch([ngram.encode() for ngram in ngrams])
        return sketch


def _ngrams(key: str) -> frozenset[str]:
    return frozenset(key[start : start + _NGRAM] for start in range(max(1, len(key) - _NGRAM + 1)))
