"""Text -> token ids: [start token] prompt text [end token].

Invariant: every list ends with exactly one end token, whatever the tokenizer adds by itself (none, where end tokens are
switched off), and truncation shortens the text only: it never cuts the start token, the prompt or the end
token. Control tokens that a text spells are characters (`control_tokens.py`). Chat templates are not applied.
Prompt and text are tokenised apart (`apart.py`) or, for models that were made so, together (`joined.py`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from operator import itemgetter
from threading import RLock
from typing import Any

import numpy as np

from embedsmith.model.apart import ApartPrompts
from embedsmith.model.control_tokens import PROBE, TextEncoder
from embedsmith.model.framing import EndToken, Framed, Framing, Role
from embedsmith.model.joined import JoinedPrompts
from embedsmith.model.loading.settings import PoolOver, PromptTokens
from embedsmith.settings.prompts import Prompt, read_prompt
from embedsmith.support.ahead import one_ahead
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
    """Turns texts into token ids for one model and length limit; for one thread after the other.

    Args:
        tokenizer: a fast Hugging Face tokenizer.
        max_length: most tokens per text, start token, prompt and end token included.
        prompt: template of texts that come without one; None: the bare text.
        end_token: whether an end token is put behind every text; None: whether the tokenizer puts one by itself.
            Without one, a text that has no token at all still gets it. It is the one that the tokenizer puts by
            itself (Qwen3-Embedding's is not its `eos_token`), else its `eos_token`.
        pool_over: see `EmbeddingSettings`.
        prompt_tokens: see `EmbeddingSettings`.

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
        prompt_tokens: PromptTokens = "apart",
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
        self.encoder = TextEncoder(tokenizer)
        framing = ApartPrompts if prompt_tokens == "apart" else JoinedPrompts
        end = EndToken(self.end_id, is_start=tokenizer.bos_token_id == self.end_id)
        self.framing: Framing = framing(self.encoder, end=end, pool_over=pool_over)
        self._roomy: set[Prompt] = set()
        self._lock = RLock()  # the tokenizer is told what to do before each use
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
        with self._lock:
            return self._tokenize(texts, prompts)

    def _tokenize(self, texts: Sequence[str], prompts: Sequence[Prompt] | Prompt | None) -> TokenizedTexts:
        if not texts:
            return TokenizedTexts([], [], [])
        each = [prompts or self.prompt] * len(texts) if prompts is None or isinstance(prompts, Prompt) else prompts
        for prompt in set(each) - self._roomy:
            self._check_room(prompt)
        return self._close(self.framing.frame(texts, each, max_tokens=self._max_before_end))

    def frame_ids(self, own_ids: Sequence[list[int]], *, prompt: Prompt) -> TokenizedTexts:
        """As `tokenize`, of K texts whose own ids are there already; for prompts that are tokenised apart.

        Raises:
            ConfigError: the prompt leaves no room for a text.
        """
        assert isinstance(self.framing, ApartPrompts), "joined prompts have no ids of their own"
        with self._lock:
            self._check_room(prompt)
            return self._close(
                self.framing.frame_ids(own_ids, [prompt] * len(own_ids), max_tokens=self._max_before_end)
            )

    def roles(self, text: str, *, prompt: Prompt) -> list[Role]:
        """What each token of a text that `tokenize` gives is there for."""
        with self._lock:
            framed = self.framing.frame([text], [prompt], max_tokens=self._max_before_end)
            num_ends = len(self._close(framed).ids[0]) - len(framed[0].ids)
            roles = self.framing.roles(text, prompt, max_tokens=self._max_before_end)
        return roles[: len(framed[0].ids)] + [Role.END] * num_ends

    def _close(self, all_framed: Sequence[Framed]) -> TokenizedTexts:
        """With the end token behind each."""
        ids, pool_from, shared = [], [], []
        for framed in all_framed:
            is_closed = self.end_token or not framed.ids
            ids.append(np.array([*framed.ids, self.end_id] if is_closed else framed.ids, dtype=np.int64))
            last = len(ids[-1]) - 1
            pool_from.append(min(framed.pool_from, last))
            shared.append(min(framed.num_shared, last))
        return TokenizedTexts(ids, pool_from, shared)

    def count_cut(self, texts: Sequence[str], *, prompt: Prompt) -> int:
        """How many of K texts are longer than the limit leaves room for, and are cut."""
        with self._lock:
            return self.framing.count_cut(texts, prompt, max_tokens=self._max_before_end)

    @property
    def _max_before_end(self) -> int:
        return self.max_length - self.end_token

    def _check_room(self, prompt: Prompt) -> None:
        """A prompt is looked at once."""
        num_fixed = self.framing.num_fixed(prompt) + self.end_token
        if self.max_length <= num_fixed + prompt.is_echo:
            raise ConfigError(
                f"model.max_length is {self.max_length}, but start token, prompt and end token alone take "
                f"{num_fixed}.\n"
                "Raise model.max_length or shorten model.prompt."
            )
        self._roomy.add(prompt)


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
    yield from one_ahead(
        (start, tokenizer.tokenize(texts[start : start + _TEXTS_AHEAD], prompts=prompt)) for start in starts
    )
