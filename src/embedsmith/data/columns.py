"""Rows of scored or labelled pairs -> the fields we need, under whatever usual names a file has them.

Rows to train on have more names and rules: `roles.py`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedsmith.data.faults import Faults
from embedsmith.data.readers import Row, read_rows

# Each layout maps our names to a file's. The first one whose required columns are all there is taken.
PAIR_LAYOUTS: tuple[dict[str, str], ...] = ({"sentence1": "sentence1", "sentence2": "sentence2", "score": "score"},)
NLI_LAYOUTS: tuple[dict[str, str], ...] = (
    {"premise": "premise", "hypothesis": "hypothesis", "label": "label"},
    {"premise": "sentence1", "hypothesis": "sentence2", "label": "gold_label"},
    {"premise": "sentence1", "hypothesis": "sentence2", "label": "label"},
)


@dataclass(frozen=True)
class Fields:
    """Which columns to look for.

    Attributes:
        layouts: the usual names, in order of preference.
        config_key: where a user names columns, for messages.
    """

    layouts: tuple[dict[str, str], ...]
    config_key: str


PAIR_FIELDS = Fields(PAIR_LAYOUTS, config_key="evaluation.dev_columns")
NLI_FIELDS = Fields(NLI_LAYOUTS, config_key="--columns")
DUPLICATE_FIELDS = Fields(
    ({"sentence1": "sentence1", "sentence2": "sentence2", "label": "label"},), config_key="--columns"
)
CLUSTER_FIELDS = Fields(({"text": "text", "label": "label"},), config_key="--columns")


def read_fields(
    path: Path, *, fields: Fields, columns: Mapping[str, str] | None, faults: Faults
) -> Iterator[tuple[int, Row]]:
    """Yield (line, {our name: value}) for rows that have the columns; the first row decides the layout."""
    known = fields.layouts[0]
    if unknown := sorted(set(columns or {}) - set(known)):
        faults.add(fields.config_key, None, f"names {', '.join(unknown)}; it may name {', '.join(known)}")
        return
    layout: dict[str, str] | None = None
    for line, row in read_rows(path, faults=faults):
        if layout is None:
            layout = choose_layout(list(row), fields=fields, columns=columns)
            if layout is None:
                faults.add(path, line, _missing(list(row), fields=fields, columns=columns))
                return
        missing = [name for name in layout.values() if name not in row]
        if missing:
            faults.add(path, line, f"has no '{missing[0]}'")
        else:
            yield line, {ours: row[theirs] for ours, theirs in layout.items()}


def text_fault(value: Any) -> str | None:
    """What is wrong with a value that should be a text, or None."""
    if isinstance(value, bytes):
        return f"must be a text in UTF-8, but is the bytes {value!r:.60}"
    if not isinstance(value, str):
        return "is missing" if value is None else f"must be a text, but is {value!r:.60}"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "holds half of a surrogate pair"
    return None if value.strip() else "is empty"


def parse_score(value: Any) -> float | None:
    """A finite number, or None when the value is none."""
    try:
        score = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return score if math.isfinite(score) and not isinstance(value, bool) else None


def row_faults(row: Row) -> list[str]:
    """What is wrong with a row's fields: texts, and maybe a `score`."""
    return [f"{name} {fault}" for name, value in row.items() if (fault := _fault(name, value))]


def _fault(name: str, value: Any) -> str | None:
    if name != "score":
        return text_fault(value)
    return f"must be a number, but is {value!r:.60}" if parse_score(value) is None else None


def choose_layout(names: Sequence[str], *, fields: Fields, columns: Mapping[str, str] | None) -> dict[str, str] | None:
    """Our names -> those of a file with these columns; None: it lacks some of them."""
    layouts = (_named(fields, columns),) if columns else fields.layouts
    return next((layout for layout in layouts if all(theirs in names for theirs in layout.values())), None)


def _named(fields: Fields, columns: Mapping[str, str]) -> dict[str, str]:
    """The user's names; fields not named keep our own."""
    return {name: columns.get(name, name) for name in fields.layouts[0]}


def _missing(names: Sequence[str], *, fields: Fields, columns: Mapping[str, str] | None) -> str:
    layouts = (_named(fields, columns),) if columns else fields.layouts
    wanted = " or ".join("/".join(layout.values()) for layout in layouts)
    first = next(iter(fields.layouts[0]))
    return (
        f"no usable columns: it has {', '.join(names) or 'none'}; looked for {wanted} "
        f"(name them with {fields.config_key}, for example {{{first}: {names[0] if names else '...'}, ...}})"
    )
