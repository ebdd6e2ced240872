"""A folder -> the evaluation sets in it by name, and of which kind each is.

A file's columns tell its kind; a folder in BEIR's layout is a retrieval set. Cost: the first row of each file.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from embedsmith.data.beir import find_retrieval_sets
from embedsmith.data.columns import CLUSTER_FIELDS, DUPLICATE_FIELDS, PAIR_FIELDS, choose_layout
from embedsmith.data.faults import Faults
from embedsmith.data.readers import SUFFIXES, is_data_file, read_rows
from embedsmith.support.errors import DataError


class SetKind(StrEnum):
    """What an evaluation set is made of, in words."""

    SCORED_PAIRS = "scored pairs"
    DUPLICATES = "duplicate sets"
    CLUSTERS = "clustering sets"
    RETRIEVAL = "retrieval sets"


_FIELDS = {
    # A file with a score and a label, as SICK's, is scored pairs.
    SetKind.SCORED_PAIRS: PAIR_FIELDS,
    SetKind.DUPLICATES: DUPLICATE_FIELDS,
    SetKind.CLUSTERS: CLUSTER_FIELDS,
}


@dataclass(frozen=True)
class LocalSet:
    """A set and where it lies: a file, or of a retrieval set a folder."""

    kind: SetKind
    path: Path


def find_local_sets(
    folder: Path, names: Sequence[str] | None = None, *, columns: Mapping[str, str] | None = None
) -> dict[str, LocalSet]:
    """The sets named (None: all) of a folder, which may itself be one in BEIR's layout.

    Args:
        folder: holds `<NAME>.tsv.gz` (or another known format), and folders in BEIR's layout.
        names: of sets.
        columns: our names -> those of the files.

    Raises:
        DataError: a file, no such folder or set, one name stands for two of them, or a file is of no kind.
    """
    if folder.is_file():
        parts = f"--data {folder.parent} --tasks {set_name(folder.name)}"
        raise DataError(
            f"{folder} is a file, and evaluation data are a folder of such.\nName one of its files: {parts}"
        )
    if not folder.is_dir():
        raise DataError(f"There is no data folder {folder}.\nGive a folder that holds files such as STS12.tsv.gz.")
    retrieval = find_retrieval_sets(folder)
    available: dict[str, list[Path]] = {}
    if folder not in retrieval.values():  # whose files are its parts
        for path in sorted(folder.iterdir()):
            if is_data_file(path.name):
                available.setdefault(set_name(path.name), []).append(path)
    known = [*available, *(name for name in retrieval if name not in available)]
    _check_known(folder, names, known)
    asked = list(dict.fromkeys(names or known))
    if twice := [name for name in asked if name in available and name in retrieval]:
        raise DataError(f"{folder} holds {', '.join(twice)} twice: as a retrieval set and as a file.\nRename one.")
    if doubled := [f"{name}: {' and '.join(path.name for path in available[name])}"
                   for name in asked if len(available.get(name, [])) > 1]:  # fmt: skip
        raise DataError(f"{folder} has more than one file of a task ({'; '.join(doubled)}).\nKeep one of each.")
    return {
        name: LocalSet(SetKind.RETRIEVAL, retrieval[name])
        if name in retrieval
        else LocalSet(kind_of_file(available[name][0], columns=columns), available[name][0])
        for name in asked
    }


def kind_of_file(path: Path, *, columns: Mapping[str, str] | None = None) -> SetKind:
    """By the columns of its first row; the first kind that has all of them.

    Raises:
        DataError: it cannot be read, or is of no kind.
    """
    faults = Faults()
    first = next(read_rows(path, faults=faults), None)
    if first is None:
        faults.raise_if_any(what="evaluation set")
    names = list(first[1]) if first else []
    for kind, fields in _FIELDS.items():
        names_it = set(columns or {}) <= set(fields.layouts[0])
        if names_it and choose_layout(names, fields=fields, columns=columns):
            return kind
    kinds = ", ".join(f"{kind} ({', '.join(fields.layouts[0])})" for kind, fields in _FIELDS.items())
    asked = f" With --columns as {columns} it is of no kind." if columns else ""
    raise DataError(
        f"{path} is no evaluation set: it has the columns {', '.join(names)}.{asked}\n"
        f"Known are, by their columns: {kinds}. If they have other names here, name them with --columns, for example "
        "{sentence1: COLUMN, sentence2: COLUMN, score: COLUMN}; --tasks leaves a file out."
    )


def by_kind(sets: Mapping[str, LocalSet]) -> dict[SetKind, list[str]]:
    """Names of each kind there is, for messages and for choosing."""
    kinds = dict.fromkeys(one.kind for one in sets.values())
    return {kind: [name for name, one in sets.items() if one.kind is kind] for kind in kinds}


def name_kinds(sets: Mapping[str, LocalSet]) -> str:
    """What there is, in words: kinds, and their sets in brackets."""
    return " and ".join(f"{kind} ({', '.join(names)})" for kind, names in by_kind(sets).items())


def set_name(file_name: str) -> str:
    """The name of a set: its file's, without what tells the format."""
    suffix = next((suffix for suffix in SUFFIXES if file_name.endswith(suffix)), "")
    return file_name.removesuffix(suffix)


def _check_known(folder: Path, names: Sequence[str] | None, known: Sequence[str]) -> None:
    unknown = [name for name in names or [] if name not in known]
    if unknown or not known:
        hints = [difflib.get_close_matches(name, known, n=1, cutoff=0.4) for name in unknown]
        close = ", ".join(hint[0] for hint in hints if hint)
        raise DataError(
            f"{folder} has no task {', '.join(unknown) or 'at all'}."
            + (f" Did you mean {close}?" if close else "")
            + f"\nIt holds: {', '.join(known) or 'no file of a known format, and no folder in the layout of BEIR'}."
        )
