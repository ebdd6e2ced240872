"""A model's tokenizer -> one that takes texts as characters in other tools too.

`merged` for transformers: its switch `split_special_tokens` is on, and all control tokens are special ones, for only
those are under that switch. Where those of a prompt are meant to count, it is off: `split_special_tokens=False`.

`sentence-transformers`: control tokens have their places in the vocabulary and are recognised nowhere, whatever reads
tokenizer.json; the post-processor puts start and end tokens. The switch is on here too, as transformers makes those it
knows by name (eos_token ...) into recognised ones again.
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from embedsmith.export.placing import PlacedPrompts
from embedsmith.model.control_tokens import change_control_tokens, find_control_tokens
from embedsmith.model.loading.exported_prompts import cut_off_beginnings, set_template, spell_template
from embedsmith.model.tokens import TextTokenizer
from embedsmith.support import files

_TOKENIZER_FILE = "tokenizer.json"
_CONFIG_FILE = "tokenizer_config.json"


def write_tokenizer(tokenizer: Any, *, folder: Path) -> None:
    """The same tokenizer with the switch on; its chat template stays."""
    backend = change_control_tokens(
        tokenizer.backend_tokenizer, find_control_tokens(tokenizer), change=lambda token: {**token, "special": True}
    )
    _wrap(
        backend,
        tokenizer,
        pad_token=tokenizer.pad_token,
        padding_side=tokenizer.padding_side,
        model_max_length=tokenizer.model_max_length,
        chat_template=tokenizer.chat_template,
    ).save_pretrained(folder)


def write_closing_tokenizer(
    texts: TextTokenizer,
    *,
    folder: Path,
    prompts: PlacedPrompts,
    stands_alone: bool = False,
    padding_side: str = "right",
    model_max_length: int | None = None,
) -> None:
    """A tokenizer that puts start and end tokens, and the prompts that are placed in it, as embedsmith does, whatever
    tool loads it; no chat template.

    Args:
        texts: cuts a model's texts.
        folder: to write to.
        prompts: see `PlacedPrompts`.
        stands_alone: for programs that read tokenizer.json alone: it cuts and pads too, and spells every token.
        padding_side: where tools that ask it pad.
        model_max_length: where tools that ask it cut; None: where embedsmith does.
    """
    tokenizer = texts.tokenizer
    end = tokenizer.convert_ids_to_tokens(texts.end_id)
    control_tokens = texts.encoder.control_tokens
    backend = change_control_tokens(tokenizer.backend_tokenizer, control_tokens, change=lambda _: None)
    ends = [texts.end_id] if texts.end_token else []
    if stands_alone:
        spell_template(backend, before=[*texts.encoder.starts, *prompts.before], behind=[*prompts.behind, *ends])
    else:
        set_template(
            backend,
            starts=texts.encoder.starts,
            before=prompts.before,
            behind=prompts.behind,
            ends=ends,
            control_ids=control_tokens.values(),
        )
    if prompts.cut_off:
        cut_off_beginnings(backend, beginnings=prompts.cut_off)
    pad_token = tokenizer.pad_token or end
    _wrap(
        backend,
        tokenizer,
        pad_token=pad_token,
        padding_side=padding_side,
        model_max_length=model_max_length or texts.max_length,
    ).save_pretrained(folder)
    if stands_alone:
        backend.enable_truncation(texts.max_length)
        backend.enable_padding(pad_id=tokenizer.convert_tokens_to_ids(pad_token), pad_token=pad_token)
    config = json.loads((folder / _CONFIG_FILE).read_text(encoding="utf-8"))
    # What transformers 4 calls the class that version 5 calls TokenizersBackend, and knows by both names.
    files.write_json(folder / _CONFIG_FILE, {**config, "tokenizer_class": "PreTrainedTokenizerFast"})
    backend.save(str(folder / _TOKENIZER_FILE))  # the tokens that transformers knows by name would be recognised again


def _wrap(backend: Tokenizer, tokenizer: Any, **settings: Any) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        unk_token=tokenizer.unk_token,
        split_special_tokens=True,
        **settings,
    )
