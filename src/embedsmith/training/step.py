"""One step: a batch of rows -> gradients of the adapter, whatever is minimised.

rows -> this process's share -> texts under their prompts -> one packed row -> loss and gradients
"""

from collections.abc import Callable
from functools import cache
from itertools import chain

import torch

from embedsmith.data.rows import Triplets
from embedsmith.data.table import TripletTable
from embedsmith.model.embedder import Embedder
from embedsmith.model.layers.segments import PackedTexts
from embedsmith.settings.choices import Side
from embedsmith.settings.prompts import Prompt
from embedsmith.support.errors import ConfigError, DataError, list_faults
from embedsmith.training.budget import TokenBudget
from embedsmith.training.distributed import Processes
from embedsmith.training.gradcache import contrastive_step
from embedsmith.training.mntp import MaskedPrediction, predict_masked
from embedsmith.training.objective import Objective


def take_step(
    embedder: Embedder,
    *,
    batch: Triplets,
    objective: Objective | MaskedPrediction,
    budget: TokenBudget,
    processes: Processes,
    packed: PackedTexts | None = None,
    look_at: Callable[[torch.Tensor], None] | None = None,
) -> tuple[torch.Tensor, int]:
    """Add the gradients of one batch to the adapter; returns its loss and the tokens it took.

    Args:
        embedder: has an adapter.
        batch: of all processes.
        objective: what is minimised.
        budget: tokens that keep what backward needs at one time.
        processes: among whom the batch is shared.
        packed: what `pack_share` made of the batch; None: make it now.
        look_at: gets the embeddings of the whole batch, (K, D), where there are any.
    """
    shares = processes.shares(batch)
    if packed is None:
        packed = pack_share(embedder, batch=batch, objective=objective, processes=processes)
    if isinstance(objective, MaskedPrediction):
        return predict_masked(packed, embedder=embedder, objective=objective, budget=budget, processes=processes)
    sizes = [[len(group) for group in objective.text_groups(share)] for share in shares]
    loss_of_batch = objective.loss_of(batch)

    def loss_of(own: torch.Tensor) -> torch.Tensor:
        embeddings = processes.gather(own, sizes=sizes)
        if look_at:
            look_at(embeddings)
        return loss_of_batch(embeddings)

    loss, num_tokens = contrastive_step(
        packed,
        embedder=embedder,
        loss_of=loss_of,
        budget=budget,
        backward=torch.Tensor.backward,
        most=processes.most if embedder.is_sharded else None,
    )
    return loss, processes.sum(num_tokens)


def check_instructions(embedder: Embedder, *, data: TripletTable) -> None:
    """Try every instruction of the rows, so that none stops a run in its middle. Cost: each is tokenized once.

    Raises:
        DataError: some leave no room for a text; all are named, each by the first row that has it.
    """
    faults = []
    tried: set[Prompt] = set()
    for instruction, row in data.instructions().items():
        prompts = {embedder.prompt_of(side, instruction=instruction) for side in Side} - tried
        tried |= prompts
        try:
            embedder.tokenizer.tokenize([""] * len(prompts), prompts=list(prompts))
        except ConfigError as error:
            why, *_ = str(error).split("\n")
            faults.append(f"{data.place(row)}: instruction {instruction!r:.60}: {why}")
    if faults:
        what = "instruction of the training data does" if len(faults) == 1 else "instructions of the training data do"
        raise DataError(
            list_faults(
                f"{len(faults)} {what} not fit the prompts:",
                faults,
                advice="Shorten them, or raise model.max_length.",
            )
        )


def pack_share(
    embedder: Embedder, *, batch: Triplets, objective: Objective | MaskedPrediction, processes: Processes
) -> PackedTexts:
    """This process's share of a batch as a packed row. A function of the batch alone: nothing random is drawn."""
    own = processes.shares(batch)[processes.index]
    return processes.apart(pack_batch(embedder, batch=own, objective=objective))


def pack_batch(embedder: Embedder, *, batch: Triplets, objective: Objective | MaskedPrediction) -> PackedTexts:
    """The texts of some rows, group by group, each under the prompt of its side and row."""
    groups = objective.text_groups(batch)
    rows = [*range(len(batch)), *range(len(batch.positives)), *(batch.negative_rows if groups[2] else [])]
    are_queries = batch.are_queries(with_negatives=bool(groups[2]))

    @cache
    def prompt_of(is_query: bool, instruction: str | None) -> Prompt:
        return embedder.prompt_of(Side.QUERY if is_query else Side.DOCUMENT, instruction=instruction)

    prompts = [prompt_of(is_query, batch.instructions[row]) for row, is_query in zip(rows, are_queries, strict=True)]
    return embedder.pack([*chain(*groups)], prompts=prompts)
