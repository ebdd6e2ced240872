"""Libraries that speak, fetch or take long unasked, held still; called before any of them is imported."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_QUANTISER, _FETCHER = "bitsandbytes", "kernels"
_REPORTER = "openvino_telemetry"


def import_openvino() -> ModuleType:
    """openvino, imported as `without_openvino_reports` does.

    Raises:
        ImportError: it is not installed.
    """
    with without_openvino_reports():
        return import_module("openvino")


@contextmanager
def without_openvino_reports() -> Iterator[None]:
    """Run a block in which openvino or its quantiser is imported or converts a model: both report their use over the
    network, from the first import on, unless their reporter is missing."""
    with _without(_REPORTER):
        yield


@contextmanager
def _without(name: str) -> Iterator[None]:
    """Run a block in which a package cannot be imported."""
    found = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment] # Python's way to say that it is not there
    try:
        yield
    finally:
        del sys.modules[name]
        if found is not None:
            sys.modules[name] = found


def defer_bitsandbytes() -> None:
    """Let peft import bitsandbytes, where it is installed, without loading it before something of it is used.

    Loading takes a second or two, which a model that is not quantised need not wait for. And on processors with
    bfloat16 it fetches compiled kernels from the hub meanwhile, or warns that it cannot: our quantised layers never
    come to them, and nothing is fetched and run that nobody asked for.
    """
    if _QUANTISER not in sys.modules and find_spec(_QUANTISER) is not None:
        sys.modules[_QUANTISER] = _Deferred(_QUANTISER)


@contextmanager
def without_deferred() -> Iterator[None]:
    """Run a block in which peft looks for kinds of layers: where bitsandbytes was not loaded, none is of its kinds."""
    if not isinstance(sys.modules.get(_QUANTISER), _Deferred):
        yield
        return
    from peft.tuners.lora import model as lora

    asked = {name: getattr(lora, name) for name in ("is_bnb_available", "is_bnb_4bit_available") if hasattr(lora, name)}
    for name in asked:
        setattr(lora, name, lambda: False)
    try:
        yield
    finally:
        for name, function in asked.items():
            setattr(lora, name, function)


class _Deferred(ModuleType):
    """Stands for a module until something of it is wanted."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = find_spec(name)
        self.__file__ = self.__spec__.origin if self.__spec__ else None

    def __getattr__(self, name: str) -> Any:
        if isinstance(sys.modules.get(_QUANTISER), _Deferred):
            del sys.modules[_QUANTISER]
            _load_quietly()
        module = import_module(_QUANTISER)
        value = getattr(module, name)
        self.__dict__.update(module.__dict__)  # for those who hold this one
        return value


def _load_quietly() -> None:
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    with _without(_FETCHER):
        import_module(_QUANTISER)
