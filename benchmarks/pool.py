"""Worker processes, asked in turn: round after round, every variant does the same work within the same minute.

A shared machine is fast now and slow then; interleaving lets all variants meet the same moods, and ratios are taken
within a round. The workers of a group live side by side, so groups are chosen to fit the memory; each worker has a
limit besides, so that one that needs more than was thought fails alone.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.protocol import Message, WorkerSpec
from benchmarks.variants import UNBOUNDED_TOKENS, Variant

Say = Callable[[str], None]
ROOT = Path(__file__).parent.parent
_ERROR = re.compile(r"[\w.]+(Error|Exception)\b")
_BUSY = """\
import os
parent = os.getppid()
while os.getppid() == parent:  # not longer than whoever measures
    pass
"""
_START_S = 0.3
"""Until a busy process is busy."""
BASE_BYTES = 600_000_000
"""Of a process that has only imported its libraries."""


class WorkerDiedError(Exception):
    """A worker ended before it was told to; the message says why as far as is known."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """Something every variant of a group does, once a round.

    Attributes:
        name: as results call it.
        requests: one per round; the first round warms up and is not counted.
        tokens: real tokens of each round's work.
        items: triplets of a step, or texts encoded.
        x: where it lies on the axis of its plot, if it has one.
        skip: variants that have no part in it.
        num_busy: processes that keep a core busy meanwhile.
        against: the work whose times, by the same variant, ratios are taken against; None: the reference's times on
            this one.
    """

    name: str
    requests: tuple[Message, ...]
    tokens: tuple[int, ...]
    items: int
    x: float | None = None
    skip: frozenset[str] = frozenset()
    num_busy: int = 0
    against: str | None = None


@dataclass
class Series:
    """What one variant did on one work.

    Attributes:
        seconds: per counted round, fewer where it did not finish.
        replies: of every round, the warm-up first.
        peak_bytes: of the process after the warm-up round, loading aside; works come in ascending order.
        num_tokens: real tokens of the warm-up round.
        failure: why there is nothing, or not everything.
    """

    seconds: list[float] = field(default_factory=list)
    replies: list[Message] = field(default_factory=list)
    peak_bytes: int | None = None
    num_tokens: int = 0
    failure: str | None = None


Results = dict[tuple[str, str], Series]
"""(work, variant) -> series."""


@dataclass(frozen=True)
class Member:
    """A variant with what its worker is to be told."""

    variant: Variant
    spec: WorkerSpec
    environment: Mapping[str, str] = field(default_factory=dict)


class Worker:
    """One worker process, ready to be asked.

    Args:
        member: variant and spec.
        log: file for what its libraries print.

    Raises:
        WorkerDiedError: it ended before it was ready.
    """

    def __init__(self, member: Member, *, log: Path) -> None:
        self.member = member
        self.first_request: Message | None = None
        self._log = log
        environment = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
            **member.environment,
        }
        with log.open("w") as stderr:
            self._process = subprocess.Popen(  # noqa: S603 (ours)
                [*member.variant.command, member.spec.to_json()],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        try:
            self.load_s = float(self._read()["load_s"])
        except WorkerDiedError:
            self.kill()
            raise
        # Peaks are those of the work: loading may take more (float32 weights on their way to bf16). Where the system
        # does not allow it, peaks include loading.
        with suppress(OSError):
            Path(f"/proc/{self._process.pid}/clear_refs").write_text("5", encoding="ascii")

    def ask(self, request: Message) -> Message:
        """Send a request and wait for its reply; raises WorkerDiedError."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerDiedError(self._reason()) from None
        reply = self._read()
        self.first_request = self.first_request or request
        return reply

    def quit(self) -> None:
        """Let it end, and wait for that."""
        try:
            self.ask({"quit": True})
        except WorkerDiedError:
            self.kill()
        self._process.wait()
        self._close()

    def kill(self) -> None:
        """End it now."""
        self._process.kill()
        self._process.wait()
        self._close()

    def _read(self) -> Message:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WorkerDiedError(self._reason())
        reply: Message = json.loads(line)
        if "error" in reply:
            raise WorkerDiedError(str(reply["error"]))
        return reply

    def _reason(self) -> str:
        code = self._process.wait()
        if code == -9:
            return "killed by the system, most likely for want of memory"
        lines = self._log.read_text(errors="replace").splitlines()
        errors = [number for number, line in enumerate(lines) if _ERROR.match(line)]
        message = " ".join(lines[errors[-1] :][:3]) if errors else "no message"
        return f"ended with status {code}: {message}".replace(str(ROOT), ".")

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                # What a dead worker was still to be told cannot be flushed.
                with suppress(BrokenPipeError):
                    pipe.close()


def measure(members: Sequence[Member], works: Sequence[Work], *, folder: Path, say: Say) -> Results:
    """Start all members, run every work once a round in each of them, and end them.

    Args:
        members: together within the memory; the first round's works come in the order given, so list them from small
            to large if their peaks matter.
        works: with equally many requests each.
        folder: for log files.
        say: takes lines of progress.
    """
    results: Results = {
        (work.name, member.variant.name): Series()
        for work in works
        for member in members
        if member.variant.name not in work.skip
    }
    workers: dict[str, Worker] = {}
    for member in members:
        if worker := _start(member, results, folder=folder, say=say):
            workers[member.variant.name] = worker
    try:
        for number in range(len(works[0].requests)):
            for work in works:
                _round(number, work, workers=workers, results=results, folder=folder, say=say)
    finally:
        for worker in workers.values():
            worker.quit()
    return results


def _start(
    member: Member, results: Results, *, folder: Path, say: Say, warm_up: Message | None = None
) -> Worker | None:
    """Start a worker and ask it `warm_up`; where that fails, all its series have failed."""
    name = member.variant.name
    started = time.perf_counter()
    try:
        worker = Worker(member, log=folder / f"{name}.log")
        if warm_up:
            worker.ask(warm_up)
    except WorkerDiedError as error:
        say(f"  {name} failed: {error}")
        for (_, variant), series in results.items():
            if variant == name and not series.failure:
                series.failure = str(error)
        return None
    say(f"  {member.variant.label}: ready after {time.perf_counter() - started:.1f} s")
    return worker


def _round(number: int, work: Work, *, workers: dict[str, Worker], results: Results, folder: Path, say: Say) -> None:
    names = [name for name in workers if name not in work.skip]
    # Another one begins each round, so that nobody always follows the same neighbour.
    shift = number % max(1, len(names))
    heard = []
    for name in names[shift:] + names[:shift]:
        series = results[work.name, name]
        if series.failure:
            continue
        if number == 0 and (reason := _too_large(work, workers[name], results)):
            series.failure = reason
            say(f"  {work.name}: {name} not run, {reason}")
            continue
        try:
            with busy_processes(work.num_busy):
                reply = workers[name].ask(work.requests[number])
        except WorkerDiedError as error:
            say(f"  {work.name}: {name} failed: {error}")
            series.failure = str(error)
            # The works it has done before are not lost: a new process goes on with them.
            dead = workers.pop(name)
            dead.kill()
            if worker := _start(dead.member, results, folder=folder, say=say, warm_up=dead.first_request):
                workers[name] = worker
            continue
        series.replies.append(reply)
        heard.append(f"{name} {reply['seconds']:.4g} s")
        if number == 0:
            series.peak_bytes, series.num_tokens = reply["peak_bytes"], work.tokens[0]
        else:
            series.seconds.append(reply["seconds"])
    kind = "warm-up" if number == 0 else f"round {number}/{len(work.requests) - 1}"
    say(f"  {work.name}, {kind}: {', '.join(heard) or 'nobody left'}")


@contextmanager
def busy_processes(number: int) -> Iterator[None]:
    """So many processes that do nothing but run, while the block does."""
    processes = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(number)]  # noqa: S603 (ours)
    if processes:
        time.sleep(_START_S)
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _too_large(work: Work, worker: Worker, results: Results) -> str | None:
    """Whether the work would overrun the worker's memory, going by the largest one it has finished."""
    limit, variant = worker.member.spec.memory_limit_bytes, worker.member.variant
    finished = [
        (series.peak_bytes, series.num_tokens)
        for (_, name), series in results.items()
        if name == variant.name and series.peak_bytes
    ]
    if limit is None or not finished or variant.max_tokens != UNBOUNDED_TOKENS or "step" not in work.requests[0]:
        return None
    peak, num_tokens = max(finished)
    needed = BASE_BYTES + max(0, peak - BASE_BYTES) * work.tokens[0] / num_tokens
    return f"it would need about {needed / 1e9:.0f} GB" if needed > limit else None
