"""Token lists -> one packed row without padding: segments sorted by length, identical texts once.

    texts            "a b"  "c"  "a b"  "d e f"          (K = 4, three distinct)
    tokens     (N,)   c $ | a b $ | d e f $              N = 2 + 3 + 4, $ is the end token
    positions  (N,)   0 1 | 0 1 2 | 0 1 2 3
    cu_seqlens        0     2       5         9
    segment_of_text   1  0  1  2

Invariant: segments are in order of length, so segments of one length lie side by side and form a dense block
(`runs`), and no token is computed twice or for nothing. Cost: O(N + K log K).
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from embedsmith.model.layers.segments import PackedTexts, Segments
from embedsmith.model.tokens import TokenizedTexts


def pack_tokens(tokenized: TokenizedTexts, *, device: torch.device | str = "cpu") -> PackedTexts:
    """Pack K texts, none without a token, into one row."""
    assert tokenized.ids, "nothing to pack"
    index_of: dict[tuple[bytes, int], int] = {}
    first_texts: list[int] = []  # of each distinct one
    text_to_distinct = np.empty(len(tokenized.ids), dtype=np.int64)
    for text, (tokens, start) in enumerate(zip(tokenized.ids, tokenized.pool_from, strict=True)):
        index = index_of.setdefault((tokens.tobytes(), start), len(first_texts))
        if index == len(first_texts):
            first_texts.append(text)
        text_to_distinct[text] = index

    order = np.argsort([len(tokenized.ids[text]) for text in first_texts], kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    ordered = tokenized.select([first_texts[index] for index in order])
    lengths = tuple(len(tokens) for tokens in ordered.ids)
    cu_seqlens = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    positions = np.concatenate([np.arange(length) for length in lengths])
    return PackedTexts(
        input_ids=torch.from_numpy(np.concatenate(ordered.ids))[None].to(device),
        position_ids=torch.from_numpy(positions)[None].to(device),
        segments=Segments(lengths, torch.from_numpy(cu_seqlens).to(device), tuple(ordered.pool_from)),
        segment_of_text=torch.from_numpy(rank[text_to_distinct]).to(device),
    )


def split_by_tokens(lengths: Sequence[int], *, max_tokens: int) -> Iterator[np.ndarray]:
    """Split texts into groups of similar length and at most `max_tokens` tokens; one longer text goes alone.

    Yields arrays of text indices, longest texts first, so that the largest memory need shows at once.
    """
    order = np.argsort(np.asarray(lengths), kind="stable")[::-1]
    group: list[int] = []
    num_tokens = 0
    for index in order:
        if group and num_tokens + lengths[index] > max_tokens:
            yield np.array(group)
            group, num_tokens = [], 0
        group.append(int(index))
        num_tokens += lengths[index]
    if group:
        yield np.array(group)
