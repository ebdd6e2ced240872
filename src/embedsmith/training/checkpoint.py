"""Checkpoints that resume exactly: weights, optimizer, schedule position and random states, in safetensors and JSON.

A checkpoint is a folder `checkpoints/step-000100`, written under a temporary name, flushed to disk and renamed: it is
whole or absent. Disks and copies are not always as good: `SHA256SUMS` in it (as `sha256sum --check` reads it) tells
whether it still is what was written, and the last ones are kept, so that there is one before a damaged one.

`kept/` in it is the run's best adapter as it stood then, where that is another one than the step's own: a run that goes
on from here finds it as it was, whatever came later. Cost: writing and reading each twice, half a second a gigabyte.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from embedsmith.model.embedder import Embedder
from embedsmith.support import files
from embedsmith.support.errors import RunError, list_faults
from embedsmith.support.json_text import parse_json

log = logging.getLogger(__name__)

FOLDER = "checkpoints"
SUMS_FILE = "SHA256SUMS"
_KEPT = "kept"
_PROGRESS = "progress.json"
_LINE = re.compile(r"[0-9a-f]{64}  [\w./-]+")
RandomStates = dict[str, torch.Tensor]
"""Of torch's generators, by the kind of their device."""


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        step: optimizer steps done; also the number of batches drawn.
        best: best development score so far, as `TaskResult.to_json` gives it, or None.
        best_step: the step it was reached at.
        num_tokens: tokens computed so far.
        elapsed_s: seconds of training so far.
        awaits_evaluation: whether the evaluation that belongs behind this step has not been made.
        batches: where the batches stand behind this step, as `Batches.position` gives it; None in checkpoints of
            versions that kept no such thing.
    """

    step: int = 0
    best: dict[str, Any] | None = None
    best_step: int = 0
    num_tokens: int = 0
    elapsed_s: float = 0.0
    awaits_evaluation: bool = False
    batches: Mapping[str, Any] | None = None


def save_checkpoint(
    run_folder: Path,
    *,
    embedder: Embedder,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    projection: torch.nn.Parameter | None = None,
    random_states: RandomStates | None = None,
    limit: int = 2,
) -> None:
    """Write a checkpoint, then drop what is older than the last ones, and what is of later steps: it was damaged.

    Args:
        run_folder: the run's.
        embedder: what is trained.
        optimizer: of its weights, and of the projection.
        progress: where the run stands.
        projection: the objective's, which is trained beside the weights and kept nowhere else.
        random_states: as `random_states` gives them; None: as they are now.
        limit: how many are kept, this one included.

    Raises:
        OSError: the disk is full; those before stay.
    """
    folder = run_folder / FOLDER / f"step-{progress.step:06d}"
    with files.atomic_folder(folder) as temporary:
        _write_tensors(temporary / "weights.safetensors", embedder.trained.state)
        _write_tensors(temporary / "optimizer.safetensors", _flatten(optimizer))
        if projection is not None:
            _write_tensors(temporary / "projection.safetensors", {"projection": projection})
        _write_tensors(temporary / "random.safetensors", random_states or read_random_states())
        files.write_json(temporary / _PROGRESS, asdict(progress))
        kept = run_folder / embedder.trained.folder_name
        if progress.best_step < progress.step and kept.is_dir():
            files.copy_folder(kept, temporary / _KEPT)
        files.write_text(temporary / SUMS_FILE, _sums_of(temporary))
    checkpoints = _checkpoints(run_folder)
    for later in checkpoints[checkpoints.index(folder) + 1 :]:
        files.remove_folder(later)
    _drop_older(run_folder, folder, limit=limit)


def _drop_older(run_folder: Path, newest: Path, *, limit: int) -> None:
    """Remove what is older than the last ones up to the newest that counts."""
    checkpoints = _checkpoints(run_folder)
    for old in checkpoints[: max(0, checkpoints.index(newest) - limit + 1)]:
        files.remove_folder(old)


def newest_progress(run_folder: Path) -> Progress | None:
    """Where a run would go on from; None where it holds no checkpoint that is whole.

    Raises:
        RunError: the newest of them cannot be read, as one of another version.
    """
    whole = (one for one in reversed(_checkpoints(run_folder)) if find_fault(one) is None)
    if newest := next(whole, None):
        try:
            return _read_progress(newest)
        except (OSError, ValueError, TypeError) as error:
            raise RunError(f"{newest / _PROGRESS} cannot be read: {error}\nRemove {newest}.") from error
    return None


def _read_progress(checkpoint: Path) -> Progress:
    return Progress(**parse_json(files.read_text(checkpoint / _PROGRESS)))


def has_checkpoints(run_folder: Path, *, from_step: int = 0) -> bool:
    """Whether a run has any of this step or a later one, whole or damaged; each has one of its start."""
    return any(_step_of(one) >= from_step for one in _checkpoints(run_folder))


def remove_checkpoints(run_folder: Path) -> None:
    """Remove what a run would go on from; what it was made from stays known."""
    for folder in _checkpoints(run_folder):
        files.remove_folder(folder)


def load_checkpoint(
    run_folder: Path,
    *,
    embedder: Embedder,
    optimizer: torch.optim.Optimizer,
    projection: torch.nn.Parameter | None = None,
    writes: bool = True,
    limit: int = 2,
) -> Progress:
    """Set model, optimizer, projection, random states and the best adapter to the newest checkpoint that is whole.

    One that is not is told of, and the one before is taken.

    Args:
        run_folder: the run's.
        embedder: what is trained.
        optimizer: of its weights, and of the projection.
        projection: the objective's, if it has one.
        writes: whether this process writes the run's files: it puts the best adapter back, and removes what a kill kept
            it from removing.
        limit: as `save_checkpoint`.

    Raises:
        RunError: there is none, or none is whole.
    """
    checkpoints = _checkpoints(run_folder)
    if not checkpoints:
        raise RunError(f"{run_folder} holds no checkpoint to resume from.\nStart the run anew in another folder.")
    faults: list[str] = []
    for folder in reversed(checkpoints):
        fault = find_fault(folder)
        if not fault:
            try:
                progress = _load(folder, embedder=embedder, optimizer=optimizer, projection=projection)
            except torch.OutOfMemoryError:
                raise
            except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
                fault = str(error)
        if not fault:
            _say(faults, taken=folder)
            if writes:
                _put_back_kept(run_folder, folder, embedder=embedder, progress=progress)
                _drop_older(run_folder, folder, limit=limit)
            return progress
        faults.append(f"The checkpoint {folder} is damaged: {fault}")
    raise RunError(
        list_faults("No checkpoint is whole:", faults, advice="Start the run anew in another folder.")
        if len(faults) > 1
        else f"{faults[0]}\nStart the run anew in another folder."
    )


def _say(faults: list[str], *, taken: Path) -> None:
    for fault in faults:
        log.warning("%s", fault)
    if faults:
        log.warning("The run goes on from the one before, %s.", taken)
    if not (taken / SUMS_FILE).exists():
        log.warning("%s was written by an earlier version, without checksums: it is taken as it is.", taken)


def find_fault(checkpoint: Path) -> str | None:
    """What of a checkpoint is not as it was written; None: it is whole, or of a version that kept no checksums."""
    try:
        lines = files.read_text(checkpoint / SUMS_FILE).removesuffix("\n").split("\n")
        if not all(_LINE.fullmatch(line) for line in lines):
            return f"{SUMS_FILE} holds something else than checksums"
        sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        there = {path.relative_to(checkpoint).as_posix(): path for path in _files_of(checkpoint)}
        if lost := sorted(sums.keys() - there.keys()):
            return f"{lost[0]}, which {SUMS_FILE} names, is missing"
        if unknown := sorted(there.keys() - sums.keys()):
            return f"{SUMS_FILE} does not name {unknown[0]}"
        for name, path in there.items():
            if files.read_digest(path) != sums[name]:
                return f"{name} ({path.stat().st_size:,} bytes) does not fit its checksum in {SUMS_FILE}"
    except FileNotFoundError:
        return None if _is_of_earlier_version(checkpoint) else f"{SUMS_FILE} is missing"
    except (OSError, ValueError) as error:
        return f"{SUMS_FILE}: {error}"
    return None


def _is_of_earlier_version(checkpoint: Path) -> bool:
    try:
        progress = parse_json(files.read_text(checkpoint / _PROGRESS))
    except (OSError, ValueError):
        return False
    return isinstance(progress, dict) and "awaits_evaluation" not in progress


def _files_of(checkpoint: Path) -> list[Path]:
    return [path for path in sorted(checkpoint.rglob("*")) if path.is_file() and path.name != SUMS_FILE]


def _sums_of(checkpoint: Path) -> str:
    return "".join(
        f"{files.read_digest(path)}  {path.relative_to(checkpoint).as_posix()}\n" for path in _files_of(checkpoint)
    )


def _load(
    folder: Path,
    *,
    embedder: Embedder,
    optimizer: torch.optim.Optimizer,
    projection: torch.nn.Parameter | None,
) -> Progress:
    progress = _read_progress(folder)
    states = load_file(folder / "random.safetensors")
    embedder.trained.set_state(load_file(folder / "weights.safetensors"))
    if projection is not None:
        projection.data.copy_(load_file(folder / "projection.safetensors")["projection"])
    _unflatten(optimizer, load_file(folder / "optimizer.safetensors"))
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])
    return progress


def _put_back_kept(run_folder: Path, checkpoint: Path, *, embedder: Embedder, progress: Progress) -> None:
    """The run's best adapter as it was at the checkpoint."""
    target = run_folder / embedder.trained.folder_name
    if progress.best_step and progress.best_step == progress.step:
        embedder.save(target)
    elif (checkpoint / _KEPT).is_dir():
        with files.atomic_folder(target) as temporary:
            files.copy_folder(checkpoint / _KEPT, temporary)


def _checkpoints(run_folder: Path) -> list[Path]:
    found = (path for path in (run_folder / FOLDER).glob("step-*") if path.name.removeprefix("step-").isdigit())
    return sorted(found, key=_step_of)


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def _write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    files.write_bytes(path, save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))


def read_random_states() -> RandomStates:
    """The states of torch's generators as they are now."""
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
