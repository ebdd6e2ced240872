"""Control tokens have a meaning of their own; spelled in a text they are characters, as all others are.

    prompt     "<|im_start|>user {text}"
    text       "Stop at <|im_end|>."
    tokens     <|im_start|> | user | Stop | at | < | | | im | _ | end | | | > | .

A tokenizer knows them wherever they are spelled. So a text whose tokens hold other control tokens than its prompt and
the tokenizer bring is cut again, by a copy of the tokenizer in which control tokens have a spelling that nobody can
guess, and the prompt is given in that spelling. All other texts keep the tokens that the tokenizer itself gives.

Cost: a look at every token; the copy is made for the first text that needs it (a second for a vocabulary of 256,000).
"""

import json
import re
import secrets
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cached_property
from itertools import takewhile
from operator import itemgetter
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from embedsmith.settings.prompts import Prompt
from embedsmith.support.errors import ConfigError

AddedToken = dict[str, Any]
"""An added token as tokenizer.json has it: content, id, special and how it is matched."""

PROBE = "a"
# Added tokens that are not called special are control tokens if they are written like <image> or [toxicity=0]; words
# and runs of blanks are text. So are the tags of HTML that Gemma's vocabulary holds: they mean what they spell.
_MARK = re.compile(r"<.*\S.*>|\[.*\S.*\]", re.DOTALL)
_TAG = re.compile("</?(table|caption|thead|tbody|tfoot|tr|th|td|h[1-6]|blockquote|strong|em|b|i|u|s|sub|sup|code)>")
_NO_DIGITS = str.maketrans("0123456789", "ghijklmnop")


def find_control_tokens(tokenizer: Any) -> dict[str, int]:
    """Spelling -> id of a fast tokenizer's control tokens."""
    named = set(tokenizer.all_special_tokens)
    return {
        token.content: index
        for index, token in tokenizer.backend_tokenizer.get_added_tokens_decoder().items()
        if token.special
        or token.content in named
        or (_MARK.fullmatch(token.content) and not _TAG.fullmatch(token.content))
    }


def texts_that_spell_them(tokenizer: Any) -> tuple[str, str]:
    """Two texts to check a model with: one spells some of its control tokens, one ends with its end token."""
    named = [tokenizer.eos_token, tokenizer.bos_token, tokenizer.unk_token, tokenizer.pad_token]
    spelled = list(dict.fromkeys(token for token in [*named, *find_control_tokens(tokenizer)] if token))
    return f"The manual says to stop at {', at '.join(spelled[:6])}.", f"The manual says to stop{spelled[0]}"


class Encoded(NamedTuple):
    """One text in its prompt, as tokens.

    Attributes:
        ids: with what the tokenizer adds by itself.
        offsets: the characters that each token stands for; empty unless asked for.
        prompt: what stands around the text where offsets count.
    """

    ids: list[int]
    offsets: list[tuple[int, int]]
    prompt: Prompt


class TextEncoder:
    """Cuts texts into tokens, with control tokens in the prompt alone.

    Args:
        tokenizer: a fast Hugging Face tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.control_tokens = find_control_tokens(tokenizer)
        self._backend: Tokenizer = tokenizer.backend_tokenizer
        self._unknown: str | None = tokenizer.unk_token
        self._control_ids = frozenset(self.control_tokens.values())
        self._spelling_of = {index: spelling for spelling, index in self.control_tokens.items()}
        self._own: dict[Prompt, tuple[int, ...]] = {}
        self._respelled: dict[Prompt, Prompt] = {}

    def encode(self, texts: Sequence[str], prompts: Sequence[Prompt], *, with_offsets: bool = False) -> list[Encoded]:
        """Each text under its prompt.

        Raises:
            ConfigError: a text spells control tokens, and its prompt's own ones cannot be told from them.
        """
        backend = self._whole_texts()
        encode = backend.encode_batch if with_offsets else backend.encode_batch_fast
        encodings = encode([prompt.around(text) for text, prompt in zip(texts, prompts, strict=True)])
        result: list[Encoded] = []
        known: Prompt | None = None  # mostly there is one prompt, and to look it up for each text takes time
        own: tuple[int, ...] = ()
        for text, prompt, encoding in zip(texts, prompts, encodings, strict=True):
            if prompt is not known:
                known, own = prompt, self.own_control_ids(prompt)
            ids = encoding.ids
            if self._control_ids_in(ids) == own if own else self._control_ids.isdisjoint(ids):
                result.append(Encoded(ids, encoding.offsets if with_offsets else [], prompt))
            else:
                result.append(self.encode_plainly(text, prompt))
        return result

    def encode_plainly(self, text: str, prompt: Prompt) -> Encoded:
        """The long way, which is right for every text; errors as `encode`."""
        if prompt not in self._respelled:
            self._respelled[prompt] = self._respell(prompt, self._hidden_spelling)
        return self._hidden_spelling.encode(text, self._respelled[prompt])

    @cached_property
    def _hidden_spelling(self) -> "_HiddenSpelling":
        return _HiddenSpelling(self._backend, self.control_tokens)

    def encode_alone(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts without anything around them."""
        encodings = self._whole_texts().encode_batch_fast(texts, add_special_tokens=False)
        return [
            encoding.ids if self._control_ids.isdisjoint(encoding.ids) else self._hidden_spelling.encode_alone(text)
            for text, encoding in zip(texts, encodings, strict=True)
        ]

    def encode_part(self, part: str) -> list[int]:
        """Ids of a part of a prompt, whose control tokens count."""
        return list(self._whole_texts().encode(part, add_special_tokens=False).ids)

    @cached_property
    def starts(self) -> list[int]:
        """What the tokenizer puts before every text by itself."""
        encoding = self._whole_texts().encode(PROBE)
        added = zip(encoding.ids, encoding.special_tokens_mask, strict=True)
        return [index for index, _ in takewhile(itemgetter(1), added)]

    @cached_property
    def puts_blank(self) -> bool:
        """Whether it puts a blank before a text, and one more before a text that begins with one (Llama 2's)."""
        normalizer = self._backend.normalizer
        return normalizer is not None and normalizer.normalize_str(f" {PROBE}")[:-1] not in (" ", "\u2581", "")

    def own_control_ids(self, prompt: Prompt) -> tuple[int, ...]:
        """The control tokens of any text under a prompt: those that the tokenizer adds, and the prompt's."""
        if prompt not in self._own:
            encoding = self._whole_texts().encode(prompt.around(PROBE))
            added = [start == end for start, end in encoding.offsets]
            inside = [_is_inside(prompt, *offsets) for offsets in encoding.offsets]
            own = [index for index, *is_own in zip(encoding.ids, added, inside, strict=True) if any(is_own)]
            self._own[prompt] = self._control_ids_in(own)
        return self._own[prompt]

    def _whole_texts(self) -> Tokenizer:
        """The tokenizer's own, whatever was asked of it before: nothing cut or padded, control tokens recognised."""
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = False
        return self._backend

    def _control_ids_in(self, ids: Iterable[int]) -> tuple[int, ...]:
        return tuple(index for index in ids if index in self._control_ids)

    def control_tokens_in(self, prompt: Prompt) -> list[str]:
        """How the control tokens that a prompt spells are written."""
        return [prompt.around(PROBE)[start:end].strip() for _, start, end in self._spelled_in(prompt)]

    def _spelled_in(self, prompt: Prompt) -> list[tuple[int, int, int]]:
        """Control tokens in a prompt's parts: (id, first character, one past the last)."""
        whole = prompt.around(PROBE)
        encoding = self._whole_texts().encode(whole)
        return [
            (index, start, end)
            for index, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
            if index in self._control_ids
            and _is_inside(prompt, start, end)
            # The unknown token stands for much that is not its name.
            and (self._spelling_of[index] != self._unknown or whole[start:end].strip() == self._unknown)
        ]

    def _respell(self, prompt: Prompt, hidden: "_HiddenSpelling") -> Prompt:
        whole = prompt.around(PROBE)
        parts, first = [], 0
        spelled = self._spelled_in(prompt)
        for part in prompt.parts:
            respelled, done = "", first
            for index, start, end in spelled:
                if first <= start < first + len(part):
                    core = whole[start:end].strip()  # a token may take the blanks beside it
                    name = hidden.spelling_of[self._spelling_of[index]]
                    respelled += whole[done:start] + whole[start:end].replace(core, name, 1)
                    done = end
            parts.append(respelled + whole[done : first + len(part)])
            first += len(part) + len(PROBE)
        result = Prompt(tuple(parts))
        if self._control_ids_in(hidden.encode(PROBE, result).ids) != self.own_control_ids(prompt):
            raise ConfigError(
                f"The control tokens of the prompt {prompt.template!r} cannot be told from those that a text spells.\n"
                "Leave them out of the prompt."
            )
        return result


class _HiddenSpelling:
    """A copy of a tokenizer in which control tokens are spelled in a way that no text has."""

    def __init__(self, backend: Tokenizer, control_tokens: dict[str, int]) -> None:
        # Small letters alone: no normalizer changes them.
        secret = secrets.token_hex(16).translate(_NO_DIGITS)
        self.spelling_of = {
            spelling: f"{secret}x{f'{index:x}'.translate(_NO_DIGITS)}x" for spelling, index in control_tokens.items()
        }

        def respell(token: AddedToken) -> AddedToken:
            return {**token, "content": self.spelling_of[token["content"]], "single_word": False}

        self._tokenizer = change_control_tokens(backend, control_tokens, change=respell)
        tokens = backend.get_added_tokens_decoder().items()
        spelled = [(index, self.spelling_of.get(token.content, token.content)) for index, token in tokens]
        self._id_of = {self._tokenizer.token_to_id(spelling): index for index, spelling in spelled}

    def encode(self, text: str, prompt: Prompt) -> Encoded:
        encoding = self._tokenizer.encode(prompt.around(text))
        return Encoded(self._own_ids(encoding.ids), encoding.offsets, prompt)

    def encode_alone(self, text: str) -> list[int]:
        return self._own_ids(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _own_ids(self, ids: list[int]) -> list[int]:
        return [self._id_of.get(index, index) for index in ids]


def _is_inside(prompt: Prompt, start: int, end: int) -> bool:
    """Whether some characters of the prompt around the probe lie in one of its parts."""
    first = 0
    for part in prompt.parts:
        if first <= start < end <= first + len(part):
            return True
        first += len(part) + len(PROBE)
    return False


# ---- tokenizer.json -------------------------------------------------------------------------------------------------


def change_control_tokens(
    backend: Tokenizer, control_tokens: Collection[str], *, change: Callable[[AddedToken], AddedToken | None]
) -> Tokenizer:
    """A copy of a tokenizer with its control tokens changed or (None) no longer known, so that texts become none.

    Their places in the vocabulary stay, and no characters are put together to one of them. What the copy puts around
    texts by itself is the same.
    """
    state = json.loads(backend.to_str())
    state["truncation"] = state["padding"] = None
    added = state["added_tokens"]
    _keep_places(state["model"], added)
    changed = [change(token) if token["content"] in control_tokens else token for token in added]
    state["added_tokens"] = [token for token in changed if token is not None]
    if isinstance(vocabulary := state["model"]["vocab"], dict):
        spellings = [token["content"] for token in state["added_tokens"] if token["content"] not in vocabulary]
        vocabulary |= {spelling: index for index, spelling in enumerate(spellings, start=max(vocabulary.values()) + 1)}
    _keep_apart(state, control_tokens)
    return Tokenizer.from_str(json.dumps(state))


def _keep_places(model: dict[str, Any], added: Sequence[AddedToken]) -> None:
    """Give added tokens the same places in the model's own vocabulary."""
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        for token in added:
            vocabulary.setdefault(token["content"], token["id"])
        return
    # Unigram's pieces, by place: a score as low as any, for a new lowest one would change that of unknown characters.
    lowest = min(score for _, score in vocabulary)
    for token in sorted(added, key=lambda token: int(token["id"])):
        if token["id"] == len(vocabulary):
            vocabulary.append([token["content"], lowest])


def _keep_apart(state: dict[str, Any], control_tokens: Collection[str]) -> None:
    """Cut a control token's spelling behind its first character, where the model would put it together."""
    model = state["model"]
    if model["type"] == "BPE" and not model.get("ignore_merges"):
        prefix = model.get("continuing_subword_prefix") or ""
        made = {left + right.removeprefix(prefix) for left, right in model["merges"]}
    else:
        made = set(model["vocab"] if isinstance(model["vocab"], dict) else (piece for piece, _ in model["vocab"]))
    spelled = sorted((token for token in control_tokens if token in made and len(token) > 1), key=len, reverse=True)
    if not spelled:
        return
    pattern = "|".join(f"{re.escape(token[0])}(?={re.escape(token[1:])})" for token in spelled)
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    before = state["pre_tokenizer"]
    steps = before["pretokenizers"] if before and before["type"] == "Sequence" else [before] if before else []
    state["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [*steps, split]}
