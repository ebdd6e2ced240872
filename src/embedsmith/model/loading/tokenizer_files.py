"""A checkpoint's tokenizer files -> a fast tokenizer: tokenizer.json as it is, or a SentencePiece model, converted.

The conversion is transformers'. It fits BPE models as Llama's and Gemma's are; so a converted tokenizer is compared
with SentencePiece itself on a few texts, and refused when it cuts them otherwise.
"""

import logging
from importlib.util import find_spec
from operator import itemgetter
from pathlib import Path
from typing import Any

from tokenizers.normalizers import Prepend, Replace, Sequence
from transformers import AutoTokenizer, LlamaTokenizer

from embedsmith.model.loading.checkpoint_files import find_file
from embedsmith.model.loading.weights import name_some
from embedsmith.support.errors import ConfigError, MissingExtraError, ModelError

logger = logging.getLogger(__name__)

PIECES_FILE = "tokenizer.model"
# Spaces, accents composed and not, compatibility characters, other scripts, and what no vocabulary has.
_PROBES = (
    "The library on Mill Street opens at nine.",
    "two  spaces,   three, tab\tand end ",
    " a space before, 1234.5 %",
    "caf\u00e9 cafe\u0301 \uff26\uff55\uff4c\uff4c \ufb01n\u2026 x\u00b2",
    "\u4f60\u597d\uff0c\u4e16\u754c \u043f\u0440\u0438\u0432\u0435\u0442 \U0001f642 \U00013000",
)


def load_tokenizer(source: str, *, config: Any) -> Any:
    """The tokenizer of a checkpoint.

    Args:
        source: local folder or hub id.
        config: the model's configuration.

    Raises:
        MissingExtraError: there is a SentencePiece model alone, and what reads it is not installed.
        ModelError: that model cannot be converted to a fast tokenizer with the same tokens.
        OSError, ValueError: there are no tokenizer files, or they are damaged.
    """
    pieces = None if find_file(source, "tokenizer.json") else find_file(source, PIECES_FILE)
    if pieces is None:
        return AutoTokenizer.from_pretrained(source, config=config, trust_remote_code=False)
    for package, module in (("sentencepiece", "sentencepiece"), ("protobuf", "google.protobuf")):
        if not _is_installed(module):
            raise MissingExtraError(package, extra="sentencepiece", needed_for=f"The tokenizer of '{source}'")
    # Granite's own tokenizer class is none in particular, and MiniCPM's is Llama's.
    kind = LlamaTokenizer if config.model_type == "granite" else AutoTokenizer
    tokenizer = kind.from_pretrained(source, trust_remote_code=False)
    if isinstance(tokenizer, LlamaTokenizer):
        # transformers 5 puts no space before a text that starts with one; SentencePiece, and all older versions, do.
        tokenizer.backend_tokenizer.pre_tokenizer = None
        tokenizer.backend_tokenizer.normalizer = Sequence([Prepend("\u2581"), Replace(" ", "\u2581")])
    _check_conversion(tokenizer, pieces, source=source)
    return tokenizer


def check_token_ids(tokenizer: Any, *, num_rows: int, model: str) -> None:
    """Compare a tokenizer's ids with the rows of its model's embedding table.

    A control token beyond the table is no fault where no text can hold it (Gemma 3's `<image_soft_token>` in the models
    without images); it is said.

    Raises:
        ModelError: a token of texts, or one that the tokenizer puts around them, has no row.
    """
    vocabulary = sorted(tokenizer.get_vocab().items(), key=itemgetter(1))
    beyond = {token: index for token, index in vocabulary if index >= num_rows}
    added = {index for index in tokenizer(_PROBES[0], verbose=False)["input_ids"] if index >= num_rows}
    unused = {} if added else {token: index for token, index in beyond.items() if _is_spare(token, index, tokenizer)}
    wrong = [f"{token!r} (id {index})" for token, index in beyond.items() if token not in unused]
    wrong += [f"{tokenizer.convert_ids_to_tokens(index)!r} (id {index})" for index in added - set(beyond.values())]
    if wrong:
        lie = "lies" if len(wrong) == 1 else "lie"
        raise ModelError(
            f"The tokenizer of '{model}' does not fit its model: {name_some(wrong)} {lie} beyond the embedding table, "
            f"which has {num_rows} rows (ids 0 to {num_rows - 1}).\n"
            "Take the tokenizer that the model was saved with, or save the model after resize_token_embeddings."
        )
    if unused:
        names = name_some([f"{token!r} (id {index})" for token, index in unused.items()])
        logger.warning(
            "The tokenizer of '%s' has control tokens beyond the embedding table of %d rows: %s. No text holds them; a "
            "prompt must not.",
            model,
            num_rows,
            names,
        )


def check_prompt_ids(ids: list[int], *, tokenizer: Any, num_rows: int) -> None:
    """Raise ConfigError where a prompt's tokens `ids` hold one beyond the embedding table of so many rows."""
    if beyond := [index for index in ids if index >= num_rows]:
        raise ConfigError(
            f"The prompt holds {tokenizer.convert_ids_to_tokens(beyond[0])!r} (id {beyond[0]}), which lies beyond the "
            f"model's embedding table of {num_rows} rows.\nTake it out of the prompt."
        )


def _is_spare(token: str, index: int, tokenizer: Any) -> bool:
    """Whether a token is a control token without a part to play for texts."""
    parts = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token)
    entry = tokenizer.added_tokens_decoder.get(index)
    return bool(entry and entry.special and token not in parts)


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False  # the package around it is missing already


def _check_conversion(tokenizer: Any, pieces: Path, *, source: str) -> None:
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_file=str(pieces))
    for probe in _PROBES:
        expected, found = processor.encode(probe), tokenizer.encode(probe, add_special_tokens=False)
        if expected != found:
            raise ModelError(
                f"The tokenizer of '{source}' ({PIECES_FILE}, without tokenizer.json) cannot be converted faithfully: "
                f"{probe!r} becomes {found}, but should be {expected}.\n"
                "Put the model's tokenizer.json beside it."
            )
