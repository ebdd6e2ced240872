"""A prompt's parts and the text cut into tokens each alone: all texts under one prompt begin with the same tokens.

    prompt     'sentence : "{text}" means:'
    ids        start token, those of 'sentence : "' | those of the text | those of '" means:'

No token belongs to both prompt and text, so a prompt is tokenised once, and what texts have in common is computed once.
Where the first part ends with a blank, that goes to the text's tokens: language models know words with the blank before
them ("Query: {text}" is 'Query:' and ' a cat'). In an echo prompt it does if one stands before both copies.

A tokenizer that puts a blank before whatever it cuts (Llama 2's) puts it before each part and the text as well; a blank
that stands there already is not put twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from embedsmith.model.control_tokens import TextEncoder
from embedsmith.model.framing import EndToken, Framed, Role
from embedsmith.model.loading.settings import PoolOver
from embedsmith.settings.prompts import Prompt

_BLANK = " "


@dataclass(frozen=True)
class PromptParts:
    """A prompt as ids.

    Attributes:
        first: start token, and what stands before the text.
        others: what stands behind it; for an echo prompt, behind each copy.
        lead: what is put before every text: a blank or nothing.
    """

    first: list[int]
    others: list[list[int]]
    lead: str

    @property
    def num_tokens(self) -> int:
        """All of them."""
        return len(self.first) + sum(len(part) for part in self.others)

    def room(self, max_tokens: int) -> int:
        """Tokens that a text may have, in each copy."""
        return (max_tokens - self.num_tokens) // len(self.others)


class ApartPrompts:
    """Texts under prompts, each tokenised alone; the interface is `Framing`."""

    def __init__(self, encoder: TextEncoder, *, end: EndToken, pool_over: PoolOver) -> None:
        self._encoder = encoder
        self._end = end
        self._pool_over = pool_over
        self._parts: dict[Prompt, PromptParts] = {}

    def frame(self, texts: Sequence[str], prompts: Sequence[Prompt], *, max_tokens: int) -> list[Framed]:
        """Each text under its prompt, cut to `max_tokens` where it is longer; the prompt stays whole."""
        own = self._texts_alone(texts, self._parts_of_each(prompts))
        return self.frame_ids(own, prompts, max_tokens=max_tokens)

    def frame_ids(self, own_ids: Sequence[list[int]], prompts: Sequence[Prompt], *, max_tokens: int) -> list[Framed]:
        """The same of texts whose own ids are there already."""
        each = self._parts_of_each(prompts)
        result = []
        for ids, prompt, parts in zip(own_ids, prompts, each, strict=True):
            own = ids[: parts.room(max_tokens)]
            framed = list(parts.first)
            for behind in parts.others:
                framed += own
                framed += behind
            num_shared = len(parts.first) if prompt.parts[0] and not prompt.is_echo else 0
            result.append(Framed(self._end.cut_from(framed), self._pool_from(len(own), prompt, parts), num_shared))
        return result

    def roles(self, text: str, prompt: Prompt, *, max_tokens: int) -> list[Role]:
        """What each id is there for."""
        parts = self.parts_of(prompt)
        own = self._texts_alone([text], [parts])[0][: parts.room(max_tokens)]
        num_starts = len(self._encoder.starts)
        roles = [Role.START] * num_starts + [Role.PROMPT] * (len(parts.first) - num_starts)
        for behind in parts.others:
            roles += [Role.TEXT] * len(own) + [Role.PROMPT] * len(behind)
        return roles

    def num_fixed(self, prompt: Prompt) -> int:
        """Tokens around any text: start token and prompt."""
        return self.parts_of(prompt).num_tokens

    def count_cut(self, texts: Sequence[str], prompt: Prompt, *, max_tokens: int) -> int:
        """How many texts are longer than that under a prompt."""
        parts = self.parts_of(prompt)
        room = parts.room(max_tokens)
        return sum(len(ids) > room for ids in self._texts_alone(texts, [parts] * len(texts)))

    def parts_of(self, prompt: Prompt) -> PromptParts:
        """A prompt's tokens, cut once."""
        if prompt not in self._parts:
            *before_texts, last = prompt.parts
            puts_blank = self._encoder.puts_blank
            has_blank = all(part.endswith(_BLANK) for part in before_texts)
            first, *others = (
                [*(part.removesuffix(_BLANK) for part in before_texts), last] if has_blank else prompt.parts
            )
            self._parts[prompt] = PromptParts(
                [*self._encoder.starts, *self._encoder.encode_part(first)],
                [self._encoder.encode_part(part.removeprefix(_BLANK) if puts_blank else part) for part in others],
                _BLANK if has_blank and not puts_blank else "",
            )
        return self._parts[prompt]

    def _parts_of_each(self, prompts: Sequence[Prompt]) -> list[PromptParts]:
        result: list[PromptParts] = []
        known: Prompt | None = None  # mostly there is one prompt, and to look it up for each text takes time
        for prompt in prompts:
            if prompt is not known:
                known, parts = prompt, self.parts_of(prompt)
            result.append(parts)
        return result

    def _texts_alone(self, texts: Sequence[str], each: Sequence[PromptParts]) -> list[list[int]]:
        return self._encoder.encode_alone([parts.lead + text for text, parts in zip(texts, each, strict=True)])

    def _pool_from(self, num_own: int, prompt: Prompt, parts: PromptParts) -> int:
        if prompt.is_echo:
            return len(parts.first) + num_own + len(parts.others[0])
        if self._pool_over == "text" or (self._pool_over == "behind_prompt" and prompt.parts[0]):
            return len(parts.first)
        return 0
