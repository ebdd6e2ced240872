"""An embedding model -> an encoder that mteb can run on any of its text tasks. Needs mteb (extra `mteb`).

Queries and documents get the prompt of their side; texts of tasks that have no sides (similarity, clustering,
classification) are queries, as everywhere in embedsmith. Where a prompt has room for an instruction, the task's own
fills it.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction
from mteb.types import PromptType

from embedsmith.model.embedding_model import EmbeddingModel
from embedsmith.model.loading.fingerprint import fingerprint_model
from embedsmith.settings.choices import Side


class MtebEncoder(AbsEncoder):
    """An embedder under mteb's encoder protocol.

    Args:
        embedder: encodes; an `Embedder` or a `SentenceEncoder`.
        model: what the user called it.
        base_model: where its base lies, if the embedder was loaded so.
        instruction: for every task; None: each task's own.
        dim: of the embeddings, cut to so many; None: all.
        on_progress: called with the number of texts finished by each forward.
    """

    def __init__(
        self,
        embedder: EmbeddingModel,
        *,
        model: str,
        base_model: str | None = None,
        instruction: str | None = None,
        dim: int | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        self.model = embedder
        weights = fingerprint_model(model, base_model=base_model)
        self.embedding = {**embedder.describe(weights=weights, dim=dim), "instruction": instruction}
        self.mteb_model_meta = model_meta(embedder, model=model, embedding=self.embedding, dim=dim)
        self._instruction = instruction
        self._dim = dim
        self._on_progress = on_progress
        self._asked: tuple[str, Side, str | None] | None = None
        self._known: dict[str, np.ndarray] = {}

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str = "",
        hf_subset: str = "",
        prompt_type: PromptType | None = None,
        **_: Any,
    ) -> np.ndarray:
        """Embeddings (K, D) of the texts in mteb's batches."""
        texts = [text for batch in inputs for text in batch["text"]]
        instruction = self._instruction
        if instruction is None and self.model.takes_instruction:
            instruction = self.get_instruction(task_metadata, prompt_type)
        side = Side.DOCUMENT if prompt_type is PromptType.document else Side.QUERY
        if task_metadata.type not in ("STS", "PairClassification"):
            return self._encode(texts, side=side, instruction=instruction)
        # The sentences of pairs stand in several, and those of a similarity task are asked for again for its interval;
        # mteb asks for first and second ones apart, and pairs of equal texts must tie.
        if self._asked != (asked := (task_metadata.name, side, instruction)):
            self._asked, self._known = asked, {}
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known |= dict(zip(new, self._encode(new, side=side, instruction=instruction), strict=True))
        return np.stack([self._known[text] for text in texts])

    def _encode(self, texts: list[str], *, side: Side, instruction: str | None) -> np.ndarray:
        return self.model.encode(
            texts, side=side, instruction=instruction, dim=self._dim, on_progress=self._on_progress
        )


def model_meta(
    embedder: EmbeddingModel, *, model: str, embedding: Mapping[str, Any], dim: int | None = None
) -> ModelMeta:
    """What mteb writes beside its results. The revision is a hash of all that an embedding depends on, so that no
    result of one model is ever taken for one of another that later had its name."""
    network = embedder.transformer
    has_weights = isinstance(network, torch.nn.Module)  # a graph keeps them to itself
    is_hub_id = re.fullmatch(r"[\w.-]+/[\w.-]+", model) is not None and not Path(model).exists()
    facts = {**embedding, "precision": str(network.dtype), "version": version("embedsmith")}
    return ModelMeta(
        loader=None,
        name=model if is_hub_id else f"embedsmith/{re.sub(r'[^0-9A-Za-z.-]+', '-', model).strip('-.') or 'model'}",
        revision=hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:40],
        release_date=None,
        languages=None,
        n_parameters=sum(weight.numel() for weight in network.parameters()) if has_weights else None,
        n_embedding_parameters=sum(weight.numel() for weight in _embeddings(network)) if has_weights else None,
        memory_usage_mb=None,
        max_tokens=embedder.max_length,
        embed_dim=dim or embedder.dim,
        license=None,
        open_weights=None,
        public_training_code=None,
        public_training_data=None,
        framework=["PyTorch", "Transformers"],
        similarity_fn_name=ScoringFunction.COSINE,
        use_instructions=embedder.takes_instruction,
        training_datasets=None,
    )


def _embeddings(network: Any) -> list[torch.Tensor]:
    """The tables in which vectors are looked up by token."""
    if hasattr(network, "get_input_embeddings"):
        return [network.get_input_embeddings().weight]
    return [module.weight for module in network.modules() if isinstance(module, torch.nn.EmbeddingBag)]
