"""A file's bytes in memory as long as somebody looks at them: mapped, and let go of again.

Pages of a mapped file count as a process's own memory until they are let go of, though the system may take them at any
time; so whoever reads a file larger than memory says now and then that it is done with them. They stay in the system's
cache of files.
"""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa

_LEAST_BYTES = 2**26
"""Smaller files stay mapped."""


class MappedFile:
    """A file, read-only.

    Args:
        path: of a file that is not empty and does not change.

    Raises:
        OSError, ValueError: it cannot be mapped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.buffer = pa.py_buffer(self._map)
        self.is_large = len(self._map) >= _LEAST_BYTES
        self._advise("MADV_RANDOM")

    def let_go(self) -> None:
        """Give back the pages that were looked at; whoever looks again finds them again."""
        self._advise("MADV_DONTNEED")

    @contextmanager
    def read_through(self) -> Iterator[None]:
        """A block that reads from front to back, so that what comes next is fetched ahead."""
        self._advise("MADV_SEQUENTIAL")
        try:
            yield
        finally:
            self._advise("MADV_RANDOM")

    def _advise(self, name: str) -> None:
        advice = getattr(mmap, name, None)  # not every system has them
        if self.is_large and advice is not None:
            with suppress(OSError):
                self._map.madvise(advice)
