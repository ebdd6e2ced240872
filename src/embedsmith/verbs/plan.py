"""What a run will take on this machine, before it runs: tokens, time and memory, from a few of its own steps.

The run's own batches are drawn and counted, the largest of them goes first (it decides the memory), some others are
timed, and so are the encoding of a part of the development set and a teacher's vectors of what it is asked meanwhile.
Nothing is written. Cost: loading, and a dozen steps.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_

from embedsmith.data.pairs import ScoredPairs
from embedsmith.evaluation.sts import score_task
from embedsmith.model.embedder import Embedder
from embedsmith.model.teacher import LoadedTeachers
from embedsmith.records.results import Plan
from embedsmith.settings.choices import Side
from embedsmith.settings.config import RunConfig
from embedsmith.support.environment import peak_bytes
from embedsmith.training.batching import source_shares, training_batches
from embedsmith.training.budget import TokenBudget
from embedsmith.training.cost import embedding_bytes, gradient_bytes
from embedsmith.training.distributed import Processes
from embedsmith.training.loop import make_optimizer, trained_parameters
from embedsmith.training.memory import tokens_that_fit
from embedsmith.training.objective import Objective
from embedsmith.training.projection import start_projection
from embedsmith.training.step import pack_batch, take_step
from embedsmith.verbs.prepare import PreparedRun, prepare_run

_COUNTED_BATCHES = 64
_WARM_UP_STEPS = 3
_TIMED_STEPS = 8
_TIMED_TEXTS = 400
_SHOWN_PROCESSES = 8
"""A machine of GPUs: as so many processes a run of one is also shown."""


def plan_run(config: RunConfig, *, device: str | None = None) -> Plan:
    """Estimate what `train` will take with this configuration on this machine; `device` as there.

    Raises:
        DataError, ModelError, ConfigError, MissingExtraError: as `train`, which would fail in the same way.
    """
    started = time.perf_counter()
    run = prepare_run(config, device=device)
    settings, embedder, processes = config.training, run.embedder, Processes(run.accelerator)
    teacher = _TimedTeacher(run)
    run = teacher.run
    start_projection(run.objective, embedder=embedder, triplets=run.triplets, config=config, processes=processes)
    start_s = time.perf_counter() - started - teacher.seconds
    drawn = training_batches(run.triplets, config=config)
    batches = list(islice(drawn, min(run.schedule.max_steps, _COUNTED_BATCHES)))
    counts = [
        pack_batch(embedder, batch=run.triplets.rows(rows), objective=run.objective).num_tokens for rows in batches
    ]
    seconds_per_token = _time_steps(run, batches=batches, counts=counts, teacher=teacher)
    tokens_per_step = float(np.mean(counts))
    num_processes = processes.count if processes.count > 1 else _SHOWN_PROCESSES
    num_trained = sum(parameter.numel() for parameter in trained_parameters(embedder))
    return Plan(
        num_rows=len(run.triplets),
        num_steps=run.schedule.max_steps,
        num_epochs=run.schedule.max_steps * settings.batch_size / len(run.triplets),
        tokens_per_step=tokens_per_step,
        step_s=seconds_per_token * tokens_per_step,
        num_evaluations=len(run.schedule.evaluated_at) + bool(run.schedule.averaged) if run.dev else 0,
        evaluation_s=_time_evaluation(embedder, run.dev) if run.dev else 0.0,
        start_s=start_s,
        teacher_s=teacher.estimate_s(),
        peak_bytes=peak_bytes(embedder.device),
        num_processes=num_processes,
        embedding_bytes=_embedding_bytes(run, batches=batches, count=num_processes),
        gradient_bytes=round(gradient_bytes(num_trained=num_trained, count=num_processes)),
        sources=source_shares(run.triplets, config=config, num_steps=run.schedule.max_steps),
        device=f"{embedder.device}, {str(embedder.backbone.model.dtype).removeprefix('torch.')}, {embedder.path}",
    )


def _embedding_bytes(run: PreparedRun, *, batches: Sequence[np.ndarray], count: int) -> int:
    """What each of so many processes sends of the embeddings of a mean batch; no loss but a contrastive one does."""
    if not isinstance(run.objective, Objective):
        return 0
    num_texts = [sum(map(len, run.objective.text_groups(run.triplets.rows(rows)))) for rows in batches]
    return embedding_bytes(num_texts=round(float(np.mean(num_texts)) / count), dim=run.embedder.dim, count=count)


class _TimedTeacher:
    """The teacher of a run, if it has one, who answers anew each time: a run asks about all texts once, and keeps that.

    Args:
        run: whose teacher it is.
    """

    def __init__(self, run: PreparedRun) -> None:
        self._triplets = run.triplets
        self._with_negatives = run.config.training.use_hard_negatives
        self._teacher: LoadedTeachers | None = None
        self._num_texts = 0
        self.seconds = 0.0
        self.run = run
        if isinstance(run.objective, Objective) and isinstance(run.objective.teacher, LoadedTeachers):
            self._teacher = run.objective.teacher
            self.run = replace(run, objective=replace(run.objective, teacher=self))

    @property
    def dim(self) -> int:
        """Width T of its vectors."""
        assert self._teacher is not None
        return self._teacher.dim

    def embed(self, texts: Sequence[str], *, are_queries: Sequence[bool]) -> torch.Tensor:
        """As `Teacher.embed`."""
        assert self._teacher is not None
        started = time.perf_counter()
        vectors = self._teacher.embed(texts, are_queries=are_queries)
        self.seconds += time.perf_counter() - started
        self._num_texts += len(set(zip(texts, are_queries, strict=True)))
        return vectors

    def estimate_s(self) -> float:
        """Seconds for all texts of the data; none where their vectors are kept, or without a teacher."""
        if self._teacher is None:
            return 0.0
        texts = self._triplets.texts_by_side(with_negatives=self._with_negatives)
        if self._teacher.has_kept(texts):
            return 0.0
        return self.seconds / self._num_texts * sum(map(len, texts.values()))


def _time_steps(run: PreparedRun, *, batches: list[np.ndarray], counts: list[int], teacher: _TimedTeacher) -> float:
    """Seconds a token, optimizer included; the largest batch goes first, untimed."""
    parameters = [*trained_parameters(run.embedder), *run.objective.parameters]
    optimizer = make_optimizer(parameters, settings=run.config.training)
    budget = TokenBudget(run.config.training.max_tokens or tokens_that_fit(run.embedder))
    largest = int(np.argmax(counts))
    # A run shorter than what is timed goes round again.
    timed = [index % len(batches) for index in range(_TIMED_STEPS)]
    num_tokens, seconds = 0, 0.0
    for place, index in enumerate([*[largest] * _WARM_UP_STEPS, *timed]):
        started, asked_s = time.perf_counter(), teacher.seconds
        _, count = take_step(
            run.embedder,
            batch=run.triplets.rows(batches[index]),
            objective=run.objective,
            budget=budget,
            processes=Processes(run.accelerator),
        )
        clip_grad_norm_(parameters, run.config.training.max_grad_norm).item()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if place >= _WARM_UP_STEPS:
            num_tokens += count
            seconds += time.perf_counter() - started - (teacher.seconds - asked_s)
    return seconds / num_tokens


def _time_evaluation(embedder: Embedder, dev: ScoredPairs) -> float:
    """Encoding a part of the texts, scaled up by tokens, and the statistics of all pairs."""
    texts = list(dict.fromkeys([*dev.sentence1, *dev.sentence2]))
    sizes = [len(ids) for ids in embedder.tokenizer.tokenize(texts, prompts=embedder.prompt_of(Side.QUERY)).ids]
    chosen = np.random.default_rng(0).permutation(len(texts))[:_TIMED_TEXTS]
    started = time.perf_counter()
    embedder.encode([texts[index] for index in chosen], side=Side.QUERY)
    encoding_s = (time.perf_counter() - started) * sum(sizes) / sum(sizes[index] for index in chosen)
    started = time.perf_counter()
    score_task(np.random.default_rng(0).random(len(dev)), dev.scores)
    return encoding_s + time.perf_counter() - started
