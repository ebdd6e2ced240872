"""One step: a batch of rows -> gradients of the adapter, whatever is minimised.

rows -> this process's share -> texts under their prompts -> one packed row -> loss and gradients
"""

from itertools import chain

import torch

from embedsmith.data.table import Triplets
from embedsmith.model.embedder import Embedder
from embedsmith.model.layers.segments import PackedTexts
from embedsmith.settings.config import Side
from embedsmith.training.distributed import Processes
from embedsmith.training.gradcache import contrastive_step
from embedsmith.training.mntp import MaskedPrediction, predict_masked
from embedsmith.training.objective import Objective


def take_step(
    embedder: Embedder,
    *,
    batch: Triplets,
    objective: Objective | MaskedPrediction,
    max_tokens: int,
    processes: Processes,
) -> tuple[torch.Tensor, int]:
    """Add the gradients of one batch to the adapter; returns its loss and the tokens it took.

    Args:
        embedder: has an adapter.
        batch: of all processes.
        objective: what is minimised.
        max_tokens: tokens that keep what backward needs at one time.
        processes: among whom the batch is shared.
    """
    share = processes.share(batch)
    packed = processes.apart(pack_batch(embedder, batch=share, objective=objective))
    if isinstance(objective, MaskedPrediction):
        return predict_masked(
            packed, embedder=embedder, objective=objective, max_tokens=max_tokens, processes=processes
        )
    num_groups = len(objective.text_groups(share))
    loss_of = objective.loss_of(batch)
    loss, num_tokens = contrastive_step(
        packed,
        embedder=embedder,
        loss_of=lambda embeddings: loss_of(processes.gather(embeddings, num_groups=num_groups)),
        max_tokens=max_tokens,
        backward=processes.accelerator.backward,
    )
    return loss, processes.sum(num_tokens)


def pack_batch(embedder: Embedder, *, batch: Triplets, objective: Objective | MaskedPrediction) -> PackedTexts:
    """The texts of some rows, group by group, each under the prompt of its side and row."""
    groups = objective.text_groups(batch)
    queries = [embedder.prompt_of(Side.QUERY, instruction=instruction) for instruction in batch.instructions]
    found = [
        query if is_symmetric else embedder.prompt_of(Side.DOCUMENT, instruction=instruction)
        for query, is_symmetric, instruction in zip(queries, batch.are_symmetric, batch.instructions, strict=True)
    ]
    prompts = [queries, found, found][: len(groups)]
    return embedder.pack([*chain(*groups)], prompts=[*chain(*prompts)])
