"""What files a checkpoint or adapter has, in a local folder or on the hub, and what to do about pickled weights."""

import json
import shlex
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers.utils import cached_file

from embedsmith.model.loading.shipped import find_shipped
from embedsmith.support import files
from embedsmith.support.errors import ModelError
from embedsmith.support.json_text import parse_json

SETTINGS_FILE = "embedding.json"
"""How a text becomes a vector, in the folder of a run, an adapter or an export of ours."""
_RUN_FILE = "run.yaml"  # in the folder of every run
_SHOWN_RUNS = 5
_CONVERSION = """\
from glob import glob
from safetensors.torch import save_file
from torch import load
folder = {folder}
tensors = {{}}
for file in sorted(glob(folder + "/{pattern}")):
    tensors.update(load(file, map_location="cpu", weights_only=True))
save_file({{key: value.clone() for key, value in tensors.items()}}, folder + "/{target}", {{"format": "pt"}})"""


def why_missing(model: str) -> str | None:
    """Of a name that can be a folder's alone, which is not there, what to say; None: it is there, or may be the hub's.

    `runs/tuned` may be a repository, too; beside other runs it is taken for a folder, so that nobody waits for a hub
    on account of a slip of the pen.
    """
    path = Path(model)
    try:
        if path.exists():
            return None
        if model.startswith((".", "/", "~")) or model.count("/") > 1:
            return "there is no such folder."
        if "/" not in model:
            return None
        runs = sorted(file.parent.name for file in path.parent.glob(f"*/{_RUN_FILE}"))
    except (OSError, ValueError):
        return None  # no name that a folder can have
    more = ", ..." if len(runs) > _SHOWN_RUNS else "."
    return f"there is no such folder; {path.parent} has {', '.join(runs[:_SHOWN_RUNS])}{more}" if runs else None


def find_file(source: str, name: str) -> Path | None:
    """A file of a folder, or of a hub repository (downloaded unless the hub's cache has it); None: not there."""
    folder = find_shipped(source) or Path(source)
    try:
        if folder.is_dir():
            return folder / name if (folder / name).is_file() else None
    except OSError:
        return None  # a name longer than names can be
    if why_missing(source):
        return None
    try:
        found = cached_file(
            source,
            name,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            _raise_exceptions_for_gated_repo=False,
        )
    except (OSError, ValueError):
        return None  # no such repository; who needs it says so with more words
    return Path(found) if found else None


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file of names and values; raises ModelError where it is damaged."""
    try:
        values = parse_json(files.read_text(path))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is damaged: {error}\nGet the file again.") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path} is damaged: it holds no table of names and values.\nGet the file again.")
    return values


def tensor_files(source: str) -> list[Path]:
    """A checkpoint's safetensors files; none where it has no such files.

    Raises:
        OSError, ValueError, KeyError: their index is damaged.
    """
    if single := find_file(source, "model.safetensors"):
        return [single]
    if (index := find_file(source, "model.safetensors.index.json")) is None:
        return []
    found = [find_file(source, name) for name in sorted(set(parse_json(files.read_text(index))["weight_map"].values()))]
    return [path for path in found if path]


def tensor_kinds(source: str) -> dict[str, str]:
    """The tensors of a checkpoint's safetensors files and their number formats as the files say them (`F32`, `I8` ...).

    Raises:
        SafetensorError, OSError, ValueError, KeyError: the files are damaged; who loads their weights says so first.
    """
    kinds = {}
    for path in tensor_files(source):
        with safe_open(path, framework="pt") as file:
            kinds.update({key: file.get_slice(key).get_dtype() for key in file.keys()})  # noqa: SIM118
    return kinds


def conversion_advice(source: str, *, is_adapter: bool = False) -> str:
    """How a user turns pickled weights into safetensors, as commands to run knowingly; they unpickle tensors only."""
    is_local = Path(source).is_dir()
    folder = source if is_local else source.rsplit("/", 1)[-1]
    pattern, target = (
        ("adapter_model.bin", "adapter_model.safetensors")
        if is_adapter
        else ("pytorch_model*.bin", "model.safetensors")
    )
    program = _CONVERSION.format(folder=json.dumps(folder), pattern=pattern, target=target)
    download = "" if is_local else f"hf download {shlex.quote(source)} --local-dir {shlex.quote(folder)}\n"
    return (
        "embedsmith opens no pickled weights (.bin). If you trust where they come from, write them as safetensors "
        f"once, then name the folder:\n{download}python -c {shlex.quote(program)}"
    )
