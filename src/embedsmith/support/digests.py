"""SHA-256 of large files, kept in the cache beside their size and time of change, so that weights are read for it once.

A file whose contents change and whose size and time do not would go unnoticed, as it would by make or git. Clocks tick
coarsely, so of what was changed just now nothing is kept.
"""

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path

from embedsmith.support import files

_LEAST_BYTES = 2**20  # below it reading is as fast
_SETTLED_NS = 2_000_000_000


def kept_digest(path: Path) -> str:
    """As `files.read_digest`, from the cache where the file is the one that was read."""
    path = Path(os.path.realpath(path))  # not `resolve`, which raises where links go in a circle
    try:
        state = file_state(path)
    except OSError:
        return files.read_digest(path)  # which says why it cannot
    if state[0] < _LEAST_BYTES:
        return files.read_digest(path)
    note = files.cache_root() / "digests" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):  # none yet, or damaged
        kept = json.loads(note.read_text(encoding="utf-8"))
        if kept["state"] == state:
            return str(kept["sha256"])
    digest = files.read_digest(path)
    if file_state(path) == state and time.time_ns() - state[1] > _SETTLED_NS:
        with suppress(OSError):  # a cache that cannot be written is none
            files.write_json(note, {"file": str(path), "state": state, "sha256": digest})
    return digest


def file_state(path: Path) -> list[int]:
    """What a file is taken to be unchanged by: its size, time of change and inode; OSError where it is not there."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ino]
