"""Many texts -> embeddings without graph: equal texts once, in groups of similar length, tokenized ahead."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import torch

from embedsmith.model.layers.segments import PackedTexts
from embedsmith.model.packing import pack_tokens, split_by_tokens
from embedsmith.model.tokens import TextTokenizer, TokenizedTexts, tokenize_ahead
from embedsmith.settings.choices import Pooling
from embedsmith.settings.prompts import Prompt
from embedsmith.support.errors import DataError, list_faults
from embedsmith.support.free_memory import free_bytes

ENCODING_VERSION = 1
"""Raised with every change that gives texts other vectors, rounding aside: vectors that were kept count no longer."""
# Of one forward, by device: more gains nothing on a CPU (measured); a GPU waits for the next kernel in a short one.
ENCODE_TOKENS = defaultdict(lambda: 16_384, cpu=4096)
_LEAST_TOKENS = 512
_TEXTS_AT_ONCE = 1024  # of one call of another library, which makes batches of them; progress shows after each
_SHARE = 0.5  # of what is free on a GPU
_WORKING_BYTES = 24
"""Of one forward without graph, for each token and unit of the hidden and the MLP's inner width: an MLP that is not
compiled holds its rows in bfloat16 and in float32 at one time."""


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


def encode_by_length(
    texts: Sequence[str],
    *,
    embed: Callable[[list[str]], np.ndarray],
    dim: int,
    on_progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Embeddings (K, D) float32 of K texts in the order given, by a function that another library computes.

    Args:
        texts: any number; equal ones are computed once, the longest ones first.
        embed: embeddings (n, D) of n texts.
        dim: D.
        on_progress: called with the number of texts finished, some hundreds at a time.
    """
    counts = Counter(texts)
    ordered = sorted(counts, key=len, reverse=True)
    rows = np.empty((len(ordered), dim), dtype=np.float32)
    for start in range(0, len(ordered), _TEXTS_AT_ONCE):
        group = ordered[start : start + _TEXTS_AT_ONCE]
        rows[start : start + len(group)] = embed(group)
        if on_progress:
            on_progress(sum(counts[text] for text in group))
    row_of = {text: row for row, text in enumerate(ordered)}
    return rows[[row_of[text] for text in texts]]


def tokens_of_a_forward(config: Any, *, device: torch.device) -> int:
    """How many tokens go through a model of this configuration at one time, without graph.

    On a GPU half of the memory that is free bounds them; what a text becomes depends on it by rounding alone.
    """
    most = ENCODE_TOKENS[device.type]
    if device.type != "cuda":
        return most
    row_bytes = _WORKING_BYTES * (config.hidden_size + getattr(config, "intermediate_size", 4 * config.hidden_size))
    return min(most, max(_LEAST_TOKENS, int(_SHARE * free_bytes(device) / row_bytes)))


def encode_texts(
    texts: Sequence[str],
    *,
    embed: Callable[[PackedTexts], Mapping[Pooling, torch.Tensor]],
    tokenizer: TextTokenizer,
    prompt: Prompt,
    shares_prefixes: bool,
    device: torch.device,
    widths: Mapping[Pooling, int],
    max_tokens: int,
    on_progress: Callable[[int], None] | None = None,
) -> dict[Pooling, np.ndarray]:
    """Embeddings (K, D) float32 of K texts in the order given, by pooling.

    Args:
        texts: any number.
        embed: embeddings (K, D) of the texts of a packed row, by pooling.
        tokenizer: makes the tokens.
        prompt: every text's.
        shares_prefixes: whether what texts begin with in common is computed once for each packed row.
        device: where packed rows go.
        widths: D of every pooling that `embed` gives.
        max_tokens: of one packed row; a longer text goes alone.
        on_progress: called with the number of texts finished by each row.
    """
    counts = Counter(texts)
    distinct = list(counts)
    result = {pooling: np.empty((len(distinct), width), dtype=np.float32) for pooling, width in widths.items()}
    for first, tokenized in tokenize_ahead(tokenizer, distinct, prompt=prompt):
        for group, found in embed_in_groups(
            tokenized, embed=embed, shares_prefixes=shares_prefixes, device=device, max_tokens=max_tokens
        ):
            for pooling, rows in found.items():
                result[pooling][first + group] = rows
            if on_progress:
                on_progress(sum(counts[distinct[first + index]] for index in group))
    if len(distinct) == len(texts):
        return result
    row_of = {text: row for row, text in enumerate(distinct)}
    rows_of_texts = [row_of[text] for text in texts]
    return {pooling: rows[rows_of_texts] for pooling, rows in result.items()}


def embed_in_groups(
    tokenized: TokenizedTexts,
    *,
    embed: Callable[[PackedTexts], Mapping[Pooling, torch.Tensor]],
    shares_prefixes: bool,
    device: torch.device,
    max_tokens: int,
) -> Iterator[tuple[np.ndarray, dict[Pooling, np.ndarray]]]:
    """Embed texts of similar length at a time, the longest first; arguments as of `encode_texts`.

    Yields which texts, and their embeddings, float32, by pooling.
    """
    shared = tokenized.shared if shares_prefixes else [0] * len(tokenized.ids)
    own = [len(tokens) - count for tokens, count in zip(tokenized.ids, shared, strict=True)]
    for group in split_by_tokens(own, max_tokens=max_tokens - max(shared, default=0)):
        packed = pack_tokens(tokenized.select(group), shares_prefixes=shares_prefixes, device=device)
        yield group, {pooling: rows.cpu().numpy() for pooling, rows in embed(packed).items()}
