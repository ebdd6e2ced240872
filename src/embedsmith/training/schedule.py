"""When what happens in a run: its length, the learning rate of each step, evaluations, checkpoints.

Everything is a function of the configuration and the step, so there is nothing to resume.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from embedsmith.settings.config import RunConfig
from embedsmith.support.errors import ConfigError
from embedsmith.training.batching import count_steps

_EVALUATIONS = 8
"""In a run whose recipe does not say how often."""


@dataclass(frozen=True)
class Schedule:
    """The plan of a run, in optimizer steps.

    Attributes:
        max_steps: of the whole run.
        warmup_steps: in which the learning rate rises from zero.
        peak: the learning rate behind them.
        evaluated_at: the steps after which the development set is scored; 0: before the first.
        save_steps: from one checkpoint to the next; the last step has one too.
        averaged: the steps after which the state is kept, to be averaged at the end; none: there is no average.
    """

    max_steps: int
    warmup_steps: int
    peak: float
    evaluated_at: frozenset[int]
    save_steps: int
    averaged: tuple[int, ...] = ()

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of the step after `step` finished ones: linear warm-up from zero, then half a cosine to zero.

        The values of transformers' `get_cosine_schedule_with_warmup`, as a function without state.
        """
        if step < self.warmup_steps:
            return self.peak * step / self.warmup_steps
        share = (step - self.warmup_steps) / (self.max_steps - self.warmup_steps)
        return self.peak * 0.5 * (1 + math.cos(math.pi * share))

    def saves_after(self, step: int) -> bool:
        """Whether a checkpoint follows this step."""
        return step == self.max_steps or step % self.save_steps == 0


def make_schedule(config: RunConfig, *, num_triplets: int) -> Schedule:
    """The plan of a run on so many triplets.

    Raises:
        ConfigError: the warm-up is longer than the run, or there are fewer evaluations than states to average.
    """
    settings = config.training
    max_steps = settings.max_steps or count_steps(
        num_triplets, batch_size=settings.batch_size, num_epochs=settings.num_train_epochs
    )
    if settings.warmup_steps is not None and settings.warmup_steps >= max_steps:
        raise ConfigError(
            f"training.warmup_steps is {settings.warmup_steps}, but the run has only {max_steps} steps, so the "
            "learning rate would never reach its peak.\nLower training.warmup_steps or raise training.max_steps."
        )
    eval_steps = config.evaluation.eval_steps or max(1, math.ceil(max_steps / _EVALUATIONS))
    start = {0} if config.evaluation.eval_at_start else set()
    evaluated_at = [*range(eval_steps, max_steps, eval_steps), max_steps]
    return Schedule(
        max_steps=max_steps,
        warmup_steps=max_steps // 10 if settings.warmup_steps is None else settings.warmup_steps,
        peak=settings.learning_rate,
        evaluated_at=frozenset({*start, *evaluated_at}),
        save_steps=settings.save_steps or eval_steps,
        averaged=_choose_averaged(config, evaluated_at=evaluated_at),
    )


def _choose_averaged(config: RunConfig, *, evaluated_at: Sequence[int]) -> tuple[int, ...]:
    count = config.evaluation.average_last
    if config.evaluation.keep != "average":
        return ()
    if count > len(evaluated_at):
        raise ConfigError(
            f"evaluation.average_last is {count}, but the run of {evaluated_at[-1]} steps has only {len(evaluated_at)} "
            "evaluations behind its start.\nLower it, or evaluation.eval_steps."
        )
    return tuple(evaluated_at[-count:])
