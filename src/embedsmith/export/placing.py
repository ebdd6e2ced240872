"""Where a sentence-transformers folder has its prompts: before texts as text, or in its tokenizer as ids.

That package puts prompt and text together, and its tokenizer cuts them together. So prompts that are tokenised apart go
into the tokenizer: as ids around every text where there is one prompt for all; else the tokenizer cuts the prompts off
that it finds before texts. What stands behind texts is ids in either case.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from embedsmith.model.apart import ApartPrompts
from embedsmith.model.embedder import Embedder
from embedsmith.settings.choices import Side
from embedsmith.settings.prompts import Prompt, read_prompt


@dataclass(frozen=True)
class PlacedPrompts:
    """Prompts as such a folder has them.

    Attributes:
        texts: what that package puts before a text, by the prompt's name; sides are names.
        before: ids that the tokenizer puts before every text.
        behind: and behind it.
        cut_off: what texts may begin with that the tokenizer cuts apart from what follows.
    """

    texts: dict[str, str]
    before: Sequence[int] = ()
    behind: Sequence[int] = ()
    cut_off: Sequence[str] = ()


def named_prompts(live: Embedder) -> dict[str, Prompt]:
    """A model's prompts, of queries and documents and those that it brings by name."""
    named = {name: read_prompt(template) for name, template in live.settings.prompts.items()}
    return {**named, **{str(side): live.prompt_of(side) for side in Side}}


def place_prompts(live: Embedder) -> PlacedPrompts:
    """Where they go; they can all be expressed (`faults_of_prompts`)."""
    prompts = named_prompts(live)
    texts = {name: prompt.parts[0] for name, prompt in prompts.items()}
    apart = live.tokenizer.framing
    if not isinstance(apart, ApartPrompts):
        return PlacedPrompts(texts)
    parts = {name: apart.parts_of(prompt) for name, prompt in prompts.items()}
    any_prompt, any_parts = prompts[Side.DOCUMENT], parts[Side.DOCUMENT]
    behind = any_parts.others[0]
    # Means that leave the prompt out find it by its text.
    if len(set(prompts.values())) == 1 and (live.settings.pool_over == "all" or not any_prompt.parts[0]):
        before = any_parts.first[len(live.tokenizer.encoder.starts) :]
        return PlacedPrompts(dict.fromkeys(texts, any_parts.lead), before, behind)
    # Where a tokenizer puts a blank before a text, an empty text under such a prompt has one there and none here.
    beginnings = {text.removesuffix(" ") for text in texts.values()} - {""}
    return PlacedPrompts(texts, (), behind, tuple(sorted(beginnings)))


def faults_of_prompts(live: Embedder) -> list[str]:
    """What of the prompts such a folder cannot say, by name and value."""
    apart = live.tokenizer.framing
    is_apart = isinstance(apart, ApartPrompts)
    faults = []
    for name in ("prompt", "query_prompt"):
        template = getattr(live.settings, name)
        prompt = read_prompt(template, instruction=live.settings.instruction or "")
        if prompt.is_echo or (prompt.parts[1] and not is_apart):
            faults.append(f"{name} {template!r}, which goes on behind the text")
    prompts = named_prompts(live)
    if not faults and len({prompt.parts[1:] for prompt in prompts.values()}) > 1:
        endings = ", ".join(f"{prompt.parts[1]!r} ({name})" for name, prompt in prompts.items())
        faults.append(f"prompts that go on behind the text in several ways: {endings}")
    if not faults:
        faults += _control_tokens_before_texts(live, prompts)
    return faults


def _control_tokens_before_texts(live: Embedder, prompts: dict[str, Prompt]) -> list[str]:
    """That package puts prompt and text together before it looks for control tokens."""
    texts = place_prompts(live).texts
    before = dict.fromkeys(Prompt((texts[name], "")) for name in prompts)
    spelled = {prompt.template: live.tokenizer.encoder.control_tokens_in(prompt) for prompt in before}
    return [
        f"prompt {template!r}, whose {', '.join(tokens)} could not be told from the same in a text"
        for template, tokens in spelled.items()
        if tokens
    ]
