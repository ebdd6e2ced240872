"""MODEL -> the folder or hub id that its files lie in. A built-in model and a GGUF file are converted on first use."""

import logging
from collections.abc import Callable
from typing import TypeVar

from embedsmith.model.loading.builtin import BUILTIN, find_installed, install_command
from embedsmith.model.loading.gguf import GgufFile, find_gguf, is_gguf
from embedsmith.support.errors import ModelError

T = TypeVar("T")
logger = logging.getLogger(__name__)


def with_source(model: str, load: Callable[[str], T]) -> T:
    """What `load` makes of the folder or hub id of MODEL's files; a damaged copy of our own is made anew.

    Raises:
        ModelError: the wheels of a built-in model are missing or damaged, or a GGUF file cannot be converted.
        OSError: the cache folder cannot be written.
    """
    if not is_converted(model):
        return load(model)
    file = _find_file(model)
    folder = file.convert()
    try:
        return load(str(folder))
    except ModelError as error:
        if file.is_whole():
            raise
        logger.warning("The copy of %s in %s is damaged: %s\nIt is made anew.", model, folder, error)
    return load(str(file.convert(anew=True)))


def source_of(model: str) -> str:
    """The folder or hub id of MODEL's files; errors as `with_source`."""
    return with_source(model, lambda source: source)


def is_converted(model: str) -> bool:
    """Whether MODEL's files are converted before they are loaded."""
    return model in BUILTIN or is_gguf(model)


def _find_file(model: str) -> GgufFile:
    if model not in BUILTIN:
        return find_gguf(model)
    installed = find_installed(model)
    file = GgufFile(installed.pieces, name=model)
    if installed.sha256 and file.sha256 != installed.sha256:
        raise ModelError(
            f"The built-in model's file {installed.pieces[0]} is damaged: its SHA-256 is not its package's.\n"
            f"Install it with: {install_command(model)} --force-reinstall"
        )
    if installed.terms and not file.folder.exists():
        logger.warning("%s comes under terms of its own: %s", BUILTIN[model].title, installed.terms)
    return file
