"""What a run keeps while it trains: its records, the best adapter or an average, checkpoints; what ends it early."""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from embedsmith.model.embedder import Embedder
from embedsmith.records.results import TaskResult
from embedsmith.settings.config import RunConfig
from embedsmith.training.checkpoint import Progress, RandomStates, read_random_states, save_checkpoint
from embedsmith.training.distributed import Processes
from embedsmith.training.health import Health
from embedsmith.training.late import keep_state, take_average
from embedsmith.training.metrics import METRICS_FILE, MetricsFile, Record
from embedsmith.training.mntp import MaskedPrediction
from embedsmith.training.objective import Objective
from embedsmith.training.schedule import Schedule
from embedsmith.training.stopping import Stopping

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
        signal: what told it so, where that was one.
        best_step: the step whose adapter was kept; of an average the last one.
        averaged: the steps whose average was kept instead, if any.
        best: the development score of what was kept, if it was scored.
        num_tokens: tokens computed, evaluations aside.
        elapsed_s: seconds, evaluations included.
        num_trained: parameters of what is kept that the optimizer moved.
    """

    num_steps: int
    is_stopped: bool
    signal: signal.Signals | None
    best_step: int
    averaged: tuple[int, ...]
    best: TaskResult | None
    num_tokens: int
    elapsed_s: float
    num_trained: int


class Keeper:
    """Keeps what a run makes: its records, the best adapter or an average, checkpoints; knows when it shall stop.

    Args:
        config: of the run, whose folder is there.
        embedder: whose adapter is trained.
        optimizer: of it.
        objective: holds the projection, if there is one.
        progress: where the run stands; the loop moves its step, the rest is moved here.
        schedule: when what happens.
        processes: of several the main one alone writes.
        evaluate, watch, display: as `train_adapter`.
        stopping: hears of signals.
        is_resumed: whether the run goes on from a checkpoint.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        embedder: Embedder,
        optimizer: torch.optim.Optimizer,
        objective: Objective | MaskedPrediction,
        progress: Progress,
        schedule: Schedule,
        processes: Processes,
        evaluate: Callable[[], TaskResult] | None,
        watch: Watch | None,
        display: Display,
        stopping: Stopping,
        is_resumed: bool,
    ) -> None:
        self.folder = Path(config.output_dir)
        self.config = config
        self.embedder = embedder
        self.optimizer = optimizer
        self.projection = objective.projection
        self.progress = progress
        self.schedule = schedule
        self.processes = processes
        self.evaluate = evaluate
        self.watch = watch
        self.display = display
        self.stopping = stopping
        # Until there is an average, the last one is kept for it, however it scores.
        self.keeps_last = config.evaluation.keep != "best"
        self.evaluated_at = schedule.evaluated_at if evaluate else {schedule.max_steps}
        self.metrics = MetricsFile(
            self.folder / METRICS_FILE,
            progress=progress if is_resumed else None,
            accelerator=processes.accelerator,
        )
        self.health = Health(
            self.folder,
            max_steps=schedule.max_steps,
            learning_rate=schedule.peak,
            losses=[record["loss"] for record in self.metrics.before if "loss" in record],
            first_result=_first_result(self.metrics.before),
            talks=processes.is_main,
        )
        self.started = time.perf_counter() - progress.elapsed_s
        self._is_told_to_stop = False
        self._is_saved = is_resumed
        self._before_step: RandomStates | None = None
        self._averaged: tuple[int, ...] = ()

    @property
    def elapsed_s(self) -> float:
        """Seconds of the whole run, those before it was resumed included."""
        return time.perf_counter() - self.started

    def is_stopped(self) -> bool:
        """Whether the watch or a signal has ended the run; the same in every process."""
        return self._is_told_to_stop or self.processes.any(self.stopping.is_asked)

    @contextmanager
    def may_give_up_step(self) -> Iterator[None]:
        """Run what of a step comes before anything is moved; if it is given up, random numbers are as before it."""
        self._before_step = read_random_states()
        with self.stopping.may_give_up():
            yield
        self._before_step = None

    def tell(self, **values: float | Sequence[float]) -> Record:
        """Make a record of this step."""
        record: Record = {"step": self.progress.step, **values, "elapsed_s": round(self.elapsed_s, 3)}
        self.metrics.append(record)
        self.display.update(record)
        self._is_saved = False
        return record

    def finish_step(self) -> None:
        """All that belongs behind a step: its evaluation, what is kept of it, its checkpoint."""
        progress = self.progress
        if progress.step in self.schedule.averaged and self.processes.is_main:
            keep_state(self.folder, embedder=self.embedder, step=progress.step)
        if progress.awaits_evaluation:
            if self.is_stopped():
                return  # it comes first when the run goes on
            record = self._keep_if_better()
            progress.awaits_evaluation = False
            is_last = progress.step == self.schedule.max_steps
            self._is_told_to_stop = bool(self.watch and record and progress.step and self.watch(record) and not is_last)
        if progress.step and not self._is_saved and (self._is_told_to_stop or self.schedule.saves_after(progress.step)):
            self.save_checkpoint()

    def _keep_if_better(self) -> Record | None:
        """Score the adapter, and keep it if no step before was as good, or if the last counts; so without a score.

        The start is scored for the curve, and as a dry pass of the evaluation: some adapter is always kept, if only
        the least bad.

        Returns:
            The evaluation's record, if there is one.
        """
        progress = self.progress
        record = None
        if self.evaluate is not None:
            with self.stopping.may_give_up():
                result = self.evaluate()
            record = self.tell(dev_cosine_spearman=result.cosine_spearman, dev_ci95=list(result.ci95))
            self.health.judge_score(result, step=progress.step)
            is_better = not progress.best or result.cosine_spearman > progress.best["cosine_spearman"]
            if progress.step == 0 or not (is_better or self.keeps_last):
                return record
            progress.best = result.to_json()
        progress.best_step = progress.step
        self._write_kept()
        return record

    def _write_kept(self) -> None:
        if self.processes.is_main:
            self.embedder.save(self.folder / self.embedder.trained.folder_name)

    def keep_average(self) -> None:
        """Keep the average of the states put aside for it, if there are any, in the place of the last, and score it."""
        steps = self.schedule.averaged
        if not steps:
            return
        self.optimizer.state.clear()  # where every weight is trained, room for two models
        self.processes.accelerator.wait_for_everyone()  # for the main process to have written the states
        take_average(self.folder, embedder=self.embedder, steps=steps)
        if self.evaluate is not None:
            with self.stopping.may_give_up():
                result = self.evaluate()
            self.tell(
                averaged_steps=list(steps),
                averaged_dev_cosine_spearman=result.cosine_spearman,
                averaged_dev_ci95=list(result.ci95),
            )
            self.progress.best = result.to_json()
        self._write_kept()
        self._averaged = steps

    def save_checkpoint(self) -> None:
        """Write all that resuming needs."""
        self.progress.elapsed_s = self.elapsed_s
        self._is_saved = True
        if self.processes.is_main:
            self.metrics.sync()
            save_checkpoint(
                self.folder,
                embedder=self.embedder,
                optimizer=self.optimizer,
                progress=self.progress,
                projection=self.projection,
                random_states=self._before_step,
                limit=self.config.training.save_total_limit,
            )

    def end(self, *, num_trained: int) -> Outcome:
        """What the run did; one that a signal has ended before its end gets its checkpoint."""
        progress = self.progress
        is_over = progress.step == self.schedule.max_steps and not progress.awaits_evaluation
        is_finished = is_over and self._averaged == self.schedule.averaged
        is_stopped = not is_finished and self.is_stopped()
        if is_stopped and not (self._is_saved or is_over):
            self.save_checkpoint()
        return Outcome(
            num_steps=progress.step,
            is_stopped=is_stopped,
            signal=self.stopping.signal if is_stopped else None,
            best_step=progress.best_step,
            averaged=self._averaged,
            best=TaskResult.from_json(progress.best) if progress.best else None,
            num_tokens=progress.num_tokens,
            elapsed_s=self.elapsed_s,
            num_trained=num_trained,
        )


def _first_result(records: Sequence[Record]) -> TaskResult | None:
    """Of the first evaluation among a run's records, the score and its interval."""
    scored = next((one for one in records if "dev_cosine_spearman" in one), None)
    return TaskResult(scored["dev_cosine_spearman"], tuple(scored["dev_ci95"]), 0) if scored else None
