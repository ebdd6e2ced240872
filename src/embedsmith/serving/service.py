"""From a request's body to embeddings: checked, tokenized on one thread, computed on another, among all that wait."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic, time
from typing import TypeVar

import numpy as np
import torch
from pydantic import BaseModel
from starlette.requests import Request

from embedsmith.model.shown_tokens import ShownText
from embedsmith.model.widths import check_dim, shorten
from embedsmith.serving.batching import Batcher
from embedsmith.serving.bodies import read_body, wait_for
from embedsmith.serving.errors import ApiError
from embedsmith.serving.limits import Limits
from embedsmith.serving.metrics import Metrics
from embedsmith.serving.requests import parse_body
from embedsmith.serving.served_model import Question, ServedModel, Tokens
from embedsmith.support.errors import ConfigError, DataError

CUT_HEADER = "X-Truncated-Texts"
_SMALL_BODY = 16_384  # bytes, parsed in less time than another thread takes to wake
_WARM_TEXTS = ("a", "the first texts take longer, as kernels are made for them")


Body = TypeVar("Body", bound=BaseModel)
Result = TypeVar("Result")


@dataclass(frozen=True)
class Embedded:
    """The answer to a question.

    Attributes:
        rows: (K, D) float32, unit length.
        num_tokens: that were computed, prompts included.
        num_cut: texts that were longer than the model takes.
    """

    rows: np.ndarray
    num_tokens: int
    num_cut: int

    @property
    def headers(self) -> dict[str, str] | None:
        """What is said of texts that were cut; where none was, nothing."""
        return {CUT_HEADER: str(self.num_cut)} if self.num_cut else None


class Service:
    """The models of a server, and what computes them.

    Args:
        models: at least one; the first answers requests that name none.
        limits: what a request may ask.
        metrics: what is counted.
    """

    def __init__(self, models: Sequence[ServedModel], *, limits: Limits, metrics: Metrics) -> None:
        self.models: Mapping[str, ServedModel] = {model.name: model for model in models}
        self.limits = limits
        self.metrics = metrics
        self.started_at = int(time())
        # One thread each: the tokenizers take one at a time, and so does the processor that the models share.
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix="tokenize")
        self._computing = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._batchers: dict[str, Batcher] = {}

    def warm_up(self) -> None:
        """Compute a few texts with every model, where the server will."""
        for model in self.models.values():
            tokens = self._tokenizing.submit(model.tokenize, Question(list(_WARM_TEXTS))).result()
            self._computing.submit(model.embed, [(tokens, place) for place in range(len(_WARM_TEXTS))]).result()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Compute what is asked within this block."""
        turn = asyncio.Lock()
        self._batchers = {
            name: Batcher(
                model,
                batch_tokens=self.limits.batch_tokens or model.batch_tokens,
                max_queue_tokens=self.limits.max_queue_tokens,
                compute=self._computing,
                turn=turn,
                metrics=self.metrics.of_model(name),
            )
            for name, model in self.models.items()
        }
        tasks = [asyncio.create_task(batcher.run()) for batcher in self._batchers.values()]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._tokenizing.shutdown()
            self._computing.shutdown()

    async def read(self, request: Request, kind: type[Body]) -> Body:
        """A request's body as its record.

        Raises:
            ApiError, ClientGoneError: as `read_body` and `parse_body`.
        """
        started = monotonic()
        body = await read_body(request, limits=self.limits)
        self._time("read", started)
        started = monotonic()
        if len(body) <= _SMALL_BODY:
            parsed = parse_body(kind, body)
        else:
            parsed = await asyncio.get_running_loop().run_in_executor(self._tokenizing, parse_body, kind, body)
        self._time("parse", started)
        return parsed

    def find(self, name: str | None) -> ServedModel:
        """The model of a name, or the first one.

        Raises:
            ApiError: 404, there is none.
        """
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            known = ", ".join(self.models)
            message = f"There is no model {name!r:.200} here. There is: {known}."
            raise ApiError(404, message, code="model_not_found", param="model")
        return self.models[name]

    async def embed(
        self, request: Request, *, model: ServedModel, question: Question, dim: int | None, may_cut: bool
    ) -> Embedded:
        """Answer a question.

        Args:
            request: whose client must be there to the end.
            model: computes.
            question: what is to be embedded.
            dim: keep so many dimensions; None: all.
            may_cut: whether texts longer than the model takes are cut, or refused.

        Raises:
            ApiError: 400, it does not fit the model; 413, it is too much; 429, too much waits; 500, computing failed.
            ClientGoneError: the client went away.
        """
        num_items = len(question.texts or question.ids)
        if num_items > self.limits.max_items:
            message = f"There are {num_items:,} texts; there may be {self.limits.max_items:,}. Send fewer at one time."
            raise ApiError(413, message, code="too_many_items")
        tokens = await self._tokenize(model, question, dim)
        if tokens.num_cut and not may_cut:
            message = (
                f"{tokens.num_cut} of {num_items} texts are longer than the {model.max_length:,} tokens that "
                f"'{model.name}' takes. Shorten them, or send no truncate: false."
            )
            raise ApiError(413, message, code="context_length_exceeded")
        num_tokens = sum(tokens.lengths)
        if num_tokens > self.limits.max_request_tokens:
            limit = self.limits.max_request_tokens
            message = f"The texts have {num_tokens:,} tokens; they may have {limit:,}. Send fewer at one time."
            raise ApiError(413, message, code="too_many_tokens")
        started = monotonic()
        batcher = self._batchers[model.name]
        job = batcher.submit(tokens)
        await wait_for(job, batcher=batcher, request=request)
        rows = job.answer.result()
        self._time("compute", started)
        self.metrics.of_model(model.name).count_cut(tokens.num_cut)
        if dim is not None:
            rows = shorten(torch.from_numpy(rows), dim=dim).numpy()
        return Embedded(rows, num_tokens, tokens.num_cut)

    async def show_tokens(self, model: ServedModel, question: Question) -> tuple[str, list[ShownText]]:
        """The template that texts stand in, and their tokens.

        Raises:
            ApiError: 400, it does not fit the model.
        """

        def show() -> tuple[str, list[ShownText]]:
            prompt = model.prompt_of(question.side, instruction=question.instruction)
            return prompt, model.show_tokens(question)

        return await self._on_tokenizing_thread(show)

    async def _tokenize(self, model: ServedModel, question: Question, dim: int | None) -> Tokens:
        def tokenize() -> Tokens:
            if dim is not None:
                check_dim(dim, width=model.dim)
            return model.tokenize(question)

        return await self._on_tokenizing_thread(tokenize)

    async def _on_tokenizing_thread(self, work: Callable[[], Result]) -> Result:
        started = monotonic()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._tokenizing, work)
        except (ConfigError, DataError) as error:
            raise ApiError(400, str(error).replace("\n", " "), code="invalid_value") from None
        finally:
            self._time("tokenize", started)

    def _time(self, stage: str, started: float) -> None:
        self.metrics.stages.labels(stage).observe(monotonic() - started)
