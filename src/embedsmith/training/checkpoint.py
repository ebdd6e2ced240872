"""Checkpoints that resume exactly: weights, optimizer, schedule position and random states, in safetensors and JSON.

A checkpoint is a folder `checkpoints/step-000100`, written under a temporary name and renamed: it is whole or absent.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from embedsmith.model.embedder import Embedder
from embedsmith.support import files
from embedsmith.support.errors import RunError

FOLDER = "checkpoints"


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        step: optimizer steps done; also the number of batches drawn.
        best: best development score so far, as `TaskResult.to_json` gives it, or None.
        best_step: the step it was reached at.
        num_tokens: tokens computed so far.
        elapsed_s: seconds of training so far.
    """

    step: int = 0
    best: dict[str, Any] | None = None
    best_step: int = 0
    num_tokens: int = 0
    elapsed_s: float = 0.0


def save_checkpoint(
    run_folder: Path,
    *,
    embedder: Embedder,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    projection: torch.nn.Parameter | None = None,
) -> None:
    """Write a checkpoint and drop the one before it.

    Args:
        run_folder: the run's.
        embedder: what is trained.
        optimizer: of its weights, and of the projection.
        progress: where the run stands.
        projection: the objective's, which is trained beside the weights and kept nowhere else.

    Raises:
        OSError: the disk is full; the checkpoint before stays.
    """
    folder = run_folder / FOLDER / f"step-{progress.step:06d}"
    previous = _checkpoints(run_folder)
    with files.atomic_folder(folder) as temporary:
        files.write_bytes(temporary / "weights.safetensors", save(_contiguous(embedder.trained.state)))
        files.write_bytes(temporary / "optimizer.safetensors", save(_contiguous(_flatten(optimizer))))
        if projection is not None:
            files.write_bytes(temporary / "projection.safetensors", save(_contiguous({"projection": projection})))
        files.write_bytes(temporary / "random.safetensors", save(_random_states()))
        files.write_json(temporary / "progress.json", asdict(progress))
    for old in previous:
        if old != folder:
            _remove(old)


def newest_step(run_folder: Path) -> int | None:
    """The step that a run would go on from; None where it holds no checkpoint."""
    checkpoints = _checkpoints(run_folder)
    return int(checkpoints[-1].name.removeprefix("step-")) if checkpoints else None


def remove_checkpoints(run_folder: Path) -> None:
    """Remove what a run would go on from; what it was made from stays known."""
    for folder in _checkpoints(run_folder):
        _remove(folder)


def load_checkpoint(
    run_folder: Path,
    *,
    embedder: Embedder,
    optimizer: torch.optim.Optimizer,
    projection: torch.nn.Parameter | None = None,
) -> Progress:
    """Set model, optimizer, projection and random states to the newest checkpoint.

    Raises:
        RunError: there is none, or it is damaged.
    """
    checkpoints = _checkpoints(run_folder)
    if not checkpoints:
        raise RunError(f"{run_folder} holds no checkpoint to resume from.\nStart the run anew in another folder.")
    folder = checkpoints[-1]
    try:
        progress = Progress(**json.loads((folder / "progress.json").read_text(encoding="utf-8")))
        embedder.trained.set_state(load_file(folder / "weights.safetensors"))
        if projection is not None:
            projection.data.copy_(load_file(folder / "projection.safetensors")["projection"])
        _unflatten(optimizer, load_file(folder / "optimizer.safetensors"))
        states = load_file(folder / "random.safetensors")
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise RunError(f"The checkpoint {folder} is damaged: {error}") from error
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])
    return progress


def _checkpoints(run_folder: Path) -> list[Path]:
    return sorted((run_folder / FOLDER).glob("step-*"))


def _remove(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def _contiguous(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _random_states() -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _flatten(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    return {
        f"{index}.{name}": value
        for index, entries in optimizer.state_dict()["state"].items()
        for name, value in entries.items()
    }


def _unflatten(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    # load_state_dict wants the groups too; they come from the recipe and are in place already.
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
