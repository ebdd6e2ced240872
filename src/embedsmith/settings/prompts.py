"""Prompt templates: a text's surroundings, and those of the literature by name.

A template holds `{text}` once, or twice for echo embeddings: the text is given twice, and mean poolings look at the
second copy alone, whose tokens have seen the whole text (Springer et al. 2024, arXiv 2402.15449). It may hold
`{instruction}`, which says what a query is for (Wang et al. 2023, arXiv 2401.00368).
"""

import difflib
from dataclasses import dataclass

from embedsmith.support.errors import ConfigError

TEXT_FIELD = "{text}"
INSTRUCTION_FIELD = "{instruction}"


@dataclass(frozen=True)
class NamedPrompt:
    """A template of the literature.

    Attributes:
        template: see above.
        end_token: whether its authors put the end token behind it.
        source: where it is from.
    """

    template: str
    end_token: bool
    source: str


_EOL = "PromptEOL, Jiang et al. 2023 (arXiv 2307.16645)"
_ROTH = "Roth et al. 2025 (arXiv 2507.22729), published code"
_PAPER = "arXiv 2408.00690, Table 5, at test only"

PROMPTS: dict[str, NamedPrompt] = {
    "prompteol": NamedPrompt('This sentence : "{text}" means in one word:"', False, _EOL),
    "prompteol-icl": NamedPrompt(
        'This sentence : "A man is smoking." means in one word:"Smoking".This sentence : "{text}" means in one word:"',
        False,
        f"{_EOL}, the demonstration published for OPT-125M",
    ),
    "pretended-cot": NamedPrompt(
        'After thinking step by step, this sentence : "{text}" means in one word:', False, _ROTH
    ),
    "knowledge": NamedPrompt(
        "The essence of a sentence is often captured by its main subjects and actions, while descriptive terms provide "
        'additional but less central details. With this in mind, this sentence : "{text}" means in one word:',
        False,
        _ROTH,
    ),
    "sum": NamedPrompt('This sentence : "{text}" can be summarized as', False, _ROTH),
    "sth": NamedPrompt('This sentence : "{text}" means something', False, _ROTH),
    "cluster": NamedPrompt('This sentence : "{text}" belongs to the following cluster:', False, _ROTH),
    "cluster-text": NamedPrompt("Cluster the text: {text}", False, _ROTH),
    "classify": NamedPrompt('This sentence : "{text}" can be classified as:', False, _ROTH),
    "emotion": NamedPrompt(
        'Classify the emotion expressed in the given Twitter "{text}" into one of the six emotions: anger, fear, joy, '
        "love, sadness, and surprise",
        False,
        _ROTH,
    ),
    # Printed with the space at the end, behind which the end token follows.
    "paper-p1": NamedPrompt("This sentence: {text} means in one word: ", True, _PAPER),
    "paper-p2": NamedPrompt("This sentence {text} means: ", True, _PAPER),
    "paper-p3": NamedPrompt("{text} is: ", True, _PAPER),
    "echo": NamedPrompt("Document:{text}\nDocument again:{text}", True, "Springer et al. 2024 (arXiv 2402.15449)"),
    "instruct": NamedPrompt("Instruct: {instruction}\nQuery: {text}", True, "Wang et al. 2023 (arXiv 2401.00368)"),
}


@dataclass(frozen=True)
class Prompt:
    """A template taken apart.

    Attributes:
        parts: what stands before and behind the text, or before, between and behind its two copies.
    """

    parts: tuple[str, ...]

    @property
    def is_echo(self) -> bool:
        """Whether the text is given twice."""
        return len(self.parts) == 3

    @property
    def is_empty(self) -> bool:
        """Whether nothing stands around the text."""
        return self.parts == ("", "")

    @property
    def template(self) -> str:
        """The template again."""
        return TEXT_FIELD.join(self.parts)

    def around(self, text: str) -> str:
        """The text in its surroundings."""
        return text.join(self.parts)


def read_prompt(template: str | None, *, instruction: str | None = None) -> Prompt:
    """Take a template apart, its instruction filled in; None is the bare text.

    Raises:
        ConfigError: it holds no `{text}` or more than two, or an `{instruction}` that is not given.
    """
    template = TEXT_FIELD if template is None else template
    if INSTRUCTION_FIELD in template:
        if instruction is None:
            raise ConfigError(
                f"The prompt {template!r} needs an instruction, and none is given.\n"
                "Set model.instruction, or an instruction for each source in data.train."
            )
        if fault := instruction_fault(instruction):
            raise ConfigError(f"The instruction {fault}.")
        template = template.replace(INSTRUCTION_FIELD, instruction)
    parts = tuple(template.split(TEXT_FIELD))
    if len(parts) not in (2, 3):
        raise ConfigError(f"The prompt {template!r} {_fault(template)}.")
    return Prompt(parts)


def instruction_fault(instruction: str) -> str | None:
    """What is wrong with a text that shall fill `{instruction}`, or None."""
    held = [field for field in (TEXT_FIELD, INSTRUCTION_FIELD) if field in instruction]
    return f"holds {held[0]}, which only a prompt may: {instruction!r:.60}" if held else None


def check_instruction(instruction: str | None, *, is_taken: bool) -> None:
    """Raise ConfigError when an instruction is given and no prompt has a place for it (`is_taken`)."""
    if instruction is not None and not is_taken:
        raise ConfigError(
            f"An instruction is given, but no prompt holds {INSTRUCTION_FIELD} to put it in.\n"
            "Leave it away, or give a prompt with a place for it."
        )


def resolve_template(value: str) -> str:
    """A known name's template, or the template itself.

    Raises:
        ValueError: neither; the message says what a prompt must be.
    """
    template = PROMPTS[value].template if value in PROMPTS else value
    if template.count(TEXT_FIELD) not in (1, 2):
        raise ValueError(_fault(value))
    return template


def _fault(template: str) -> str:
    close = difflib.get_close_matches(template, PROMPTS, n=1, cutoff=0.6)
    advice = f"did you mean {close[0]}" if close else f"the known names are {', '.join(PROMPTS)}"
    return f"must hold {TEXT_FIELD} once, or twice for echo embeddings, or be a known name ({advice})"
