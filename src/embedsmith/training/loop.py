"""The training loop: batches of triplets (or pairs) -> a LoRA adapter, with a development set choosing the best one.

Invariants: the same configuration gives the same adapter, byte for byte (on one CPU); the optimizer never moves on
a non-finite loss; a resumed run ends as if it had never stopped. Cost: one packed forward and backward per step;
the next batch is read, tokenised and packed meanwhile.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from accelerate import Accelerator
from torch.nn.utils import clip_grad_norm_

from embedsmith.data.table import TripletTable
from embedsmith.model.embedder import Embedder
from embedsmith.records.results import TaskResult
from embedsmith.settings.config import RunConfig, TrainingSection
from embedsmith.support.ahead import one_ahead
from embedsmith.support.errors import RunError
from embedsmith.training.batching import training_batches
from embedsmith.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from embedsmith.training.distributed import Processes
from embedsmith.training.late import keep_state, take_average
from embedsmith.training.memory import tokens_that_fit
from embedsmith.training.metrics import METRICS_FILE, MetricsFile, Record
from embedsmith.training.mntp import MaskedPrediction
from embedsmith.training.objective import Objective
from embedsmith.training.projection import start_projection
from embedsmith.training.schedule import make_schedule
from embedsmith.training.step import pack_share, take_step

Watch = Callable[[Record], bool]
"""Told of each evaluation behind the start, as its record in metrics.jsonl; answers whether the run shall stop there.
Every process of a run asks, and must get the same answer."""


class Display(Protocol):
    """Whoever shows a run's progress."""

    def update(self, record: Record) -> None:
        """Take one metrics record; those with `loss` are steps, with `dev_cosine_spearman` evaluations, with
        `averaged_steps` that of the average."""


@dataclass(frozen=True)
class Outcome:
    """What a run did.

    Attributes:
        num_steps: optimizer steps of the whole run.
        is_stopped: whether it was told to stop before its end; it has a checkpoint to go on from.
        best_step: the step whose adapter was kept; of an average the last one.
        averaged: the steps whose average was kept instead, if any.
        best: the development score of what was kept, if it was scored.
        num_tokens: tokens computed, evaluations aside.
        elapsed_s: seconds, evaluations included.
        num_trained: parameters of what is kept that the optimizer moved.
    """

    num_steps: int
    is_stopped: bool
    best_step: int
    averaged: tuple[int, ...]
    best: TaskResult | None
    num_tokens: int
    elapsed_s: float
    num_trained: int


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
        RunError: the loss is not finite, or the checkpoint is damaged.
    """
    settings = config.training
    schedule = make_schedule(config, num_triplets=len(triplets))
    processes = Processes(accelerator)
    adapter = trained_parameters(embedder)
    parameters = [*adapter, *objective.parameters]
    optimizer = make_optimizer(parameters, settings=settings)
    max_tokens = settings.max_tokens or tokens_that_fit(embedder)
    folder = Path(config.output_dir)
    progress = Progress()
    if resume:
        progress = load_checkpoint(folder, embedder=embedder, optimizer=optimizer, projection=objective.projection)
    else:
        start_projection(objective, embedder=embedder, triplets=triplets, config=config, processes=processes)
    keeper = _Keeper(
        folder,
        embedder=embedder,
        progress=progress,
        accelerator=accelerator,
        display=display,
        keeps_last=config.evaluation.keep != "best",
    )
    evaluated_at = schedule.evaluated_at if evaluate else {schedule.max_steps}
    if not resume and 0 in evaluated_at:
        keeper.keep_if_better(evaluate)  # where the learning curve starts, and a dry pass of the evaluation
        progress.best = None  # some adapter is always kept, if only the least bad

    batches = training_batches(triplets, config=config)
    prepared = (
        (rows, batch, pack_share(embedder, batch=batch, objective=objective, processes=processes))
        for rows in islice(batches, progress.step, schedule.max_steps)
        for batch in [triplets.rows(rows)]
    )
    is_stopped = False
    for rows, batch, packed in one_ahead(prepared):
        step_started = time.perf_counter()
        # ---- one step ---------------------------------------------------------------------------
        loss, num_tokens = take_step(
            embedder,
            batch=batch,
            packed=packed,
            objective=objective,
            max_tokens=max_tokens,
            processes=processes,
        )
        processes.add_up(adapter)  # a projection has the gradient of the whole batch in every process
        grad_norm = clip_grad_norm_(parameters, settings.max_grad_norm)  # one norm of all that moves
        if not (torch.isfinite(loss) and torch.isfinite(grad_norm)):
            raise RunError(_non_finite(loss, progress.step + 1, rows))
        learning_rate = schedule.learning_rate_at(progress.step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        # -----------------------------------------------------------------------------------------
        progress.step += 1
        progress.num_tokens += num_tokens
        keeper.tell(
            loss=loss.item(),
            learning_rate=learning_rate,
            grad_norm=float(grad_norm),
            tokens_per_s=round(num_tokens / (time.perf_counter() - step_started), 1),
        )
        if progress.step in schedule.averaged:
            keeper.keep_state()
        if progress.step in evaluated_at:
            record = keeper.keep_if_better(evaluate)
            is_stopped = bool(watch and record and watch(record)) and progress.step < schedule.max_steps
        if is_stopped or schedule.saves_after(progress.step):
            keeper.save_checkpoint(optimizer, projection=objective.projection)
        if is_stopped:
            break
    averaged = () if is_stopped else schedule.averaged
    if averaged:
        optimizer.state.clear()  # where every weight is trained, room for two models
        keeper.keep_average(averaged, evaluate=evaluate)
    num_trained = sum(one.numel() for one in adapter)
    return keeper.outcome(is_stopped=is_stopped, averaged=averaged, num_trained=num_trained)


class _Keeper:
    """Keeps what a run makes: its records, the best adapter or an average, checkpoints.

    Args:
        folder: the run's.
        embedder: whose adapter is trained.
        progress: where the run stands; the loop moves its step, the rest is moved here.
        accelerator: of several processes the main one alone writes.
        display: shows every record.
        keeps_last: whether the last adapter is kept, however it scores; until there is an average, that is so too.
    """

    def __init__(
        self,
        folder: Path,
        *,
        embedder: Embedder,
        progress: Progress,
        accelerator: Accelerator,
        display: Display,
        keeps_last: bool,
    ) -> None:
        self.folder = folder
        self.embedder = embedder
        self.progress = progress
        self.display = display
        self.keeps_last = keeps_last
        self.accelerator = accelerator
        self.metrics = MetricsFile(folder / METRICS_FILE, from_step=progress.step, accelerator=accelerator)
        self.writes = accelerator.is_main_process
        self.started = time.perf_counter() - progress.elapsed_s

    @property
    def elapsed_s(self) -> float:
        """Seconds of the whole run, those before it was resumed included."""
        return time.perf_counter() - self.started

    def tell(self, **values: float | Sequence[float]) -> Record:
        """Make a record of this step."""
        record: Record = {"step": self.progress.step, **values, "elapsed_s": round(self.elapsed_s, 3)}
        self.metrics.append(record)
        self.display.update(record)
        return record

    def keep_if_better(self, evaluate: Callable[[], TaskResult] | None) -> Record | None:
        """Score the adapter, and keep it if no step before was as good, or if the last counts; so without a score.

        Returns:
            The evaluation's record, if there is one.
        """
        progress = self.progress
        record = None
        if evaluate is not None:
            result = evaluate()
            record = self.tell(dev_cosine_spearman=result.cosine_spearman, dev_ci95=list(result.ci95))
            is_better = not progress.best or result.cosine_spearman > progress.best["cosine_spearman"]
            if not (is_better or self.keeps_last):
                return record
            progress.best = result.to_json()
        progress.best_step = progress.step
        if progress.step > 0:
            self._write_kept()
        return record

    def _write_kept(self) -> None:
        if self.writes:
            self.embedder.save(self.folder / self.embedder.trained.folder_name)

    def keep_state(self) -> None:
        """Put the state aside for the average."""
        if self.writes:
            keep_state(self.folder, embedder=self.embedder, step=self.progress.step)

    def keep_average(self, steps: Sequence[int], *, evaluate: Callable[[], TaskResult] | None) -> None:
        """Keep the average of the states after these steps in the place of the last one, and score it."""
        self.accelerator.wait_for_everyone()  # for the main process to have written the states
        take_average(self.folder, embedder=self.embedder, steps=steps)
        if evaluate is not None:
            result = evaluate()
            self.tell(
                averaged_steps=list(steps),
                averaged_dev_cosine_spearman=result.cosine_spearman,
                averaged_dev_ci95=list(result.ci95),
            )
            self.progress.best = result.to_json()
        self._write_kept()

    def save_checkpoint(self, optimizer: torch.optim.Optimizer, *, projection: torch.nn.Parameter | None) -> None:
        """Write all that resuming needs."""
        self.progress.elapsed_s = self.elapsed_s
        if self.writes:
            save_checkpoint(
                self.folder,
                embedder=self.embedder,
                optimizer=optimizer,
                progress=self.progress,
                projection=projection,
            )

    def outcome(self, *, is_stopped: bool, averaged: tuple[int, ...], num_trained: int) -> Outcome:
        """What the run did."""
        progress = self.progress
        return Outcome(
            num_steps=progress.step,
            is_stopped=is_stopped,
            best_step=progress.best_step,
            averaged=averaged,
            best=TaskResult.from_json(progress.best) if progress.best else None,
            num_tokens=progress.num_tokens,
            elapsed_s=self.elapsed_s,
            num_trained=num_trained,
        )


def trained_parameters(embedder: Embedder) -> list[torch.nn.Parameter]:
    """What the optimizer moves."""
    return [parameter for parameter in embedder.backbone.model.parameters() if parameter.requires_grad]


def make_optimizer(parameters: list[torch.nn.Parameter], *, settings: TrainingSection) -> torch.optim.Optimizer:
    """AdamW in one pass over the parameters."""
    return torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)


def _non_finite(loss: torch.Tensor, step: int, rows: np.ndarray) -> str:
    return (
        f"The loss is {loss.item()} at step {step} (data rows {', '.join(str(row) for row in rows[:8])}, ...). "
        "The optimizer has not moved.\n"
        "Lower training.learning_rate, raise training.temperature, or set model.precision to fp32."
    )
