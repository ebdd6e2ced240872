"""Texts -> a teacher's vectors: another model, never trained here, that training asks about a batch's texts.

A teacher is any MODEL, or a sentence-transformers model with an encoder as its body, which runs in that package. A run
asks it once about all texts of its data, and keeps what it says on the disk (`kept_vectors.py`): from then on no model
is needed, in this run or another one on the same texts, and a resumed run sees the same bytes.

    distinct texts of a table --Ensemble.keep--> Ensemble of KeptTeacher --embed(batch's texts)--> (K, T)

Several teachers are one whose cosine is the mean of theirs: their vectors stand side by side. Each is less its mean
over the data's texts there (`teacher.centered`): one whose cosines all lie between 0.7 and 1 would be outvoted.

Memory: the distinct texts while they are computed, eight bytes for each afterwards.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch.nn.functional import normalize

from embedsmith.model.embedder import Embedder
from embedsmith.model.embedding_model import EmbeddingModel
from embedsmith.model.kept_vectors import CHUNK_TEXTS, are_kept, keep_vectors
from embedsmith.model.loading.fingerprint import fingerprint_model
from embedsmith.model.loading.sentence_files import is_encoder
from embedsmith.model.sentence_encoder import SentenceEncoder
from embedsmith.settings.choices import Side

Texts = Mapping[Side, Collection[str]]
"""Distinct texts of each side."""


class Teacher(Protocol):
    """A frozen embedding model, or what it said."""

    @property
    def dim(self) -> int:
        """Width T of its vectors."""

    def embed(self, texts: Sequence[str], *, are_queries: Sequence[bool]) -> torch.Tensor:
        """Unit-length vectors (K, T) float32 of K texts, each as a query or as a document, without graph."""


class Ensemble:
    """One teacher or several, as one.

    Args:
        teachers: at least one.
        means: of each, (T,), taken off its vectors, which are then brought to unit length again; None: none is.
    """

    def __init__(self, teachers: Sequence[Teacher], *, means: Sequence[torch.Tensor] | None = None) -> None:
        self._teachers = teachers
        self._means = means

    @property
    def dim(self) -> int:
        """Width T of its vectors, the sum of the teachers'."""
        return sum(teacher.dim for teacher in self._teachers)

    def embed(self, texts: Sequence[str], *, are_queries: Sequence[bool]) -> torch.Tensor:
        """As `Teacher.embed`."""
        vectors = [teacher.embed(texts, are_queries=are_queries) for teacher in self._teachers]
        if self._means is not None:
            vectors = [normalize(of_one - mean, dim=1) for of_one, mean in zip(vectors, self._means, strict=True)]
        return torch.cat(vectors, dim=1) / len(vectors) ** 0.5


class LoadedTeacher:
    """A teacher that is computed anew whenever it is asked.

    Args:
        model: any model, as its files have it.
        name: what the user calls it.
        device: where the vectors are wanted.
    """

    def __init__(self, model: EmbeddingModel, *, name: str, device: torch.device) -> None:
        self._model = model
        self._name = name
        self._device = device

    @property
    def dim(self) -> int:
        """Width T of its vectors."""
        return self._model.dim

    def embed(self, texts: Sequence[str], *, are_queries: Sequence[bool]) -> torch.Tensor:
        """As `Teacher.embed`; a function of these texts alone."""
        rows = _by_side(texts, are_queries, lambda chosen, side: self._model.encode(chosen, side=side), dim=self.dim)
        return rows.to(self._device)

    def keep(self, texts: Texts, *, on_progress: Callable[[int], None] | None = None) -> "KeptTeacher":
        """The same teacher, with the vectors of these texts taken from the disk, or computed and put there.

        Args:
            texts: distinct ones.
            on_progress: called with the number of texts finished, where any are computed.

        Raises:
            RunError, ModelError, OSError: as `keep_vectors`.
        """
        ordered = _in_order(texts)
        weights = fingerprint_model(self._name)
        vectors = {
            side: keep_vectors(
                of_side,
                embedder=self._model,
                weights=weights,
                name=self._name,
                side=side,
                on_progress=on_progress,
            )
            for side, of_side in ordered.items()
        }
        return KeptTeacher(ordered, vectors, dim=self.dim, device=self._device)

    def has_kept(self, texts: Texts) -> bool:
        """Whether the vectors of all these texts lie on the disk."""
        weights = fingerprint_model(self._name)
        return all(
            are_kept(of_side, embedder=self._model, weights=weights, side=side)
            for side, of_side in _in_order(texts).items()
        )


class KeptTeacher:
    """What a teacher said about some texts, memory-mapped.

    Args:
        texts: all that it may be asked about, in the order of their keys.
        vectors: of each side's texts, (K, T), in their order.
        dim: width T.
        device: where the vectors are wanted.
    """

    def __init__(self, texts: Texts, vectors: Mapping[Side, np.ndarray], *, dim: int, device: torch.device) -> None:
        self.dim = dim
        self._device = device
        self._keys = {side: np.array(list(map(_key, of_side)), dtype=np.uint64) for side, of_side in texts.items()}
        self._vectors = vectors

    def embed(self, texts: Sequence[str], *, are_queries: Sequence[bool]) -> torch.Tensor:
        """As `Teacher.embed`."""
        return _by_side(texts, are_queries, self._look_up, dim=self.dim).to(self._device)

    def mean(self) -> torch.Tensor:
        """(T,) float32: the mean over all its texts, queries and documents alike."""
        sums = [
            of_side[rows : rows + CHUNK_TEXTS].sum(0, dtype=np.float64)
            for of_side in self._vectors.values()
            for rows in range(0, len(of_side), CHUNK_TEXTS)
        ]
        total = np.sum(sums, axis=0) / sum(map(len, self._vectors.values()))
        return torch.from_numpy(total.astype(np.float32)).to(self._device)

    def _look_up(self, texts: Sequence[str], side: Side) -> np.ndarray:
        wanted = np.array(list(map(_key, texts)), dtype=np.uint64)
        rows = np.searchsorted(self._keys[side], wanted)
        assert (self._keys[side][rows.clip(max=len(self._keys[side]) - 1)] == wanted).all(), "a text of other data"
        return np.asarray(self._vectors[side][rows])


class LoadedTeachers(Ensemble):
    """Teachers that are computed anew whenever they are asked, their vectors as they are.

    Args:
        teachers: at least one.
        centers: whether those that are kept are less their mean.
    """

    def __init__(self, teachers: Sequence[LoadedTeacher], *, centers: bool) -> None:
        super().__init__(teachers)
        self._loaded = teachers
        self._centers = centers

    def keep(self, texts: Texts, *, on_progress: Callable[[int], None] | None = None) -> Ensemble:
        """The same teachers with kept vectors, centred if they shall be; otherwise as `LoadedTeacher.keep`."""
        kept = [teacher.keep(texts, on_progress=on_progress) for teacher in self._loaded]
        return Ensemble(kept, means=[teacher.mean() for teacher in kept] if self._centers else None)

    def has_kept(self, texts: Texts) -> bool:
        """Whether all vectors of all these texts lie on the disk."""
        return all(teacher.has_kept(texts) for teacher in self._loaded)


def load_teachers(models: Sequence[str], *, centers: bool, device: torch.device) -> LoadedTeachers:
    """Load one teacher or several; errors as `load_teacher`."""
    return LoadedTeachers([load_teacher(model, device=device) for model in models], centers=centers)


def load_teacher(model: str, *, device: torch.device) -> LoadedTeacher:
    """Load a teacher: MODEL, or a sentence-transformers folder or hub id.

    Raises:
        ModelError: there is no such model, or it needs program code or pickled weights.
        MissingExtraError: it is a sentence-transformers model, and that package is not installed.
    """
    loaded: EmbeddingModel
    if is_encoder(model):
        loaded = SentenceEncoder.load(model, device=str(device))
    else:
        loaded = Embedder.load(model, device=str(device))
    return LoadedTeacher(loaded, name=model, device=device)


def _by_side(
    texts: Sequence[str],
    are_queries: Sequence[bool],
    encode: Callable[[list[str], Side], np.ndarray],
    *,
    dim: int,
) -> torch.Tensor:
    """Vectors (K, T) of K texts from a function that takes one side's."""
    result = np.empty((len(texts), dim), dtype=np.float32)
    for side in Side:
        chosen = [row for row, is_query in enumerate(are_queries) if _side(is_query) is side]
        if chosen:
            result[chosen] = encode([texts[row] for row in chosen], side)
    return torch.from_numpy(result)


def _in_order(texts: Texts) -> dict[Side, list[str]]:
    """Each side's texts by their keys: an order that is a function of them alone."""
    ordered = {side: sorted(of_side, key=_key) for side, of_side in texts.items() if of_side}
    for of_side in ordered.values():
        # Of n texts two share a key with a probability of n^2 / 2^65: one in 400,000 where n is ten million.
        assert len({*map(_key, of_side)}) == len(of_side), "two texts share a key of 64 bits"
    return ordered


def _side(is_query: bool) -> Side:
    return Side.QUERY if is_query else Side.DOCUMENT


def _key(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
