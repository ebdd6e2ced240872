"""Memory that can still be had on a device, and letting go of what is no longer needed."""

import gc
from pathlib import Path

import psutil
import torch

_CGROUP = Path("/sys/fs/cgroup")


def free_bytes(device: torch.device) -> int:
    """Memory that can be had on a device.

    A container's own limit counts, swap does not; what torch keeps of a GPU's for its next tensors is free.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    free = int(psutil.virtual_memory().available)
    return min(free, _free_in_container(_CGROUP) or free)


def let_go() -> None:
    """Free what nothing refers to any more; models are full of circles, so they do not go by themselves.

    On a GPU what torch keeps for its next tensors goes back too, in the sizes that the next model wants it.
    """
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _free_in_container(cgroup: Path) -> int | None:
    """What a control group (version 2) leaves, or None; its cached files can be let go of."""
    try:
        limit, used = (int((cgroup / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
        fields = dict(line.split() for line in (cgroup / "memory.stat").read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):  # no such control group, or "max": no limit
        return None
    return max(0, limit - used + int(fields.get("inactive_file", 0)))
