"""How many tokens keep what backward needs at one time, and what happens where memory runs out all the same.

    compute(max_tokens)  --out of memory-->  let go of all of it  -->  compute(half as many)  ...

The bound decides what is computed twice and no more than that, so a step that is repeated has the result it would have
had. A bound below a piece makes smaller pieces: then sums are formed in another order, and results agree within
rounding.
"""

import logging
from collections.abc import Callable
from typing import TypeVar

from embedsmith.model.embedder import Embedder
from embedsmith.support.allocator import give_back_freed_memory
from embedsmith.support.errors import is_out_of_memory
from embedsmith.support.free_memory import let_go

log = logging.getLogger(__name__)

_LEAST_TOKENS = 64
"""Below it what a step keeps is no longer what takes the memory."""

T = TypeVar("T")


class TokenBudget:
    """The bound of a run: it only ever falls.

    Attributes:
        max_tokens: tokens that keep what backward needs at one time.
    """

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens

    def leave_room(self, num_tokens: int, *, bytes_per_token: int, available: int, least: int) -> None:
        """Keep no more tokens than there is memory for, where other processes have taken some since the run began.

        Args:
            num_tokens: of the step to come.
            bytes_per_token: what is kept of each.
            available: bytes that it may take.
            least: tokens, from which on there is no halving.
        """
        bound = min(self.max_tokens, num_tokens)
        while bound > least and bound * bytes_per_token > available:
            self._halve(bound, why="Other processes have taken the memory that a step needs")
            bound = self.max_tokens

    def run(self, compute: Callable[[int], T], *, num_tokens: int) -> T:
        """What `compute(max_tokens)` returns; again with half as many tokens where memory ran out, and so on.

        Args:
            compute: may be called again; whatever it has changed by then, it begins anew.
            num_tokens: of what it computes: a bound above this is none.

        Raises:
            RuntimeError, MemoryError: as raised, where so few tokens are left that they are not what takes the memory.
        """
        while True:
            try:
                return compute(self.max_tokens)
            except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
                bound = min(self.max_tokens, num_tokens)
                if not is_out_of_memory(error) or bound <= _LEAST_TOKENS:
                    raise
            # Not within the except clause: the error holds the frames in which it happened, and all their tensors.
            self._halve(bound, why="Memory ran out in a step")
            let_go()
            give_back_freed_memory()

    def _halve(self, bound: int, *, why: str) -> None:
        self.max_tokens = max(_LEAST_TOKENS, bound // 2)
        log.warning(
            "%s: from now on %s tokens at one time keep what backward needs, not %s, and what lies beyond is computed "
            "twice. Results are the same, steps take longer.",
            why,
            f"{self.max_tokens:,}",
            f"{bound:,}",
        )


class KeptGradients:
    """The gradients of what is trained as they are now, for a pass over the texts that may have to begin anew.

    Between steps there are none; where a caller adds up several batches, they are copied.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._weights = [weight for weight in embedder.backbone.model.parameters() if weight.requires_grad]
        self._kept = [None if weight.grad is None else weight.grad.clone() for weight in self._weights]

    def put_back(self) -> None:
        """Let the weights have them again."""
        for weight, gradient in zip(self._weights, self._kept, strict=True):
            weight.grad = None if gradient is None else gradient.clone()
