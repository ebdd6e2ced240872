"""Padded blocks: what lies in them, and attention through them equal to that over equally long segments."""

from itertools import accumulate

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedsmith.model.layers import attention
from embedsmith.model.layers.padded import make_blocks
from embedsmith.model.layers.segments import Segments

CPU = torch.device("cpu")
LENGTHS = (1, 2, 2, 5, 15, 16, 17, 17, 30, 33, 40)


PREFIXES = (-1, -1, 1, -1, 1, 3, 3, -1, 1, 3, 3)  # the second and the fourth segment are prefixes


def _segments(prefixes: tuple[int, ...] = ()) -> Segments:
    return Segments(LENGTHS, torch.tensor([0, *accumulate(LENGTHS)], dtype=torch.int32), prefixes=prefixes)


@pytest.mark.parametrize("softcap", [None, 0.5])
@pytest.mark.parametrize("ends_only", [False, True])
@pytest.mark.parametrize("sight", ["both ways", "causal", "causal, prefixes"])
@pytest.mark.parametrize("window", [None, 3, 20, 100])
def test_attention_is_the_same_with_its_gradients(
    window: int | None, sight: str, ends_only: bool, softcap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    segments = _segments(PREFIXES if "prefixes" in sight else ())
    is_causal = sight != "both ways"
    generator = torch.Generator().manual_seed(0)
    shape = {"scaling": 0.3, "sliding_window": window, "is_causal": is_causal, "ends_only": ends_only}
    shape["softcap"] = softcap
    inputs = [torch.randn(sum(LENGTHS), heads, 8, generator=generator) for heads in (4, 2, 2)]
    found = []
    for attend in (attention._by_length, attention._by_similar_length):
        monkeypatch.setattr(attention, "_by_length", attend)
        q, k, v = (tensor.clone().requires_grad_() for tensor in inputs)
        output = attention.segment_attention(q[segments.ends] if ends_only else q, k, v, segments, **shape)
        found.append([output, *torch.autograd.grad(output.square().sum(), [q, k, v])])
    torch.testing.assert_close(found[1], found[0])


@given(st.lists(st.tuples(st.integers(1, 200), st.sampled_from([0, 7, 30])), min_size=1, max_size=30).map(sorted))
def test_every_token_stands_in_one_place_and_little_is_padding(segments: list[tuple[int, int]]) -> None:
    lengths, before = zip(*segments, strict=True)
    blocks = make_blocks(lengths, before, device=CPU)
    rows = torch.cat([block.query_rows[block.places] for block in blocks])
    assert rows.tolist() == list(range(sum(lengths)))
    keys = torch.cat([block.key_rows for block in blocks]).unique()
    assert keys.tolist() == list(range(sum(lengths) + sum(before)))
    covered = [index for block in blocks for index in range(block.segments.start, block.segments.stop)]
    assert covered == list(range(len(lengths)))
    assert len(blocks) <= 5  # up to 16, 32, 64, 128, 256
    for block in blocks:
        assert block.lengths.tolist() == list(lengths[block.segments])
        assert block.before.tolist() == list(before[block.segments])
        assert block.num_queries == max(block.lengths)
        assert block.num_queries <= 16 or len(block.places) > len(block.query_rows) / 2


def test_a_block_sees_what_it_may() -> None:
    (block,) = make_blocks((2, 3), (0, 1), device=CPU)
    assert block.query_rows.tolist() == [0, 1, 1, 2, 3, 4]
    assert block.key_rows.tolist() == [0, 1, 1, 1, 2, 3, 4, 5]
    assert block.places.tolist() == [0, 1, 3, 4, 5]
    causal = block.mask(window=None, is_causal=True, ends_only=False)[:, 0].int().tolist()
    padding = [1, 1, 0, 0]
    assert causal == [[[1, 0, 0, 0], [1, 1, 0, 0], padding], [[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]]
    windowed = block.mask(window=1, is_causal=True, ends_only=False)[0, 0].int().tolist()
    assert windowed[2] == [1, 0, 0, 0]
    ends = block.mask(window=2, is_causal=True, ends_only=True)[:, 0].int().tolist()
    assert ends == [[[1, 1, 0, 0]], [[0, 0, 1, 1]]]
