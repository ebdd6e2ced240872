"""Whether a run learns: what is not finite ends it before anything moves, a collapse and a rising loss are said.

loss and gradient not finite   the run ends, its batch is saved
all embeddings alike           said once: the similarities of a batch's texts hardly differ, as if there were one text
the loss rises                 said once: its mean is far above the best one before
"""

import json
import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from embedsmith.data.table import TripletTable
from embedsmith.records.results import TaskResult
from embedsmith.support import files
from embedsmith.support.errors import RunError

log = logging.getLogger(__name__)

NON_FINITE = "non-finite-step-{}.jsonl"
"""The file of a batch, by its step."""
_ALIKE = 1e-3
"""Standard deviation of the similarities, cosines between -1 and 1."""
_ALIKE_SHARE = 0.1
"""And of what it was at the first step, so that a base that is so from its start raises no alarm."""
_ALIKE_STEPS = 3
_COMPARED_TEXTS = 256
_WINDOW = 16
"""Steps whose losses are compared; in short runs an eighth of the run, four at least."""
_RISE = 2
"""Times the best mean of so many steps; a healthy run's loss falls, or stays where it is."""
_LEAST_RISE = 0.1
"""In nats: below it batches of other sources may be all there is to it."""
_STANDARD_ERRORS = 5
_SHOWN_ROWS = 8


class Health:
    """Watches the steps of a run.

    Args:
        folder: of the run, where a batch is saved that gives something else than numbers.
        max_steps: of the run.
        learning_rate: its peak, for messages.
        losses: of the steps that a resumed run has taken already.
        first_result: of its first evaluation, if that is over.
        talks: whether this process writes and talks.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_steps: int,
        learning_rate: float,
        losses: Iterable[float] = (),
        first_result: TaskResult | None = None,
        talks: bool = True,
    ) -> None:
        self._folder = folder
        self._learning_rate = learning_rate
        self._talks = talks
        self._window = min(_WINDOW, max(4, max_steps // 8))
        self._losses = [*losses]
        self._first_result = first_result
        self._spread: float | None = None
        self._first_spread: float | None = None
        self._num_alike = 0
        self._said: set[str] = set()

    def look_at(self, embeddings: torch.Tensor) -> None:
        """Take the embeddings of a step's batch, (K, D), of unit length: how much the similarities of some differ."""
        some = embeddings.detach().float()[:: -(-len(embeddings) // _COMPARED_TEXTS)]
        similarities = (some @ some.T)[~torch.eye(len(some), dtype=torch.bool, device=some.device)]
        self._spread = float(similarities.std())

    def check_finite(
        self,
        loss: torch.Tensor,
        grad_norm: torch.Tensor,
        *,
        step: int,
        rows: np.ndarray,
        triplets: TripletTable,
    ) -> None:
        """End the run where loss or gradient is none that an optimizer may follow; its batch goes into a file.

        Raises:
            RunError: naming step, rows and the file.
        """
        if torch.isfinite(loss) and torch.isfinite(grad_norm):
            return
        path = self._folder / NON_FINITE.format(f"{step:06d}")
        if self._talks:
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in _describe(rows, triplets)]
            files.write_text(path, "".join(lines))
        what = f"loss is {loss.item()}"
        if torch.isfinite(loss):
            what = f"gradient's norm is {float(grad_norm)}, with a loss of {loss.item():.4g}"
        more = ", ..." if len(rows) > _SHOWN_ROWS else ""
        raise RunError(
            f"The {what} at step {step} (data rows {', '.join(map(str, rows[:_SHOWN_ROWS]))}{more}; all of the batch: "
            f"{path}). The optimizer has not moved.\n"
            "Lower training.learning_rate, raise training.temperature, or set model.precision to fp32."
        )

    def judge(self, loss: float, *, step: int) -> None:
        """Say what a step shows of the run, each thing once."""
        self._losses.append(loss)
        if self._first_spread is None:
            self._first_spread = self._spread
        if self._is_alike():
            self._say(
                f"Step {step}: all similarities of the batch's texts are alike (their standard deviation is "
                f"{self._spread:.1e}; at the start {self._first_spread:.1e}): the model has collapsed.",
                topic="collapse",
            )
        if risen := self._risen():
            self._say(
                f"Step {step}: the loss has risen from {risen[0]:.3g} (mean of the {self._window} best steps in a row) "
                f"to {risen[1]:.3g} (of the last ones): the learning rate is far too high.",
                topic="rise",
            )

    def judge_score(self, result: TaskResult, *, step: int) -> None:
        """Say where the development score has fallen below that of the first evaluation."""
        if self._first_result is None:
            self._first_result = result
        first = self._first_result
        if result.ci95[1] < first.ci95[0]:
            self._say(
                f"Step {step}: the development score has fallen from {_name_score(first)} at the first evaluation to "
                f"{_name_score(result)}: the learning rate is far too high, or the data teaches something else.",
                topic="score",
            )

    def _is_alike(self) -> bool:
        is_alike = (
            self._spread is not None
            and self._first_spread is not None
            and self._spread < min(_ALIKE, _ALIKE_SHARE * self._first_spread)
        )
        self._num_alike = self._num_alike + 1 if is_alike else 0
        return self._num_alike == _ALIKE_STEPS

    def _risen(self) -> tuple[float, float] | None:
        """The mean losses of the best and of the last steps, where they show that the run diverges."""
        if len(self._losses) < 2 * self._window:
            return None
        means = np.convolve(self._losses[: -self._window], np.full(self._window, 1 / self._window), mode="valid")
        start = int(means.argmin())
        best, last = np.array(self._losses[start : start + self._window]), np.array(self._losses[-self._window :])
        error = np.sqrt((best.var() + last.var()) / self._window)
        before, now = float(best.mean()), float(last.mean())
        is_risen = now > _RISE * before and now - before > max(_LEAST_RISE, _STANDARD_ERRORS * error)
        return (before, now) if is_risen else None

    def _say(self, what: str, *, topic: str) -> None:
        if self._talks and topic not in self._said:
            log.warning("%s\nStop the run and lower training.learning_rate, now %g.", what, self._learning_rate)
        self._said.add(topic)


def _name_score(result: TaskResult) -> str:
    lower, upper = (100 * bound for bound in result.ci95)
    return f"{100 * result.cosine_spearman:.1f} [{lower:.1f}, {upper:.1f}]"


def _describe(rows: np.ndarray, triplets: TripletTable) -> Iterable[dict[str, object]]:
    """Each row of a batch with its number, where it is from, and its texts."""
    batch = triplets.rows(rows)
    for place, row in enumerate(rows.tolist()):
        yield {
            "row": row,
            "from": triplets.place(row),
            "anchor": batch.anchors[place],
            **({"positive": batch.positives[place]} if batch.positives else {}),
            **({"negatives": batch.negatives[place]} if batch.negatives[place] else {}),
            **({"instruction": batch.instructions[place]} if batch.instructions[place] else {}),
            **({"score": float(batch.scores[place])} if batch.scores is not None else {}),
        }
