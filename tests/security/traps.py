"""Files that write a marker as soon as somebody lets them run: pickles, program code, tags and templates.

`spring` opens each the naive way, by which a test sees that the trap works at all.
"""

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml


class Trap:
    """Writes the marker when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> Any:
        return Path.touch, (Path(self.marker),)


PICKLES = (
    *("pytorch_model.bin", "adapter_model.bin", "training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth"),
    *("model.pt", "model.pkl", "vocab.pkl", "tokenizer.pkl", "data.pickle", "weights.ckpt", "consolidated.00.pth"),
    *("vectors.npy", "vectors.npz", "embeddings.npy"),
)
"""Names under which others keep pickles."""
MODULES = (
    *("evil", "modeling_llama", "configuration_llama", "tokenization_llama", "custom_generate/generate"),
    *("__init__", "setup", "conftest", "sitecustomize"),
)
"""Names under which others look for program code."""
JINJA = "{{{{ cycler.__init__.__globals__.os.system({command!r}) }}}}"


def pickled(name: str, marker: Path) -> bytes:
    """A pickle as the kind of file that a name's end says."""
    if name.endswith((".npy", ".npz")):
        array = np.empty(1, dtype=object)
        array[0] = Trap(marker)
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=True) if name.endswith(".npy") else np.savez(buffer, a=array)
        return buffer.getvalue()
    if name.endswith((".pkl", ".pickle")):
        return pickle.dumps(Trap(marker))
    buffer = io.BytesIO()
    torch.save({"model.norm.weight": Trap(marker)}, buffer, _use_new_zipfile_serialization=not name.endswith(".ckpt"))
    return buffer.getvalue()


def program(marker: Path) -> str:
    """A module that springs as it is imported, whatever is asked of it."""
    return f"from pathlib import Path\nPath({str(marker)!r}).touch()\n\n\ndef __getattr__(name):\n    return object\n"


def tagged(marker: Path) -> str:
    """A value in YAML."""
    return f"!!python/object/apply:os.system ['touch {marker}']"


def template(marker: Path) -> str:
    """A template of Jinja."""
    return JINJA.format(command=f"touch {marker}")


def arm(folder: Path, marker: Path) -> None:
    """Put every pickle and every module into a folder, beside what it holds."""
    for name in PICKLES:
        (folder / name).write_bytes(pickled(name, marker))
    for name in MODULES:
        path = folder / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(program(marker))


def spring(folder: Path, marker: Path) -> dict[str, bool]:
    """Open everything as who trusts it does; what -> whether the marker was there then."""
    import jinja2

    naive: dict[str, Callable[[], object]] = {}
    for name in PICKLES:
        path = folder / name
        if name.endswith((".npy", ".npz")):
            naive[name] = lambda path=path: _all_of(np.load(path, allow_pickle=True))
        elif zipfile.is_zipfile(path) or name.endswith(".ckpt"):
            naive[name] = lambda path=path: torch.load(path, weights_only=False)
        else:
            naive[name] = lambda path=path: pickle.loads(path.read_bytes())
    for name in MODULES:
        naive[f"{name}.py"] = lambda name=name: exec((folder / f"{name}.py").read_text(), {})
    naive["YAML"] = lambda: yaml.unsafe_load(tagged(marker))
    naive["Jinja"] = lambda: jinja2.Environment().from_string(template(marker)).render()
    sprung = {}
    for name, opens in naive.items():
        opens()
        sprung[name] = marker.exists()
        marker.unlink(missing_ok=True)
    return sprung


def _all_of(loaded: Any) -> object:
    return [loaded[name] for name in loaded.files] if hasattr(loaded, "files") else loaded
