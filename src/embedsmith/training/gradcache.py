"""One contrastive step in bounded memory: the gradients of the whole batch, piece by piece.

    packed row   | piece 0 | piece 1 | piece 2 | piece 3 |      a few thousand tokens each
    1 embed        no graph  no graph  graph     graph          the last `max_tokens` tokens keep their graph
    2 loss on all embeddings, gradient of each embedding
    3 backward     again     again     at once   at once        from the last to the first; "again": embed with graph

What several texts begin with in common is computed anew for every piece that holds such a text.

A batch within `max_tokens` is computed once. Beyond it, embeddings are taken without graph first and computed again for
their gradient; the random state is put back before, and dropout masks depend on the row in the whole batch, so the
gradients are those of one forward, whatever the bound. Cost: one more forward for what lies beyond the bound.

Reference: Gao et al. 2021, Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup (arXiv 2101.06983).
"""

from collections import defaultdict
from collections.abc import Callable

import torch

from embedsmith.model.embedder import Embedder
from embedsmith.model.layers.segments import PackedTexts

# Tokens of one forward, by device: on a CPU products run nearest their peak at about this many (measured).
PIECE_TOKENS = defaultdict(lambda: 16_384, cpu=3_072)

LossFunction = Callable[[torch.Tensor], torch.Tensor]
Backward = Callable[[torch.Tensor], None]


def contrastive_step(
    packed: PackedTexts, *, embedder: Embedder, loss_of: LossFunction, max_tokens: int, backward: Backward
) -> tuple[torch.Tensor, int]:
    """Compute the loss of a batch and add its gradients to the adapter.

    Args:
        packed: all K texts of the batch.
        embedder: the adapter's dropout is on while its texts are embedded.
        loss_of: embeddings (K, D) -> scalar loss.
        max_tokens: tokens that keep what backward needs at one time.
        backward: `torch.Tensor.backward`. Not accelerate's, which divides by the environment's accumulation steps.

    Returns:
        The loss, detached, and the number of tokens the batch holds, equal texts and common prefixes counted once.
    """
    pieces = packed.pieces(max_tokens=min(PIECE_TOKENS[embedder.device.type], max_tokens))
    with embedder.dropout(is_on=True):
        if len(pieces) == 1:
            loss = loss_of(embedder.embed(packed))
            backward(loss)
        else:
            state = torch.get_rng_state()

            def embed(piece: PackedTexts) -> torch.Tensor:
                torch.set_rng_state(state)
                return embedder.embed(piece)  # (distinct texts, D)

            loss = _step_in_pieces(pieces, packed.distinct_of_text, embed, loss_of, max_tokens, backward)
    return loss.detach(), packed.num_tokens


def embed_without_graph(packed: PackedTexts, *, embedder: Embedder) -> torch.Tensor:
    """Embeddings (K, D) of all K texts, piece by piece; without dropout and without gradients."""
    with torch.no_grad(), embedder.dropout(is_on=False):
        pieces = [embedder.embed(piece) for piece in packed.pieces(max_tokens=PIECE_TOKENS[embedder.device.type])]
    return torch.cat(pieces)[packed.distinct_of_text]


def _step_in_pieces(
    pieces: list[PackedTexts],
    distinct_of_text: torch.Tensor,
    embed: Callable[[PackedTexts], torch.Tensor],
    loss_of: LossFunction,
    max_tokens: int,
    backward: Backward,
) -> torch.Tensor:
    num_again = _count_beyond(pieces, max_tokens)
    embedded = []
    for index, piece in enumerate(pieces):
        with torch.set_grad_enabled(index >= num_again):
            embedded.append(embed(piece))
    rows = torch.cat([part.detach() for part in embedded]).requires_grad_()  # (distinct texts of the batch, D)
    loss = loss_of(rows[distinct_of_text])
    backward(loss)

    assert rows.grad is not None
    gradients = rows.grad.split([len(part) for part in embedded])
    for index in reversed(range(len(pieces))):
        part = embedded.pop()
        (part if index >= num_again else embed(pieces[index])).backward(gradients[index])
    return loss


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
