"""MODEL -> what embeds texts: a decoder of ours, the graph that one was exported to, or a sentence-transformers encoder
that stands beside them as the mark.

What trains, merges or examines tokens asks for an `Embedder`; what only embeds and scores takes any of them.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from embedsmith.model.embedder import Embedder
from embedsmith.model.graph_encoder import GraphEncoder
from embedsmith.model.loading.graph_files import find_graph
from embedsmith.model.loading.sentence_files import is_encoder
from embedsmith.model.sentence_encoder import SentenceEncoder
from embedsmith.settings.choices import Pooling, Precision, Side
from embedsmith.support.errors import ConfigError

log = logging.getLogger(__name__)

LoadedModel = Embedder | SentenceEncoder | GraphEncoder
_STS_PROMPT = "STS"  # what published models call the prompt that they have for these tasks


class EmbeddingModel(Protocol):
    """What scoring a model needs of it; `Embedder`, `SentenceEncoder` and `GraphEncoder` say more of each."""

    @property
    def dim(self) -> int:
        """Embedding width D."""

    @property
    def max_length(self) -> int:
        """Most tokens per text."""

    @property
    def transformer(self) -> Any:
        """Its network, as transformers knows it, or a `GraphModel`."""

    @property
    def run_by(self) -> str | None:
        """The package whose code embeds; None: ours."""

    @property
    def takes_instruction(self) -> bool:
        """Whether a prompt has a place for an instruction."""

    @property
    def prompts(self) -> Mapping[str, str]:
        """Name -> template of those it brings for certain uses."""

    def change_prompt(self, prompt: str | None) -> None:
        """Embed queries and documents under another template."""

    def encode(
        self,
        texts: Iterable[str],
        *,
        side: Side | str = Side.DOCUMENT,
        instruction: str | None = None,
        dim: int | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """Embed K texts; (K, D) float32, unit length."""

    def count_cut(self, texts: Sequence[str], *, side: Side = Side.DOCUMENT, instruction: str | None = None) -> int:
        """How many texts are longer than it takes."""

    def describe(self, *, weights: Sequence[str], dim: int | None = None) -> dict[str, Any]:
        """All that its embeddings depend on, for files."""


def load_embedding_model(
    model: str,
    *,
    pooling: Pooling | None = None,
    prompt: str | None = None,
    instruction: str | None = None,
    end_token: bool | None = None,
    base_model: str | None = None,
    precision: Precision = Precision.AUTO,
    device: str | None = None,
) -> LoadedModel:
    """Load MODEL, whichever kind it is; `prompt` is that of queries and documents.

    Raises:
        ModelError, MissingExtraError: as `Embedder.load`, `SentenceEncoder.load` and `GraphEncoder.load`.
        ConfigError: as there; or an encoder or a graph is asked for what only a decoder has.
    """
    is_graph = find_graph(model) is not None
    if not is_graph and not is_encoder(model):
        return Embedder.load(
            model,
            pooling=pooling,
            prompt=prompt,
            query_prompt=prompt,
            instruction=instruction,
            end_token=end_token,
            base_model=base_model,
            precision=precision,
            device=device,
        )
    asked = {
        "a pooling": pooling,
        "whether texts end with the end token": end_token,
        "a base model": base_model,
    }
    if is_graph:
        asked |= {"a prompt": prompt, "an instruction": instruction}
    others = [what for what, value in asked.items() if value is not None]
    if others and is_graph:
        raise ConfigError(
            f"'{model}' is a graph, which embeds as it was exported; it cannot be given {', '.join(others)}.\n"
            "Leave that away, or export the model anew with it."
        )
    if is_graph:
        return GraphEncoder.load(model, precision=precision, device=device)
    if others:
        raise ConfigError(
            f"'{model}' is an encoder, which embeds as it ships; it cannot be given {', '.join(others)}.\n"
            "Leave that away. A prompt that ends in {text}, widths and the precision may be given."
        )
    return SentenceEncoder.load(model, prompt=prompt, instruction=instruction, precision=precision, device=device)


def take_sts_prompt(embedder: EmbeddingModel, *, name: str) -> None:
    """Embed under the prompt that a published model has for STS, if it has one, as mteb does; else both sentences of a
    pair are queries. What that is, is said."""
    prompts = embedder.prompts
    if own := prompts.get(_STS_PROMPT):
        log.info("%s: both sentences of a pair stand under its own prompt for STS, %r.", name, own)
        embedder.change_prompt(own)
    elif own := prompts.get(Side.QUERY):
        log.info("%s: both sentences of a pair stand under its own prompt for queries, %r.", name, own)
