"""File systems that are full, for whoever may mount one."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_OTHERS = ".of-others"


@contextmanager
def small_disk(folder: Path, *, room: int | None = None) -> Iterator[None]:
    """A file system of 16 MB in the place of a folder that is not there; skips the test where none may be mounted.

    Args:
        folder: of it.
        room: bytes that are left on it; None: all of it.
    """
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, check=False, capture_output=True).returncode:
        folder.rmdir()
        pytest.skip("only who may mount can have a disk that is full")
    try:
        if room is not None:
            fill(folder, room=room)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


def fill(folder: Path, *, room: int) -> None:
    """Leave so many bytes on a disk."""
    (folder / _OTHERS).write_bytes(bytes(shutil.disk_usage(folder).free - room))


def make_room(folder: Path) -> None:
    """Remove what `fill` made."""
    (folder / _OTHERS).unlink()


def files_on(folder: Path) -> list[str]:
    """Names of all that is on a disk, but what `fill` made."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != _OTHERS)
