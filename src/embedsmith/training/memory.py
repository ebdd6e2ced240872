"""How many tokens of a batch may keep what backward needs, going by the memory that is free.

The number never changes what is computed, only what is computed twice; see gradcache.py.
"""

from functools import cache
from pathlib import Path

import psutil
import torch

from embedsmith.model.embedder import Embedder
from embedsmith.training.gradcache import PIECE_TOKENS

_SHARE = 0.5
_CGROUP = Path("/sys/fs/cgroup")


def tokens_that_fit(embedder: Embedder) -> int:
    """Tokens for half of the memory that was free when first asked; at least one piece.

    Blocks that are not fused leave to autograd how much it keeps: there it is one piece.
    """
    piece = PIECE_TOKENS[embedder.device.type]
    if embedder.decoder is None:
        return piece
    return max(piece, int(_SHARE * _free_at_first(embedder.device) / embedder.decoder.saved_bytes_per_token))


def free_bytes(device: torch.device) -> int:
    """Memory that can be had on a device; a container's own limit counts, swap does not."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = int(psutil.virtual_memory().available)
    return min(free, _free_in_container(_CGROUP) or free)


def _free_in_container(cgroup: Path) -> int | None:
    """What a control group (version 2) leaves, or None; its cached files can be let go of."""
    try:
        limit, used = (int((cgroup / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
        fields = dict(line.split() for line in (cgroup / "memory.stat").read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):  # no such control group, or "max": no limit
        return None
    return max(0, limit - used + int(fields.get("inactive_file", 0)))


@cache
def _free_at_first(device: torch.device) -> int:
    return free_bytes(device)
