"""The honest baseline: the best a model does without training, over prompts, poolings and the end token.

Every known prompt runs as its authors ran it, the bare text with and without the end token, each with every pooling of
one forward. Cost: a forward over the pairs' texts for each prompt.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console

from embedsmith.data.pairs import ScoredPairs
from embedsmith.evaluation.sts import evaluate_tasks
from embedsmith.model.embedder import Embedder
from embedsmith.model.embedding_model import load_embedding_model
from embedsmith.records.results import TaskResult
from embedsmith.settings.choices import Pooling, Side
from embedsmith.settings.prompts import INSTRUCTION_FIELD, PROMPTS
from embedsmith.support.display import encoding_progress
from embedsmith.support.errors import ConfigError, ModelError
from embedsmith.support.free_memory import let_go

log = logging.getLogger(__name__)

BARE = "none"


@dataclass(frozen=True)
class Candidate:
    """One way to embed without training.

    Attributes:
        prompt: name of a known prompt, or `none`.
        end_token: whether texts end with the end token.
        pooling: of the hidden states.
        result: its score.
    """

    prompt: str
    end_token: bool
    pooling: Pooling
    result: TaskResult

    @property
    def flags(self) -> str:
        """What `embedsmith evaluate` takes to do the same."""
        prompt = "" if self.prompt == BARE else f"--prompt {self.prompt} "
        return f"{prompt}{'--end-token' if self.end_token else '--no-end-token'} --pooling {self.pooling}"

    def to_json(self) -> dict[str, Any]:
        """For files."""
        return {
            "prompt": self.prompt,
            "end_token": self.end_token,
            "pooling": str(self.pooling),
            "cosine_spearman": self.result.cosine_spearman,
            "ci95": list(self.result.ci95),
        }


def score_marks(
    models: Sequence[str], *, pairs: ScoredPairs, device: str | None = None, console: Console | None = None
) -> dict[str, TaskResult]:
    """Scores of models as they embed, encoders among them, on the pairs of a ranking: other marks to beat.

    Raises:
        ModelError: one cannot be loaded or ranked.
    """
    with encoding_progress(console or Console(quiet=True)) as (start, advance):

        def score(model: str) -> TaskResult:
            let_go()  # of the one before
            embedder = load_embedding_model(model, device=device)

            def embed(texts: list[str]) -> dict[str, np.ndarray]:
                return {model: embedder.encode(texts, side=Side.QUERY, on_progress=advance)}

            return evaluate_tasks(embed, tasks={model: pairs}, on_task=start)[model].tasks[model]

        return {model: score(model) for model in models}


def rank_untrained(
    model: str,
    *,
    pairs: ScoredPairs,
    prompts: Sequence[str] | None = None,
    device: str | None = None,
    console: Console | None = None,
) -> list[Candidate]:
    """Score every way to embed `pairs` without training, best first.

    Args:
        model: built-in name, hub id or folder; of a run, its base.
        pairs: what decides.
        prompts: names to try, `none` for the bare text; None: all that need no instruction.
        device: a torch device; None: CUDA where there is one, else the CPU.
        console: where progress goes; None: nowhere.

    Raises:
        ConfigError: an unknown name, or one that needs an instruction.
        ModelError: the model cannot be loaded, or nothing can be ranked; what else cannot is left out, and said.
    """
    usable = [BARE, *(name for name, known in PROMPTS.items() if INSTRUCTION_FIELD not in known.template)]
    unknown = [name for name in prompts or [] if name not in usable]
    if unknown:
        raise ConfigError(f"--prompts names {', '.join(unknown)}; it may name {', '.join(usable)}.")
    let_go()
    embedder = Embedder.load(model, device=device)
    candidates: list[Candidate] = []
    failures: list[str] = []
    with embedder.without_adapter(), encoding_progress(console or Console(quiet=True)) as (start, advance):

        def embed(texts: list[str]) -> dict[str, np.ndarray]:
            vectors = embedder.encode_poolings(texts, poolings=embedder.poolings, side=Side.QUERY, on_progress=advance)
            return {str(pooling): rows for pooling, rows in vectors.items()}

        for name in prompts or usable:
            template = PROMPTS[name].template if name in PROMPTS else None
            for end_token in (PROMPTS[name].end_token,) if name in PROMPTS else (True, False):
                embedder.change_prompt(template, end_token=end_token)
                task = name if end_token else f"{name}, no end token"
                try:
                    found = evaluate_tasks(embed, tasks={task: pairs}, on_task=start)
                except ModelError as error:
                    failures.append(str(error))
                    continue
                candidates += [
                    Candidate(name, end_token, Pooling(pooling), result.tasks[task])
                    for pooling, result in found.items()
                    if result.tasks
                ]
                failures += [
                    f"{pooling}: {reason}" for pooling, one in found.items() for reason in one.failures.values()
                ]
    if not candidates:
        raise ModelError(failures[0])
    for failure in failures:
        log.warning("Left out: %s", failure)
    return sorted(candidates, key=lambda candidate: -candidate.result.cosine_spearman)
