"""What is known of a large table's file once it was read through, kept beside it: nobody reads it through again.

    NAME.arrow   the table, which is written once and never changed
    NAME.json    its size, time of change and number, and what was found in it

A file that was changed and keeps all three would go unnoticed, as with any tool that goes by dates. Of a small table
everything is computed each time.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from embedsmith.support import files
from embedsmith.support.digests import file_state

_LEAST_BYTES = 2**26
"""Below it reading takes a tenth of a second."""


def notes_of(table: Path) -> Path:
    """Where they are kept."""
    return table.with_suffix(".json")


def kept_note(table: Path, name: str, compute: Callable[[], Any]) -> Any:
    """What is noted of a table under a name; computed, and noted, where it is not.

    Args:
        table: its file.
        name: of all that the value depends on besides the file.
        compute: the value, of JSON's kinds.
    """
    try:
        state = file_state(table)
    except OSError:  # somebody has emptied the cache; whoever has the file open still sees it
        return compute()
    if state[0] < _LEAST_BYTES:
        return compute()
    notes = _read(table, state=state)
    if name not in notes:
        value = compute()
        # Read again: another process may have noted something meanwhile.
        notes = {**_read(table, state=state), name: value}
        with suppress(OSError):  # a cache that cannot be written is none
            files.write_json(notes_of(table), {"state": state, "notes": notes})
    return notes[name]


def _read(table: Path, *, state: list[int]) -> dict[str, Any]:
    with suppress(OSError, ValueError, KeyError, TypeError):  # none yet, or damaged
        kept = json.loads(notes_of(table).read_text(encoding="utf-8"))
        if kept["state"] == state:
            return dict(kept["notes"])
    return {}
