"""Errors that are the user's to fix: one base class, shown by the command line as a short message with exit code 2.

Every message has three parts: what is wrong, the value met (file, line, field), what to do.
Programmer errors are `assert`s and keep their traceback.
"""

from collections.abc import Sequence

MAX_FAULTS_SHOWN = 20


class EmbedsmithError(Exception):
    """Base of all errors a user can cause and fix."""


class ConfigError(EmbedsmithError):
    """A setting is unknown, has the wrong type, or does not fit another one."""


class DataError(EmbedsmithError):
    """A data file or dataset is missing, unreadable or has faulty rows."""


class ModelError(EmbedsmithError):
    """A model cannot be found, is not a decoder, or does not compute what it should."""


class RunError(EmbedsmithError):
    """A run or output folder cannot be used, or training cannot go on."""


class DiskFullError(EmbedsmithError):
    """There is no room for what a run writes; all that it had saved is there, and it can go on."""


class Interrupted(BaseException):
    """A run was ended by a signal, behind the step under way and with a checkpoint.

    No Exception: whatever was to follow the run does not. The message says how far it came.

    Args:
        message: for people.
        folder: the run's, to go on from.
        signal: its number.
    """

    def __init__(self, message: str, *, folder: str, signal: int) -> None:
        super().__init__(message)
        self.folder = folder
        self.signal = signal


class MissingExtraError(EmbedsmithError):
    """An optional package is needed and absent; the message holds the command that installs it."""

    def __init__(self, package: str, *, extra: str, needed_for: str) -> None:
        super().__init__(
            f"{needed_for} needs the package '{package}', which is not installed.\n"
            f"Install it with: pip install 'embedsmith[{extra}]'"
        )


def list_faults(
    headline: str, faults: Sequence[str], *, advice: str, count: int | None = None, limit: int = MAX_FAULTS_SHOWN
) -> str:
    """One message out of many faults: a headline, up to `limit` faults as lines, how many more, what to do.

    `count` is the number of all faults, where `faults` holds only the first ones.
    """
    lines = [headline, *(f"  {fault}" for fault in faults[:limit])]
    num_hidden = (count or len(faults)) - min(len(faults), limit)
    if num_hidden:
        lines.append(f"  ... and {num_hidden} more")
    lines.append(advice)
    return "\n".join(lines)


def is_out_of_memory(error: Exception) -> bool:
    """Python's, a GPU's (torch is not loaded for every command, so by its name) or torch's on a CPU."""
    is_theirs = type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator: " in str(error)
    return is_theirs or isinstance(error, MemoryError)
