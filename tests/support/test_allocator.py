import os
import platform
import subprocess
import sys

import pytest

_PAGE_FAULTS = """
import resource
import torch
from embedsmith.support.allocator import keep_freed_memory
kept = keep_freed_memory()
for _ in range(20):
    torch.ones(16_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(16_000_000)
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")


def page_faults(**environment: str) -> tuple[bool, int]:
    """Whether memory was kept, and the page faults of taking and freeing 64 MB twenty times, in a fresh process."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "LD_PRELOAD"))}
    output = subprocess.run(
        [sys.executable, "-c", _PAGE_FAULTS], env={**own, **environment}, capture_output=True, text=True, check=True
    ).stdout
    kept, faults = map(int, output.split())
    return bool(kept), faults


@needs_glibc
def test_freed_memory_is_kept_unless_switched_off() -> None:
    kept, few = page_faults()
    off, many = page_faults(EMBEDSMITH_KEEP_FREED_MEMORY="0")
    assert (kept, off) == (True, False)
    assert few < many / 4


@needs_glibc
def test_settings_of_the_users_own_stand() -> None:
    assert not page_faults(MALLOC_ARENA_MAX="2")[0]
    assert page_faults(MALLOC_ARENA_MAX="2", EMBEDSMITH_KEEP_FREED_MEMORY="1")[0]


_LEFT_BEHIND = """
import psutil
import torch
from embedsmith.support.allocator import give_back_freed_memory, keep_freed_memory
assert keep_freed_memory()
resident = psutil.Process().memory_info
pieces = [torch.ones(250_000) for _ in range(400)]
above = torch.ones(1000)
full = resident().rss
del pieces
kept = resident().rss
give_back_freed_memory()
print(full - kept, full - resident().rss)
"""


@needs_glibc
def test_what_a_model_leaves_behind_is_given_back() -> None:
    """400 MB, with something in use above them."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "LD_PRELOAD"))}
    output = subprocess.run(
        [sys.executable, "-c", _LEFT_BEHIND], env=own, capture_output=True, text=True, check=True
    ).stdout
    before, after = map(int, output.split())
    assert before < 50e6 and after > 350e6
