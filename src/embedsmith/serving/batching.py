"""Texts of many requests -> batches of one model: computed together, each request answered when its last text is.

    request 1   a a a a        batch 1   a b c a c        While one is computed, the next one gathers: nothing waits
    request 2   b              batch 2   a a              for a clock, and a batch is as large as there is work.
    request 3   c c

Texts are taken from the waiting requests in turn, one of each, so a short request never waits for a long one. A request
that nobody waits for any more leaves at once. Cost: a few microseconds a text.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from time import monotonic

import numpy as np

from embedsmith.serving.errors import ApiError
from embedsmith.serving.metrics import ModelMetrics
from embedsmith.serving.served_model import ServedModel, Tokens

log = logging.getLogger(__name__)

_LONGEST_RETRY_SECONDS = 60
_SHARE_OF_THE_LAST = 0.2  # in the mean of what a batch takes


class Job:
    """A request that waits: its K texts, and their embeddings as they come.

    Args:
        tokens: the texts.
        dim: embedding width D.
    """

    def __init__(self, tokens: Tokens, *, dim: int) -> None:
        self.tokens = tokens
        self.rows = np.empty((len(tokens.lengths), dim), dtype=np.float32)
        # The longest first, as `encode` takes them: a batch of equally long texts is computed faster.
        self.order = deque(int(index) for index in np.argsort(tokens.lengths, kind="stable")[::-1])
        self.num_missing = len(tokens.lengths)
        self.answer: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()

    @property
    def num_waiting(self) -> int:
        """Tokens that no batch has taken yet."""
        return sum(self.tokens.lengths[index] for index in self.order)


Batch = list[tuple[Job, int]]
"""Texts by request and place."""


class Batcher:
    """Computes what waits for one model.

    Args:
        model: embeds.
        batch_tokens: of one batch; a longer text goes alone.
        max_queue_tokens: that may wait.
        compute: runs one batch after the other, those of all models.
        turn: held while a batch is gathered and computed, by one model after the other.
        metrics: what is counted.
    """

    def __init__(
        self,
        model: ServedModel,
        *,
        batch_tokens: int,
        max_queue_tokens: int,
        compute: Executor,
        turn: asyncio.Lock,
        metrics: ModelMetrics,
    ) -> None:
        self.model = model
        self.batch_tokens = batch_tokens
        self.max_queue_tokens = max_queue_tokens
        self.num_waiting = 0
        self._compute = compute
        self._turn = turn
        self._metrics = metrics
        self._jobs: deque[Job] = deque()
        self._has_work = asyncio.Event()
        self._seconds_per_token = 0.0

    def submit(self, tokens: Tokens) -> Job:
        """Let a request wait for its embeddings, which are its `answer`.

        Raises:
            ApiError: 429, too much waits.
        """
        job = Job(tokens, dim=self.model.dim)
        num_tokens = job.num_waiting
        if self.num_waiting and self.num_waiting + num_tokens > self.max_queue_tokens:
            raise ApiError(
                429,
                f"{self.num_waiting:,} tokens wait already, and with this request's {num_tokens:,} they would be more "
                f"than {self.max_queue_tokens:,}. Try again later.",
                code="rate_limit_exceeded",
                headers={"Retry-After": str(self.seconds_to_wait)},
            )
        self._jobs.append(job)
        self._count(num_tokens)
        self._has_work.set()
        return job

    @property
    def seconds_to_wait(self) -> int:
        """When what waits will be computed, as far as the last batches tell."""
        return min(max(1, math.ceil(self.num_waiting * self._seconds_per_token)), _LONGEST_RETRY_SECONDS)

    def withdraw(self, job: Job) -> None:
        """Forget a request that waits; what is being computed of it is computed for nothing."""
        if job in self._jobs:
            self._jobs.remove(job)
            self._count(-job.num_waiting)
        job.order.clear()
        job.answer.cancel()

    async def run(self) -> None:
        """Compute until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._has_work.wait()
            async with self._turn:
                batch = self._take()
                if not batch:
                    self._has_work.clear()
                    continue
                started = monotonic()
                try:
                    rows = await loop.run_in_executor(self._compute, _embed, self.model.embed, batch)
                except Exception as error:  # of any library; the server goes on
                    log.exception("A batch of %d texts for %s failed", len(batch), self.model.name)
                    self._fail({job for job, _ in batch}, error)
                    continue
            self._put_down(batch, rows, seconds=monotonic() - started)

    def _take(self) -> Batch:
        """Texts for one batch, from one request after the other."""
        batch: Batch = []
        num_tokens = 0
        while self._jobs:
            job = self._jobs[0]
            length = job.tokens.lengths[job.order[0]]
            if batch and num_tokens + length > self.batch_tokens:
                break
            batch.append((job, job.order.popleft()))
            num_tokens += length
            if job.order:
                self._jobs.rotate(-1)
            else:
                self._jobs.popleft()
        self._count(-num_tokens)
        return batch

    def _put_down(self, batch: Batch, rows: np.ndarray, *, seconds: float) -> None:
        num_tokens = sum(job.tokens.lengths[index] for job, index in batch)
        self._metrics.count_batch(num_texts=len(batch), num_tokens=num_tokens, seconds=seconds)
        last = seconds / num_tokens
        share = _SHARE_OF_THE_LAST if self._seconds_per_token else 1.0
        self._seconds_per_token += share * (last - self._seconds_per_token)
        for (job, index), row in zip(batch, rows, strict=True):
            job.rows[index] = row
            job.num_missing -= 1
            if not job.num_missing and not job.answer.done():
                job.answer.set_result(job.rows)

    def _fail(self, jobs: set[Job], error: Exception) -> None:
        for job in jobs:
            is_answered = job.answer.done()
            if not is_answered:
                reason = type(error).__name__
                message = f"The texts could not be embedded ({reason}); the server's log says more."
                job.answer.set_exception(ApiError(500, message, code="embedding_failed"))
            self.withdraw(job)

    def _count(self, num_tokens: int) -> None:
        self.num_waiting += num_tokens
        self._metrics.set_waiting(self.num_waiting)


def _embed(embed: Callable[[Sequence[tuple[Tokens, int]]], np.ndarray], batch: Batch) -> np.ndarray:
    return embed([(job.tokens, index) for job, index in batch])
