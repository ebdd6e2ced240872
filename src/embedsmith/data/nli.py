"""Labelled NLI pairs -> triplets, as SimCSE makes them (Gao et al. 2021, section 4).

For every premise with at least one entailment and one contradiction: (premise, entailment, contradiction), its n-th
entailment going with its n-th contradiction. Memory: the distinct texts of one file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from embedsmith.data.columns import NLI_FIELDS, read_fields, text_fault
from embedsmith.data.readers import Faults, expand_sources
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
    """What went in and came out: labelled pairs, pairs without a gold label (skipped), triplets."""

    num_pairs: int
    num_unlabelled: int
    num_triplets: int


def make_triplets(sources: Sequence[str], *, out: Path, columns: Mapping[str, str] | None = None) -> NliCounts:
    """Write triplets made from labelled pairs (premise, hypothesis, label) to `out`, format by its suffix.

    Raises:
        DataError: faulty input (all faults named), `out` exists, or nothing comes out; nothing is written then.
    """
    check_output(out)
    faults = Faults()
    triplets: list[Triplet] = []
    num_pairs = num_unlabelled = 0
    for path in expand_sources(sources, faults=faults):
        by_premise: dict[str, tuple[list[str], list[str]]] = {}
        for line, row in read_fields(path, fields=NLI_FIELDS, columns=columns, faults=faults):
            raw = str(row["label"]).strip().lower()
            if raw in _UNLABELLED:
                num_unlabelled += 1
                continue
            bad = [f"{key} {fault}" for key in ("premise", "hypothesis") if (fault := text_fault(row[key]))]
            if raw not in _LABELS:
                bad.append(f"label {row['label']!r:.40} is not one of entailment, neutral, contradiction, 0, 1, 2")
            for fault in bad:
                faults.add(path, line, fault)
            if bad:
                continue
            num_pairs += 1
            entailments, contradictions = by_premise.setdefault(_squeeze(row["premise"]), ([], []))
            if _LABELS[raw] != "neutral":
                group = entailments if _LABELS[raw] == "entailment" else contradictions
                group.append(_squeeze(row["hypothesis"]))
        for premise, groups in by_premise.items():
            triplets += [(premise, *pair) for pair in zip(*groups, strict=False)]
    faults.raise_if_any(what="labelled pairs")
    if not triplets:
        raise DataError("No premise has both an entailment and a contradiction, so there is no triplet to write.")
    write_rows(out, header=_HEADER, rows=triplets)
    return NliCounts(num_pairs=num_pairs, num_unlabelled=num_unlabelled, num_triplets=len(triplets))


def _squeeze(text: str) -> str:
    return " ".join(text.split())
