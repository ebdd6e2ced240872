"""A user's file, changed behind a command's back."""

import os
from pathlib import Path


def replace_text(path: str, old: str, new: str) -> None:
    """Change a file's text, and nothing of its size and time where the texts are equally long."""
    file, status = Path(path), Path(path).stat()
    before = file.read_text(encoding="utf-8")
    assert old in before
    file.write_text(before.replace(old, new, 1), encoding="utf-8")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
