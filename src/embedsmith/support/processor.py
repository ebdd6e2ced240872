"""How much of the processor the command line takes: threads for what it may use, and threads that wait give way.

Between two loops OpenMP's threads wait awake, for milliseconds by default, so that the next loop starts at once. Where
other processes want the same cores that time is theirs, and a thread that computes may have to wait for one that
waits: on 2 cores beside one busy process a training step took five times as long. Here they wait awake for a moment,
which is what the step's own pauses need, and then sleep. And they are as many as the process may use: the cores that it
is bound to, which OpenMP knows, and what its container is allowed, which it does not.

OpenMP reads its environment when torch loads it. So this is for the command line, before it does, and never for an
import; whatever the user has set stands. From Python, set `GOMP_SPINCOUNT` and `OMP_NUM_THREADS` yourself.

Sources: libgomp's manual (GOMP_SPINCOUNT, OMP_WAIT_POLICY), LLVM's OpenMP (KMP_BLOCKTIME, in milliseconds), the
kernel's documentation of control groups, version 2 (cpu.max).
"""

import math
import os
import sys
from collections.abc import MutableMapping
from pathlib import Path
from threading import Event

_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
# Turns of a waiting loop; some tens of microseconds (measured: `python -m benchmarks --parts busy`).
_TURNS_AWAKE = 3000
_IS_SHARED = Event()
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def share_processor(environment: MutableMapping[str, str] = os.environ) -> None:
    """Tell OpenMP, by its environment, how many threads to take and how long they wait awake.

    Nothing is told where torch is loaded already: it is too late.
    """
    if "torch" in sys.modules:
        return
    _IS_SHARED.set()
    if not any(name in environment for name in _WAITING):
        environment.update({"GOMP_SPINCOUNT": str(_TURNS_AWAKE), "KMP_BLOCKTIME": "1"})
    allowed = allowed_cores()
    if allowed and allowed < num_bound_cores():
        environment.setdefault("OMP_NUM_THREADS", str(allowed))


def is_shared() -> bool:
    """Whether `share_processor` was asked for in this process."""
    return _IS_SHARED.is_set()


def num_bound_cores() -> int:
    """Cores that the process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def allowed_cores(*, root: Path = _CGROUPS, own: Path = _OWN_CGROUP) -> int | None:
    """Cores' worth of time that control groups allow the process, rounded up; None: no limit is known."""
    try:
        lines = own.read_text(encoding="utf-8").split("\n")
    except OSError:
        return None
    name = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    # The group's own limit, and those of the groups that it lies in. A container may not see them under this name.
    folders = [root, *(root.joinpath(*Path(name).parts[:depth]) for depth in range(1, len(Path(name).parts) + 1))]
    limits = [limit for folder in folders if (limit := _limit_of(folder))]
    return max(1, math.ceil(min(limits))) if limits else None


def _limit_of(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        return int(quota) / int(period)
    except (OSError, ValueError):  # no such group, or "max": no limit
        return None
