"""Live progress of long work on a terminal; plain lines where the output is no terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

_NUM_PLAIN_LINES = 20


class TrainingDisplay:
    """Shows loss, tokens per second, time left and the last evaluation of a run.

    Args:
        console: where to print.
        max_steps: steps of the run.
    """

    def __init__(self, console: Console, *, max_steps: int) -> None:
        self._console = console
        self._max_steps = max_steps
        self._every = max(1, max_steps // _NUM_PLAIN_LINES)
        self._dev = "dev -"
        self._first: tuple[int, float] | None = None
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=max_steps, status="first step ...")

    def __enter__(self) -> "TrainingDisplay":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, record: dict[str, Any]) -> None:
        """Show one metrics record."""
        step = record["step"]
        if "loss" in record:
            self._first = self._first or (step - 1, record["elapsed_s"])
            status = (
                f"loss {record['loss']:.3f}  {record['tokens_per_s']:.0f} tokens/s  "
                f"{_clock(self._time_left_s(step, record['elapsed_s']))} left  {self._dev}"
            )
            self._progress.update(self._task, completed=step, status=status)
            if not self._console.is_terminal and step % self._every == 0:
                self._console.print(f"step {step}/{self._max_steps}  {status}", highlight=False)
        else:
            averaged = record.get("averaged_steps")
            prefix = "averaged_" if averaged else ""
            score, (lower, upper) = 100 * record[f"{prefix}dev_cosine_spearman"], record[f"{prefix}dev_ci95"]
            self._dev = f"dev {score:.1f}"
            what = f"average of steps {', '.join(map(str, averaged))}" if averaged else f"step {step}"
            text = f"{what}: dev Spearman {score:.1f} [{100 * lower:.1f}, {100 * upper:.1f}]"
            self._console.print(text, highlight=False)

    def _time_left_s(self, step: int, elapsed_s: float) -> float | None:
        assert self._first is not None
        first_step, first_s = self._first
        num_timed = step - first_step - 1
        return (elapsed_s - first_s) / num_timed * (self._max_steps - step) if num_timed else None


@contextmanager
def encoding_progress(console: Console) -> Iterator[tuple[Callable[[str], None], Callable[[int], None]]]:
    """Yield (`start` a named task, `advance` by texts): a live line with texts per second."""
    with console.status("") as status:
        name, count, started = "", 0, time.perf_counter()

        def start(task: str) -> None:
            nonlocal name, count, started
            name, count, started = task, 0, time.perf_counter()
            status.update(Text(f"{name}: encoding ..."))
            if not console.is_terminal:
                console.print(f"{name} ...", markup=False, highlight=False)

        def advance(num_texts: int) -> None:
            nonlocal count
            count += num_texts
            rate = count / (time.perf_counter() - started)
            status.update(Text(f"{name}: {count} texts, {rate:.0f} a second"))

        yield start, advance


@contextmanager
def corpus_progress(console: Console, *, num_texts: int, num_done: int) -> Iterator[Callable[[int], None]]:
    """Yield `advance` by texts: a live line with texts per second and the time left; plain lines elsewhere.

    Args:
        console: where to print.
        num_texts: of the whole corpus.
        num_done: those that were finished before.
    """
    with console.status("") as status:
        count, started, step = num_done, time.perf_counter(), max(1, num_texts // _NUM_PLAIN_LINES)

        def advance(num_more: int) -> None:
            nonlocal count
            before, count = count, count + num_more
            rate = (count - num_done) / max(time.perf_counter() - started, 1e-9)
            left = _clock((num_texts - count) / rate) if rate else _clock(None)
            line = f"{count:,} of {num_texts:,} texts, {rate:,.0f} a second, {left} left"
            status.update(Text(line))
            if not console.is_terminal and count // step > before // step:
                console.print(line, markup=False, highlight=False)

        yield advance


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "-:--"
    minutes, rest_s = divmod(int(seconds), 60)
    return f"{minutes}:{rest_s:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest_s:02d}"
