"""The states after a run's last evaluations, in its folder, and their average (LAWA, Kaddour 2022, arXiv 2209.14981).

Each is a folder `late/step-000100` as `Embedder.save` writes it, so that every command takes it as a MODEL. Which steps
they are is known beforehand, so a run that is resumed writes the same ones. Disk: an adapter or a model each.
"""

from collections.abc import Sequence
from pathlib import Path

from embedsmith.model.averaging import take_mean
from embedsmith.model.embedder import Embedder
from embedsmith.support.errors import RunError

LATE_FOLDER = "late"


def keep_state(run_folder: Path, *, embedder: Embedder, step: int) -> None:
    """Write what is trained as it stands after a step."""
    embedder.save(_folder(run_folder, step))


def take_average(run_folder: Path, *, embedder: Embedder, steps: Sequence[int]) -> None:
    """Set what is trained to the average of the states kept after these steps.

    Raises:
        RunError: one is not there any more.
        ModelError: one is damaged.
    """
    folders = [_folder(run_folder, step) for step in steps]
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        raise RunError(
            f"{missing[0]} is not there, a state that the run's average needs.\n"
            "Put it back, or start the run anew in another folder."
        )
    take_mean(embedder, folders)


def _folder(run_folder: Path, step: int) -> Path:
    return run_folder / LATE_FOLDER / f"step-{step:06d}"
