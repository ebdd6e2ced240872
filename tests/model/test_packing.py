"""Packing loses nothing, repeats nothing, and cuts into groups within the bound."""

from collections import Counter
from itertools import groupby, pairwise

import numpy as np
import torch
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
    assert [length for count, length, _ in runs for _ in range(count)] == list(segments.lengths)
    assert len({length for _, length, _ in runs}) == len(runs)


@st.composite
def prompted(draw: st.DrawFn) -> TokenizedTexts:
    """Texts of which some begin with one of three first parts, as the tokenizer says."""
    firsts = [np.array(ids, dtype=np.int64) for ids in ([], [7], [7, 8], [9, 9, 9, 9, 9, 9, 9])]
    chosen = draw(st.lists(st.tuples(st.sampled_from(firsts), token_lists.map(lambda lists: lists[0])), min_size=1))
    ids = [np.concatenate(parts) for parts in chosen]
    pool_from = [draw(st.integers(0, len(tokens) - 1)) for tokens in ids]
    return TokenizedTexts(ids, pool_from, [len(first) for first, _ in chosen])


@given(prompted())
def test_what_texts_begin_with_is_packed_once(tokenized: TokenizedTexts) -> None:
    packed = pack_tokens(tokenized)
    segments = packed.segments
    rows = np.arange(packed.num_tokens) if segments.text_rows is None else segments.text_rows.numpy()
    bounds = segments.text_seqlens.tolist()
    assert bounds == [0, *np.cumsum(segments.text_lengths)]
    for text, segment in enumerate(packed.segment_of_text.tolist()):
        own = rows[bounds[segment] : bounds[segment + 1]]
        assert packed.input_ids[0, own].tolist() == tokenized.ids[text].tolist()
        assert packed.position_ids[0, own].tolist() == list(range(len(own)))
        assert segments.pool_from[segment] == tokenized.pool_from[text]
    assert segments.positions.tolist() == packed.position_ids[0].tolist()

    distinct = {(tuple(ids), start): count for ids, start, count in zip(*vars(tokenized).values(), strict=True)}
    begun = Counter(ids[:count] for (ids, _), count in distinct.items() if count)
    common = {first for first, count in begun.items() if count > 1}
    own = [len(ids) - (count if ids[:count] in common else 0) for (ids, _), count in distinct.items()]
    assert packed.num_tokens == sum(own) + sum(len(first) for first in common)
    assert len(segments.texts) == len(distinct)
    assert packed.distinct_of_text.tolist() == [segments.texts.index(s) for s in packed.segment_of_text.tolist()]


@given(prompted())
def test_prefixes_change_nothing_where_they_are_not_shared(tokenized: TokenizedTexts) -> None:
    apart = pack_tokens(tokenized, shares_prefixes=False)
    plain = pack_tokens(TokenizedTexts(tokenized.ids, tokenized.pool_from, [0] * len(tokenized.ids)))
    assert apart.segments.prefixes == plain.segments.prefixes == ()
    assert torch.equal(apart.input_ids, plain.input_ids)
    assert torch.equal(apart.segment_of_text, plain.segment_of_text)


@given(prompted())
def test_runs_and_jobs_hold_every_segment_once(tokenized: TokenizedTexts) -> None:
    segments = pack_tokens(tokenized).segments
    alike = [(length, before) for count, length, before in segments.runs for _ in range(count)]
    assert alike == list(zip(segments.lengths, segments.prefix_lengths, strict=True))
    if (jobs := segments.jobs) is None:
        assert not segments.prefixes
        return
    assert sorted(jobs.members.tolist()) == list(range(len(segments.lengths)))
    bounds, prefixes = jobs.bounds.tolist(), jobs.prefixes.tolist()
    for (first, end), prefix in zip(pairwise(bounds), prefixes, strict=True):
        members = jobs.members.tolist()[first:end]
        if prefix < 0:
            assert [segments.prefixes[member] for member in members] == [-1]
        else:
            assert all(member == prefix or segments.prefixes[member] == prefix for member in members)
    assert [prefix >= 0 for prefix in prefixes] == [job < jobs.num_shared for job in range(len(prefixes))]
    assert len(list(groupby(prefixes[: jobs.num_shared]))) == len(set(segments.prefixes) - {-1})


@given(prompted(), st.integers(1, 40))
def test_pieces_hold_every_text_once_with_its_prefix(tokenized: TokenizedTexts, max_tokens: int) -> None:
    packed = pack_tokens(tokenized)
    pieces = packed.pieces(max_tokens=max_tokens)
    found = []
    for piece in pieces:
        segments = piece.segments
        assert piece.num_tokens <= max_tokens or len(segments.texts) == 1
        assert piece.segment_of_text.tolist() == segments.texts
        places = piece.first_row + (torch.arange(piece.num_tokens) if piece.rows is None else piece.rows)
        assert torch.equal(packed.input_ids[:, places], piece.input_ids)
        assert torch.equal(packed.position_ids[:, places], piece.position_ids)
        rows = piece.input_ids[0] if segments.text_rows is None else piece.input_ids[0, segments.text_rows]
        texts = rows.split(list(segments.text_lengths))
        found += [(tuple(texts[text].tolist()), segments.pool_from[text]) for text in segments.texts]
    expected = [(tuple(ids), start) for ids, start in zip(tokenized.ids, tokenized.pool_from, strict=True)]
    assert [found[distinct] for distinct in packed.distinct_of_text.tolist()] == expected
    assert len(found) == len(set(expected))


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 80))
def test_groups_are_bounded_and_complete(lengths: list[int], max_tokens: int) -> None:
    groups = list(split_by_tokens(lengths, max_tokens=max_tokens))
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or sum(lengths[index] for index in group) <= max_tokens
