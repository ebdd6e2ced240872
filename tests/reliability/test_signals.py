"""SIGTERM and Ctrl-C end a run with a checkpoint and the command that goes on, and it ends as if never stopped."""

import shlex
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from embedsmith.training.checkpoint import find_fault, newest_progress
from tests.reliability import jobs
from tests.reliability.jobs import Reference, copy_stage, run_result
from tests.reliability.killing import Command, Moment

SIGTERM, SIGINT = signal.SIGTERM, signal.SIGINT


@pytest.mark.parametrize(
    ("moment", "step"),
    [
        (Moment(jobs.STEP, 3, signal=SIGTERM), 3),
        (Moment(jobs.EVALUATION, 1, signal=SIGINT), 0),  # the one before the first step
        (Moment(jobs.CHECKPOINT, 30, signal=SIGTERM), 2),
    ],
)
def test_a_run_that_a_signal_stops_goes_on_exactly(
    moment: Moment, step: int, reference_of: Callable[[str], Reference], stage: Path
) -> None:
    reference = reference_of("train")
    folder = copy_stage(stage)
    command = Command(reference.job.arguments, folder=folder, kill_at=moment)
    assert command.wait() == 128 + moment.signal, command.said
    assert f"{moment.signal.name}: the run ends behind the step under way, with a checkpoint." in command.said
    assert command.said.endswith(
        f"Stopped by {moment.signal.name} after step {step} of 6; there is a checkpoint of it.\n"
        "Go on with:\n  embedsmith train --resume run\n"
    )
    assert (progress := newest_progress(folder / "run")) is not None
    assert progress.step == step
    assert not list((folder / "run").rglob("*.tmp"))
    command = Command(["train", "--resume", "run"], folder=folder)
    assert command.wait() == 0, command.said
    result = run_result(folder)
    assert all(find_fault(path) is None for path in (folder / "run" / "checkpoints").glob("step-*"))
    assert [name for name in {*result, *reference.result} if result.get(name) != reference.result.get(name)] == []


def test_a_sweep_that_a_signal_stops_goes_on_with_the_same_command(
    reference_of: Callable[[str], Reference], stage: Path
) -> None:
    reference = reference_of("sweep")
    folder = copy_stage(stage)
    command = Command(reference.job.arguments, folder=folder, kill_at=Moment(jobs.STEP, 6, signal=SIGTERM))
    assert command.wait() == 143, command.said
    *_, last = command.said.removesuffix("\n").split("\n")
    assert shlex.split(last) == ["embedsmith", *reference.job.arguments]
    command = Command(reference.job.arguments, folder=folder)
    assert command.wait() == 0, command.said
    assert reference.job.result(folder) == reference.result
