"""Each row of the table: exit code 2, a message with place and cure, no traceback, nothing changed, in bounded time."""

import os
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from embedsmith.cli import run_command
from tests.faults.digest import digest_of
from tests.faults.fault import Fault
from tests.faults.table import FAULTS

NOBODY = 65534
LIMIT_S = 30
"""So long may a command take that nobody waits for; here they take a tenth of a second."""
LONGEST_MESSAGE = 4000


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_a_faulty_input_is_refused_in_words_and_changes_nothing(
    fault: Fault, work: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if fault.needs:
        pytest.importorskip(fault.needs)
    if fault.make:
        fault.make()
    before = digest_of(work)
    capsys.readouterr()
    with _somebody_else(work) if fault.is_of_rights else _in_time():
        code = run_command(shlex.split(fault.command))
    told = capsys.readouterr().err
    assert code == 2, told
    assert fault.place in told
    assert fault.cure in told
    assert "Traceback" not in told
    assert len(told) < LONGEST_MESSAGE
    assert digest_of(work) == before
    assert not list(whole.with_name("cache").rglob("*.tmp"))


def test_the_table_is_as_long_as_promised() -> None:
    assert len({fault.what for fault in FAULTS}) == len(FAULTS) >= 100


class _TooLongError(BaseException):
    """A command waits for something. No `Exception`, which it might take for a fault of its own."""


@contextmanager
def _in_time() -> Iterator[None]:
    def give_up(*_: object) -> None:
        raise _TooLongError

    previous = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


@contextmanager
def _somebody_else(work: Path) -> Iterator[None]:
    """Run as somebody who is not root: root may read and write whatever the rights say."""
    if os.geteuid() != 0:
        yield
        return
    for parent in work.parents[:4]:
        if parent.stat().st_uid == 0 and parent.name.startswith(("pytest", "popen", "test")):
            parent.chmod(0o755)
    for path in (work.parent, *work.parent.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    os.seteuid(NOBODY)
    try:
        os.environ["EMBEDSMITH_CACHE"] = str(work.with_name("cache"))  # put back by `work`
        yield
    finally:
        os.seteuid(0)
