"""Imports without garbage collection."""

import gc
import subprocess
import sys

import pytest

from embedsmith.support.imports import quick_imports

_SCRIPT = """
import gc
from embedsmith.support.imports import quick_imports
with quick_imports():
    assert not gc.isenabled()
    import torch
assert gc.isenabled()
print(gc.get_freeze_count() > 10_000)
"""


def test_what_comes_with_torch_is_never_looked_through_again() -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_what_was_there_before_is_collected_as_ever() -> None:
    import torch  # noqa: F401 (there before the block)

    before = gc.get_freeze_count()
    with quick_imports():
        assert not gc.isenabled()
    assert gc.isenabled() and gc.get_freeze_count() == before


@pytest.mark.parametrize("was_on", [True, False])
def test_a_failed_import_leaves_collection_as_it_was(was_on: bool) -> None:
    try:
        if not was_on:
            gc.disable()
        with pytest.raises(ImportError), quick_imports():
            import no_such_library  # noqa: F401
        assert gc.isenabled() is was_on
    finally:
        gc.enable()
