"""Progress on a terminal and in a log file."""

import io
import time

import pytest
from rich.console import Console

from embedsmith.support.display import TrainingDisplay, corpus_progress, encoding_progress


def _console(*, is_terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=is_terminal, width=150)


def _run(console: Console) -> str:
    with TrainingDisplay(console, max_steps=40) as display:
        display.update({"step": 0, "dev_cosine_spearman": 0.25, "dev_ci95": [0.2, 0.3], "elapsed_s": 1.0})
        for step in range(1, 41):
            display.update({"step": step, "loss": 1 / step, "tokens_per_s": 900.0, "elapsed_s": 1.0 + 2 * step})
    return console.file.getvalue()


def test_a_log_file_gets_a_line_now_and_then() -> None:
    text = _run(_console(is_terminal=False))
    assert "step 0: dev Spearman 25.0 [20.0, 30.0]" in text
    assert "step 20/40  loss 0.050  900 tokens/s  0:40 left  dev 25.0" in text
    assert len(text.splitlines()) == 21


def test_a_terminal_gets_a_live_line() -> None:
    text = _run(_console(is_terminal=True))
    assert "40/40" in text
    assert "900 tokens/s" in text


def test_encoding_names_its_tasks() -> None:
    console = _console(is_terminal=False)
    with encoding_progress(console) as (start, advance):
        start("STS12")
        advance(10)
    assert "STS12 ..." in console.file.getvalue()


def test_a_corpus_shows_its_rate_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: seconds[0])
    console = _console(is_terminal=False)
    with corpus_progress(console, num_texts=1_000_000, num_done=500_000) as advance:
        for _ in range(4):  # what was there before counts for no rate
            seconds[0] += 1000
            advance(50_000)
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "550,000 of 1,000,000 texts, 50 a second, 2:30:00 left"
    assert lines[3] == "700,000 of 1,000,000 texts, 50 a second, 1:40:00 left"
    assert len(lines) == 4
