"""A prompt's first part computed once equals computing it with every text: embeddings, gradients, dropout, pieces."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from embedsmith.model.embedder import Embedder
from embedsmith.model.layers.fused.kernels import AttentionShape
from embedsmith.model.layers.segments import PackedTexts, Segments
from embedsmith.model.packing import pack_tokens
from embedsmith.settings.choices import Pooling
from embedsmith.settings.prompts import read_prompt
from embedsmith.training import gradcache
from embedsmith.training.budget import TokenBudget
from embedsmith.training.loss import info_nce
from tests.model.layers.fused.cases import (
    BFLOAT16_KERNELS,
    BOTH_KERNELS,
    Run,
    adapter_weights,
    assert_same_run,
    distance,
    every_linear,
    joined,
    load,
    make_kernels,
    needs_compiler,
    run_packed,
    save_variant,
)
from tests.tiny import FAMILIES, TEXTS

# Two for many texts, one of them longer than the families' windows, one for three, none for some, and one for a single.
LONG, SHORT, FEW, NONE = (
    read_prompt(template)
    for template in (
        "the cat runs away from the old men {text} in the park",
        "rain {text}",
        "wind blows {text}",
        "{text} falls",
    )
)
WORDS = [*TEXTS, "", "w1 w2", "w3", *(f"w{number} roof w{number % 3}" for number in range(8, 16))]  # "" is one too
PROMPT_OF = [[LONG, SHORT, LONG, FEW, LONG, SHORT, NONE][index % 7] for index in range(17)] + [
    read_prompt("a b {text}")
]
PATHS = [*BOTH_KERNELS, pytest.param(None, id="plain")]


def pack(embedder: Embedder, *, shared: bool = True) -> PackedTexts:
    packed = pack_tokens(embedder.tokenizer.tokenize(WORDS, prompts=PROMPT_OF), shares_prefixes=shared)
    assert len(set(packed.segments.prefixes) - {-1}) == (3 if shared else 0)
    return packed


def masks_of(shared: PackedTexts, apart: PackedTexts) -> PackedTexts:
    """`apart`, whose every row is dropped as the row of `shared` that stands for it."""
    assert shared.segments.text_rows is not None
    rows_of_segment = shared.segments.text_rows.split(shared.segments.text_lengths)
    rows = torch.full((apart.num_tokens,), -1)
    starts = apart.segments.cu_seqlens.tolist()
    for segment, place in zip(shared.segment_of_text.tolist(), apart.segment_of_text.tolist(), strict=True):
        rows[starts[place] : starts[place + 1]] = rows_of_segment[segment]
    assert rows.min() >= 0
    assert torch.equal(shared.input_ids[:, rows], apart.input_ids)
    return replace(apart, rows=rows)


def both(embedder: Embedder, *, is_training: bool = False) -> tuple[Run, Run]:
    shared, apart = pack(embedder), pack(embedder, shared=False)
    assert shared.num_tokens < apart.num_tokens - 50
    if is_training:
        apart = masks_of(shared, apart)
    return tuple(run_packed(embedder, packed, is_training=is_training) for packed in (shared, apart))


@pytest.mark.parametrize("kernels", PATHS)
@pytest.mark.parametrize("pooling", list(Pooling))
@pytest.mark.parametrize("family", FAMILIES)
def test_shared_equals_apart(folders: dict[str, Path], family: str, pooling: str, kernels: str | None) -> None:
    shared, apart = both(load(folders[family], kernels=kernels, targets=every_linear(family), pooling=pooling))
    assert_same_run(shared, apart)


@pytest.mark.parametrize("kernels", PATHS)
@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_rows_of_a_prefix_have_one_mask(
    folders: dict[str, Path], family: str, pooling: str, kernels: str | None
) -> None:
    settings = {"targets": every_linear(family), "pooling": pooling, "dropout": 0.3}
    embedder = load(folders[family], kernels=kernels, **settings)
    shared, apart = both(embedder, is_training=True)
    assert_same_run(shared, apart)
    assert distance(shared.embeddings, run_packed(embedder, pack(embedder)).embeddings) > 0.01
    if kernels:
        plain = load(folders[family], **settings)
        assert_same_run(shared, run_packed(plain, pack(plain), is_training=True))


@pytest.mark.parametrize("kernels", PATHS)
@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {"num_key_value_heads": 1}),
        ("mistral", {"sliding_window": 1}),
        ("phi", {"num_hidden_layers": 1}),
        ("gemma3_text", {"num_hidden_layers": 1, "layer_types": ["sliding_attention"]}),
    ],
)
def test_other_shapes(
    tmp_path: Path, family: str, changes: dict[str, object], pooling: str, kernels: str | None
) -> None:
    folder = save_variant(family, tmp_path / "m", **changes)
    assert_same_run(*both(load(folder, kernels=kernels, targets=every_linear(family), pooling=pooling)))


@pytest.mark.parametrize("kernels", [*BFLOAT16_KERNELS, None])
@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("family", ["llama", "gemma2", "phi3"])
def test_in_bfloat16_it_is_as_exact(folders: dict[str, Path], family: str, pooling: str, kernels: str | None) -> None:
    """Distance from the same rounded weights in float32, shared and apart: alike."""
    settings = {"targets": every_linear(family), "pooling": pooling}
    rounded = load(folders[family], **settings)
    with torch.no_grad():
        for weight in rounded.backbone.model.parameters():
            if not weight.requires_grad:
                weight.copy_(weight.bfloat16().float())
    exact = both(rounded)[1]
    shared, apart = both(load(folders[family], precision="bf16", kernels=kernels, **settings))
    allowed = 1.25 * distance(apart.embeddings, exact.embeddings) + 1e-3
    assert 1e-4 < distance(shared.embeddings, exact.embeddings) < allowed
    allowed = 1.25 * distance(joined(apart.gradients), joined(exact.gradients)) + 1e-3
    assert 1e-4 < distance(joined(shared.gradients), joined(exact.gradients)) < allowed


@pytest.mark.parametrize("kernels", PATHS)
@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("max_tokens", [1, 40, 60])
def test_pieces_hold_their_prefixes_again(
    folders: dict[str, Path], max_tokens: int, pooling: str, kernels: str | None
) -> None:
    """Loss and gradients are those of one forward whatever the bound, dropout included."""
    found = []
    for bound in (10_000, max_tokens):
        settings = {"targets": every_linear("mistral"), "pooling": pooling, "dropout": 0.3}
        embedder = load(folders["mistral"], kernels=kernels, **settings)
        packed = pack(embedder)
        torch.manual_seed(5)
        loss, num_tokens = gradcache.contrastive_step(
            packed,
            embedder=embedder,
            loss_of=lambda rows: info_nce(*rows[:18].chunk(3), temperature=0.1),
            budget=TokenBudget(bound),
            backward=torch.Tensor.backward,
        )
        assert num_tokens == packed.num_tokens
        found.append(Run(loss[None], {name: weight.grad for name, weight in adapter_weights(embedder)}))
    assert len(packed.pieces(max_tokens=max_tokens)) > 2
    assert_same_run(found[1], found[0])


def test_the_bound_changes_no_bit(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gradcache.PIECE_TOKENS, "cpu", 40)
    found = []
    for bound in (40, 100, 10_000):
        embedder = load(folders["llama"], kernels="torch", dropout=0.3)
        torch.manual_seed(5)
        gradcache.contrastive_step(
            pack(embedder),
            embedder=embedder,
            loss_of=lambda rows: info_nce(*rows[:18].chunk(3), temperature=0.1),
            budget=TokenBudget(bound),
            backward=torch.Tensor.backward,
        )
        found.append(joined({name: weight.grad for name, weight in adapter_weights(embedder)}))
    assert torch.equal(found[1], found[0])
    assert torch.equal(found[2], found[0])


@pytest.mark.parametrize("kernels", BOTH_KERNELS)
@pytest.mark.parametrize("family", FAMILIES)
def test_ends_only_are_rows_of_the_whole(folders: dict[str, Path], family: str, kernels: str) -> None:
    embedder = load(folders[family], kernels=kernels, targets=every_linear(family))
    packed = pack(embedder)
    with torch.no_grad():
        whole, ends = (embedder.hidden_states(packed, ends_only=ends_only) for ends_only in (False, True))
    torch.testing.assert_close(ends, whole[packed.segments.ends], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernels", BOTH_KERNELS)
def test_rotary_tables_grow_with_prefix_and_text(tmp_path: Path, kernels: str) -> None:
    """Tables begin with 256 positions; here neither the prefix nor a text alone reaches beyond them."""
    folder = save_variant("llama", tmp_path / "m", max_position_embeddings=1024)
    words = " ".join(f"w{index}" for index in range(190))
    prompt = read_prompt(f"{words} {{text}}")
    found = []
    for shared in (True, False):
        embedder = load(folder, kernels=kernels, max_length=512)
        texts = [f"{first} {words}" for first in ("rain", "wind", "sea")]
        packed = pack_tokens(embedder.tokenizer.tokenize(texts, prompts=prompt), shares_prefixes=shared)
        assert (max(packed.segments.lengths), packed.segments.longest) == (192 if shared else 382, 382)
        found.append(run_packed(embedder, packed))
    assert_same_run(*found)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("ends_only", [False, True])
def test_sums_of_a_prefix_do_not_depend_on_the_threads(dtype: torch.dtype, ends_only: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    lengths = (7, *(8 + index // 3 for index in range(150)), 60)
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0).int()
    angles = torch.arange(128)[:, None] * torch.linspace(0.1, 1, 16)
    shape = AttentionShape(
        segments=Segments(lengths, cu_seqlens, prefixes=(-1, *(0 if index % 3 else 151 for index in range(150)), -1)),
        num_heads=4,
        num_kv_heads=2,
        head_dim=32,
        scaling=0.2,
        window=None,
        ends_only=ends_only,
        cos=angles.cos(),
        sin=angles.sin(),
    )
    q, k, v = (torch.randn(sum(lengths), width, generator=generator).to(dtype) for width in (128, 64, 64))
    q = q[: len(lengths)] if ends_only else q
    dy = torch.randn(q.shape, generator=generator).to(dtype)
    kernels = make_kernels("C")
    found = []
    before = torch.get_num_threads()
    try:
        for num_threads in (1, 2, 3, 3):
            torch.set_num_threads(num_threads)
            into = tuple(torch.full_like(x, torch.nan) for x in (q, k, v))
            kernels.attention_backward(q, k, v, dy, shape=shape, into=into)
            found.append((kernels.attention(q, k, v, shape=shape), *into))
    finally:
        torch.set_num_threads(before)
    assert not any(x.isnan().any() for x in found[0])
    for others in found[1:]:
        assert all(torch.equal(x, expected) for x, expected in zip(others, found[0], strict=True))
