"""The columns of a training file that has names of its own -> what each may be, by what stands in it.

Nothing trains on a guess unseen: it goes into a recipe, where a person reads it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from embedsmith.data.columns import parse_score
from embedsmith.data.faults import Faults
from embedsmith.data.readers import FileRow, read_rows
from embedsmith.data.roles import ANCHOR, NEGATIVE, PAIR_ROLES, POSITIVE, TEXT, ColumnNames, Roles, find_roles
from embedsmith.support.errors import DataError

_ROWS_LOOKED_AT = 1000
_NEGATIVE_NAME = re.compile("neg|wrong|incorrect|distractor|contradict|irrelevant|unrelated", re.IGNORECASE)
_SCORE_NAME = re.compile("score|sim|rating|relevance|grade|gold", re.IGNORECASE)
_LABEL_NAME = re.compile("(gold_)?label", re.IGNORECASE)
_HALVES = ({"premise", "hypothesis"}, {"sentence1", "sentence2"})


@dataclass(frozen=True)
class FoundColumns:
    """What a file's columns are.

    Attributes:
        named: what a recipe must say in `data.columns`; empty where the names are the usual ones.
        roles: column -> its role, of those that are used.
        is_guess: whether that was found by what stands in them.
    """

    named: ColumnNames
    roles: Mapping[str, str]
    is_guess: bool


def find_columns(path: Path, *, columns: ColumnNames | None = None) -> FoundColumns:
    """Look at a file's first rows for what its columns are.

    Args:
        path: any file that `train` reads.
        columns: what the user says; then nothing is guessed.

    Raises:
        DataError: the file cannot be read, holds labelled pairs, or no two columns of text.
    """
    faults = Faults()
    rows = [row for _, row in islice(read_rows(path, faults=faults), _ROWS_LOOKED_AT)]
    faults.raise_if_any(what="training data")
    names = tuple(rows[0])
    _refuse_labelled(path, names)
    known = find_roles(names, columns=columns or {})
    if isinstance(known, str) and columns:
        raise DataError(f"{path}: {known}")
    if isinstance(known, Roles):
        roles = {name: role for role, found in known.columns.items() for name in found}
        return FoundColumns(dict(columns or {}), roles, is_guess=False)
    named = _guess(path, rows)
    roles = {name: role for role, found in named.items() for name in ([found] if isinstance(found, str) else found)}
    return FoundColumns(named, roles, is_guess=True)


def _refuse_labelled(path: Path, names: Sequence[str]) -> None:
    if any(halves <= set(names) for halves in _HALVES) and any(_LABEL_NAME.fullmatch(name) for name in names):
        raise DataError(
            f"{path} holds pairs with a label, of which triplets can be made.\n"
            f"First: embedsmith data triplets {path} --out triplets.tsv"
        )


def _guess(path: Path, rows: Sequence[FileRow]) -> dict[str, str | list[str]]:
    names = tuple(rows[0])
    texts = [name for name in names if _holds_texts(rows, name)]
    wrong = [name for name in texts if _NEGATIVE_NAME.search(name)]
    right = [name for name in texts if name not in wrong]
    scores = [name for name in names if _SCORE_NAME.search(name) and _holds_numbers(rows, name)]
    if len(right) == 2 and len(scores) == 1 and not wrong:
        return dict(zip(PAIR_ROLES, (*right, scores[0]), strict=True))
    if len(right) >= 2:
        found: dict[str, str | list[str]] = {ANCHOR: right[0], POSITIVE: right[1]}
        return found | ({NEGATIVE: wrong if len(wrong) > 1 else wrong[0]} if wrong else {})
    if len(right) == 1 and not wrong:
        return {TEXT: right[0]}
    raise DataError(
        f"{path}: nothing to learn from was found among its columns: {', '.join(names)}.\n"
        "Name them with --columns, for example '{anchor: question, positive: answer}'."
    )


def _holds_texts(rows: Sequence[FileRow], name: str) -> bool:
    """Whether most of a column's values are, or begin with, texts of several words."""
    return 2 * sum(_is_text(row.get(name)) for row in rows) > len(rows)


def _is_text(value: object) -> bool:
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, str) and parse_score(first) is None and len(first.split()) > 1


def _holds_numbers(rows: Sequence[FileRow], name: str) -> bool:
    return all(parse_score(row.get(name)) is not None for row in rows)
