"""Rows -> the fields we need, under whatever usual names a file has them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedsmith.data.readers import Faults, FileRow, Row, read_rows

# Each layout maps our names to a file's. The first one whose required columns are all there is taken.
TRIPLET_LAYOUTS: tuple[dict[str, str], ...] = (
    {"anchor": "anchor", "positive": "positive", "negative": "negative", "instruction": "instruction"},
    {"anchor": "sent0", "positive": "sent1", "negative": "hard_neg"},  # SimCSE
    {"anchor": "query", "positive": "pos", "negative": "neg", "instruction": "prompt"},  # FlagEmbedding, lists
    {"anchor": "query", "positive": "positive", "negative": "negative", "instruction": "instruction"},
)
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
        optional: our names that a file may lack.
        config_key: where a user names columns, for messages.
    """

    layouts: tuple[dict[str, str], ...]
    optional: tuple[str, ...] = ()
    config_key: str = "data.columns"


TRAIN_FIELDS = Fields((*TRIPLET_LAYOUTS, *PAIR_LAYOUTS), optional=("negative", "instruction"))
TRAIN_PAIR_FIELDS = Fields(PAIR_LAYOUTS)
PAIR_FIELDS = Fields(PAIR_LAYOUTS, config_key="evaluation.dev_columns")
NLI_FIELDS = Fields(NLI_LAYOUTS, config_key="--columns")


def select_fields(
    path: Path | str,
    rows: Iterator[tuple[int, FileRow]],
    *,
    fields: Fields,
    columns: Mapping[str, str] | None,
    faults: Faults,
) -> Iterator[tuple[int, Row]]:
    """Yield (line, {our name: value}) for rows that have the columns; the first row decides the layout."""
    layout: dict[str, str] | None = None
    chosen: dict[str, str] = {}
    for line, row in rows:
        if layout is None:
            layout = _choose(list(row), fields=fields, columns=columns)
            if layout is None:
                faults.add(path, line, _missing(list(row), fields=fields, columns=columns))
                return
            chosen = {ours: theirs for ours, theirs in layout.items() if theirs in row}
        missing = [name for name in chosen.values() if name not in row]
        # .jsonl only: dropping what later rows have would lose hard negatives without a word
        late = [theirs for ours, theirs in layout.items() if ours not in chosen and theirs in row]
        if missing:
            faults.add(path, line, f"has no '{missing[0]}'")
        elif late:
            faults.add(path, line, f"has a '{late[0]}', which the first row has not")
        else:
            yield line, {ours: row[theirs] for ours, theirs in chosen.items()}


def read_fields(
    path: Path, *, fields: Fields, columns: Mapping[str, str] | None, faults: Faults
) -> Iterator[tuple[int, Row]]:
    """`select_fields` over the rows of a file."""
    return select_fields(path, read_rows(path, faults=faults), fields=fields, columns=columns, faults=faults)


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


def _choose(names: Sequence[str], *, fields: Fields, columns: Mapping[str, str] | None) -> dict[str, str] | None:
    layouts = ({**_named(fields, columns)},) if columns else fields.layouts
    for layout in layouts:
        needed = {ours: theirs for ours, theirs in layout.items() if ours not in fields.optional or columns}
        if all(theirs in names for theirs in needed.values()):
            return layout
    return None


def _named(fields: Fields, columns: Mapping[str, str] | None) -> dict[str, str]:
    """The user's names; fields not named keep our own name, unless optional."""
    ours = fields.layouts[0]
    return {
        name: (columns or {}).get(name, name) for name in ours if name in (columns or {}) or name not in fields.optional
    }


def _missing(names: Sequence[str], *, fields: Fields, columns: Mapping[str, str] | None) -> str:
    wanted = (
        ", ".join(_named(fields, columns).values())
        if columns
        else " or ".join(_spell(layout, fields) for layout in fields.layouts)
    )
    first = next(iter(fields.layouts[0]))
    return (
        f"no usable columns: it has {', '.join(names) or 'none'}; looked for {wanted} "
        f"(name them with {fields.config_key}, for example {{{first}: {names[0] if names else '...'}, ...}})"
    )


def _spell(layout: Mapping[str, str], fields: Fields) -> str:
    """`anchor/positive(/negative)`: what may be absent stands in brackets."""
    names = [f"(/{theirs})" if ours in fields.optional else f"/{theirs}" for ours, theirs in layout.items()]
    return "".join(names).removeprefix("/")
