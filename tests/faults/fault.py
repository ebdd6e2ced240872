"""One row of the table, and what makes a file faulty."""

import gzip
import json
import os
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Make = Callable[[], None]


@dataclass(frozen=True)
class Fault:
    """One faulty input.

    Attributes:
        what: is wrong, in words.
        command: that meets it, as typed behind `embedsmith`, in a copy of the folder that `conftest.py` makes.
        place: what the message must name: a file, line, field or option.
        cure: words of what the message must tell to do.
        make: makes the fault in the folder at work; None: it is in the command itself.
        is_of_rights: whether it is about rights, of which root has all: the command runs as somebody else.
        needs: a package that may not be installed, without which the command does not come so far.
    """

    what: str
    command: str
    place: str
    cure: str
    make: Make | None = None
    is_of_rights: bool = False
    needs: str | None = None


def put(path: str, content: str | bytes) -> Make:
    """A file with this content."""

    def make() -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).unlink(missing_ok=True)
        Path(path).write_bytes(content if isinstance(content, bytes) else content.encode())

    return make


def put_packed(path: str, text: str, *, keep: float = 1.0) -> Make:
    """A gzip file, of which only a part is kept."""
    data = gzip.compress(text.encode())
    return put(path, data[: int(len(data) * keep)])


def cut(path: str, *, keep: float) -> Make:
    """The first part of a file."""

    def make() -> None:
        data = Path(path).read_bytes()
        Path(path).write_bytes(data[: int(len(data) * keep)])

    return make


def replace(path: str, old: str, new: str) -> Make:
    """Another text in a file, which must have been there."""

    def make() -> None:
        text = Path(path).read_text(encoding="utf-8")
        assert old in text, f"{old!r} is not in {path}"
        Path(path).write_text(text.replace(old, new, 1), encoding="utf-8")

    return make


def set_json(path: str, **values: Any) -> Make:
    """Other values in a JSON object; a name with dots leads inwards, and None takes it out."""

    def make() -> None:
        whole = json.loads(Path(path).read_text(encoding="utf-8"))
        for name, value in values.items():
            *outer, last = name.split("__")
            inner = whole
            for part in outer:
                inner = inner[int(part) if isinstance(inner, list) else part]
            if value is None:
                del inner[last]
            else:
                inner[last] = value
        Path(path).write_text(json.dumps(whole), encoding="utf-8")

    return make


def remove(*paths: str) -> Make:
    """Files that are not there."""

    def make() -> None:
        for path in paths:
            Path(path).unlink()

    return make


def remove_folders(*paths: str) -> Make:
    """Folders that are not there, nor what was in them."""

    def make() -> None:
        for path in paths:
            shutil.rmtree(path)

    return make


def fifo(path: str) -> Make:
    """A named pipe that nobody writes into."""

    def make() -> None:
        Path(path).unlink(missing_ok=True)
        os.mkfifo(path)

    return make


def link(path: str, *, to: str) -> Make:
    """A symbolic link."""

    def make() -> None:
        Path(path).unlink(missing_ok=True)
        Path(path).symlink_to(to)

    return make


def folder(path: str) -> Make:
    """An empty folder in the place of a file."""

    def make() -> None:
        Path(path).unlink(missing_ok=True)
        Path(path).mkdir()

    return make


def without_rights(path: str, *, mode: int = 0) -> Make:
    """A file or folder that may not be read, or not be written."""
    return lambda: Path(path).chmod(mode)


def put_safetensors(path: str, header: bytes, *, size: int | None = None, data: bytes = b"") -> Make:
    """A safetensors file of this header, which may say another size of itself than it has."""
    return put(path, struct.pack("<Q", len(header) if size is None else size) + header + data)


def both(*makes: Make) -> Make:
    """Several of them."""

    def make() -> None:
        for one in makes:
            one()

    return make
