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
_SAME_NAME = re.compile("(is|are)?_?(duplicates?|same|match(es|ed)?|paraphrases?|equivalent)", re.IGNORECASE)
_MARK_NAME = re.compile("label|dup|same|match|paraphras|equivalent", re.IGNORECASE)
_YES_OR_NO = ({"0", "1"}, {"0.0", "1.0"}, {"false", "true"}, {"no", "yes"}, {"n", "y"})
_HALVES = (("premise", "hypothesis"), ("sentence1", "sentence2"))


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
        DataError: the file cannot be read, holds labelled pairs, or no column of text.
    """
    faults = Faults()
    rows = [row for _, row in islice(read_rows(path, faults=faults), _ROWS_LOOKED_AT)]
    faults.raise_if_any(what="training data")
    names = tuple(rows[0])
    if not columns:
        _refuse_labelled(path, rows)
    known = find_roles(names, columns=columns or {})
    if isinstance(known, str) and columns:
        raise DataError(f"{path}: {known}")
    if isinstance(known, Roles):
        roles = {name: role for role, found in known.columns.items() for name in found}
        return FoundColumns(dict(columns or {}), roles, is_guess=False)
    named = _guess(path, rows)
    roles = {name: role for role, found in named.items() for name in ([found] if isinstance(found, str) else found)}
    return FoundColumns(named, roles, is_guess=True)


def _refuse_labelled(path: Path, rows: Sequence[FileRow]) -> None:
    names = set(rows[0])
    halves = next((halves for halves in _HALVES if names.issuperset(halves)), None)
    label = next((name for name in rows[0] if _LABEL_NAME.fullmatch(name)), None)
    if halves is None or label is None:
        return
    if _says_yes_or_no(rows, label):
        raise _ask_what_it_says(path, rows, texts=halves, mark=label)
    raise DataError(
        f"{path} holds pairs with a label, of which triplets can be made.\n"
        f"First: embedsmith data triplets {path} --out triplets.tsv"
    )


def _ask_what_it_says(path: Path, rows: Sequence[FileRow], *, texts: Sequence[str], mark: str) -> DataError:
    """Whether a yes or a no marks the pairs that belong together is for a person to say."""
    columns = ", ".join(f"{role}: {name}" for role, name in zip(PAIR_ROLES, (*texts, mark), strict=True))
    cure = f"If 1 says that they do: --columns '{{{columns}}}'"
    if not _holds_numbers(rows, mark):
        cure = "Write 1 there for those that do and 0 for the others, or keep only those that do, without that column."
    return DataError(f"{path}: '{mark}' seems to say which pairs belong together, and which do not.\n{cure}")


def _guess(path: Path, rows: Sequence[FileRow]) -> dict[str, str | list[str]]:
    names = tuple(rows[0])
    texts = [name for name in names if _holds_texts(rows, name)]
    if any(map(_reads_like_text, texts)):
        raise DataError(
            f"{path}: no names of columns: its first row begins with {texts[0]!r:.80}.\n"
            "Put a row of names in front of it, such as anchor and positive."
        )
    wrong = [name for name in texts if _NEGATIVE_NAME.search(name)]
    right = [name for name in texts if name not in wrong]
    scores = [name for name in names if _SCORE_NAME.search(name) and _holds_numbers(rows, name)]
    if len(right) == 2 and len(scores) == 1 and not wrong:
        return dict(zip(PAIR_ROLES, (*right, scores[0]), strict=True))
    marks = [name for name in names if _MARK_NAME.search(name) and _says_yes_or_no(rows, name)]
    says_score = len(marks) == 1 and _SAME_NAME.fullmatch(marks[0]) and _holds_numbers(rows, marks[0])
    if len(right) == 2 and says_score and not wrong:
        return dict(zip(PAIR_ROLES, (*right, marks[0]), strict=True))
    if len(right) >= 2 and marks:
        raise _ask_what_it_says(path, rows, texts=right[:2], mark=marks[0])
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


def _reads_like_text(name: str) -> bool:
    """Whether it is none that a person would give a column: a file without a header begins with its first texts."""
    return len(name) > 60 or len(name.split()) > 6 or (" " in name and name.rstrip().endswith((".", "?", "!")))


def _says_yes_or_no(rows: Sequence[FileRow], name: str) -> bool:
    """Whether a column holds two values, such as 0 and 1, or true and false."""
    return {str(row.get(name)).strip().lower() for row in rows} in _YES_OR_NO


def _holds_numbers(rows: Sequence[FileRow], name: str) -> bool:
    return all(parse_score(row.get(name)) is not None for row in rows)
