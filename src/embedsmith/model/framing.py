"""What both ways of making a prompt's tokens share: one text in its prompt as ids, and where end tokens stop.

`apart.py` makes the tokens of a prompt's parts and of the text each alone, `joined.py` those of the whole.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from embedsmith.settings.prompts import Prompt


class Role(StrEnum):
    """What a token of a text is there for."""

    START = "start"
    PROMPT = "prompt"
    TEXT = "text"
    END = "end"


class Framed(NamedTuple):
    """One text in its prompt, as ids without end token.

    Attributes:
        ids: start token, prompt and text, cut to the length asked for.
        pool_from: the first token that mean poolings look at; may lie behind the last one.
        num_shared: how many leading ids are those of the prompt's first part as it is tokenised alone; 0 for an echo
            prompt.
    """

    ids: list[int]
    pool_from: int
    num_shared: int


class Framing(Protocol):
    """A way of putting texts into prompts."""

    def frame(self, texts: Sequence[str], prompts: Sequence[Prompt], *, max_tokens: int) -> list[Framed]:
        """Each text under its prompt, cut to `max_tokens` where it is longer; the prompt stays whole."""
        ...

    def roles(self, text: str, prompt: Prompt, *, max_tokens: int) -> list[Role]:
        """What each id of a framed text is there for; end tokens at the prompt's own end may be counted, too."""
        ...

    def num_fixed(self, prompt: Prompt) -> int:
        """Tokens around any text: start token and prompt."""
        ...

    def count_cut(self, texts: Sequence[str], prompt: Prompt, *, max_tokens: int) -> int:
        """How many texts are longer than that under a prompt."""
        ...


class EndToken(NamedTuple):
    """The token behind every text.

    Attributes:
        token: its id.
        is_start: whether the start token is the same.
    """

    token: int
    is_start: bool

    def cut_from(self, ids: list[int]) -> list[int]:
        """The ids without end tokens behind them."""
        end = len(ids)
        while end > 1 and ids[end - 1] == self.token:
            end -= 1
        # A lone id may be the start token.
        return [] if ids == [self.token] and not self.is_start else ids[:end]
