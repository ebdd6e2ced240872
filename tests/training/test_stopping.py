"""A signal while a run trains: what takes too long is given up, and goes on exactly; a second one ends at once."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from embedsmith.data.table import TripletTable
from embedsmith.training import loop, stopping
from embedsmith.training.checkpoint import newest_progress
from embedsmith.training.stopping import GivenUpError, Stopping
from tests.training.runs import adapter_bytes, read_losses, run_config, train

LONG_S = 20


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "GRACE_S", 0.05)


def _stop_and_take_long() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LONG_S)


def test_a_step_that_takes_too_long_is_given_up(
    tmp_path: Path, model_folders: dict[str, str], triplets: TripletTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random numbers that it had drawn are drawn again."""
    whole, stopped = run_config(tmp_path / "whole"), run_config(tmp_path / "stopped")
    train(whole, model_folders["llama"], triplets)
    calls: list[int] = []
    take_step = loop.take_step

    def take_long(*arguments: object, **named: object) -> object:
        calls.append(1)
        if len(calls) == 4:
            torch.rand(5)
            _stop_and_take_long()
        return take_step(*arguments, **named)

    started = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "take_step", take_long)
        outcome, _ = train(stopped, model_folders["llama"], triplets)
    assert time.monotonic() - started < LONG_S
    assert (outcome.signal, outcome.is_stopped, outcome.num_steps) == (signal.SIGTERM, True, 3)
    assert (progress := newest_progress(tmp_path / "stopped")) is not None
    assert progress.step == 3
    outcome, _ = train(stopped, model_folders["llama"], triplets, resume=True)
    assert (outcome.signal, outcome.is_stopped, outcome.num_steps) == (None, False, 8)
    assert adapter_bytes(tmp_path / "stopped") == adapter_bytes(tmp_path / "whole")
    assert read_losses(tmp_path / "stopped") == read_losses(tmp_path / "whole")


def test_an_evaluation_that_takes_too_long_comes_first_when_the_run_goes_on(
    tmp_path: Path, model_folders: dict[str, str], triplets: TripletTable
) -> None:
    class TakesLong(float):
        def __new__(cls) -> "TakesLong":
            _stop_and_take_long()
            return super().__new__(cls, 0.0)

    scores = [0.1, 0.2, 0.5, 0.3, 0.4]
    settings = {"eval_steps": "2"}
    whole, stopped = run_config(tmp_path / "whole", **settings), run_config(tmp_path / "stopped", **settings)
    train(whole, model_folders["llama"], triplets, scores=scores)
    scores_of = (TakesLong() if number == 2 else score for number, score in enumerate(scores))
    outcome, _ = train(stopped, model_folders["llama"], triplets, scores=scores_of)
    assert (outcome.signal, outcome.num_steps, outcome.best_step) == (signal.SIGTERM, 4, 2)
    outcome, _ = train(stopped, model_folders["llama"], triplets, scores=scores[2:], resume=True)
    assert (outcome.num_steps, outcome.best_step) == (8, 4)
    assert adapter_bytes(tmp_path / "stopped") == adapter_bytes(tmp_path / "whole")
    steps = [
        [(record["step"], record.get("dev_cosine_spearman")) for record in loop_metrics(tmp_path / name)]
        for name in ("whole", "stopped")
    ]
    assert steps[0] == steps[1]


def loop_metrics(run: Path) -> list[dict[str, object]]:
    from embedsmith.training.metrics import read_metrics

    return read_metrics(run / "metrics.jsonl")


def test_of_several_processes_none_gives_up_what_the_others_wait_for() -> None:
    with Stopping(is_alone=False) as listening:
        os.kill(os.getpid(), signal.SIGTERM)
        with listening.may_give_up():
            time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)  # the launcher passes on what the terminal has sent
    assert listening.signal is signal.SIGTERM


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C as a command in front has it; behind a shell's `&` it is ignored, in all processes that come of it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_alone_it_does_and_handlers_are_put_back() -> None:
    before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)]
    with Stopping(is_alone=True) as listening:
        os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # a second one ends the process
        with pytest.raises(GivenUpError), listening.may_give_up():
            time.sleep(LONG_S)
    assert listening.signal is signal.SIGINT
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)] == before


@pytest.mark.parametrize("is_alone", [True, False])
def test_a_second_signal_ends_at_once(is_alone: bool) -> None:
    program = (
        "import os, signal, time\n"
        "from embedsmith.training.stopping import Stopping\n"
        f"with Stopping(is_alone={is_alone}):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(1.1)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGTERM
    assert done.stderr == (
        "SIGTERM: the run ends behind the step under way, with a checkpoint. Once more ends it at once.\n"
    )
