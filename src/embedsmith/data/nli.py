"""Labelled NLI pairs -> triplets, as SimCSE makes them (Gao et al. 2021, section 4).

For every premise with at least one entailment and one contradiction: (premise, entailment, contradiction), its n-th
entailment going with its n-th contradiction. Pairs without a label or with a text such as n/a, and triplets that would
teach the wrong thing (`doubts.py`), are left out and counted. Memory: the distinct texts of one file.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from embedsmith.data.columns import NLI_FIELDS, read_fields, text_fault
from embedsmith.data.doubts import is_placeholder, row_doubts
from embedsmith.data.faults import Faults
from embedsmith.data.readers import Row, expand_sources
from embedsmith.data.writers import check_output, write_rows
from embedsmith.support.errors import DataError

_LABELS = {
    "entailment": "entailment",
    "neutral": "neutral",
    "contradiction": "contradiction",
    # the numbers of SNLI and MultiNLI on the hub
    "0": "entailment",
    "1": "neutral",
    "2": "contradiction",
}
_UNLABELLED = ("-", "-1")
_HEADER = ("anchor", "positive", "negative")
Triplet = tuple[str, str, str]


@dataclass(frozen=True)
class NliCounts:
    """What went in and came out.

    Attributes:
        num_pairs: with a label and both texts.
        num_unlabelled: pairs without a gold label, left out.
        num_placeholders: pairs left out as one of their texts only stands for a missing one, such as "n/a".
        num_unpaired: entailments and contradictions left out as their premise has no partner for them.
        num_doubtful: triplets left out as they would teach the wrong thing, by what is wrong with them.
        num_triplets: written.
    """

    num_pairs: int
    num_unlabelled: int
    num_placeholders: int
    num_unpaired: int
    num_doubtful: Counter[str]
    num_triplets: int


def make_triplets(sources: Sequence[str], *, out: Path, columns: Mapping[str, str] | None = None) -> NliCounts:
    """Write triplets made from labelled pairs (premise, hypothesis, label) to `out`, format by its suffix.

    Raises:
        DataError: faulty input (all faults named), `out` exists, or nothing comes out; nothing is written then.
    """
    check_output(out)
    faults = Faults()
    triplets: list[Triplet] = []
    num_pairs = num_unlabelled = num_placeholders = num_unpaired = 0
    doubtful: Counter[str] = Counter()
    for path in expand_sources(sources, faults=faults):
        by_premise: dict[str, tuple[list[str], list[str]]] = {}
        for line, row in read_fields(path, fields=NLI_FIELDS, columns=columns, faults=faults):
            label = str(row["label"]).strip().lower()
            if label in _UNLABELLED:
                num_unlabelled += 1
                continue
            if bad := _faults_of(row, label=label):
                for fault in bad:
                    faults.add(path, line, fault)
                continue
            premise, hypothesis = _squeeze(row["premise"]), _squeeze(row["hypothesis"])
            if is_placeholder(premise) or is_placeholder(hypothesis):
                num_placeholders += 1
                continue
            num_pairs += 1
            entailments, contradictions = by_premise.setdefault(premise, ([], []))
            if _LABELS[label] != "neutral":
                (entailments if _LABELS[label] == "entailment" else contradictions).append(hypothesis)
        triplets += _sound_triplets(by_premise, doubtful=doubtful)
        num_unpaired += sum(abs(len(one) - len(other)) for one, other in by_premise.values())
    faults.raise_if_any(what="labelled pairs")
    if not triplets:
        why = "".join(f"\n  {count} left out: {doubt}" for doubt, count in doubtful.most_common())
        raise DataError(
            f"No premise has an entailment and a contradiction that fit: no triplet to write.{why}\n"
            f"{', '.join(sources)} must hold a premise with two hypotheses, of the labels entailment and contradiction."
        )
    write_rows(out, header=_HEADER, rows=triplets)
    return NliCounts(num_pairs, num_unlabelled, num_placeholders, num_unpaired, doubtful, len(triplets))


def _faults_of(row: Row, *, label: str) -> list[str]:
    bad = [f"{key} {fault}" for key in ("premise", "hypothesis") if (fault := text_fault(row[key]))]
    if label not in _LABELS:
        bad.append(f"label {row['label']!r:.40} is not one of entailment, neutral, contradiction, 0, 1, 2")
    return bad


def _sound_triplets(
    by_premise: Mapping[str, tuple[list[str], list[str]]], *, doubtful: Counter[str]
) -> Iterator[Triplet]:
    for premise, groups in by_premise.items():
        for entailment, contradiction in zip(*groups, strict=False):
            if doubts := row_doubts(premise, entailment, [contradiction]):
                doubtful[", ".join(doubts)] += 1
            else:
                yield premise, entailment, contradiction


def _squeeze(text: str) -> str:
    return " ".join(text.split())
