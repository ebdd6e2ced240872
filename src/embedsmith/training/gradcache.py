"""One contrastive step in bounded memory: the gradients of the whole batch, piece by piece.

    packed row   | piece 0 | piece 1 | piece 2 | piece 3 |      a few thousand tokens each
    1 embed        no graph  no graph  graph     graph          the last `max_tokens` tokens keep their graph
    2 loss on all embeddings, gradient of each embedding
    3 backward     again     again     at once   at once        from the last to the first; "again": embed with graph

What several texts begin with in common is computed anew for every piece that holds such a text.

A batch within `max_tokens` is computed once. Beyond it, embeddings are taken without graph first and computed again for
their gradient; the random state is put back before, and dropout masks depend on the row in the whole batch, so the
gradients are those of one forward, whatever the bound. Cost: one more forward for what lies beyond the bound. Where
memory runs out all the same, the pass over the texts in which it did is begun anew with half the bound (`budget.py`);
other processes notice nothing, as embeddings are exchanged between the passes.

Reference: Gao et al. 2021, Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup (arXiv 2101.06983).
"""

from collections import defaultdict
from collections.abc import Callable
from functools import partial

import torch

from embedsmith.model.embedder import Embedder
from embedsmith.model.layers.segments import PackedTexts
from embedsmith.training.budget import KeptGradients, TokenBudget

# Tokens of one forward, by device: on a CPU products run nearest their peak at about this many (measured).
PIECE_TOKENS = defaultdict(lambda: 16_384, cpu=3_072)

LossFunction = Callable[[torch.Tensor], torch.Tensor]
Backward = Callable[[torch.Tensor], None]
Most = Callable[[int], int]


def contrastive_step(
    packed: PackedTexts,
    *,
    embedder: Embedder,
    loss_of: LossFunction,
    budget: TokenBudget,
    backward: Backward,
    most: Most | None = None,
) -> tuple[torch.Tensor, int]:
    """Compute the loss of a batch and add its gradients to the adapter.

    Args:
        packed: all K texts of the batch.
        embedder: the adapter's dropout is on while its texts are embedded.
        loss_of: embeddings (K, D) -> scalar loss; called once.
        budget: tokens that keep what backward needs at one time.
        backward: `torch.Tensor.backward`. Not accelerate's, which divides by the environment's accumulation steps.
        most: a number -> the largest that any process has, where all must run the same forwards and backwards: a base
            that they hold together. A process with fewer pieces computes its first one again, for nothing.

    Returns:
        The loss, detached, and the number of tokens the batch holds, equal texts and common prefixes counted once.
    """
    passes = _Passes(packed, embedder, most=most)
    # In step with other processes nobody begins anew alone: there an error stays one.
    run = partial(budget.run, num_tokens=packed.num_tokens) if most is None else lambda one: one(budget.max_tokens)
    with embedder.dropout(is_on=True):
        rows = run(passes.forward)  # (distinct texts of the batch, D)
        loss = loss_of(rows[packed.distinct_of_text])
        backward(loss)
        assert rows.grad is not None
        run(partial(passes.backward, rows.grad))
    return loss.detach(), packed.num_tokens


def embed_without_graph(packed: PackedTexts, *, embedder: Embedder) -> torch.Tensor:
    """Embeddings (K, D) of all K texts, piece by piece; without dropout and without gradients."""
    with torch.no_grad(), embedder.dropout(is_on=False):
        pieces = [embedder.embed(piece) for piece in packed.pieces(max_tokens=PIECE_TOKENS[embedder.device.type])]
    return torch.cat(pieces)[packed.distinct_of_text]


class _Passes:
    """Forward and backward over the texts of a batch. Where memory runs out in one, it can be begun anew."""

    def __init__(self, packed: PackedTexts, embedder: Embedder, *, most: Most | None) -> None:
        self._packed = packed
        self._embedder = embedder
        self._most = most or (lambda number: number)
        self._random_state = torch.get_rng_state()
        self._gradients = KeptGradients(embedder)
        self._pieces: list[PackedTexts] = []
        self._num_idle = 0
        self._embedded: list[torch.Tensor] = []

    def forward(self, max_tokens: int) -> torch.Tensor:
        """Embeddings (distinct texts, D) as a leaf; the last pieces keep their graph, at most `max_tokens` tokens."""
        self._embedded = []  # of an attempt before
        self._cut(max_tokens)
        num_again = self._most(_count_beyond(self._pieces, max_tokens))
        for index, piece in enumerate(self._pieces):
            with torch.set_grad_enabled(index >= num_again):
                self._embedded.append(self._embed(piece))
        return torch.cat([part.detach() for part in self._embedded[self._num_idle :]]).requires_grad_()

    def backward(self, gradient: torch.Tensor, max_tokens: int) -> None:
        """The adapter's gradients from the embeddings' (distinct texts, D); what kept no graph is embedded again."""
        if not self._embedded:  # an attempt before has come to some piece
            self._cut(max_tokens)
            self._gradients.put_back()
        embedded, self._embedded = self._embedded, []
        own = self._pieces[self._num_idle :]
        gradients = [None] * self._num_idle + [*gradient.split([len(piece.segments.texts) for piece in own])]
        for piece, of_piece in zip(reversed(self._pieces), reversed(gradients), strict=True):
            part = embedded.pop() if embedded else None
            if part is None or not part.requires_grad:
                part = self._embed(piece)
            part.backward(torch.zeros_like(part) if of_piece is None else of_piece)

    def _cut(self, max_tokens: int) -> None:
        pieces = self._packed.pieces(max_tokens=min(PIECE_TOKENS[self._embedder.device.type], max_tokens))
        self._num_idle = self._most(len(pieces)) - len(pieces)
        self._pieces = [pieces[0]] * self._num_idle + pieces

    def _embed(self, piece: PackedTexts) -> torch.Tensor:
        torch.set_rng_state(self._random_state)
        return self._embedder.embed(piece)  # (distinct texts, D)


def _count_beyond(pieces: list[PackedTexts], max_tokens: int) -> int:
    """Pieces, from the first on, that do not keep their graph: all but the last ones that lie within the bound.

    Backward takes those first, and lets go of them, so the bound holds while the others are computed again.
    """
    num_tokens = 0
    for index in reversed(range(len(pieces))):
        num_tokens += pieces[index].num_tokens
        if num_tokens > max_tokens:
            return index + 1
    return 0
