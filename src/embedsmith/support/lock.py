"""One process at a time in a folder, by a lock of the operating system's."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from embedsmith.support.errors import RunError

log = logging.getLogger(__name__)

LOCK_FILE = ".lock"


@contextmanager
def only_one(folder: Path, *, what: str, file: str = LOCK_FILE) -> Iterator[None]:
    """Hold the folder's lock for a block: it goes when its process does, however that ends.

    Args:
        folder: made if it is not there.
        what: works there, for messages.
        file: the lock's, in the folder.

    Raises:
        RunError: another process holds it.
    """
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(f"Another {what} works in {folder}.\nWait for it, or choose another folder.") from None
    except NotImplementedError:
        log.warning("%s: its file system knows no locks. See that no other %s works there.", folder, what)
    try:
        yield
    finally:
        lock.release()
