"""What mining asks for -> vectors of anchors and documents, from the cache where they are kept."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rich.console import Console

from embedsmith.data.candidates import MiningTask
from embedsmith.model.embedding_model import EmbeddingModel, load_embedding_model
from embedsmith.model.kept_vectors import keep_vectors
from embedsmith.model.loading.fingerprint import fingerprint_model
from embedsmith.settings.choices import Pooling, Precision, Side
from embedsmith.support.display import encoding_progress

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MiningModel:
    """What embeds, and how; each field as that of `load_embedding_model`.

    Attributes:
        is_symmetric: whether candidates are embedded as queries, as anchors are.
    """

    model: str
    pooling: Pooling | None = None
    prompt: str | None = None
    instruction: str | None = None
    end_token: bool | None = None
    base_model: str | None = None
    precision: Precision = Precision.AUTO
    device: str | None = None
    is_symmetric: bool = False

    def load(self) -> EmbeddingModel:
        """The model; errors as `load_embedding_model`."""
        return load_embedding_model(
            self.model,
            pooling=self.pooling,
            prompt=self.prompt,
            instruction=self.instruction,
            end_token=self.end_token,
            base_model=self.base_model,
            precision=self.precision,
            device=self.device,
        )


@dataclass(frozen=True)
class MiningVectors:
    """Unit vectors, memory-mapped.

    Attributes:
        documents: (K, D).
        anchors: in parts, one for each instruction: numbers of its anchors (n,), rising, and their vectors (n, D).
        device: where the model ran.
    """

    documents: np.ndarray
    anchors: list[tuple[np.ndarray, np.ndarray]]
    device: torch.device

    def similarities(self, anchor: int, documents: Sequence[int]) -> np.ndarray:
        """Cosines (n,) of an anchor and some documents."""
        parts = ((rows, np.searchsorted(own, anchor), own) for own, rows in self.anchors)
        vector = next(rows[place] for rows, place, own in parts if place < len(own) and own[place] == anchor)
        return np.asarray(self.documents[list(documents)] @ vector)


def embed_task(task: MiningTask, *, embedder: EmbeddingModel, model: MiningModel, console: Console) -> MiningVectors:
    """Vectors of all that mining asks for; texts that are cut are said. Errors as `keep_vectors`."""
    weights = fingerprint_model(model.model, base_model=model.base_model)
    anchors_of: dict[str | None, list[int]] = defaultdict(list)
    for number, (instruction, _) in enumerate(task.anchors):
        anchors_of[instruction].append(number)
    with encoding_progress(console) as (start, advance):

        def embed(what: str, texts: list[str], *, side: Side, instruction: str | None = None) -> np.ndarray:
            start(what)
            if num_cut := embedder.count_cut(texts, side=side, instruction=instruction):
                log.warning("%d of %d %s were cut to %d tokens.", num_cut, len(texts), what, embedder.max_length)
            return keep_vectors(
                texts,
                embedder=embedder,
                weights=weights,
                name=model.model,
                side=side,
                instruction=instruction,
                on_progress=advance,
            )

        anchors = [
            (
                np.array(numbers),
                embed("anchors", [task.anchors[one][1] for one in numbers], side=Side.QUERY, instruction=instruction),
            )
            for instruction, numbers in anchors_of.items()
        ]
        side = Side.QUERY if model.is_symmetric else Side.DOCUMENT
        documents = embed("documents", task.documents, side=side)
    return MiningVectors(documents, anchors, embedder.transformer.device)
