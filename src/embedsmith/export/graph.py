"""A model as one graph of tensor operations, for programs that know no transformers: tokens in, vectors out.

    input_ids, attention_mask (K, L) -> last_hidden_state (K, L, H), sentence_embedding (K, D)

Pooling, dense layers and unit length are inside. Padding may stand on either side of a text and changes no bit of it:
it is turned to the right first, where no token of a causal model sees it, and no row of attention is without a token.
Where attention goes both ways, the mask closes the padding.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from embedsmith.model.embedder import Embedder
from embedsmith.model.graph_runner import INPUTS
from embedsmith.model.layers.open_mask import see_ahead
from embedsmith.model.loading.dense import Dense
from embedsmith.settings.choices import Pooling
from embedsmith.support.errors import ModelError


class EmbeddingGraph(nn.Module):
    """A merged network with its pooling, in transformers' plain attention.

    Args:
        network: the transformer stack; its attention is changed in place.
        pooling: one of `WEIGHTS`.
        dense: layers behind the pooling.
        causal_layers: behind so many layers a token sees later ones too; None: as the network's configuration says.
    """

    def __init__(
        self, network: Any, *, pooling: Pooling, dense: Sequence[Dense], causal_layers: int | None = None
    ) -> None:
        super().__init__()
        # The one whose operations are all in the graph: soft caps and masks too, and softmax in float32.
        network.set_attn_implementation("eager")
        if causal_layers is not None:
            see_ahead(network, causal_layers=causal_layers)
        self.network = network
        self.weigh = WEIGHTS[pooling]
        self.dense = tuple(dense)
        self.eval()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(K, L) int64 both, 1 where a text has a token -> states (K, L, H) and vectors (K, D), float32."""
        columns = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        length = torch.ones_like(input_ids).sum(1, keepdim=True)  # a tensor: the exporter knows no remainder of sizes
        num_before = (attention_mask.cumsum(1) == 0).sum(1, keepdim=True)
        to_left = (columns + num_before) % length
        mask = attention_mask.gather(1, to_left)
        states = self.network(
            input_ids=input_ids.gather(1, to_left), attention_mask=mask, use_cache=False
        ).last_hidden_state.float()
        vectors = (self.weigh(mask)[:, None] @ states)[:, 0]  # (K, 1, L) (K, L, H)
        for layer in self.dense:
            vectors = layer(vectors)
        back = (columns - num_before) % length
        states = states.gather(1, back[..., None].expand(-1, -1, states.shape[2]))
        return states, nn.functional.normalize(vectors, dim=-1)


def make_graph(live: Embedder) -> EmbeddingGraph:
    """The graph of a model whose adapter is merged; its network is the model's own."""
    return EmbeddingGraph(
        live.backbone.model,
        pooling=live.settings.pooling,
        dense=live.backbone.dense,
        causal_layers=None if live.attends_as_base else live.causal_layers,
    )


def example_inputs() -> tuple[torch.Tensor, torch.Tensor]:
    """Two texts, one of them padded: what a graph is traced with."""
    ids = torch.ones(2, 8, dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    return ids, mask


def dynamic_shapes() -> dict[str, dict[int, Any]]:
    """Any number of texts of any length, as torch's exporters take it."""
    rows, columns = torch.export.Dim("texts"), torch.export.Dim("tokens")
    return {name: {0: rows, 1: columns} for name in INPUTS}


def inexpressible(model: str, error: BaseException, *, by: str) -> ModelError:
    """The error to raise where a converter has no words for a model: the innermost one in one line, as those around it
    advise how to write a converter."""
    while error.__cause__ is not None:
        error = error.__cause__
    cause = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return ModelError(
        f"{by} cannot express the model '{model}': {cause}\n"
        "Export to sentence-transformers, or load it with embedsmith."
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back what converters say of their own parts; what they cannot do is an error."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _last(mask: torch.Tensor) -> torch.Tensor:
    return (mask.cumsum(1) == mask.sum(1, keepdim=True)).float() * mask


def _mean(mask: torch.Tensor) -> torch.Tensor:
    return mask.float() / mask.sum(1, keepdim=True)


def _weighted_mean(mask: torch.Tensor) -> torch.Tensor:
    return _mean(mask.cumsum(1) * mask)


WEIGHTS: dict[Pooling, Callable[[torch.Tensor], torch.Tensor]] = {
    Pooling.LAST: _last,
    Pooling.MEAN: _mean,
    Pooling.WEIGHTED_MEAN: _weighted_mean,
}
"""Mask (K, L) of texts that begin at the left -> what each state counts in the pooled one; rows sum to 1."""
