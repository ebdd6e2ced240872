"""Atomic writing: a reader never sees half a file or half a folder, whatever interrupts the writer.

Everything is written under a temporary name beside its target, flushed to disk, then renamed, and the folder that holds
the name is flushed, too: what was written stays so when the power goes. Long work asks `check_output` or
`check_output_folder` first, so that it does not end in a place that cannot be written.
"""

import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from embedsmith.support.errors import EmbedsmithError, RunError

_NO_ROOM_BYTES = 2**16
"""Where a disk has less, a library's error that names no reason is taken for want of room."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_HANDED_OVER = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write `data` to `path` atomically, making parent folders; of a link, to the file it leads to.

    Raises:
        OSError: the disk is full or the place is not writable; the old file, if any, is untouched.
    """
    path = Path(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with naming(path), os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text to `path` atomically; errors as `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON to `path` atomically; errors as `write_bytes`."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield an empty temporary folder that becomes `path` (replacing what was there) if the block succeeds.

    An empty folder is filled, file by file, and stays the one it is: somebody may stand in it, or a link name it.

    Raises:
        OSError: the disk is full, whatever the library that writes in the block makes of it; or as `write_bytes`.
    """
    path = Path(path).absolute()
    is_filled = path.is_dir() and not any(path.iterdir())
    place = path if is_filled else path.parent
    place.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=place, prefix=f".{path.name}.", suffix=".tmp"))
    try:
        temporary.chmod(0o777 & ~_umask())
        yield temporary
        for written in (*temporary.rglob("*"), temporary):
            if written.is_dir() or written.is_file():
                sync(written)
        if is_filled:
            for child in sorted(temporary.iterdir()):
                child.replace(path / child.name)
            sync(path)
        else:
            _replace_folder(path, by=temporary)
    except Exception as error:
        if (number := _number_of_full(error, place)) is None:
            raise
        said = "" if os.strerror(number) in str(error) else f" ({type(error).__name__}: {error})"
        raise OSError(number, f"{os.strerror(number)}{said}", str(path)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _number_of_full(error: Exception, place: Path) -> int | None:
    """Of a system's error for want of room that a library hands on in words of its own, or in none."""
    if isinstance(error, EmbedsmithError) or (isinstance(error, OSError) and error.errno is not None):
        return None
    named = next((number for number in _FULL if os.strerror(number) in str(error)), None)
    return named or (errno.ENOSPC if shutil.disk_usage(place).free < _NO_ROOM_BYTES else None)


def _replace_folder(path: Path, *, by: Path) -> None:
    previous = _name_of_previous(path)
    shutil.rmtree(previous, ignore_errors=True)
    if path.exists():
        path.replace(previous)
    by.replace(path)
    sync(path.parent)
    shutil.rmtree(previous, ignore_errors=True)


def _name_of_previous(path: Path) -> Path:
    return path.with_name(f".{path.name}.previous.tmp")


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder's files, folders among them, into another, which may be there.

    Raises:
        OSError: the disk is full, or the like; it names what could not be written, as `shutil.copytree`'s does not.
    """
    target.mkdir(exist_ok=True)
    for path in sorted(source.iterdir()):
        copy = target / path.name
        if path.is_dir():
            copy_folder(path, copy)
        else:
            with path.open("rb") as read, naming(copy), copy.open("wb") as written:
                shutil.copyfileobj(read, written, 2**20)


def remove_folder(path: Path) -> None:
    """Remove a folder and all in it; whoever looks meanwhile finds it whole or not at all."""
    removed = _name_of_previous(path)
    shutil.rmtree(removed, ignore_errors=True)
    path.replace(removed)
    shutil.rmtree(removed)


def remove_leftovers(folder: Path) -> None:
    """Remove what a writer that was killed left in a folder under temporary names; nobody may write there now."""
    for path in folder.glob(".*.tmp"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot, of folders
            raise
    finally:
        os.close(descriptor)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Run a block that writes a file; a system's error in it that names no file, as of a full disk, gets its name."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def is_disk_full(error: OSError) -> bool:
    """Whether something could not be written for want of room: on the disk, in a quota, or in the size allowed."""
    return error.errno in _FULL


def describe_full(error: OSError) -> tuple[str, str]:
    """What could not be written and why, and what to do, in words; see `is_disk_full`."""
    what = f"{error.filename or 'a file'} cannot be written: {error.strerror or error}"
    return what, "Raise the limit of a file's size" if error.errno == errno.EFBIG else "Free some space"


def check_output(path: Path | str, *, option: str, suffix: str | None = None, holds: Collection[str] = ()) -> None:
    """Make sure that `write_bytes` will be able to write a file, and that it is no file of another kind.

    Args:
        path: of a file that may exist or not, as its folder may.
        option: where the user named it, for messages.
        suffix: what a file that is there already must end in to be replaced; None: anything.
        holds: names that a file that is there already must hold, as a JSON object, to be replaced.

    Raises:
        RunError: it is empty, a folder or a device, read-only, of another kind, or lies where nothing can be written.
    """
    if not str(path).strip() or Path(path).is_dir():
        raise RunError(f"{option} is {str(path)!r}, which is a folder.\nName a file.")
    target = Path(path).resolve()
    if target.exists():
        if not target.is_file():
            raise RunError(f"{option}: {path} is no regular file.\nName a file.")
        if not target.stat().st_mode & 0o222 or not os.access(target, os.W_OK):
            raise RunError(f"{option}: {path} is there and read-only.\nName another file, or make it writable.")
        if suffix and target.suffix != suffix and target.stat().st_size:
            raise RunError(f"{option}: {path} is there and is no {suffix} file.\nName another file, or remove it.")
        if holds and target.stat().st_size and not _is_object_with(holds, target):
            raise RunError(
                f"{option}: {path} is there and was not written by this command.\nName another file, or remove it."
            )
    _try_to_write(target, named=path, option=option)


def _is_object_with(names: Collection[str], path: Path) -> bool:
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and value.keys() >= set(names)


def check_output_folder(path: Path | str, *, option: str) -> None:
    """Make sure that a folder can be made, or can be written into; it may exist or not.

    Raises:
        RunError: it is empty, a file, or lies where nothing can be written.
    """
    if not str(path).strip():
        raise RunError(f"{option} is empty.\nName a folder.")
    target = Path(path).resolve()
    if target.exists() and not target.is_dir():
        raise RunError(f"{option}: {path} is a file.\nName a folder.")
    _try_to_write(target / "x" if target.is_dir() else target, named=path, option=option)


def _try_to_write(target: Path, *, named: Path | str, option: str) -> None:
    """Make a file under the temporary name that writing would take, in the nearest folder there is, and remove it."""
    folder = next(parent for parent in target.parents if parent.exists())
    try:
        descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=f".{target.name}.", suffix=".tmp")
        os.close(descriptor)
        Path(temporary).unlink()
    except OSError as error:
        raise RunError(
            f"{option}: {named} cannot be written: {error.strerror} ({folder}).\nName another place."
        ) from error


def check_room(folder: Path, *, size_bytes: int, what: str, advice: str) -> None:
    """Make sure that a disk has room for what will be written.

    Args:
        folder: that is there, on the disk.
        size_bytes: of what comes.
        what: needs it, for the message.
        advice: what else may be done than to free some space.

    Raises:
        RunError: it has not enough.
    """
    if (free := shutil.disk_usage(folder).free) < size_bytes:
        raise RunError(
            f"{what} need {_as_size(size_bytes)} in {folder}, and the disk has {_as_size(free)} left.\n"
            f"Free some space, or {advice}."
        )


def _as_size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.2f} MB"


def check_can_end(path: Path) -> None:
    """Refuse to read what may never come to an end: a pipe by a name, which waits for who writes, or a device.

    What a shell hands over (`<(...)`, /dev/stdin) is let through, as somebody writes it.

    Raises:
        OSError: it is such a thing, or not there.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or str(path).startswith(_HANDED_OVER)):
        kind = "a named pipe" if stat.S_ISFIFO(mode) else "a device or socket"
        raise OSError(errno.EINVAL, f"it is {kind}, not a file", str(path))


def read_text(path: Path) -> str:
    """The UTF-8 text of a file.

    Raises:
        OSError: it cannot be read, or `check_can_end` refuses it.
        UnicodeDecodeError: it is no UTF-8, a `ValueError`.
    """
    check_can_end(path)
    return path.read_text(encoding="utf-8")


def read_digest(path: Path) -> str:
    """SHA-256 of a file's contents; half a second a gigabyte.

    Raises:
        OSError: it cannot be read, or `check_can_end` refuses it.
    """
    check_can_end(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(paths: Iterable[Path], *, digest_of: Callable[[Path], str] = read_digest) -> str:
    """Equal for files of equal names and contents in equal order; errors as `read_digest`.

    Args:
        paths: of the files.
        digest_of: a file -> what stands for its contents.
    """
    names_and_digests = "".join(f"{path.name}\0{digest_of(path)}\0" for path in paths)
    return hashlib.sha256(names_and_digests.encode()).hexdigest()[:32]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def is_there(name: str) -> bool:
    """Whether a file or folder has this name: none has one that is too long, for which pathlib may raise."""
    return os.path.exists(name)  # noqa: PTH110


def expand_home(name: str) -> str:
    """`~` and `~user` at the start of a name as the folders they stand for; a name that starts so by chance stays."""
    return os.path.expanduser(name)  # noqa: PTH111 (pathlib's raises for such a name, and a hub id is no path)


def cache_root() -> Path:
    """Where converted models and data are kept: $EMBEDSMITH_CACHE, else embedsmith/ in the user's cache folder."""
    if own := os.environ.get("EMBEDSMITH_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "embedsmith"
