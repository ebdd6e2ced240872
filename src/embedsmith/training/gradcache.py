"""One contrastive step in bounded memory: the gradients of the whole batch, computed chunk by chunk.

When a batch has more tokens than `max_tokens`, its texts are embedded chunk by chunk without graph, the loss is taken
on the embeddings, and each chunk is embedded again with graph to receive the gradient of its rows. Random states are
put back before a chunk is repeated, so dropout falls on the same elements. Cost: one more forward; memory of one chunk.

Reference: Gao et al. 2021, Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup (arXiv 2101.06983).
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from embedsmith.model.embedder import Embedder
from embedsmith.model.packing import pack_tokens, split_by_tokens

LossFunction = Callable[[torch.Tensor], torch.Tensor]
Backward = Callable[[torch.Tensor], None]


def contrastive_step(
    embedder: Embedder, *, texts: Sequence[str], loss_of: LossFunction, max_tokens: int, backward: Backward
) -> tuple[torch.Tensor, int]:
    """Compute the loss of a batch and add its gradients to the adapter.

    Args:
        embedder: the adapter's dropout is on while its texts are embedded.
        texts: all texts of the batch, (K,).
        loss_of: embeddings (K, D) -> scalar loss.
        max_tokens: tokens of one forward; a batch within it takes one forward and backward.
        backward: `accelerator.backward`, or `torch.Tensor.backward`.

    Returns:
        The loss, detached, and the number of tokens the batch holds, equal texts counted once.
    """
    with embedder.dropout(is_on=True):
        packed = embedder.pack(texts)
        if packed.num_tokens <= max_tokens:
            loss = loss_of(embedder.embed(packed))
            backward(loss)
        else:
            loss = _chunked(embedder, texts, loss_of, max_tokens, backward)
    return loss.detach(), packed.num_tokens


def _chunked(
    embedder: Embedder, texts: Sequence[str], loss_of: LossFunction, max_tokens: int, backward: Backward
) -> torch.Tensor:
    distinct = list(dict.fromkeys(texts))
    token_lists = embedder.tokenizer(distinct)
    lengths = [len(tokens) for tokens in token_lists]
    num_chunks = -(-sum(lengths) // max_tokens)
    # Chunks of equal size: a small last one would run far from the machine's peak.
    even_tokens = min(max_tokens, -(-sum(lengths) // num_chunks) + max(lengths))
    chunks = list(split_by_tokens(lengths, max_tokens=even_tokens))
    packs = [pack_tokens([token_lists[index] for index in chunk], device=embedder.device) for chunk in chunks]

    states = []
    rows = torch.empty(len(distinct), embedder.dim, device=embedder.device)  # (distinct texts, D)
    with torch.no_grad():
        for chunk, packed in zip(chunks, packs, strict=True):
            states.append(torch.get_rng_state())
            rows[torch.from_numpy(chunk)] = embedder.embed(packed)
    end_state = torch.get_rng_state()

    rows.requires_grad_()
    index_of = {text: index for index, text in enumerate(distinct)}
    row_of_text = torch.from_numpy(np.array([index_of[text] for text in texts])).to(embedder.device)
    loss = loss_of(rows[row_of_text])
    backward(loss)

    assert rows.grad is not None
    for chunk, packed, state in zip(chunks, packs, states, strict=True):
        torch.set_rng_state(state)
        embedder.embed(packed).backward(rows.grad[torch.from_numpy(chunk)])
    torch.set_rng_state(end_state)
    return loss
