"""SIGTERM and Ctrl-C while a run trains: the step under way is finished, a checkpoint written, and the run ends.

What is under way may take long, and who sends SIGTERM often sends SIGKILL after 30 seconds. So a step or an evaluation
that is not over `GRACE_S` after the signal is given up: the checkpoint is then of the step before it. Of several
processes none gives up anything, as the others would wait for it.

A second signal ends the process at once, by the signal's own default. Launchers of several processes pass on what the
terminal has sent them already, so there what follows within a second is taken for the same signal.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

GRACE_S = 15.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_SAME_S = 1.0


class GivenUpError(BaseException):
    """What was under way would have taken too long; no fault that anybody in between could handle."""


class Stopping:
    """Listens for signals while it is entered, in the main thread; elsewhere it hears nothing.

    Args:
        is_alone: whether the run has this process only, so that it may give up what is under way.
        talks: whether this process is the one of several that says something.
    """

    def __init__(self, *, is_alone: bool, talks: bool = True) -> None:
        self.signal: signal.Signals | None = None
        self._is_alone = is_alone
        self._talks = talks
        self._is_giving_up = False
        self._asked_at = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Stopping":
        if threading.current_thread() is threading.main_thread():
            for one in _SIGNALS:
                if signal.getsignal(one) is not signal.SIG_IGN:  # a job in the background of a shell
                    self._before[one] = signal.signal(one, self._take)
            self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._give_up)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for one, handler in self._before.items():
            signal.signal(one, handler)

    @property
    def is_asked(self) -> bool:
        """Whether the run shall end."""
        return self.signal is not None

    @contextmanager
    def may_give_up(self) -> Iterator[None]:
        """Run a block that nothing depends on before it is over; raises GivenUpError in it when it takes too long."""
        self._is_giving_up = self._is_alone
        try:
            yield
        finally:
            self._is_giving_up = False

    def _take(self, number: int, _: FrameType | None) -> None:
        if self.signal is not None:  # of several processes
            if time.monotonic() - self._asked_at > _SAME_S:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        self.signal, self._asked_at = signal.Signals(number), time.monotonic()
        if self._talks:  # not through Python's own files: it may be in the middle of a write to them
            what = "the run ends behind the step under way, with a checkpoint. Once more ends it at once."
            os.write(2, f"{self.signal.name}: {what}\n".encode())
        if self._is_alone:
            for one in self._before.keys() & set(_SIGNALS):
                signal.signal(one, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, GRACE_S)

    def _give_up(self, *_: object) -> None:
        if self._is_giving_up:
            self._is_giving_up = False
            raise GivenUpError
