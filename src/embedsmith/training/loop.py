"""The training loop: batches of triplets (or pairs) -> a LoRA adapter, with a development set choosing the best one.

Invariants: the same configuration gives the same adapter, byte for byte (on one machine); the optimizer never moves on
a non-finite loss; a resumed run ends as if it had never stopped. Cost: one packed forward and backward per step.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator

from embedsmith.config import RunConfig, TrainingSection
from embedsmith.data.table import TripletTable
from embedsmith.errors import ConfigError, RunError
from embedsmith.model.embedder import Embedder
from embedsmith.model.trained import kept_in
from embedsmith.results import TaskResult
from embedsmith.training.batching import contrastive_batches, count_steps
from embedsmith.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from embedsmith.training.distributed import Processes
from embedsmith.training.memory import tokens_that_fit
from embedsmith.training.mntp import MaskedPrediction
from embedsmith.training.objective import Objective
from embedsmith.training.step import take_step

METRICS_FILE = "metrics.jsonl"
Record = dict[str, Any]


class Display(Protocol):
    """Whoever shows a run's progress."""

    def update(self, record: Record) -> None:
        """Take one metrics record; those with `loss` are steps, those with `dev_cosine_spearman` evaluations."""


@dataclass(frozen=True)
class Outcome:
    """What a run did.

    Attributes:
        num_steps: optimizer steps of the whole run.
        best_step: the step whose adapter was kept.
        best: its development score, if it was scored.
        num_tokens: tokens computed, evaluations aside.
        elapsed_s: seconds, evaluations included.
    """

    num_steps: int
    best_step: int
    best: TaskResult | None
    num_tokens: int
    elapsed_s: float


def train_adapter(
    embedder: Embedder,
    *,
    config: RunConfig,
    triplets: TripletTable,
    objective: Objective | MaskedPrediction,
    evaluate: Callable[[], TaskResult] | None,
    accelerator: Accelerator,
    display: Display,
    resume: bool = False,
) -> Outcome:
    """Train the embedder's adapter; `adapter/` in the run folder ends up holding the best one.

    Args:
        embedder: has its adapter already; ends with the last step's weights, which may differ from those kept.
        config: `output_dir` exists; `metrics.jsonl`, `checkpoints/` and `adapter/` are written into it.
        triplets: rows of at least (anchor, positive).
        objective: what is minimised on them.
        evaluate: scores the embedder on the development set; None keeps the last adapter.
        accelerator: device, gradients and trackers.
        display: shows every record as it is made.
        resume: go on from the newest checkpoint.

    Raises:
        ConfigError: settings do not fit the data.
        RunError: the loss is not finite, or the checkpoint is damaged.
    """
    settings = config.training
    processes = Processes(accelerator)
    folder = Path(config.output_dir)
    max_steps = planned_steps(config, num_triplets=len(triplets))
    warmup_steps = max_steps // 10 if settings.warmup_steps is None else settings.warmup_steps
    evaluated_at = evaluation_steps(config, max_steps=max_steps)
    save_steps = settings.save_steps or _eval_steps(config, max_steps=max_steps)
    parameters = trained_parameters(embedder)
    optimizer = make_optimizer(parameters, settings=settings)
    progress = Progress()
    if resume:
        progress = load_checkpoint(folder, embedder=embedder, optimizer=optimizer)
    metrics = _MetricsFile(folder / METRICS_FILE, from_step=progress.step, accelerator=accelerator)
    batches = contrastive_batches(triplets.text_ids, batch_size=settings.batch_size, seed=settings.seed)
    started = time.perf_counter() - progress.elapsed_s

    def emit(record: Record) -> None:
        record = {**record, "elapsed_s": round(time.perf_counter() - started, 3)}
        metrics.append(record)
        display.update(record)

    def evaluate_and_keep() -> None:
        if evaluate is not None:
            result = evaluate()
            emit(
                {
                    "step": progress.step,
                    "dev_cosine_spearman": result.cosine_spearman,
                    "dev_ci95": list(result.ci95),
                }
            )
            if progress.best and result.cosine_spearman <= progress.best["cosine_spearman"]:
                return
            progress.best = result.to_json()
        progress.best_step = progress.step
        if progress.step > 0 and processes.is_main:
            embedder.save(folder / kept_in(embedder))

    if not resume and evaluate is not None and 0 in evaluated_at:
        evaluate_and_keep()  # the untrained state: where the learning curve starts, and a dry pass of the evaluation
        progress.best = None  # some adapter is always kept, if only the least bad

    for rows in islice(batches, progress.step, max_steps):
        step_started = time.perf_counter()
        batch = triplets.rows(rows)
        # ---- one step ---------------------------------------------------------------------------
        loss, num_tokens = take_step(
            embedder,
            batch=batch,
            objective=objective,
            max_tokens=settings.max_tokens or tokens_that_fit(embedder),
            processes=processes,
        )
        processes.add_up(parameters)
        grad_norm = accelerator.clip_grad_norm_(parameters, settings.max_grad_norm)
        if not (torch.isfinite(loss) and torch.isfinite(grad_norm)):
            raise RunError(_non_finite(loss, progress.step + 1, rows))
        learning_rate = learning_rate_at(
            progress.step, peak=settings.learning_rate, warmup_steps=warmup_steps, max_steps=max_steps
        )
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        # -----------------------------------------------------------------------------------------
        progress.step += 1
        progress.num_tokens += num_tokens
        emit(
            {
                "step": progress.step,
                "loss": loss.item(),
                "learning_rate": learning_rate,
                "grad_norm": float(grad_norm),
                "tokens_per_s": round(num_tokens / (time.perf_counter() - step_started), 1),
            }
        )
        is_last = progress.step == max_steps
        if is_last or (evaluate is not None and progress.step in evaluated_at):
            evaluate_and_keep()
        if is_last or progress.step % save_steps == 0:
            progress.elapsed_s = time.perf_counter() - started
            if processes.is_main:
                save_checkpoint(folder, embedder=embedder, optimizer=optimizer, progress=progress)

    return Outcome(
        num_steps=progress.step,
        best_step=progress.best_step,
        best=TaskResult.from_json(progress.best) if progress.best else None,
        num_tokens=progress.num_tokens,
        elapsed_s=time.perf_counter() - started,
    )


def trained_parameters(embedder: Embedder) -> list[torch.nn.Parameter]:
    """What the optimizer moves."""
    return [parameter for parameter in embedder.backbone.model.parameters() if parameter.requires_grad]


def make_optimizer(parameters: list[torch.nn.Parameter], *, settings: TrainingSection) -> torch.optim.Optimizer:
    """AdamW in one pass over the parameters."""
    return torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)


def evaluation_steps(config: RunConfig, *, max_steps: int) -> set[int]:
    """The steps after which the development set is scored; 0: before the first."""
    every = _eval_steps(config, max_steps=max_steps)
    start = {0} if config.evaluation.eval_at_start else set()
    return {*start, *range(every, max_steps, every), max_steps}


def _eval_steps(config: RunConfig, *, max_steps: int) -> int:
    return config.evaluation.eval_steps or max(1, math.ceil(max_steps / 8))


def planned_steps(config: RunConfig, *, num_triplets: int) -> int:
    """Optimizer steps of a run.

    Raises:
        ConfigError: the warm-up is longer than the run.
    """
    settings = config.training
    steps = settings.max_steps or count_steps(
        num_triplets, batch_size=settings.batch_size, num_epochs=settings.num_train_epochs
    )
    if settings.warmup_steps is not None and settings.warmup_steps >= steps:
        raise ConfigError(
            f"training.warmup_steps is {settings.warmup_steps}, but the run has only {steps} steps, so the learning "
            "rate would never reach its peak.\nLower training.warmup_steps or raise training.max_steps."
        )
    return steps


def learning_rate_at(step: int, *, peak: float, warmup_steps: int, max_steps: int) -> float:
    """Learning rate of the step after `step` finished ones: linear warm-up from zero, then half a cosine to zero.

    The values of transformers' `get_cosine_schedule_with_warmup`, as a function without state: nothing to resume.
    """
    if step < warmup_steps:
        return peak * step / warmup_steps
    share = (step - warmup_steps) / (max_steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * share))


def _non_finite(loss: torch.Tensor, step: int, rows: np.ndarray) -> str:
    return (
        f"The loss is {loss.item()} at step {step} (data rows {', '.join(str(row) for row in rows[:8])}, ...). "
        "The optimizer has not moved.\n"
        "Lower training.learning_rate, raise training.temperature, or set model.precision to fp32."
    )


class _MetricsFile:
    """`metrics.jsonl`: one JSON object a line, flushed at once; also handed to accelerate's trackers.

    Written by the main process alone.
    """

    def __init__(self, path: Path, *, from_step: int, accelerator: Accelerator) -> None:
        self.path = path
        self.accelerator = accelerator
        if accelerator.is_main_process:
            records = read_metrics(path) if from_step else []
            kept = [json.dumps(record) + "\n" for record in records if record["step"] <= from_step]
            path.write_text("".join(kept), encoding="utf-8")

    def append(self, record: Record) -> None:
        if self.accelerator.is_main_process:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        numbers = {name: value for name, value in record.items() if isinstance(value, float)}
        self.accelerator.log(numbers, step=record["step"])


def read_metrics(path: Path) -> list[Record]:
    """Records of a `metrics.jsonl`; a last line cut short by a crash is left out."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]
