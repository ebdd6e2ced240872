"""A disk with no room ends a command with what to do, and loses nothing that was saved: here files may not grow."""

import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from embedsmith.model.embedder import Embedder
from embedsmith.support import files
from embedsmith.training.checkpoint import find_fault
from tests.reliability import jobs
from tests.reliability.jobs import Reference, copy_stage, run_result
from tests.reliability.killing import Command, Moment

BETWEEN_WEIGHTS_AND_OPTIMIZER = 30_000
"""Bytes, where an adapter has 23,000 and its optimizer's state 46,000."""

SMALLER_THAN_A_SHARD = 4_000
"""Bytes, where the manifest has fewer and a shard of 64 vectors in int8 more."""


def test_a_run_without_room_for_a_checkpoint_goes_on_exactly(
    reference_of: Callable[[str], Reference], stage: Path
) -> None:
    reference = reference_of("train")
    folder = copy_stage(stage)
    command = Command(reference.job.arguments, folder=folder, kill_at=Moment(jobs.STEP, 3, signal=signal.SIGTERM))
    assert command.wait() == 143, command.said
    command = Command(["train", "--resume", "run"], folder=folder, limit_bytes=BETWEEN_WEIGHTS_AND_OPTIMIZER)
    assert command.wait() == 2
    assert "The disk is full: " in command.said
    assert "/optimizer.safetensors cannot be written: File too large.\n" in command.said
    assert command.said.endswith("then go on with:\n  embedsmith train --resume run\n")
    assert "Traceback" not in command.said
    checkpoints = sorted((folder / "run" / "checkpoints").glob("step-*"))
    assert [path.name for path in checkpoints] == ["step-000002", "step-000003"]
    assert all(find_fault(path) is None for path in checkpoints)
    assert not list((folder / "run").rglob(".*.tmp"))
    command = Command(["train", "--resume", "run"], folder=folder)
    assert command.wait() == 0, command.said
    assert run_result(folder) == reference.result


def test_a_run_that_has_no_room_at_all_leaves_nothing(reference_of: Callable[[str], Reference], stage: Path) -> None:
    arguments = reference_of("train").job.arguments
    folder = copy_stage(stage)
    command = Command(
        [*arguments, "--adapter.method", "full"], folder=folder, limit_bytes=BETWEEN_WEIGHTS_AND_OPTIMIZER
    )
    assert command.wait() == 2
    assert "/weights.safetensors cannot be written: File too large.\n" in command.said
    assert "had taken no step that is saved" in command.said
    assert not (folder / "run").exists()


def test_what_safetensors_writes_itself_fails_the_same_way(tmp_path: Path, model_folders: dict[str, str]) -> None:
    model = Embedder.load(model_folders["llama"], precision="fp32", fused=False)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (BETWEEN_WEIGHTS_AND_OPTIMIZER, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            model.save(tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert files.is_disk_full(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_corpus_without_room_goes_on_with_the_shards_that_it_has(
    reference_of: Callable[[str], Reference], stage: Path
) -> None:
    reference = reference_of("encode, shards")
    folder = copy_stage(stage)
    command = Command(reference.job.arguments, folder=folder, limit_bytes=SMALLER_THAN_A_SHARD)
    assert command.wait() == 2
    assert "The disk is full: " in command.said
    assert "/out/shards/000000.parquet cannot be written: File too large." in command.said
    assert "Traceback" not in command.said
    assert not list((folder / "out").rglob(".*.tmp"))
    command = Command(reference.job.arguments, folder=folder)
    assert command.wait() == 0, command.said
    assert reference.job.result(folder) == reference.result
