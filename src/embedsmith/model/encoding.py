"""Many texts -> embeddings without graph: equal texts once, in groups of similar length, tokenized ahead."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

import numpy as np
import torch

from embedsmith.model.layers.segments import PackedTexts
from embedsmith.model.packing import pack_tokens, split_by_tokens
from embedsmith.model.tokens import TextTokenizer, tokenize_ahead
from embedsmith.settings.config import Pooling
from embedsmith.settings.prompts import Prompt
from embedsmith.support.errors import DataError, list_faults

# More gains nothing on a CPU (measured).
ENCODE_MAX_TOKENS = 4096


def read_texts(texts: Iterable[str]) -> list[str]:
    """Texts as a list, from anything that gives them in order: a list, a tuple, a generator, a column of a table.

    Raises:
        TypeError: it is one string, has no order or more than one dimension, or something in it is no string.
        DataError: a text holds half a surrogate pair.
    """
    if isinstance(texts, str):
        raise TypeError("encode takes a list of strings; for one text write encode([text])[0]")
    num_dimensions = getattr(texts, "ndim", 1)
    is_series = isinstance(texts, Iterable) and not isinstance(texts, bytes | Mapping | AbstractSet)
    if num_dimensions != 1 or not is_series:
        raise TypeError(
            f"encode takes a list of strings, and this is a {type(texts).__name__}"
            + (f" of {num_dimensions} dimensions" if num_dimensions != 1 else "")
            + "; name one column, or put the texts in a list"
        )
    result = list(texts)
    for index, text in enumerate(result):
        if not isinstance(text, str):
            raise TypeError(f"encode takes strings, and text {index} is {text!r:.60} ({type(text).__name__})")
    if halves := [fault for index, text in enumerate(result) if (fault := _half_character(index, text))]:
        advice = "Such text was cut in the middle of a character or decoded wrongly: mend it where it was read."
        raise DataError(list_faults("Texts that hold half a character:", halves, advice=advice))
    return result


def _half_character(index: int, text: str) -> str | None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"text {index}: {text[error.start]!r} (half a surrogate pair) at character {error.start}"
    return None


def encode_texts(
    texts: Sequence[str],
    *,
    embed: Callable[[PackedTexts], Mapping[Pooling, torch.Tensor]],
    tokenizer: TextTokenizer,
    prompt: Prompt,
    device: torch.device,
    widths: Mapping[Pooling, int],
    max_tokens: int = ENCODE_MAX_TOKENS,
    on_progress: Callable[[int], None] | None = None,
) -> dict[Pooling, np.ndarray]:
    """Embeddings (K, D) float32 of K texts in the order given, by pooling.

    Args:
        texts: any number.
        embed: embeddings (K, D) of the texts of a packed row, by pooling.
        tokenizer: makes the tokens.
        prompt: every text's.
        device: where packed rows go.
        widths: D of every pooling that `embed` gives.
        max_tokens: of one packed row; a longer text goes alone.
        on_progress: called with the number of texts finished by each row.
    """
    counts = Counter(texts)
    distinct = list(counts)
    result = {pooling: np.empty((len(distinct), width), dtype=np.float32) for pooling, width in widths.items()}
    for first, tokenized in tokenize_ahead(tokenizer, distinct, prompt=prompt):
        for group in split_by_tokens([len(tokens) for tokens in tokenized.ids], max_tokens=max_tokens):
            packed = pack_tokens(tokenized.select(group), device=device)
            for pooling, rows in embed(packed).items():
                result[pooling][first + group] = rows.cpu().numpy()
            if on_progress:
                on_progress(sum(counts[distinct[first + index]] for index in group))
    if len(distinct) == len(texts):
        return result
    row_of = {text: row for row, text in enumerate(distinct)}
    rows_of_texts = [row_of[text] for text in texts]
    return {pooling: rows[rows_of_texts] for pooling, rows in result.items()}
