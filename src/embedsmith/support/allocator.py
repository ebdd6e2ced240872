"""glibc's allocator told to keep what is freed: a training step frees and takes the same blocks over and over.

By default glibc returns large blocks to the system at once and pays for every page of them again at the next step;
that is about a tenth of a CPU step. The settings are the process's own, so only the command line applies them, never
an import; they end with the process. `EMBEDSMITH_KEEP_FREED_MEMORY=0` switches them off, and so does any `MALLOC_...`
or `LD_PRELOAD` of the user's own, who has then chosen an allocator or its settings.

A model that has moved to a GPU leaves its copy behind, which `give_back_freed_memory` hands to the system.

Source: mallopt(3), malloc_trim(3).
"""

import ctypes
import os
import sys

SWITCH = "EMBEDSMITH_KEEP_FREED_MEMORY"
# Parameters of mallopt, from malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_NEVER = 2**31 - 1
_GROW_BY = 64 * 2**20


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory for the next step; returns whether it does.

    False: not glibc on Linux, switched off, or the user's own choice stands.
    """
    chosen = os.environ.get(SWITCH)
    is_users = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")) for name in os.environ)
    if chosen == "0" or (is_users and chosen is None):
        return False
    library = _glibc()
    if library is None:
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _GROW_BY))
    return all(library.mallopt(parameter, value) == 1 for parameter, value in settings)


def give_back_freed_memory() -> None:
    """Hand what is free back to the system once, whatever glibc was told to keep; nothing where it is not glibc."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    has_all = all(hasattr(library, name) for name in ("gnu_get_libc_version", "mallopt", "malloc_trim"))
    return library if has_all else None
