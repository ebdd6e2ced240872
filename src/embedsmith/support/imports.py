"""Large libraries imported without garbage collection, which would look through all they make again and again."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import in the block, as the command line does before its verbs: a fifth faster for torch, transformers and peft.

    If torch comes with it, what is there at the end, modules and functions for the most part, is left out of every
    later collection, too (`gc.freeze`). If it was there before, so may models be, which are to be collected one day.
    """
    was_on, had_torch = gc.isenabled(), "torch" in sys.modules
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
    if "torch" in sys.modules and not had_torch:
        gc.freeze()
