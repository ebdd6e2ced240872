"""A disk with no room ends a command with what to do, and loses nothing that was saved.

Files may not grow here beyond a size, which anybody can ask for; a full file system needs the right to mount one.
"""

import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from embedsmith.model.embedder import Embedder
from embedsmith.support import files
from embedsmith.training.checkpoint import find_fault
from tests.reliability import jobs
from tests.reliability.disks import fill, make_room, small_disk
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


def test_a_run_on_a_disk_that_is_full_goes_on_exactly_once_there_is_room(
    reference_of: Callable[[str], Reference], stage: Path
) -> None:
    reference = reference_of("train")
    folder = copy_stage(stage)
    with small_disk(folder / "run"):
        command = Command(reference.job.arguments, folder=folder, kill_at=Moment(jobs.STEP, 3, signal=signal.SIGTERM))
        assert command.wait() == 143, command.said
        fill(folder / "run", room=BETWEEN_WEIGHTS_AND_OPTIMIZER)
        command = Command(["train", "--resume", "run"], folder=folder)
        assert command.wait() == 2, command.said
        assert "cannot be written: No space left on device.\n" in command.said
        assert command.said.endswith("then go on with:\n  embedsmith train --resume run\n")
        assert "Traceback" not in command.said
        assert not list((folder / "run").rglob(".*.tmp"))
        make_room(folder / "run")
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


@contextmanager
def _files_of_at_most(num_bytes: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_a_model_writes_itself_fails_the_same_way(tmp_path: Path, model_folders: dict[str, str]) -> None:
    model = Embedder.load(model_folders["llama"], precision="fp32", fused=False)
    with pytest.raises(OSError, match="File too large") as caught, _files_of_at_most(BETWEEN_WEIGHTS_AND_OPTIMIZER):
        model.save(tmp_path / "model")
    assert files.is_disk_full(caught.value)
    assert list(tmp_path.iterdir()) == []


WRITERS: dict[str, Callable[[Embedder, Path], Any]] = {
    "safetensors": lambda model, folder: save_file({"x": torch.zeros(1000)}, folder / "x.safetensors"),
    "tokenizers": lambda model, folder: model.backbone.tokenizer.save_pretrained(folder),
    "transformers": lambda model, folder: model.backbone.model.save_pretrained(folder),
}


@pytest.mark.parametrize("library", WRITERS)
def test_what_a_library_writes_fails_the_same_way(tmp_path: Path, model_folders: dict[str, str], library: str) -> None:
    """They raise errors of their own, which are no `OSError`."""
    model = Embedder.load(model_folders["llama"], precision="fp32", fused=False)
    with (
        pytest.raises(OSError, match="File too large") as caught,
        _files_of_at_most(1000),
        files.atomic_folder(tmp_path / "made") as folder,
    ):
        WRITERS[library](model, folder)
    assert files.is_disk_full(caught.value)
    assert caught.value.filename == str(tmp_path / "made")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("is_full", [True, False])
def test_a_library_that_does_not_say_why_is_asked_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_full: bool
) -> None:
    """As openvino's, in the words that it has on a full file system."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=4096 if is_full else 2**30))
    expected = OSError if is_full else RuntimeError
    with pytest.raises(expected, match="iostream error"), files.atomic_folder(tmp_path / "made"):
        raise RuntimeError("basic_ios::clear: iostream error")


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
