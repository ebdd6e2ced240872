"""Files -> scored sentence pairs, the form of every STS set; or pairs with labels, whose scores are 0 and 1."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from embedsmith.data.columns import DUPLICATE_FIELDS, PAIR_FIELDS, parse_score, read_fields, row_faults
from embedsmith.data.readers import Faults, expand_sources
from embedsmith.data.sample import SAMPLE, sample_pairs_path
from embedsmith.support.errors import DataError


@dataclass(frozen=True)
class ScoredPairs:
    """Sentence pairs with gold similarity: two lists of K texts and scores (K,) float64."""

    sentence1: list[str]
    sentence2: list[str]
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.sentence1)

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The texts, pair by pair."""
        return list(zip(self.sentence1, self.sentence2, strict=True))

    @property
    def fingerprint(self) -> str:
        """Equal for equal pairs and scores in equal order."""
        text = json.dumps([self.sentence1, self.sentence2, self.scores.tolist()])
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def load_pairs(
    source: str, *, columns: Mapping[str, str] | None = None, columns_option: str = PAIR_FIELDS.config_key
) -> ScoredPairs:
    """Load pairs from a file (any format of `readers`), or `sample`.

    Args:
        source: the file.
        columns: {sentence1: ..., sentence2: ..., score: ...} where they are named otherwise.
        columns_option: where a user says so, for messages.

    Raises:
        DataError: the file is missing or has faulty rows (all are named), or its scores do not differ.
    """
    faults = Faults()
    fields = replace(PAIR_FIELDS, config_key=columns_option)
    name = str(sample_pairs_path()) if source == SAMPLE else source
    sentence1, sentence2, scores = [], [], []
    for path in expand_sources([name], faults=faults):
        for line, row in read_fields(path, fields=fields, columns=columns, faults=faults):
            bad = row_faults(row)
            for fault in bad:
                faults.add(path, line, fault)
            if not bad:
                sentence1.append(row["sentence1"])
                sentence2.append(row["sentence2"])
                scores.append(float(row["score"]))
    faults.raise_if_any(what="scored pairs")
    if len(set(scores)) < 2:
        raise DataError(f"{Path(name)} has {len(scores)} pairs with one and the same score; nothing can be ranked.")
    return ScoredPairs(sentence1, sentence2, np.array(scores))


def load_duplicates(path: Path, *, columns: Mapping[str, str] | None = None) -> ScoredPairs:
    """Load pairs that mean the same (label 1) or not (label 0).

    Args:
        path: the file, of any format of `readers`.
        columns: {sentence1: ..., sentence2: ..., label: ...} where they are named otherwise.

    Raises:
        DataError: faulty rows (all are named), or all labels are the same.
    """
    faults = Faults()
    sentence1, sentence2, labels = [], [], []
    for line, row in read_fields(path, fields=DUPLICATE_FIELDS, columns=columns, faults=faults):
        label = row.pop("label")
        bad = row_faults(row)
        if parse_score(label) not in (0, 1):
            bad.append(f"label must be 0 or 1, but is {label!r:.60}")
        for fault in bad:
            faults.add(path, line, fault)
        if not bad:
            sentence1.append(row["sentence1"])
            sentence2.append(row["sentence2"])
            labels.append(float(label))
    faults.raise_if_any(what="duplicate set")
    if len(set(labels)) < 2:
        raise DataError(f"{path} has {len(labels)} pairs with one and the same label; it needs pairs of both, 0 and 1.")
    return ScoredPairs(sentence1, sentence2, np.array(labels))
