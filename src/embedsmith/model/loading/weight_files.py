"""A folder's files of weights, looked at before a network is built: whole, inside the folder, and enough of them.

Only their headers are read. transformers builds what config.json says and fills it later, so a width or a number of
layers out of all proportion would take the memory of the machine first. Cost: some 20 milliseconds.
"""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from embedsmith.model.loading.architecture import build_skeleton
from embedsmith.model.loading.checkpoint_files import read_object
from embedsmith.support import files
from embedsmith.support.errors import ModelError

AGAIN = "Download or save the model again."
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_MOST_PARAMETERS_A_BYTE = 8
"""Of quantised weights: one bit each."""
_FEW = 2**20
"""So many parameters too many cost nothing."""


def check_weight_files(source: str, *, config: Any) -> None:
    """Check the files of a folder; of a hub id, whose files its client checks, or of other files nothing is known.

    Args:
        source: the folder or hub id.
        config: the model's configuration.

    Raises:
        ModelError: a file is damaged or not there, the index names something outside of the folder, or config.json
            describes far more parameters than the files can hold.
    """
    folder = Path(source)
    paths = _find_files(folder) if folder.is_dir() else []
    if not paths:
        return
    num_tensors = sum(map(_count_tensors, paths))
    size_bytes = sum(path.stat().st_size for path in paths)
    weights = "the weights beside it"
    check_proportions(
        config, num_tensors=num_tensors, size_bytes=size_bytes, names=(str(folder / "config.json"), weights)
    )


def check_proportions(config: Any, *, num_tensors: int, size_bytes: int, names: tuple[str, str]) -> None:
    """Check that a configuration describes no more than there can be.

    Args:
        config: of the model.
        num_tensors: in its files.
        size_bytes: of its files.
        names: what the configuration and the files are called in messages.

    Raises:
        ModelError: it describes far more layers or parameters.
    """
    num_layers = getattr(config, "num_hidden_layers", 0)
    if num_layers > num_tensors:
        raise ModelError(
            f"{names[0]} names {num_layers:,} layers, and {names[1]} are {num_tensors:,} tensors.\n{AGAIN}"
        )
    num_parameters = _count_parameters(config)
    if num_parameters > _MOST_PARAMETERS_A_BYTE * size_bytes + _FEW:
        raise ModelError(
            f"{names[0]} describes {num_parameters:,} parameters, and {names[1]} are {size_bytes:,} bytes.\n{AGAIN}"
        )


def _find_files(folder: Path) -> list[Path]:
    if (folder / _SINGLE).is_file():
        return [folder / _SINGLE]
    index = folder / _INDEX
    if not index.is_file():
        return []
    named = read_object(index).get("weight_map")
    if not isinstance(named, dict):
        raise ModelError(f"{index} is damaged: it has no weight_map, which says where each tensor lies.\n{AGAIN}")
    names = sorted(set(map(str, named.values())))
    there = {path.name for path in folder.iterdir() if path.is_file()}
    for name in names:
        if name not in there:
            raise ModelError(f"{index} names {name!r:.60}, which is no file of that folder.\n{AGAIN}")
    return [folder / name for name in names]


def _count_tensors(path: Path) -> int:
    try:
        files.check_can_end(path)
        with safe_open(path, framework="pt") as file:
            return len(file.keys())
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} is damaged or cannot be read: {error}\n{AGAIN}") from error


def _count_parameters(config: Any) -> int:
    try:
        skeleton = build_skeleton(config, with_head=False)
    except Exception:  # values that no network can have: transformers says so in its own words
        return 0
    return sum(parameter.numel() for parameter in skeleton.parameters())
