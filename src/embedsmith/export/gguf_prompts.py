"""How a prompt is put around a text for llama.cpp, which puts none and cuts what it is given into tokens as one.

Where that makes the model's own tokens, the prompt is put as it stands. Where it does not, as a prompt's quotation mark
and the full stop before it become one token, the tokens beside the text get copies of their own, at the end of the
vocabulary: same embedding, and a spelling that llama.cpp finds before it cuts anything (`HIDDEN` in front). What is
left between them it cuts apart, as the model does.

    prompt    'sentence : "{text}" means:'
    put       'sentence :\\ue000 "{text}\\ue000" means:'
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from embedsmith.export.parity import uncut_ids
from embedsmith.export.placing import named_prompts
from embedsmith.model.apart import ApartPrompts
from embedsmith.model.embedder import Embedder
from embedsmith.settings.prompts import Prompt
from embedsmith.support.errors import ConfigError

HIDDEN = "\ue000"
"""Stands before what no text may spell: a character for private use, which byte-level vocabularies cannot hold."""


@dataclass(frozen=True)
class PutPrompts:
    """Prompts as whoever asks llama.cpp puts them.

    Attributes:
        prompts: by name; sides are names.
        copies: spelling of a token of its own -> the id that it stands for.
    """

    prompts: Mapping[str, Prompt]
    copies: Mapping[str, int]

    def texts(self) -> dict[str, str]:
        """Name -> template, of those that put anything."""
        return {name: prompt.template for name, prompt in self.prompts.items() if not prompt.is_empty}


def put_prompts(live: Embedder, texts: list[str]) -> PutPrompts:
    """How each prompt of a model is put.

    Args:
        live: the model.
        texts: to find out with whether a prompt may be put as it stands.

    Raises:
        ConfigError: a prompt holds control tokens, which are characters there, or is an echo prompt that is cut
            otherwise when it is put together first.
    """
    prompts: dict[str, Prompt] = {}
    copies: dict[str, int] = {}
    for name, prompt in named_prompts(live).items():
        if controls := live.tokenizer.encoder.control_tokens_in(prompt):
            raise _refuse(prompt, f"{', '.join(controls)} would be characters there, as in any text")
        prompts[name] = prompt
        if not _is_cut_alike(live, prompt, texts):
            prompts[name], own = _mark(live, prompt)
            copies |= own
    return PutPrompts(prompts, copies)


def _is_cut_alike(live: Embedder, prompt: Prompt, texts: list[str]) -> bool:
    """Whether prompt and text are the same tokens when they are put together first."""
    settings, tokenizer = live.settings, live.backbone.tokenizer
    joined = replace(settings, prompt_tokens="joined")
    own, together = (uncut_ids(tokenizer, texts, prompt=prompt, settings=one) for one in (settings, joined))
    return own == together


def _mark(live: Embedder, prompt: Prompt) -> tuple[Prompt, dict[str, int]]:
    """The prompt with copies of the tokens beside the text, and those."""
    framing = live.tokenizer.framing
    assert isinstance(framing, ApartPrompts), "a joined prompt is cut alike"
    if prompt.is_echo:
        raise _refuse(prompt, "it is cut otherwise together with the texts")
    parts = framing.parts_of(prompt)
    if live.tokenizer.encoder.puts_blank and parts.others[0]:
        raise _refuse(prompt, "it goes on behind the text, and llama.cpp puts blanks otherwise there")
    before, behind = prompt.parts
    copies: dict[str, int] = {}
    if first := parts.first[len(live.tokenizer.encoder.starts) :]:
        spelled = _spell(live, first[-1])
        before = before.removesuffix(" ") if parts.lead or before.endswith(" ") else before
        if not before.endswith(spelled):
            raise _refuse(prompt, f"its token {spelled!r} is not all of what it stands for")
        before = f"{before.removesuffix(spelled)}{HIDDEN}{spelled}"
        copies[f"{HIDDEN}{spelled}"] = first[-1]
    if last := parts.others[0]:
        spelled = _spell(live, last[0])
        if not behind.startswith(spelled):
            raise _refuse(prompt, f"its token {spelled!r} is not all of what it stands for")
        behind = f"{HIDDEN}{spelled}{behind.removeprefix(spelled)}"
        copies[f"{HIDDEN}{spelled}"] = last[0]
    return Prompt((f"{before}{parts.lead}", behind)), copies


def _spell(live: Embedder, index: int) -> str:
    return str(live.backbone.tokenizer.backend_tokenizer.decode([index], skip_special_tokens=False))


def _refuse(prompt: Prompt, reason: str) -> ConfigError:
    return ConfigError(
        f"llama.cpp cannot be given the prompt {prompt.template!r}: {reason}.\n"
        "Export to sentence-transformers or onnx, or load it with embedsmith."
    )
