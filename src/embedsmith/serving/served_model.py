"""A model as the server runs it: tokens on one thread, embeddings on another, of texts from many requests at once.

Invariant: a text's embedding is what `encode` gives, up to the roundings of what else lies in a packed row.
"""

from collections import defaultdict
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from embedsmith.model.embedder import Embedder
from embedsmith.model.embedding_model import LoadedModel
from embedsmith.model.encoding import ENCODE_TOKENS, read_texts
from embedsmith.model.graph_encoder import GraphEncoder
from embedsmith.model.sentence_encoder import SentenceEncoder
from embedsmith.model.shown_tokens import ShownText, show_encoder_tokens, show_tokens
from embedsmith.model.tokens import TokenizedTexts
from embedsmith.settings.choices import Side
from embedsmith.settings.prompts import TEXT_FIELD, check_instruction
from embedsmith.support.errors import ConfigError, ModelError


@dataclass(frozen=True)
class Question:
    """What a request wants embedded, texts or token ids.

    Attributes:
        texts: K texts, or none.
        ids: K texts as ids of the model's own tokenizer, or none.
        side: whether they are queries or documents.
        instruction: fills `{instruction}` in the prompt; None: the model's own.
    """

    texts: Sequence[str] = ()
    ids: Sequence[Sequence[int]] = ()
    side: Side = Side.DOCUMENT
    instruction: str | None = None


@dataclass(frozen=True)
class Tokens:
    """K texts ready to be computed.

    Attributes:
        lengths: tokens of each, prompt included, as computed.
        num_cut: how many were longer than the model takes.
        what: they, as the model wants them.
    """

    lengths: Sequence[int]
    num_cut: int
    what: Any


class ServedModel(Protocol):
    """What the server asks of a model.

    Attributes:
        name: what clients call it.
        parent: the name of the served model that it was tuned from; None: it is not served.
    """

    name: str
    parent: str | None

    @property
    def dim(self) -> int:
        """Embedding width D."""

    @property
    def max_length(self) -> int:
        """Most tokens per text."""

    @property
    def batch_tokens(self) -> int:
        """Tokens that it computes at one time, unless it is told."""

    @property
    def pooling(self) -> str | None:
        """How states become a vector; None: not known."""

    def tokenize(self, question: Question) -> Tokens:
        """K texts -> tokens; one thread at a time, beside `embed`.

        Raises:
            ConfigError, DataError: what is asked does not fit the model.
        """

    def prompt_of(self, side: Side, *, instruction: str | None) -> str:
        """Template of what stands around texts.

        Raises:
            ConfigError: it lacks its instruction, or has no place for one.
        """

    def show_tokens(self, question: Question) -> list[ShownText]:
        """Tokens of K texts, not of ids, for people to see; threads and errors as `tokenize`."""

    def embed(self, items: Sequence[tuple[Tokens, int]]) -> np.ndarray:
        """Embeddings (n, D) float32 of n texts, each the i-th of some tokens; one thread at a time."""


class ServedDecoder:
    """An `Embedder`: texts of all requests, under whatever prompts, lie in one packed row.

    Args:
        embedder: the model.
        name, parent: see `ServedModel`.
    """

    def __init__(self, embedder: Embedder, *, name: str, parent: str | None = None) -> None:
        self.embedder = embedder
        self.name = name
        self.parent = parent
        self.pooling = str(embedder.settings.pooling)
        self.dim = embedder.dim
        self.max_length = embedder.max_length
        self.batch_tokens = embedder.tokens_of_a_forward()

    def tokenize(self, question: Question) -> Tokens:
        """See `ServedModel`."""
        side, instruction = question.side, question.instruction
        texts = read_texts(question.texts or self._read_ids(question.ids))
        tokenized = self.embedder.tokenize(texts, side=side, instruction=instruction)
        lengths = [len(ids) for ids in tokenized.ids]
        at_the_limit = [text for text, length in zip(texts, lengths, strict=True) if length == self.max_length]
        num_cut = self.embedder.count_cut(at_the_limit, side=side, instruction=instruction) if at_the_limit else 0
        return Tokens(lengths, num_cut, tokenized)

    def prompt_of(self, side: Side, *, instruction: str | None) -> str:
        """See `ServedModel`."""
        return self.embedder.prompt_of(side, instruction=instruction).template

    def show_tokens(self, question: Question) -> list[ShownText]:
        """See `ServedModel`."""
        texts, instruction = read_texts(question.texts), question.instruction
        return show_tokens(self.embedder, texts, side=question.side, instruction=instruction)

    def _read_ids(self, ids: Sequence[Sequence[int]]) -> list[str]:
        tokenizer = self.embedder.backbone.tokenizer
        own = self.embedder.tokenizer
        _check_ids(ids, num_tokens=len(tokenizer))
        bare = [_without_ends(one, {*own.encoder.starts, own.end_id}) for one in ids]
        texts = [tokenizer.decode(one, clean_up_tokenization_spaces=False) for one in bare]
        _check_same(bare, own.encoder.encode_alone(texts))
        return texts

    def embed(self, items: Sequence[tuple[Tokens, int]]) -> np.ndarray:
        """See `ServedModel`."""
        return self.embedder.encode_tokens(
            TokenizedTexts(
                [tokens.what.ids[index] for tokens, index in items],
                [tokens.what.pool_from[index] for tokens, index in items],
                [tokens.what.shared[index] for tokens, index in items],
            )
        )


class ServedBase(ServedDecoder):
    """What a run or adapter was tuned from, out of the same weights in memory: the same prompt and pooling, the adapter
    switched off while its texts are computed, which is on the thread that computes everything."""

    def embed(self, items: Sequence[tuple[Tokens, int]]) -> np.ndarray:
        """See `ServedModel`."""
        with self.embedder.without_adapter():
            return super().embed(items)


class ServedEncoder:
    """A `SentenceEncoder`, which takes texts and cuts them itself: here they are cut once more, to be counted.

    Args:
        encoder: the model.
        name: what clients call it.
    """

    parent: str | None = None
    pooling: str | None = None

    def __init__(self, encoder: SentenceEncoder, *, name: str) -> None:
        self.encoder = encoder
        self.name = name
        self.dim = encoder.dim
        self.max_length = encoder.max_length
        self.batch_tokens = ENCODE_TOKENS[encoder.network.device.type]
        self._tokenizer = encoder.copy_tokenizer()

    def tokenize(self, question: Question) -> Tokens:
        """See `ServedModel`."""
        check_instruction(question.instruction, is_taken=self.encoder.takes_instruction)
        texts = read_texts(question.texts or self._read_ids(question.ids))
        prompt = self.encoder.prompt_of(question.side, instruction=question.instruction)
        lengths = [
            len(encoding.ids) for encoding in self._tokenizer.encode_batch_fast([prompt + text for text in texts])
        ]
        num_cut = sum(length > self.max_length for length in lengths)
        return Tokens([min(length, self.max_length) for length in lengths], num_cut, (texts, question))

    def prompt_of(self, side: Side, *, instruction: str | None) -> str:
        """See `ServedModel`."""
        check_instruction(instruction, is_taken=self.encoder.takes_instruction)
        return self.encoder.prompt_of(side, instruction=instruction) + TEXT_FIELD

    def show_tokens(self, question: Question) -> list[ShownText]:
        """See `ServedModel`."""
        texts, instruction = read_texts(question.texts), question.instruction
        return show_encoder_tokens(self.encoder, self._tokenizer, texts, side=question.side, instruction=instruction)

    def _read_ids(self, ids: Sequence[Sequence[int]]) -> list[str]:
        _check_ids(ids, num_tokens=self._tokenizer.get_vocab_size())
        probe = self._tokenizer.encode("a")
        ends = {index for index, is_added in zip(probe.ids, probe.special_tokens_mask, strict=True) if is_added}
        bare = [_without_ends(one, ends) for one in ids]
        texts = [self._tokenizer.decode(one, skip_special_tokens=False) for one in bare]
        again = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        _check_same(bare, [encoding.ids for encoding in again])
        return texts

    def embed(self, items: Sequence[tuple[Tokens, int]]) -> np.ndarray:
        """See `ServedModel`."""
        rows = np.empty((len(items), self.dim), dtype=np.float32)
        alike: dict[tuple[Side, str | None], list[int]] = defaultdict(list)
        for place, (tokens, _) in enumerate(items):
            question = tokens.what[1]
            alike[question.side, question.instruction].append(place)
        for (side, instruction), places in alike.items():
            texts = [items[place][0].what[0][items[place][1]] for place in places]
            rows[places] = self.encoder.encode(texts, side=side, instruction=instruction)
        return rows


def serve_model(model: LoadedModel, *, name: str) -> ServedModel:
    """A model under a name.

    Raises:
        ModelError: it is a graph.
    """
    if isinstance(model, GraphEncoder):
        raise ModelError(
            f"'{name}' is a graph, and the server packs texts for weights.\nServe the model that it was exported from."
        )
    return ServedDecoder(model, name=name) if isinstance(model, Embedder) else ServedEncoder(model, name=name)


def serve_with_base(model: LoadedModel, *, name: str) -> list[ServedModel]:
    """A model and, where it is an adapter on a base, that base as NAME:base."""
    if not isinstance(model, Embedder) or model.adapter is None:
        return [serve_model(model, name=name)]
    base = f"{name}:base"
    return [ServedDecoder(model, name=name, parent=base), ServedBase(model, name=base)]


def _without_ends(ids: Sequence[int], added: Set[int]) -> list[int]:
    """Token ids of a text without those that tokenizers put around it."""
    inside = [place for place, index in enumerate(ids) if index not in added]
    return list(ids[inside[0] : inside[-1] + 1]) if inside else []


def _check_ids(ids: Sequence[Sequence[int]], *, num_tokens: int) -> None:
    for item, one in enumerate(ids):
        for index in one:
            if not 0 <= index < num_tokens:
                raise ConfigError(
                    f"input {item} has the token id {index}, but the model's tokenizer knows 0 to {num_tokens - 1}. "
                    "Send ids of its own, or text."
                )


def _check_same(ids: Sequence[Sequence[int]], again: Sequence[Sequence[int]]) -> None:
    """Raise ConfigError where text made of ids is cut into others: they would be embedded as something else."""
    for item, (given, found) in enumerate(zip(ids, again, strict=True)):
        if list(given) != list(found):
            raise ConfigError(
                f"The token ids of input {item} are not those that the model's tokenizer cuts their own text into: "
                "they are another tokenizer's, or end amid a character. Send text. (LangChain's OpenAIEmbeddings does "
                "with check_embedding_ctx_length=False.)"
            )
