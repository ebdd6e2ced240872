"""Token lists -> one packed row without padding: segments sorted by length, identical texts and common prefixes once.

    texts            "a b"  "c"  "a b"  "d e f"          (K = 4, three distinct)
    tokens     (N,)   c $ | a b $ | d e f $              N = 2 + 3 + 4, $ is the end token
    positions  (N,)   0 1 | 0 1 2 | 0 1 2 3
    cu_seqlens        0     2       5         9
    segment_of_text   1  0  1  2

The same under a prompt whose first part is "p q": it is a segment that no text points to, and prefix of the others.

    tokens     (N,)   c $ | p q | a b $ | d e f $        N = 2 + 2 + 3 + 4
    positions  (N,)   2 3 | 0 1 | 2 3 4 | 2 3 4 5
    prefixes          1     -1    1       1
    segment_of_text   2  0  2  3

Invariant: segments are in order of length, then of their prefix's, so segments alike in both lie side by side and form
a dense block (`runs`), and no token is computed twice or for nothing. Cost: O(N + K log K).
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from embedsmith.model.layers.segments import PackedTexts, Segments
from embedsmith.model.tokens import TokenizedTexts


def pack_tokens(
    tokenized: TokenizedTexts, *, shares_prefixes: bool = True, device: torch.device | str = "cpu"
) -> PackedTexts:
    """Pack K texts, none without a token, into one row.

    Args:
        tokenized: the texts.
        shares_prefixes: whether a prompt's first part is computed once for all distinct texts that begin with it. What
            only one begins with stays its own.
        device: where the row goes.
    """
    assert tokenized.ids, "nothing to pack"
    distinct, distinct_of_text = _distinct(tokenized)
    prefixes, prefix_of = _common_prefixes(distinct) if shares_prefixes else ([], [-1] * len(distinct.ids))
    own = [
        tokens if prefix < 0 else tokens[len(prefixes[prefix]) :]
        for tokens, prefix in zip(distinct.ids, prefix_of, strict=True)
    ]
    parts = [*own, *prefixes]
    before = [len(prefixes[prefix]) if prefix >= 0 else 0 for prefix in prefix_of] + [0] * len(prefixes)
    pool_from = [*distinct.pool_from, *[0] * len(prefixes)]

    order = np.lexsort((before, [len(part) for part in parts]))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    lengths = tuple(len(parts[index]) for index in order)
    cu_seqlens = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    positions = np.concatenate([before[index] + np.arange(len(parts[index])) for index in order])
    prefix_ranks = [rank[len(own) + prefix] if prefix >= 0 else -1 for prefix in prefix_of] + [-1] * len(prefixes)
    return PackedTexts(
        input_ids=torch.from_numpy(np.concatenate([parts[index] for index in order]))[None].to(device),
        position_ids=torch.from_numpy(positions)[None].to(device),
        segments=Segments(
            lengths,
            torch.from_numpy(cu_seqlens).to(device),
            tuple(pool_from[index] for index in order),
            tuple(int(prefix_ranks[index]) for index in order) if prefixes else (),
        ),
        segment_of_text=torch.from_numpy(rank[distinct_of_text]).to(device),
    )


def _distinct(tokenized: TokenizedTexts) -> tuple[TokenizedTexts, np.ndarray]:
    """Texts that differ in what they are embedded from, in order, and (K,) which of them each text is."""
    index_of: dict[tuple[bytes, int], int] = {}
    first_texts: list[int] = []
    distinct_of_text = np.empty(len(tokenized.ids), dtype=np.int64)
    for text, (tokens, start) in enumerate(zip(tokenized.ids, tokenized.pool_from, strict=True)):
        index = index_of.setdefault((tokens.tobytes(), start), len(first_texts))
        if index == len(first_texts):
            first_texts.append(text)
        distinct_of_text[text] = index
    return tokenized.select(first_texts), distinct_of_text


def _common_prefixes(distinct: TokenizedTexts) -> tuple[list[np.ndarray], list[int]]:
    """The ids that at least two texts begin with, by their prompts, and of each text which of them; -1: none."""
    shared = [tokens[:count] for tokens, count in zip(distinct.ids, distinct.shared, strict=True)]
    keys = [part.tobytes() for part in shared]
    common = [key for key, count in Counter(keys).items() if key and count > 1]
    index_of = {key: index for index, key in enumerate(common)}
    part_of = dict(zip(keys, shared, strict=True))
    return [part_of[key] for key in common], [index_of.get(key, -1) for key in keys]


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
