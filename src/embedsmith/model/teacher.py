"""Texts -> a teacher's embeddings: another model, never trained here, that training asks about a batch's texts.

A teacher is any MODEL, or a sentence-transformers model with an encoder as its body, which runs in that package. Its
embeddings are computed anew for every batch and are kept nowhere: they are a function of the batch alone, so a resumed
run sees the same bytes, which a memory filled in another order would not give.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from embedsmith.model.embedder import Embedder
from embedsmith.model.loading.sentence_files import is_encoder
from embedsmith.model.sentence_encoder import SentenceEncoder
from embedsmith.settings.config import Side

Encode = Callable[[list[str], Side], np.ndarray]


class Teacher:
    """A frozen embedding model.

    Args:
        encode: K texts, their side -> (K, T) float32, unit length; a function of these alone.
        dim: width T of its embeddings.
        device: where the embeddings are wanted.
    """

    def __init__(self, encode: Encode, *, dim: int, device: torch.device) -> None:
        self.dim = dim
        self._encode = encode
        self._device = device

    def embed(self, texts: Sequence[str], *, are_queries: Sequence[bool]) -> torch.Tensor:
        """Unit-length embeddings (K, T) float32 of K texts, each as a query or as a document, without graph."""
        parts, rows = [], []
        for side in Side:
            chosen = [row for row, is_query in enumerate(are_queries) if is_query == (side is Side.QUERY)]
            if chosen:
                parts.append(np.asarray(self._encode([texts[row] for row in chosen], side), dtype=np.float32))
                rows += chosen
        return torch.from_numpy(np.concatenate(parts)[np.argsort(rows)]).to(self._device)


def load_teacher(model: str, *, device: torch.device) -> Teacher:
    """Load a teacher: MODEL, or a sentence-transformers folder or hub id.

    Raises:
        ModelError: there is no such model, or it needs program code or pickled weights.
        MissingExtraError: it is a sentence-transformers model, and that package is not installed.
    """
    loaded: Embedder | SentenceEncoder
    if is_encoder(model):
        loaded = SentenceEncoder.load(model, device=str(device))
    else:
        loaded = Embedder.load(model, device=str(device))
    return Teacher(lambda texts, side: loaded.encode(texts, side=side), dim=loaded.dim, device=device)
