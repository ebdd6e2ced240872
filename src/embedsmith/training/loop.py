"""The training loop: batches of triplets (or pairs) -> a LoRA adapter, with a development set choosing the best one.

Invariants: the same configuration gives the same adapter, byte for byte (on one CPU); the optimizer never moves on
a non-finite loss; a resumed run ends as if it had never stopped. Cost: one packed forward and backward per step;
the next batch is read, tokenised and packed meanwhile.
"""

import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch.nn.utils import clip_grad_norm_

from embedsmith.data.rows import Triplets
from embedsmith.data.table import TripletTable
from embedsmith.model.embedder import Embedder
from embedsmith.records.results import TaskResult
from embedsmith.settings.config import RunConfig, TrainingSection
from embedsmith.support.ahead import one_ahead
from embedsmith.training.batching import Batches, replayed_batches, training_batches
from embedsmith.training.budget import TokenBudget
from embedsmith.training.checkpoint import Progress, load_checkpoint
from embedsmith.training.distributed import Processes
from embedsmith.training.keeping import Display, Keeper, Outcome, Watch
from embedsmith.training.memory import kept_bytes_per_token, leave_room, tokens_that_fit
from embedsmith.training.metrics import METRICS_FILE, read_metrics
from embedsmith.training.mntp import MaskedPrediction
from embedsmith.training.objective import Objective
from embedsmith.training.projection import start_projection
from embedsmith.training.schedule import make_schedule
from embedsmith.training.step import pack_share, take_step
from embedsmith.training.stopping import GivenUpError, Stopping


def train_adapter(
    embedder: Embedder,
    *,
    config: RunConfig,
    triplets: TripletTable,
    objective: Objective | MaskedPrediction,
    evaluate: Callable[[], TaskResult] | None,
    accelerator: Accelerator,
    display: Display,
    watch: Watch | None = None,
    resume: bool = False,
) -> Outcome:
    """Train the embedder's adapter; `adapter/` in the run folder ends up holding the best one, the last, or an average.

    Args:
        embedder: has its adapter already; ends with the last step's weights, which may differ from those kept, or with
            the average, whose adapter has another rank.
        config: `output_dir` exists; `metrics.jsonl`, `checkpoints/`, `adapter/` and perhaps `late/` are written into
            it.
        triplets: rows of at least (anchor, positive).
        objective: what is minimised on them.
        evaluate: scores the embedder on the development set; None keeps the last adapter.
        accelerator: device, gradients and trackers.
        display: shows every record as it is made.
        watch: may stop the run behind an evaluation; what it learned is then kept as far as it came.
        resume: go on from the newest checkpoint.

    Raises:
        ConfigError: settings do not fit the data.
        RunError: the loss is not finite, or the checkpoint or `metrics.jsonl` is damaged.
    """
    settings = config.training
    schedule = make_schedule(config, num_triplets=len(triplets))
    processes = Processes(accelerator)
    adapter = trained_parameters(embedder)
    parameters = [*adapter, *objective.parameters]
    optimizer = make_optimizer(parameters, settings=settings)
    budget = TokenBudget(settings.max_tokens or tokens_that_fit(embedder))
    bytes_per_token = kept_bytes_per_token(embedder)
    folder = Path(config.output_dir)
    if resume:
        read_metrics(folder / METRICS_FILE)  # where it is damaged, nothing is put back
        progress = load_checkpoint(
            folder,
            embedder=embedder,
            optimizer=optimizer,
            projection=objective.projection,
            writes=processes.is_main,
            limit=settings.save_total_limit,
        )
    else:
        progress = Progress(awaits_evaluation=evaluate is not None and 0 in schedule.evaluated_at)
        start_projection(objective, embedder=embedder, triplets=triplets, config=config, processes=processes)

    batches = _batches_from(progress, triplets=triplets, config=config, is_resumed=resume)
    progress.batches = batches.position
    prepared = (
        (rows, position, batch, pack_share(embedder, batch=batch, objective=objective, processes=processes))
        for rows in islice(batches, schedule.max_steps - progress.step)
        for position in [batches.position]  # at once: the next batch is drawn while this one is computed
        for batch in [_read_batch(rows, triplets=triplets, objective=objective, processes=processes)]
    )
    with Stopping(is_alone=processes.count == 1, talks=processes.is_main) as stopping:
        keeper = Keeper(
            config,
            embedder=embedder,
            optimizer=optimizer,
            objective=objective,
            progress=progress,
            schedule=schedule,
            processes=processes,
            evaluate=evaluate,
            watch=watch,
            display=display,
            stopping=stopping,
            is_resumed=resume,
        )
        try:
            if not resume:
                keeper.save_checkpoint()  # from its start on there is something to go on from
            keeper.finish_step()  # the evaluation that comes before the first one, or that a signal came before
            for rows, position, batch, packed in one_ahead(prepared):
                if keeper.is_stopped():
                    break
                step_started = time.perf_counter()
                leave_room(
                    budget, num_tokens=packed.num_tokens, bytes_per_token=bytes_per_token, device=embedder.device
                )
                # ---- one step -----------------------------------------------------------------------
                with keeper.may_give_up_step():
                    loss, num_tokens = take_step(
                        embedder,
                        batch=batch,
                        packed=packed,
                        objective=objective,
                        budget=budget,
                        processes=processes,
                        look_at=keeper.health.look_at,
                    )
                processes.add_up(adapter)  # a projection has the gradient of the whole batch in every process
                grad_norm = clip_grad_norm_(parameters, settings.max_grad_norm)  # one norm of all that moves
                keeper.health.check_finite(loss, grad_norm, step=progress.step + 1, rows=rows, triplets=triplets)
                learning_rate = schedule.learning_rate_at(progress.step)
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                # -------------------------------------------------------------------------------------
                progress.step += 1
                progress.batches = position
                progress.num_tokens += num_tokens
                progress.awaits_evaluation = progress.step in keeper.evaluated_at
                keeper.tell(
                    loss=loss.item(),
                    learning_rate=learning_rate,
                    grad_norm=float(grad_norm),
                    tokens_per_s=round(num_tokens / (time.perf_counter() - step_started), 1),
                )
                keeper.health.judge(loss.item(), step=progress.step)
                keeper.finish_step()
            if not keeper.is_stopped():
                keeper.keep_average()
        except GivenUpError:
            pass  # the checkpoint is of what came before it
        return keeper.end(num_trained=sum(one.numel() for one in adapter))


def _batches_from(progress: Progress, *, triplets: TripletTable, config: RunConfig, is_resumed: bool) -> Batches:
    """The batches behind the steps that are done."""
    if is_resumed and progress.batches is None:  # its checkpoint is an earlier version's
        return replayed_batches(triplets, config=config, num_steps=progress.step)
    return training_batches(triplets, config=config, position=progress.batches)


def _read_batch(
    rows: np.ndarray, *, triplets: TripletTable, objective: Objective | MaskedPrediction, processes: Processes
) -> Triplets:
    """The texts of a batch that this process looks at: its own, and where a teacher does, all of them."""
    if processes.count == 1 or (isinstance(objective, Objective) and objective.teacher is not None):
        return triplets.rows(rows)
    return triplets.share(rows, own=processes.own_rows(len(rows)))


def trained_parameters(embedder: Embedder) -> list[torch.nn.Parameter]:
    """What the optimizer moves."""
    return [parameter for parameter in embedder.backbone.model.parameters() if parameter.requires_grad]


def make_optimizer(parameters: list[torch.nn.Parameter], *, settings: TrainingSection) -> torch.optim.Optimizer:
    """AdamW in one pass over the parameters."""
    return torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
