"""How texts become tokens, for people to see: each token, what it is there for, and whether its state is pooled."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from embedsmith.model.embedder import Embedder
from embedsmith.model.framing import Role
from embedsmith.model.sentence_encoder import SentenceEncoder
from embedsmith.settings.choices import Pooling, Side

_BLANK = "\u2581"  # as SentencePiece writes it


@dataclass(frozen=True)
class ShownToken:
    """One token.

    Attributes:
        id: in the vocabulary.
        token: its name there.
        text: the characters that it stands for; of a part of a character, the replacement character.
        role: what it is there for.
        is_pooled: whether the vector is made of its state; None: not known.
    """

    id: int
    token: str
    text: str
    role: Role
    is_pooled: bool | None


@dataclass(frozen=True)
class ShownText:
    """A text as it is computed.

    Attributes:
        tokens: all of them, in order.
        is_cut: whether the text was longer than the model takes.
    """

    tokens: list[ShownToken]
    is_cut: bool


def show_tokens(
    embedder: Embedder, texts: Sequence[str], *, side: Side = Side.DOCUMENT, instruction: str | None = None
) -> list[ShownText]:
    """K texts as an embedder cuts them; errors as `Embedder.tokenize`."""
    tokenized = embedder.tokenize(texts, side=side, instruction=instruction)
    prompt = embedder.prompt_of(side, instruction=instruction)
    names = embedder.backbone.tokenizer
    shown = []
    for text, ids, pool_from in zip(texts, tokenized.ids, tokenized.pool_from, strict=True):
        last = len(ids) - 1
        first = last if embedder.settings.pooling is Pooling.LAST else pool_from
        tokens = [
            ShownToken(index, token, _text_of(names, index, token), role, place >= first)
            for place, (index, token, role) in enumerate(
                zip(
                    ids.tolist(),
                    names.convert_ids_to_tokens(ids.tolist()),
                    embedder.tokenizer.roles(text, prompt=prompt),
                    strict=True,
                )
            )
        ]
        is_cut = bool(embedder.count_cut([text], side=side, instruction=instruction))
        shown.append(ShownText(tokens, is_cut))
    return shown


def show_encoder_tokens(
    encoder: SentenceEncoder,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    side: Side = Side.DOCUMENT,
    instruction: str | None = None,
) -> list[ShownText]:
    """The same of an encoder; `tokenizer` is its `copy_tokenizer`. What is pooled is that package's own affair."""
    prompt = encoder.prompt_of(side, instruction=instruction)
    shown = []
    for text in texts:
        encoding = tokenizer.encode(prompt + text)
        tokens = [
            ShownToken(index, token, _text_of(tokenizer, index, token), role, None)
            for index, token, role in zip(encoding.ids, encoding.tokens, _roles(encoding, prompt), strict=True)
        ]
        if is_cut := len(tokens) > encoder.max_length:
            ends = [token for token in tokens if token.role is Role.END]
            tokens = [*tokens[: encoder.max_length - len(ends)], *ends]
        shown.append(ShownText(tokens, is_cut))
    return shown


def _roles(encoding: Any, prompt: str) -> list[Role]:
    roles = []
    added = Role.START
    for is_added, (_, end) in zip(encoding.special_tokens_mask, encoding.offsets, strict=True):
        if is_added:
            roles.append(added)
        else:
            added = Role.END
            roles.append(Role.PROMPT if end <= len(prompt) else Role.TEXT)
    return roles


def _text_of(tokenizer: Any, index: int, token: str) -> str:
    if _BLANK in token:
        return token.replace(_BLANK, " ")
    return str(tokenizer.decode([index], skip_special_tokens=False))
