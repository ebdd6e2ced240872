"""A process that is gone stops the others of its run within a minute, whatever they are doing, and they say so.

    every process, on a thread, each 4 s:  counts up its own number in the launcher's store   "I am alive"
                                           looks at the number of the next process            0 -> 1 -> ... -> 0
                                           looks whether anybody has called one lost

Where a connection breaks, as gloo notices at once, the exchange under way fails and is told in words. Where it does not
(a machine without power or network; NCCL, which waits), no exchange would ever end: a process whose next one has not
counted for ten rounds calls it lost, and all end. So a collective's own timeout may be long, and who loads or writes
for minutes is not taken for dead. Rounds are counted, not seconds: a process that was itself held up blames nobody.
Cost: four small requests to the store a process and round.
"""

import atexit
import os
import shlex
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from itertools import count as numbers
from pathlib import Path

import torch
from torch.distributed import Store, TCPStore

BEAT_S = 4.0
SILENT_ROUNDS = 10
_GRACE_ROUNDS = 2
"""Between hearing that one is lost and the end: whoever has an error of its own to tell does so meanwhile."""
_LOST = "lost"
_groups = numbers()


class Peers:
    """Watches over the processes of a run, from one of them.

    Args:
        store: which all processes reach; of this process's threads alone.
        index, count: which process this is, of how many.
        end: told in words when one is lost; the process is to end. It runs on a thread.
        beat_s: seconds of a round.
    """

    def __init__(
        self, store: Store, *, index: int, count: int, end: Callable[[str], None], beat_s: float = BEAT_S
    ) -> None:
        self._store = store
        self._index = index
        self._count = count
        self._end = end
        self._beat_s = beat_s
        self._stopped = threading.Event()
        self._rounds = 0
        for work in (self._watch, self._watch_store):
            threading.Thread(target=work, daemon=True, name="peers").start()

    def stop(self) -> None:
        """Watch no longer."""
        self._stopped.set()

    def leave(self) -> None:
        """Tell the others that this process ends before the run does; they end, too."""
        if not self._stopped.is_set():
            self.stop()
            with suppress(RuntimeError):  # the store may be gone with its process
                self._store.set(_LOST, str(self._index))

    def _watch(self) -> None:
        watched = (self._index + 1) % self._count
        number, silent = -1, 0
        while not self._stopped.wait(self._beat_s):
            with suppress(RuntimeError):
                self._store.add(_life_of(self._index), 1)
                now = self._store.add(_life_of(watched), 0)
                silent = silent + 1 if now == number else 0
                number = now
                if silent >= SILENT_ROUNDS:
                    self._store.set(_LOST, str(watched))
                if self._store.check([_LOST]):
                    self._say(int(self._store.get(_LOST)))
                self._rounds += 1

    def _watch_store(self) -> None:
        """The store lies in one of the processes, or in its launcher: without answers that one is gone."""
        rounds, silent = 0, 0
        while not self._stopped.wait(self._beat_s):
            silent = silent + 1 if self._rounds == rounds else 0
            rounds = self._rounds
            if silent >= SILENT_ROUNDS:
                self._say(0)

    def _say(self, lost: int) -> None:
        if not self._stopped.wait(_GRACE_ROUNDS * self._beat_s):
            self.stop()
            self._end(f"Process {lost} of {self._count} has ended, or its machine cannot be reached any more")


def watch_peers(*, index: int, count: int, end: Callable[[str], None]) -> Peers | None:
    """Watch from here on, through a connection of its own to the store that the launcher has named; None: alone."""
    if count == 1:
        return None
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(host, port, is_master=False, timeout=timedelta(seconds=BEAT_S * SILENT_ROUNDS))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # a launcher that starts them again keeps its store
    prefix = f"embedsmith/{attempt}/{next(_groups)}"
    return Peers(torch.distributed.PrefixStore(prefix, store), index=index, count=count, end=end)


def part_at_exit() -> None:
    """Let the processes part in order when this one ends, all its runs behind it."""
    atexit.unregister(_part)
    atexit.register(_part)


def stay_at_exit() -> None:
    """Do not, as the others may not answer."""
    atexit.unregister(_part)


def _part() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def end_process(why: str, *, folder: str) -> None:
    """End this process, from any thread: one that waits for an exchange hears nothing. Files are written atomically."""
    said = f"{why}, so this process ends, too.\n{how_to_go_on(folder)}\n"
    os.write(2, said.encode())
    os._exit(2)


def how_to_go_on(folder: str) -> str:
    """What to do when a process of a run was lost."""
    why = "That process's own messages may say why."
    if not Path(folder).is_dir():
        return f"{why} Nothing is saved yet: start the run again."
    command = f"embedsmith train --resume {shlex.quote(folder)}"
    return f"{why} What was saved is whole: go on, with as many processes or with others:\n  {command}"


def is_broken_exchange(error: BaseException) -> bool:
    """Whether an error is that of an exchange whose other side is gone, or did not answer in time."""
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error).lower()
    )


def _life_of(index: int) -> str:
    return f"life/{index}"
