"""Many texts -> embeddings without graph: equal texts once, in groups of similar length, tokenized ahead."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from embedsmith.config import Pooling
from embedsmith.model.packing import pack_tokens, split_by_tokens
from embedsmith.model.pooling import pooled_width
from embedsmith.model.tokens import tokenize_ahead
from embedsmith.prompts import Prompt

if TYPE_CHECKING:
    from embedsmith.model.embedder import Embedder

# More gains nothing on a CPU (measured).
ENCODE_MAX_TOKENS = 4096
# The first layer's roundings go through all others: a tenth of bfloat16's error for a thirtieth of the work. On a CPU;
# a GPU's float32 products are too slow for it.
_EXACT_LAYERS = defaultdict(int, cpu=1)


@torch.no_grad()
def encode_texts(
    embedder: "Embedder",
    texts: Sequence[str],
    *,
    poolings: Sequence[Pooling],
    prompt: Prompt,
    max_tokens: int,
    on_progress: Callable[[int], None] | None,
) -> dict[Pooling, np.ndarray]:
    """Embeddings (K, D) float32 of K texts in the order given, by pooling; arguments as `Embedder.encode`."""
    counts = Counter(texts)
    distinct = list(counts)
    hidden_size = embedder.backbone.model.config.hidden_size
    result = {
        Pooling(pooling): np.empty((len(distinct), pooled_width(hidden_size, pooling=pooling)), dtype=np.float32)
        for pooling in poolings
    }
    num_exact = _EXACT_LAYERS[embedder.device.type]
    with embedder.dropout(is_on=False):
        for first, tokenized in tokenize_ahead(embedder.tokenizer, distinct, prompt=prompt):
            for group in split_by_tokens([len(tokens) for tokens in tokenized.ids], max_tokens=max_tokens):
                packed = pack_tokens(tokenized.select(group), device=embedder.device)
                for pooling, rows in embedder.embed_poolings(packed, list(result), num_exact=num_exact).items():
                    result[pooling][first + group] = rows.cpu().numpy()
                if on_progress:
                    on_progress(sum(counts[distinct[first + index]] for index in group))
    if len(distinct) == len(texts):
        return result
    row_of = {text: row for row, text in enumerate(distinct)}
    rows_of_texts = [row_of[text] for text in texts]
    return {pooling: rows[rows_of_texts] for pooling, rows in result.items()}
