"""How many tokens of a batch may keep what backward needs, going by the memory that is free.

On a CPU the number never changes what is computed, only what is computed twice; see gradcache.py. On a GPU it also
bounds the pieces where a whole one does not fit, which is said: sums are then formed in another order.
"""

import logging
from functools import cache
from typing import NamedTuple

import psutil
import torch

from embedsmith.model.embedder import Embedder
from embedsmith.support.free_memory import free_bytes
from embedsmith.training.budget import TokenBudget
from embedsmith.training.gradcache import PIECE_TOKENS

log = logging.getLogger(__name__)

_SHARE = 0.5
_LEAST_TOKENS = 512
_OPTIMIZER_BYTES = 12
"""Of a trained weight: its gradient and AdamW's two averages, float32; they come after the first step's forward."""
_PROBE = "the " * 64


def tokens_that_fit(embedder: Embedder) -> int:
    """Tokens that may keep what backward needs in a run that starts now.

    Cost: for blocks that are not fused, a forward of a short text.
    """
    device = embedder.device
    free = _free_for_run(device) - optimizer_bytes(embedder)
    return tokens_for(free, bytes_per_token=kept_bytes_per_token(embedder), device=device)


def tokens_for(free: int, *, bytes_per_token: int, device: torch.device) -> int:
    """Tokens for half of so many free bytes; on a CPU at least one piece.

    On a GPU where a piece does not fit it is a power of two from 512 on, so that a little more or less of free memory
    makes no other pieces.
    """
    piece = PIECE_TOKENS[device.type]
    num_tokens = int(_SHARE * max(0, free) / bytes_per_token)
    if device.type != "cuda" or num_tokens >= piece:
        return max(piece, num_tokens)
    bound = max(_LEAST_TOKENS, 1 << num_tokens.bit_length() >> 1)
    log.info(
        "A batch is computed in pieces of %s tokens, not of %s, for the %.1f GB that are free on %s; results differ by "
        "rounding alone.",
        *(f"{bound:,}", f"{piece:,}", free / 1e9, device),
    )
    return bound


def kept_bytes_per_token(embedder: Embedder) -> int:
    """What a forward keeps of one token for backward, all layers together, whichever way the model runs."""
    if embedder.decoder is not None:
        return embedder.decoder.saved_bytes_per_token
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no two of them have one number

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    packed = embedder.pack([_PROBE])
    with (
        torch.random.fork_rng(devices=[]),  # dropout draws a seed, and the run must not notice
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        embedder.dropout(is_on=True),
    ):
        embedder.hidden_states(packed)
    model = embedder.backbone.model
    weights = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    return sum(storage.nbytes() for key, storage in kept.items() if key not in weights) // packed.num_tokens


def optimizer_bytes(embedder: Embedder) -> int:
    """What gradients and optimizer will take of what is free before the first step."""
    return sum(
        _OPTIMIZER_BYTES * weight.numel() for weight in embedder.backbone.model.parameters() if weight.requires_grad
    )


def leave_room(budget: TokenBudget, *, num_tokens: int, bytes_per_token: int, device: torch.device) -> None:
    """Lower the bound of a run on a CPU before a step for which other processes have left too little memory.

    There, nobody raises an error: the system ends a process. Pieces stay what they are, and so does every bit.
    """
    if device.type == "cpu":
        budget.leave_room(
            num_tokens,
            bytes_per_token=bytes_per_token,
            available=free_bytes(device) + _resident_bytes() - _at_first(device).resident,
            least=PIECE_TOKENS["cpu"],
        )


def _free_for_run(device: torch.device) -> int:
    return free_bytes(device) if device.type == "cuda" else _at_first(device).free


class _Memory(NamedTuple):
    free: int
    resident: int


@cache
def _at_first(device: torch.device) -> _Memory:
    """When the process's first run began: what a run has freed stays with the process, and looks taken."""
    return _Memory(free_bytes(device), _resident_bytes())


def _resident_bytes() -> int:
    return int(psutil.Process().memory_info().rss)
