"""Text -> token ids: [start token] prompt text [end token].

Invariant: every list ends with exactly one end token, whatever the tokenizer adds by itself (none, where end tokens are
switched off), and truncation shortens the text only: it never cuts the start token, the prompt or the end
token. Control tokens that a text spells are characters (`control_tokens.py`). Chat templates are not applied.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import takewhile, zip_longest
from operator import itemgetter
from typing import Any

import numpy as np

from embedsmith.model.control_tokens import PROBE, Encoded, TextEncoder
from embedsmith.model.loading.settings import PoolOver
from embedsmith.settings.prompts import Prompt, read_prompt
from embedsmith.support.errors import ConfigError, ModelError

_TEXTS_AHEAD = 4096


@dataclass(frozen=True)
class TokenizedTexts:
    """K texts as tokens.

    Attributes:
        ids: one int64 array (length,) a text.
        pool_from: (K,) the first token that mean poolings look at: the second copy's of an echo prompt, else 0.
        shared: (K,) how many leading ids are those of the prompt's first part, start token included, as that part is
            tokenised alone: texts under one prompt have so many in common. 0 without a first part and for an echo
            prompt; at most length - 1, so that every text has a token of its own.
    """

    ids: list[np.ndarray]
    pool_from: list[int]
    shared: list[int]

    def select(self, indices: Sequence[int] | np.ndarray) -> "TokenizedTexts":
        """Some of them, in this order."""
        return TokenizedTexts(
            [self.ids[index] for index in indices],
            [self.pool_from[index] for index in indices],
            [self.shared[index] for index in indices],
        )


class TextTokenizer:
    """Turns texts into token ids for one model and length limit.

    Args:
        tokenizer: a fast Hugging Face tokenizer.
        max_length: most tokens per text, start token, prompt and end token included.
        prompt: template of texts that come without one; None: the bare text.
        end_token: whether an end token is put behind every text; None: whether the tokenizer puts one by itself.
            Without one, a text that has no token at all still gets it. It is the one that the tokenizer puts by
            itself (Qwen3-Embedding's is not its `eos_token`), else its `eos_token`.
        pool_over: see `EmbeddingSettings`.

    Raises:
        ModelError: the tokenizer has no end token, or is a slow one without character offsets.
        ConfigError: the prompt holds no `{text}`, or leaves no room for a text.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        max_length: int,
        prompt: str | None = None,
        end_token: bool | None = True,
        pool_over: PoolOver = "all",
    ) -> None:
        if not tokenizer.is_fast:
            raise ModelError(
                f"{type(tokenizer).__name__} is a slow tokenizer and cannot tell where a text may be cut.\n"
                "Save the model with its tokenizer.json (tokenizers library) and try again."
            )
        closing = closing_token(tokenizer)
        if closing is None and tokenizer.eos_token_id is None:
            raise ModelError(
                "The tokenizer has no end token (eos_token), so there is no position to embed a text at.\n"
                "Set eos_token in the model's tokenizer_config.json."
            )
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.end_token = closing is not None if end_token is None else end_token
        self.end_id: int = tokenizer.eos_token_id if closing is None else closing
        self.pool_over = pool_over
        self.encoder = TextEncoder(tokenizer)
        self._roomy: set[Prompt] = set()
        self._firsts: dict[Prompt, list[int]] = {}
        self.prompt = read_prompt(prompt)
        self._check_room(self.prompt)

    def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of each text under the prompt given at first, one int64 array (length,) a text."""
        return self.tokenize(texts).ids

    def tokenize(self, texts: Sequence[str], *, prompts: Sequence[Prompt] | Prompt | None = None) -> TokenizedTexts:
        """Token ids of K texts, each under a prompt of its own, all under one, or (None) under the one given at first.

        Raises:
            ConfigError: a prompt leaves no room for a text.
        """
        if not texts:
            return TokenizedTexts([], [], [])
        each = [prompts or self.prompt] * len(texts) if prompts is None or isinstance(prompts, Prompt) else prompts
        for prompt in set(each) - self._roomy:
            self._check_room(prompt)
        needs_offsets = self.pool_over == "text" or any(prompt.is_echo for prompt in each)
        ids, pool_from, shared = [], [], []
        for text, prompt, encoded in zip(
            texts, each, self.encoder.encode(texts, each, with_offsets=needs_offsets), strict=True
        ):
            tokens = self._without_end(encoded.ids)
            if len(tokens) + self.end_token > self.max_length:
                text, encoded = (self._shorten_echo if prompt.is_echo else self._shorten)(text, prompt)
                tokens = self._without_end(encoded.ids)
            ids.append(np.array([*tokens, self.end_id] if self.end_token or not tokens else tokens, dtype=np.int64))
            pool_from.append(min(self._pool_from(text, encoded), len(ids[-1]) - 1))
            first = [] if prompt.is_echo else self._first_part(prompt)
            shared.append(min(_num_common(first, tokens), len(ids[-1]) - 1))
        return TokenizedTexts(ids, pool_from, shared)

    def count_cut(self, texts: Sequence[str], *, prompt: Prompt) -> int:
        """How many of K texts are longer than the limit leaves room for, and are cut."""
        encoded = self.encoder.encode(texts, [prompt] * len(texts), with_offsets=False)
        return sum(len(self._without_end(one.ids)) + self.end_token > self.max_length for one in encoded)

    def _pool_from(self, text: str, encoded: Encoded) -> int:
        """The first token that mean poolings look at."""
        prompt = encoded.prompt
        if prompt.is_echo:
            before, between, _ = prompt.parts
            return _first_behind(len(before) + len(text) + len(between), encoded.offsets)
        if self.pool_over == "text":
            return _first_behind(len(prompt.parts[0]), encoded.offsets)
        if self.pool_over == "behind_prompt":
            return len(self._first_part(prompt))
        return 0

    def _first_part(self, prompt: Prompt) -> list[int]:
        """Tokens of what stands before a text, start token included, as they are without it; none without a prompt."""
        if prompt not in self._firsts:
            before = Prompt((prompt.parts[0], ""))
            self._firsts[prompt] = self._encode("", before).ids if prompt.parts[0] else []
        return self._firsts[prompt]

    def _check_room(self, prompt: Prompt) -> None:
        """A prompt is looked at once."""
        num_fixed = len(self._encode(PROBE, prompt).ids) - 1 - prompt.is_echo + self.end_token
        if self.max_length <= num_fixed + prompt.is_echo:
            raise ConfigError(
                f"model.max_length is {self.max_length}, but start token, prompt and end token alone take "
                f"{num_fixed}.\n"
                "Raise model.max_length or shorten model.prompt."
            )
        self._roomy.add(prompt)

    def _encode(self, text: str, prompt: Prompt) -> Encoded:
        encoded = self.encoder.encode([text], [prompt], with_offsets=True)[0]
        ids = self._without_end(encoded.ids)
        return Encoded(ids, encoded.offsets[: len(ids)], encoded.prompt)

    def _without_end(self, ids: list[int]) -> list[int]:
        end = len(ids)
        while end and ids[end - 1] == self.end_id and end > 1:
            end -= 1
        # A lone id may be the start token of a tokenizer whose start and end tokens are the same.
        return [] if ids == [self.end_id] and self.tokenizer.bos_token_id != self.end_id else ids[:end]

    def _shorten(self, text: str, prompt: Prompt) -> tuple[str, Encoded]:
        """Drop tokens from the end of the text part, so that what stands around it stays whole."""
        encoded = self._encode(text, prompt)
        before, behind = encoded.prompt.parts
        text_end = len(before) + len(text)
        # What stands behind starts at the first token that begins at or after the end of the text.
        num_behind = sum(1 for start, _ in encoded.offsets if start >= text_end) if behind else 0
        cut = self.max_length - self.end_token - num_behind
        ids = encoded.ids[:cut] + encoded.ids[len(encoded.ids) - num_behind :]
        return text, encoded._replace(ids=ids)

    def _shorten_echo(self, text: str, prompt: Prompt) -> tuple[str, Encoded]:
        """Cut the text itself, the same in both copies, until they fit."""
        encoded = self._encode(text, prompt)
        first = len(encoded.prompt.parts[0])
        last = first + len(text)
        ends = [end - first for start, end in encoded.offsets if first <= start < end <= last]
        num_kept = len(ends)
        while len(encoded.ids) + self.end_token > self.max_length:
            # Half of what is too much falls on each copy.
            num_kept -= max(1, (len(encoded.ids) + self.end_token - self.max_length) // 2)
            text = text[: ends[num_kept - 1]] if num_kept > 0 else ""
            encoded = self._encode(text, prompt)
        return text, encoded


def _num_common(first: list[int], tokens: list[int]) -> int:
    """How many leading ids two lists have in common."""
    if first == tokens[: len(first)]:
        return len(first)
    return next(index for index, (one, other) in enumerate(zip_longest(first, tokens)) if one != other)


def _first_behind(begin: int, offsets: Sequence[tuple[int, int]]) -> int:
    """The first token that reaches beyond so many characters; a text without tokens leaves what stands behind it."""
    return next((index for index, (start, end) in enumerate(offsets) if end > begin and end > start), len(offsets))


def closing_token(tokenizer: Any) -> int | None:
    """The control token that a tokenizer puts behind every text by itself; None: it puts none.

    Raises:
        ModelError: it puts several different ones, so it cannot be told which one a text ends with.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    encoding = backend.encode(PROBE)
    behind_first = zip(encoding.ids[:0:-1], encoding.special_tokens_mask[:0:-1], strict=True)
    added = [index for index, _ in takewhile(itemgetter(1), behind_first)]
    ids = set(added)
    if len(ids) > 1:
        names = ", ".join(backend.id_to_token(index) for index in reversed(added))
        raise ModelError(f"The tokenizer puts {names} behind every text; embedsmith takes one end token.")
    return ids.pop() if ids else None


def tokenize_ahead(
    tokenizer: TextTokenizer, texts: Sequence[str], *, prompt: Prompt | None = None
) -> Iterator[tuple[int, TokenizedTexts]]:
    """Tokenize a few thousand texts at a time, the next ones on a thread of their own while the caller is at work.

    Yields the position of the first text, and the token ids of it and those that follow.
    """
    starts = range(0, len(texts), _TEXTS_AHEAD)
    if len(starts) <= 1:
        yield 0, tokenizer.tokenize(texts, prompts=prompt)
        return
    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = thread.submit(tokenizer.tokenize, texts[:_TEXTS_AHEAD], prompts=prompt)
        for start in starts:
            tokenized = coming.result()
            end = start + _TEXTS_AHEAD
            coming = thread.submit(tokenizer.tokenize, texts[end : end + _TEXTS_AHEAD], prompts=prompt)
            yield start, tokenized
