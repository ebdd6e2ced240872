"""Packing loses nothing, repeats nothing, and cuts into groups within the bound."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from embedsmith.model.packing import pack_tokens, split_by_tokens
from embedsmith.model.tokens import TokenizedTexts

token_lists = st.lists(
    st.lists(st.integers(0, 3), min_size=1, max_size=6).map(lambda ids: np.array(ids, dtype=np.int64)),
    min_size=1,
    max_size=12,
)


@given(token_lists)
def test_every_text_is_found_again(texts: list[np.ndarray]) -> None:
    packed = pack_tokens(TokenizedTexts(texts, [0] * len(texts), [0] * len(texts)))
    bounds = packed.segments.cu_seqlens.tolist()
    for text, segment in zip(texts, packed.segment_of_text.tolist(), strict=True):
        span = slice(bounds[segment], bounds[segment + 1])
        assert packed.input_ids[0, span].tolist() == text.tolist()
        assert packed.position_ids[0, span].tolist() == list(range(len(text)))


@given(token_lists)
def test_equal_texts_are_packed_once_and_nothing_is_padded(texts: list[np.ndarray]) -> None:
    packed = pack_tokens(TokenizedTexts(texts, [0] * len(texts), [0] * len(texts)))
    distinct = {tuple(text.tolist()) for text in texts}
    assert len(packed.segments.lengths) == len(distinct)
    assert packed.num_tokens == sum(len(text) for text in distinct)


@given(token_lists)
def test_runs_cover_the_row_in_blocks_of_one_length(texts: list[np.ndarray]) -> None:
    segments = pack_tokens(TokenizedTexts(texts, [0] * len(texts), [0] * len(texts))).segments
    runs = list(segments.runs)
    assert [length for _, count, length in runs for _ in range(count)] == list(segments.lengths)
    assert [start for start, _, _ in runs] == np.cumsum([0, *(n * m for _, n, m in runs)])[:-1].tolist()
    assert len({length for _, _, length in runs}) == len(runs)


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 80))
def test_groups_are_bounded_and_complete(lengths: list[int], max_tokens: int) -> None:
    groups = list(split_by_tokens(lengths, max_tokens=max_tokens))
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or sum(lengths[index] for index in group) <= max_tokens
