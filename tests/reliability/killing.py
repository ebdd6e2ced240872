"""Commands in processes of their own, killed (or sent another signal) at a chosen moment.

A moment is the n-th time that something happens (a function is entered, or a file with a certain path is about to be
written, renamed or removed), and perhaps some milliseconds more, so that the kill falls inside it. What happens is
counted in a run that is not killed, so that every moment of it can be drawn.

Processes are forked from one that has torch and transformers loaded, which saves seconds each.
"""

import json
import multiprocessing
import os
import re
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from signal import Signals
from typing import Any

_PRELOADED = (
    "embedsmith.verbs.train",
    "embedsmith.verbs.sweep",
    "embedsmith.verbs.encode",
    "embedsmith.verbs.encode_corpus",
    "transformers.models.llama",
)
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([*_PRELOADED, "tests.reliability.killing"])
_WRITING = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")


@dataclass(frozen=True)
class Event:
    """Something that happens in a command, perhaps many times.

    Attributes:
        name: for people to read.
        function: `module:name` of a function, which is entered; or else
        path: a pattern found in the path of a file that is about to be written, renamed or removed.
    """

    name: str
    function: str = ""
    path: str = ""


@dataclass(frozen=True)
class Moment:
    """The n-th time of an event, from 1 on, and some seconds behind it; the signal that comes then."""

    event: Event
    number: int
    delay_s: float = 0.0
    signal: Signals = Signals.SIGKILL

    def __str__(self) -> str:
        return f"{self.event.name} {self.number} + {1000 * self.delay_s:.1f} ms"


class Command:
    """A command of `embedsmith` in a folder, in a process of its own, with what it says in a file.

    Args:
        arguments: behind `embedsmith`.
        folder: where it works.
        kill_at: the moment that it is killed at; None: it is not.
        count: events to count.
        limit_bytes: the largest file that it may write; None: any.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        folder: Path,
        kill_at: Moment | None = None,
        count: Sequence[Event] = (),
        limit_bytes: int | None = None,
    ) -> None:
        self.said_in = folder / "said.txt"
        self._counts_in = folder / "counts.json"
        task = (list(arguments), folder, kill_at, list(count), limit_bytes, self.said_in, self._counts_in)
        self.process = _CONTEXT.Process(target=_run, args=task)
        self.process.start()

    def wait(self, *, timeout_s: float = 600) -> int:
        """Its exit code; -9 where it was killed."""
        self.process.join(timeout_s)
        assert self.process.exitcode is not None, f"still running: {self.said}"
        return self.process.exitcode

    @property
    def said(self) -> str:
        """What it has said so far, both streams together."""
        return self.said_in.read_text(errors="replace") if self.said_in.exists() else ""

    @property
    def counts(self) -> dict[str, int]:
        """How often each event happened, by its name."""
        return dict(json.loads(self._counts_in.read_text()))


def _run(
    arguments: list[str],
    folder: Path,
    kill_at: Moment | None,
    count: list[Event],
    limit_bytes: int | None,
    said_in: Path,
    counts_in: Path,
) -> None:
    """In the forked process."""
    descriptor = os.open(said_in, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.chdir(folder)
    os.environ["EMBEDSMITH_CACHE"] = str(folder / "cache")
    sys.argv = ["embedsmith", *arguments]

    import torch

    from embedsmith.cli import main

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    counts: dict[str, int] = {}
    for event in count:
        _watch(event, counts)
    if kill_at:
        _watch(kill_at.event, {}, kill_at)
    if limit_bytes is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
    try:
        main()
    finally:
        if count:
            counts_in.write_text(json.dumps(counts))
        sys.stdout.flush()


def _watch(event: Event, counts: dict[str, int], kill_at: Moment | None = None) -> None:
    """Count an event, and kill this process when its moment comes."""
    counts.setdefault(event.name, 0)

    def happens() -> None:
        counts[event.name] += 1
        if kill_at and counts[event.name] == kill_at.number:
            if kill_at.delay_s:
                threading.Timer(kill_at.delay_s, os.kill, (os.getpid(), kill_at.signal)).start()
            else:
                os.kill(os.getpid(), kill_at.signal)

    if event.function:
        _wrap(event.function, happens)
    else:
        pattern = re.compile(event.path)
        sys.addaudithook(lambda name, given: happens() if _writes(name, given, pattern) else None)


def _wrap(function: str, happens: Any) -> None:
    module, name = function.split(":")
    owner = import_module(module)
    original = getattr(owner, name)

    def wrapped(*arguments: Any, **named: Any) -> Any:
        happens()
        return original(*arguments, **named)

    setattr(owner, name, wrapped)


def _writes(name: str, given: tuple[Any, ...], pattern: re.Pattern[str]) -> bool:
    if name not in _WRITING:
        return False
    if name == "open":
        _, mode, flags = given
        if not (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and not set(mode or "") & set("wax+"):
            return False
    return any(isinstance(path, str | os.PathLike) and pattern.search(os.fspath(path)) for path in given[:2])
