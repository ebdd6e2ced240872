"""A model's tokenizer -> one that takes texts as characters in other tools too.

`merged` for transformers: its switch `split_special_tokens` is on, and all control tokens are special ones, for only
those are under that switch. Where those of a prompt are meant to count, it is off: `split_special_tokens=False`.

`sentence-transformers`: control tokens have their places in the vocabulary and are recognised nowhere, whatever reads
tokenizer.json; the post-processor puts start and end tokens. The switch is on here too, as transformers makes those it
knows by name (eos_token ...) into recognised ones again.
"""

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, processors
from transformers import PreTrainedTokenizerFast

from embedsmith.model.control_tokens import change_control_tokens, find_control_tokens
from embedsmith.model.tokens import TextTokenizer

_TOKENIZER_FILE = "tokenizer.json"


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


def write_closing_tokenizer(texts: TextTokenizer, *, folder: Path) -> None:
    """A tokenizer that puts start and end tokens as embedsmith does, whatever tool loads it; no chat template."""
    tokenizer = texts.tokenizer
    control_tokens = find_control_tokens(tokenizer)
    first = tokenizer("a")["input_ids"][0]
    starts = [tokenizer.bos_token] if tokenizer.bos_token_id is not None and first == tokenizer.bos_token_id else []
    end = tokenizer.convert_ids_to_tokens(texts.end_id)
    ends = [end] if texts.end_token else []
    special = [(token, control_tokens[token]) for token in dict.fromkeys([*starts, *ends])]
    backend = change_control_tokens(tokenizer.backend_tokenizer, control_tokens, change=lambda _: None)
    backend.post_processor = processors.TemplateProcessing(
        single=" ".join([*starts, "$A", *ends]), special_tokens=special
    )
    _wrap(
        backend,
        tokenizer,
        pad_token=tokenizer.pad_token or end,
        padding_side="right",
        model_max_length=texts.max_length,
    ).save_pretrained(folder)
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
