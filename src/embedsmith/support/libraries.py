"""Libraries that speak or fetch unasked, held still; called before any of them is imported."""

import logging
import sys
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec

_FETCHER = "kernels"


def import_bitsandbytes_quietly() -> None:
    """Import bitsandbytes, where it is installed, before peft does, whether or not anything is quantised.

    On processors with bfloat16 it fetches compiled kernels from the hub while it is imported, or warns that it cannot.
    Our quantised layers never come to them, and nothing is fetched and run that nobody asked for.
    """
    if find_spec("bitsandbytes") is None or "bitsandbytes" in sys.modules:
        return
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    is_free = _FETCHER not in sys.modules
    if is_free:
        sys.modules[_FETCHER] = None  # type: ignore[assignment] # Python's way to say that it is not there
    try:
        with suppress(ImportError):  # peft does without it too
            import_module("bitsandbytes")
    finally:
        if is_free:
            del sys.modules[_FETCHER]
