"""Prompt and text put together, then cut into tokens: those where they meet may belong to both.

The way of published models, and of runs from before `apart.py`: their vectors hang on it.
"""

from collections.abc import Sequence
from itertools import zip_longest

from embedsmith.model.control_tokens import PROBE, Encoded, TextEncoder
from embedsmith.model.framing import EndToken, Framed, Role
from embedsmith.model.loading.settings import PoolOver
from embedsmith.settings.prompts import Prompt


class JoinedPrompts:
    """Texts under prompts, each tokenised as a whole; the interface is `Framing`."""

    def __init__(self, encoder: TextEncoder, *, end: EndToken, pool_over: PoolOver) -> None:
        self._encoder = encoder
        self._end = end
        self._pool_over = pool_over
        self._firsts: dict[Prompt, list[int]] = {}

    def frame(self, texts: Sequence[str], prompts: Sequence[Prompt], *, max_tokens: int) -> list[Framed]:
        """Each text under its prompt, cut to `max_tokens` where it is longer; the prompt stays whole."""
        needs_offsets = self._pool_over == "text" or any(prompt.is_echo for prompt in prompts)
        result = []
        for text, prompt, encoded in zip(
            texts, prompts, self._encoder.encode(texts, prompts, with_offsets=needs_offsets), strict=True
        ):
            ids = self._end.cut_from(encoded.ids)
            if len(ids) > max_tokens:
                text, encoded = self._cut(text, prompt, max_tokens)
                ids = self._end.cut_from(encoded.ids)
            first = [] if prompt.is_echo else self._first_part(prompt)
            result.append(Framed(ids, self._pool_from(text, encoded), _num_common(first, ids)))
        return result

    def roles(self, text: str, prompt: Prompt, *, max_tokens: int) -> list[Role]:
        """What each id is there for; one that is prompt and text counts as text."""
        encoded = self._encode(text, prompt)
        if len(encoded.ids) > max_tokens:
            text, encoded = self._cut(text, prompt, max_tokens)
        copies = []
        first = 0
        for part in encoded.prompt.parts[:-1]:
            first += len(part)
            copies.append((first, first + len(text)))
            first += len(text)
        return [_role(offsets, copies) for offsets in encoded.offsets]

    def num_fixed(self, prompt: Prompt) -> int:
        """Tokens around any text: start token and prompt."""
        return len(self._encode(PROBE, prompt).ids) - 1 - prompt.is_echo

    def count_cut(self, texts: Sequence[str], prompt: Prompt, *, max_tokens: int) -> int:
        """How many texts are longer than that under a prompt."""
        encoded = self._encoder.encode(texts, [prompt] * len(texts), with_offsets=False)
        return sum(len(self._end.cut_from(one.ids)) > max_tokens for one in encoded)

    def _pool_from(self, text: str, encoded: Encoded) -> int:
        prompt = encoded.prompt
        if prompt.is_echo:
            before, between, _ = prompt.parts
            return _first_behind(len(before) + len(text) + len(between), encoded.offsets)
        if self._pool_over == "text":
            return _first_behind(len(prompt.parts[0]), encoded.offsets)
        if self._pool_over == "behind_prompt":
            return len(self._first_part(prompt))
        return 0

    def _first_part(self, prompt: Prompt) -> list[int]:
        """Tokens of what stands before a text, start token included, as they are without it; none without a prompt."""
        if prompt not in self._firsts:
            before = Prompt((prompt.parts[0], ""))
            self._firsts[prompt] = self._encode("", before).ids if prompt.parts[0] else []
        return self._firsts[prompt]

    def _encode(self, text: str, prompt: Prompt) -> Encoded:
        encoded = self._encoder.encode([text], [prompt], with_offsets=True)[0]
        ids = self._end.cut_from(encoded.ids)
        return Encoded(ids, encoded.offsets[: len(ids)], encoded.prompt)

    def _cut(self, text: str, prompt: Prompt, max_tokens: int) -> tuple[str, Encoded]:
        return (self._shorten_echo if prompt.is_echo else self._shorten)(text, prompt, max_tokens)

    def _shorten(self, text: str, prompt: Prompt, max_tokens: int) -> tuple[str, Encoded]:
        """Drop tokens from the end of the text part, so that what stands around it stays whole."""
        encoded = self._encode(text, prompt)
        before, behind = encoded.prompt.parts
        text_end = len(before) + len(text)
        # What stands behind starts at the first token that begins at or after the end of the text.
        num_behind = sum(1 for start, _ in encoded.offsets if start >= text_end) if behind else 0
        kept, behind_from = max_tokens - num_behind, len(encoded.ids) - num_behind
        ids = encoded.ids[:kept] + encoded.ids[behind_from:]
        return text, encoded._replace(ids=ids, offsets=encoded.offsets[:kept] + encoded.offsets[behind_from:])

    def _shorten_echo(self, text: str, prompt: Prompt, max_tokens: int) -> tuple[str, Encoded]:
        """Cut the text itself, the same in both copies, until they fit."""
        encoded = self._encode(text, prompt)
        first = len(encoded.prompt.parts[0])
        last = first + len(text)
        ends = [end - first for start, end in encoded.offsets if first <= start < end <= last]
        num_kept = len(ends)
        while len(encoded.ids) > max_tokens:
            # Half of what is too much falls on each copy.
            num_kept -= max(1, (len(encoded.ids) - max_tokens) // 2)
            text = text[: ends[num_kept - 1]] if num_kept > 0 else ""
            encoded = self._encode(text, prompt)
        return text, encoded


def _role(offsets: tuple[int, int], copies: Sequence[tuple[int, int]]) -> Role:
    start, end = offsets
    if start == end:  # the tokenizer's own
        return Role.START
    return Role.TEXT if any(start < last and first < end for first, last in copies) else Role.PROMPT


def _first_behind(begin: int, offsets: Sequence[tuple[int, int]]) -> int:
    """The first token that reaches beyond so many characters; a text without tokens leaves what stands behind it."""
    return next((index for index, (start, end) in enumerate(offsets) if end > begin and end > start), len(offsets))


def _num_common(first: list[int], ids: list[int]) -> int:
    """How many leading ids two lists have in common."""
    if first == ids[: len(first)]:
        return len(first)
    return next(index for index, (one, other) in enumerate(zip_longest(first, ids)) if one != other)
