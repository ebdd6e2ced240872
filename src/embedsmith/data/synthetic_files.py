"""The two files of a synthesis, OUT and OUT.tasks.jsonl: what was begun earlier, told from what is not ours.

Nothing is changed here: who goes on with a file does so after all of it was found to be ours.
"""

import logging
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from embedsmith.data.columns import text_fault
from embedsmith.data.synthesis_prompts import ANSWER_KEYS
from embedsmith.support import files
from embedsmith.support.errors import DataError
from embedsmith.support.json_text import parse_json

log = logging.getLogger(__name__)

_ROW_KEYS = {"instruction", "task_type", "language", *ANSWER_KEYS, "request"}
_LINE_START = b'{"instruction": "'


@dataclass(frozen=True)
class Begun:
    """A file begun earlier: its rows, its size, and how much of that is whole lines; the rest is a line cut short."""

    rows: list[dict[str, Any]]
    size_bytes: int
    whole_bytes: int


def tasks_path(out: Path) -> Path:
    """The file beside `out` that keeps settings and tasks."""
    return out.with_name(f"{out.stem}.tasks.jsonl")


def take_up(out: Path) -> Begun:
    """What `out` holds; raises DataError where it cannot be written or is not all ours, and changes nothing."""
    if not out.name.endswith(".jsonl"):
        raise DataError(f"{out}: what is written is JSON lines.\nChoose an --out that ends in .jsonl.")
    for path in (out, tasks_path(out)):
        files.check_output(path, option="--out")
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        return Begun([], 0, 0)
    *lines, rest = out.read_bytes().split(b"\n")
    rows = [_own_row(line) for line in lines]
    numbers = [row["request"] for row in rows if row is not None]
    is_in_order = all(one < other for one, other in pairwise(numbers))
    is_ours = None not in rows and is_in_order and (rest.startswith(_LINE_START) or _LINE_START.startswith(rest))
    if not is_ours or (rest and not tasks_path(out).exists()):
        raise _not_ours(out)
    if rows and not tasks_path(out).exists():
        log.warning("%s is not there: whether %s was begun with other settings is not known.", tasks_path(out), out)
    size = out.stat().st_size
    return Begun([row for row in rows if row is not None], size, size - len(rest))


def _own_row(line: bytes) -> dict[str, Any] | None:
    """A row as `synthesize` writes it, or None for any other line."""
    try:
        row = parse_json(line.decode())
    except ValueError:
        return None
    is_own = isinstance(row, dict) and row.keys() == _ROW_KEYS and type(row["request"]) is int and row["request"] >= 0
    return row if is_own and all(text_fault(row[key]) is None for key in _ROW_KEYS - {"request"}) else None


def _not_ours(path: Path) -> DataError:
    return DataError(f"{path} was not written by this command; nothing was changed.\nChoose another --out.")


def read_tasks_file(path: Path) -> dict[str, Any]:
    """Settings, and tasks by kind; raises DataError where the file is not ours."""
    try:
        kept = parse_json(files.read_text(path))
        tasks = [text for texts in kept["tasks"].values() for text in texts]
        is_ours = isinstance(kept["settings"], dict) and all(text_fault(text) is None for text in tasks)
    except (ValueError, KeyError, TypeError, AttributeError):
        is_ours = False
    if not is_ours:
        raise _not_ours(path)
    return dict(kept)
