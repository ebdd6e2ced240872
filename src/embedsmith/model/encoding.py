"""Many texts -> embeddings without graph: equal texts once, in groups of similar length, tokenized ahead."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from embedsmith.model.layers.segments import PackedTexts
from embedsmith.model.packing import pack_tokens, split_by_tokens
from embedsmith.model.tokens import TextTokenizer, tokenize_ahead
from embedsmith.settings.config import Pooling
from embedsmith.settings.prompts import Prompt

# More gains nothing on a CPU (measured).
ENCODE_MAX_TOKENS = 4096


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
