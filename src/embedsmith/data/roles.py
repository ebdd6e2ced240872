"""Columns of a training file -> what they mean: anchor, positives, negatives, instruction; a scored pair; or a text.

One rule: a column is used if `data.columns` names it for a role, or, where a role is not named there, if its own name
is a usual one of that role. All columns of a role are used: lists, numbered ones and several of them side by side.
Every other column is reported as unused.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from embedsmith.data.columns import parse_score, text_fault
from embedsmith.data.readers import FileRow
from embedsmith.settings.prompts import instruction_fault

ColumnNames = Mapping[str, str | list[str]]
"""Role -> its column, or, of positives and negatives, several: `data.columns`."""
ANCHOR, POSITIVE, NEGATIVE, INSTRUCTION, SCORE = "anchor", "positive", "negative", "instruction", "score"
CONTRAST_ROLES = (ANCHOR, POSITIVE, NEGATIVE, INSTRUCTION)
PAIR_ROLES = ("sentence1", "sentence2", SCORE)
TEXT = "text"
# Of this project and sentence-transformers, SimCSE, FlagEmbedding, Tevatron.
_USUAL = {
    ANCHOR: re.compile("anchor|sent0|query"),
    POSITIVE: re.compile(r"sent1|pos(itive)?s?(_?\d+)?|positive_passages"),
    NEGATIVE: re.compile(r"(hard_)?neg(ative)?s?(_?\d+)?|negative_passages"),
    INSTRUCTION: re.compile("instruction|prompt"),
    **{role: re.compile(role) for role in PAIR_ROLES},
    TEXT: re.compile("text|sentence"),
}
_SEVERAL = (POSITIVE, NEGATIVE)
_OPTIONAL = (NEGATIVE, INSTRUCTION)
_LOOKED_FOR = (
    "anchor/positive(/negative)(/instruction) or sent0/sent1(/hard_neg) or query/pos(/neg)(/prompt) or "
    "query/positive_passages(/negative_passages) or sentence1/sentence2/score or text or sentence"
)
_PASSAGE_KEYS = {"docid", "title", "text"}


@dataclass(frozen=True)
class Roles:
    """Which columns of a row mean what.

    Attributes:
        columns: role -> its columns; of anchor, instruction and the roles of scored pairs one at most.
        unused: columns that have no role.
    """

    columns: Mapping[str, tuple[str, ...]]
    unused: tuple[str, ...]

    @cached_property
    def passage_columns(self) -> tuple[str, ...]:
        """Columns of positives and negatives."""
        return tuple(name for role in _SEVERAL for name in self.columns.get(role, ()))

    @property
    def kind(self) -> str:
        """What the rows are, for people to read."""
        if TEXT in self.columns:
            return "texts"
        if SCORE in self.columns:
            return "scored pairs"
        return "triplets" if NEGATIVE in self.columns else "pairs"

    def why_not_like(self, first: "Roles") -> str | None:
        """How a row's columns differ from those of the file's first row in what is lost by it, or None.

        Numbers of positives and negatives may differ.
        """
        for role, columns in first.columns.items():
            if role not in self.columns:
                return f"has no '{columns[0]}'"
        late = [columns[0] for role, columns in self.columns.items() if role not in first.columns]
        return f"has a '{late[0]}', which the first row has not" if late else None


@dataclass(frozen=True)
class TrainingRow:
    """One row of a file. Of a scored pair the second sentence is the only positive, and there is no negative; a text
    alone is an anchor without a positive."""

    anchor: str
    positives: list[str]
    negatives: list[str]
    instruction: str | None
    score: float | None


def named_faults(columns: ColumnNames) -> list[str]:
    """What is wrong with the roles of `data.columns`."""
    named = set(columns) - {INSTRUCTION}
    known = (*CONTRAST_ROLES, *PAIR_ROLES, TEXT)
    faults = []
    if unknown := sorted(named - set(known)):
        kinds = ", or ".join(map(", ".join, (CONTRAST_ROLES, PAIR_ROLES, (TEXT,))))
        faults.append(f"names {', '.join(unknown)}; it may name {kinds}")
    elif TEXT in named and len(named) > 1:
        faults.append(f"names the column of a text alone and others, too: {', '.join(sorted(named))}")
    elif named & set(PAIR_ROLES) and named - set(PAIR_ROLES):
        faults.append(f"names both a triplet's columns and a scored pair's: {', '.join(sorted(named))}")
    for role, names in columns.items():
        if not isinstance(names, str) and role not in _SEVERAL:
            faults.append(f"names a list of columns for {role}, which takes one")
        elif not names:
            faults.append(f"names no column for {role}")
    return faults


def find_roles(names: Sequence[str], *, columns: ColumnNames) -> Roles | str:
    """Roles of a row's columns, or what is wrong with them."""
    fault = ""
    for roles in _kinds(columns):
        found = {role: _columns_of(role, names, columns=columns) for role in roles}
        missing = [role for role in roles if not found[role] and (role not in _OPTIONAL or role in columns)]
        if not missing:
            doubled = [role for role in roles if len(found[role]) > 1 and role not in _SEVERAL]
            if doubled:
                both = " and ".join(f"'{name}'" for name in found[doubled[0]])
                return f"has {both}; say in data.columns which of them is the {doubled[0]}"
            if TEXT in found and TEXT not in columns and (halves := _with_a_partner(names)):
                return _missing(names, halves, columns=columns)
            used = {name for role in roles for name in found[role]}
            unused = tuple(name for name in names if name not in used)
            return Roles({role: found[role] for role in roles if found[role]}, unused)
        fault = fault or _missing(names, missing, columns=columns)
    return fault


def read_row(row: FileRow, roles: Roles) -> tuple[TrainingRow | None, list[str]]:
    """What a row holds, or all that is wrong with it."""
    if SCORE in roles.columns:
        return _read_pair(row, roles)
    if TEXT in roles.columns:
        return _read_text(row, roles)
    anchor = _one(row, roles, ANCHOR)
    positives, negatives = (_texts(row, roles.columns.get(role, ())) for role in _SEVERAL)
    instruction = _instruction(row, roles)
    faults = [
        *_faults(ANCHOR, [anchor]),
        *(_faults(POSITIVE, positives) if positives else ["positive is missing"]),
        *_faults(NEGATIVE, negatives),
        *_instruction_faults(instruction),
    ]
    return (None, faults) if faults else (TrainingRow(anchor, positives, negatives, instruction, None), [])


def unused_in_passages(row: FileRow, roles: Roles) -> Iterable[str]:
    """Keys of passages that are objects (`positive_passages`) and are not used, as `COLUMN.KEY`."""
    for column in roles.passage_columns:
        values = _rows_of_columns(row[column])
        if isinstance(values, str):
            continue
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, dict):
                yield from (f"{column}.{key}" for key in value if key not in _PASSAGE_KEYS)


def _kinds(columns: ColumnNames) -> Sequence[Sequence[str]]:
    """Roles of triplets and pairs, of scored pairs, or of texts, or, where nothing tells them apart, one after the
    other."""
    named = set(columns) - {INSTRUCTION}
    pairs, texts = (*PAIR_ROLES, INSTRUCTION), (TEXT, INSTRUCTION)
    if TEXT in named:
        return [texts]
    if named:
        return [pairs] if named <= set(PAIR_ROLES) else [CONTRAST_ROLES]
    return [CONTRAST_ROLES, pairs, texts]


def _with_a_partner(names: Sequence[str]) -> list[str]:
    """Roles that some columns have, though not all columns that a row of that kind needs: no row of one text."""
    partners = (ANCHOR, POSITIVE, NEGATIVE, *PAIR_ROLES[:2])
    return [role for role in partners if any(_USUAL[role].fullmatch(name) for name in names)]


def _columns_of(role: str, names: Sequence[str], *, columns: ColumnNames) -> tuple[str, ...]:
    if role in columns:
        wanted = _as_list(columns[role])
        return tuple(dict.fromkeys(wanted)) if all(name in names for name in wanted) else ()
    others = {name for named in columns.values() for name in _as_list(named)}
    return tuple(name for name in names if _USUAL[role].fullmatch(name) and name not in others)


def _as_list(names: str | list[str]) -> list[str]:
    return [names] if isinstance(names, str) else names


def _missing(names: Sequence[str], missing: Sequence[str], *, columns: ColumnNames) -> str:
    looked_for = _LOOKED_FOR
    if columns:
        looked_for = ", ".join(name for role in missing for name in _as_list(columns.get(role, role)))
    return (
        f"no usable columns: it has {', '.join(names) or 'none'}; looked for {looked_for} "
        "(name them with data.columns, or --columns, for example {anchor: COLUMN, positive: COLUMN}; "
        "`embedsmith init` says what they may be)"
    )


def _read_pair(row: FileRow, roles: Roles) -> tuple[TrainingRow | None, list[str]]:
    first, second, value = (_one(row, roles, role) for role in PAIR_ROLES)
    score, instruction = parse_score(value), _instruction(row, roles)
    faults = [
        *_faults("sentence1", [first]),
        *_faults("sentence2", [second]),
        *([f"score must be a number, but is {value!r:.60}"] if score is None else []),
        *_instruction_faults(instruction),
    ]
    return (None, faults) if faults else (TrainingRow(first, [second], [], instruction, score), [])


def _read_text(row: FileRow, roles: Roles) -> tuple[TrainingRow | None, list[str]]:
    text, instruction = _one(row, roles, TEXT), _instruction(row, roles)
    faults = [*_faults(TEXT, [text]), *_instruction_faults(instruction)]
    return (None, faults) if faults else (TrainingRow(text, [], [], instruction, None), [])


def _one(row: FileRow, roles: Roles, role: str) -> Any:
    return row[roles.columns[role][0]]


def _instruction(row: FileRow, roles: Roles) -> Any:
    return (_one(row, roles, INSTRUCTION) if INSTRUCTION in roles.columns else None) or None


def _instruction_faults(instruction: Any) -> list[str]:
    if instruction is None:
        return []
    fault = text_fault(instruction) or instruction_fault(instruction)
    return [f"instruction {fault}"] if fault else []


def _texts(row: FileRow, columns: Sequence[str]) -> list[Any]:
    """All texts of a role. Among numbered columns, or several, an empty one says that the row has fewer."""
    may_lack = len(columns) > 1 or any(column[-1].isdigit() for column in columns)
    texts: list[Any] = []
    for column in columns:
        value = _rows_of_columns(row[column])
        if isinstance(value, list):
            texts += map(_passage, value)
        elif not (may_lack and value in (None, "")):
            texts.append(_passage(value))
    return texts


def _rows_of_columns(value: Any) -> Any:
    """{"text": [a, b], ...} -> [{"text": a, ...}, {"text": b, ...}]: hub datasets hold lists of objects so."""
    if not isinstance(value, dict) or not isinstance(value.get("text"), list):
        return value
    lists = {key: values for key, values in value.items() if isinstance(values, list)}
    if len({len(values) for values in lists.values()}) > 1:
        return value
    return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]


def _passage(value: Any) -> Any:
    """A text; of an object with `title` and `text` both, with a space in between, as Tevatron joins them."""
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        return value
    title = value.get("title")
    return f"{title.strip()} {value['text']}" if isinstance(title, str) and title.strip() else value["text"]


def _faults(role: str, texts: Sequence[Any]) -> list[str]:
    """Faults of a role's texts; of several, each by its number."""
    found = []
    for number, text in enumerate(texts, start=1):
        if fault := text_fault(text):
            found.append(f"{role} {fault}" if len(texts) == 1 else f"{role} {number} of {len(texts)} {fault}")
    return found
