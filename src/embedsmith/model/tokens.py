"""Text -> token ids: [start token] prompt text [end token].

Invariant: every list ends with exactly one end token of ours, whatever the tokenizer adds by itself, and truncation
shortens the text only: it never cuts the start token, the prompt or the end token. Chat templates are not applied.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from embedsmith.errors import ConfigError, ModelError

TEXT_FIELD = "{text}"
_PROBE = "a"
_TEXTS_AHEAD = 4096


class TextTokenizer:
    """Turns texts into token ids for one model, prompt and length limit.

    Args:
        tokenizer: a fast Hugging Face tokenizer.
        max_length: most tokens per text, start token, prompt and end token included.
        prompt: template with one `{text}`, or None for the bare text.

    Raises:
        ModelError: the tokenizer has no end token, or is a slow one without character offsets.
        ConfigError: the prompt has no or several `{text}`, or leaves no room for a text.
    """

    def __init__(self, tokenizer: Any, *, max_length: int, prompt: str | None = None) -> None:
        if not tokenizer.is_fast:
            raise ModelError(
                f"{type(tokenizer).__name__} is a slow tokenizer and cannot tell where a text may be cut.\n"
                "Save the model with its tokenizer.json (tokenizers library) and try again."
            )
        if tokenizer.eos_token_id is None:
            raise ModelError(
                "The tokenizer has no end token (eos_token), so there is no position to embed a text at.\n"
                "Set eos_token in the model's tokenizer_config.json."
            )
        prompt = TEXT_FIELD if prompt is None else prompt
        if prompt.count(TEXT_FIELD) != 1:
            raise ConfigError(
                f"model.prompt must hold {TEXT_FIELD} exactly once, it is: {prompt!r}\n"
                "For example: 'This sentence: \"{text}\" means in one word:'"
            )
        self.tokenizer = tokenizer
        self.prompt = prompt
        self.max_length = max_length
        self.eos_id: int = tokenizer.eos_token_id
        self._prefix, self._suffix = prompt.split(TEXT_FIELD)
        num_fixed = len(self([_PROBE], truncate=False)[0]) - 1
        if max_length <= num_fixed:
            raise ConfigError(
                f"model.max_length is {max_length}, but start token, prompt and end token alone take {num_fixed}.\n"
                "Raise model.max_length or shorten model.prompt."
            )

    def __call__(self, texts: Sequence[str], *, truncate: bool = True) -> list[np.ndarray]:
        """Token ids of each text, one int64 array (length,) per text, each ending with the end token."""
        if not texts:
            return []
        formatted = [f"{self._prefix}{text}{self._suffix}" for text in texts]
        lists = self.tokenizer(formatted, return_attention_mask=False, verbose=False)["input_ids"]
        result = []
        for text, string, ids in zip(texts, formatted, lists, strict=True):
            ids = self._without_end(ids)
            if truncate and len(ids) >= self.max_length:
                ids = self._shorten(text, string)
            result.append(np.array([*ids, self.eos_id], dtype=np.int64))
        return result

    def _without_end(self, ids: list[int]) -> list[int]:
        end = len(ids)
        while end and ids[end - 1] == self.eos_id and end > 1:
            end -= 1
        # A lone id may be the start token of a tokenizer whose start and end tokens are the same.
        return [] if ids == [self.eos_id] and self.tokenizer.bos_token_id != self.eos_id else ids[:end]

    def _shorten(self, text: str, formatted: str) -> list[int]:
        """Drop tokens from the end of the text part, so that what stands around it stays whole."""
        encoded = self.tokenizer(formatted, return_offsets_mapping=True, verbose=False)
        ids = self._without_end(encoded["input_ids"])
        offsets = encoded["offset_mapping"][: len(ids)]
        text_end = len(self._prefix) + len(text)
        # The suffix starts at the first token that begins at or after the end of the text.
        num_suffix = sum(1 for start, _ in offsets if start >= text_end) if self._suffix else 0
        cut = self.max_length - 1 - num_suffix
        return ids[:cut] + ids[len(ids) - num_suffix :]


def tokenize_ahead(tokenizer: TextTokenizer, texts: Sequence[str]) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Tokenize a few thousand texts at a time, the next ones on a thread of their own while the caller is at work.

    Yields the position of the first text, and the token ids of it and those that follow.
    """
    starts = range(0, len(texts), _TEXTS_AHEAD)
    if len(starts) <= 1:
        yield 0, tokenizer(texts)
        return
    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = thread.submit(tokenizer, texts[:_TEXTS_AHEAD])
        for start in starts:
            token_lists = coming.result()
            end = start + _TEXTS_AHEAD
            coming = thread.submit(tokenizer, texts[end : end + _TEXTS_AHEAD])
            yield start, token_lists
