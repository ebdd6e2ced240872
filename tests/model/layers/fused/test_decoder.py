"""The fused decoder equals transformers' own layers: embeddings and every gradient, for every family and option."""

from pathlib import Path

import pytest
import torch

from embedsmith.model.embedder import Embedder
from embedsmith.model.layers.fused.decoder import FusedDecoder
from embedsmith.model.layers.fused.kernels import Norm, NormState
from embedsmith.model.layers.fused.torch_kernels import TorchKernels
from embedsmith.model.layers.segments import PackedTexts
from tests.model.layers.fused.cases import (
    BFLOAT16_KERNELS,
    BOTH_KERNELS,
    adapter_weights,
    assert_same_run,
    distance,
    every_linear,
    joined,
    load,
    make_kernels,
    run,
    save_variant,
)
from tests.tiny import FAMILIES, TEXTS

MIXED = [*TEXTS, ""]  # 1 to 18 tokens, two texts the same; "" is the end token alone

# What the families may have besides the shape of tiny's; head widths, windows, biases, rotary tables.
VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    "biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "one-key-head": ("llama", {"num_key_value_heads": 1}),
    "no-groups": ("llama", {"num_key_value_heads": 4}),
    "one-layer": ("llama", {"num_hidden_layers": 1}),
    "narrow-mlp": ("llama", {"intermediate_size": 48}),
    "llama3-rotary": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 1e4,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            }
        },
    ),
    "yarn-rotary": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e4,
                "factor": 4.0,
                "original_max_position_embeddings": 16,
            }
        },
    ),
    "linear-rotary": ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}),
    "some-windows": ("qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
    "qwen3-windows": ("qwen3", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
    "no-window": ("mistral", {"sliding_window": None}),
    "window-of-one": ("mistral", {"sliding_window": 1}),
    "granite-plain": ("granite", {"residual_multiplier": 1.0, "attention_bias": True}),
    "phi-one-layer": ("phi", {"num_hidden_layers": 1}),
    "gemma2-no-cap": ("gemma2", {"attn_logit_softcapping": None}),
    "gemma3-biases": ("gemma3_text", {"attention_bias": True, "num_key_value_heads": 1}),
    "gemma3-one-layer": ("gemma3_text", {"num_hidden_layers": 1, "layer_types": ["full_attention"]}),
    "gemma3-linear-rotary": (
        "gemma3_text",
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            }
        },
    ),
    "phi3-long-rotary": (
        "phi3",
        {
            "original_max_position_embeddings": 64,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "partial_rotary_factor": 0.75,
                "short_factor": [1.0 + index / 4 for index in range(6)],
                "long_factor": [4.0] * 6,
                "original_max_position_embeddings": 64,
            },
        },
    ),
    "phi3-one-layer": ("phi3", {"num_hidden_layers": 1, "num_key_value_heads": 1}),
    "smollm3-windows": (
        "smollm3",
        {
            "use_sliding_window": True,
            "sliding_window": 5,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    "olmo2-one-layer": ("olmo2", {"num_hidden_layers": 1, "attention_bias": True}),
}


@pytest.mark.parametrize("kernels", BOTH_KERNELS)
@pytest.mark.parametrize("targets", ["query-value", "every-linear"])
@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_training_pass_equals_the_plain_one(
    folders: dict[str, Path], family: str, pooling: str, targets: str, kernels: str
) -> None:
    names = every_linear(family) if targets == "every-linear" else None
    settings = {"targets": names, "pooling": pooling, "dropout": 0.3}
    expected = run(load(folders[family], **settings), MIXED, is_training=True)
    still = run(load(folders[family], **settings), MIXED)
    assert distance(still.embeddings, expected.embeddings) > 0.01  # dropout does something
    actual = run(load(folders[family], kernels=kernels, **settings), MIXED, is_training=True)
    assert_same_run(actual, expected)


@pytest.mark.parametrize("kernels", BOTH_KERNELS)
@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_options_of_the_families(tmp_path: Path, variant: str, pooling: str, kernels: str) -> None:
    family, changes = VARIANTS[variant]
    folder = save_variant(family, tmp_path / "m", **changes)
    settings = {"targets": every_linear(family), "pooling": pooling}
    assert_same_run(run(load(folder, kernels=kernels, **settings), MIXED), run(load(folder, **settings), MIXED))


UPPER = {
    "query-of-the-last": ("llama", ["layers.2.self_attn.q_proj"]),
    "value-of-the-last": ("llama", ["layers.2.self_attn.v_proj"]),
    "output-of-the-middle": ("llama", ["layers.1.self_attn.o_proj"]),
    "down-of-the-last": ("llama", ["layers.2.mlp.down_proj"]),
    "up-of-the-middle": ("llama", ["layers.1.mlp.up_proj"]),
    "mlp-below-attention": ("qwen3", ["layers.1.mlp.gate_proj", "layers.2.self_attn.k_proj"]),
    "attention-below-mlp": ("granite", ["layers.1.self_attn.k_proj", "layers.2.mlp.down_proj"]),
    "phi-mlp-of-the-last": ("phi", ["layers.2.mlp.fc1"]),
    "phi-mlp-below-attention": ("phi", ["layers.1.mlp.fc2", "layers.2.self_attn.dense"]),
    "phi-value-of-the-last": ("phi", ["layers.2.self_attn.v_proj"]),
    "phi3-heads-of-the-last": ("phi3", ["layers.2.self_attn.qkv_proj"]),
    "gemma3-mlp-below-attention": ("gemma3_text", ["layers.1.mlp.down_proj", "layers.2.self_attn.k_proj"]),
    "olmo2-attention-below-mlp": ("olmo2", ["layers.1.self_attn.q_proj", "layers.2.mlp.up_proj"]),
}


@pytest.mark.parametrize("kernels", BOTH_KERNELS)
@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("place", UPPER)
def test_adapters_in_upper_layers_only(folders: dict[str, Path], place: str, pooling: str, kernels: str) -> None:
    family, targets = UPPER[place]
    settings = {"targets": targets, "pooling": pooling, "dropout": 0.3}
    plain = load(folders[family], **settings)
    assert len(adapter_weights(plain)) == 2 * len(targets)
    fused = load(folders[family], kernels=kernels, **settings)
    assert_same_run(run(fused, MIXED, is_training=True), run(plain, MIXED, is_training=True))


@pytest.mark.parametrize("kernels", BOTH_KERNELS)
@pytest.mark.parametrize("family", FAMILIES)
def test_ends_only_are_rows_of_the_whole(folders: dict[str, Path], family: str, kernels: str) -> None:
    embedder = load(folders[family], kernels=kernels, targets=every_linear(family))
    packed = embedder.pack(MIXED)
    with torch.no_grad():
        whole = embedder.hidden_states(packed)
        ends = embedder.hidden_states(packed, ends_only=True)
    assert whole.shape == (packed.num_tokens, 64)
    assert ends.shape == (len(MIXED) - 1, 64)
    torch.testing.assert_close(ends, whole[packed.segments.ends], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernels", BFLOAT16_KERNELS)
@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_is_as_exact_as_the_plain_path(
    folders: dict[str, Path], family: str, pooling: str, kernels: str
) -> None:
    """Distance from the same rounded weights in float32: fused 1.25 times plain's at most (measured), often less."""
    settings = {"targets": every_linear(family), "pooling": pooling}
    rounded = load(folders[family], **settings)
    with torch.no_grad():
        for weight in rounded.backbone.model.parameters():
            if not weight.requires_grad:
                weight.copy_(weight.bfloat16().float())
    exact = run(rounded, MIXED)
    plain = run(load(folders[family], precision="bf16", **settings), MIXED)
    fused = run(load(folders[family], precision="bf16", kernels=kernels, **settings), MIXED)
    allowed = 1.5 * distance(plain.embeddings, exact.embeddings) + 2e-3
    assert 1e-4 < distance(fused.embeddings, exact.embeddings) < allowed
    allowed = 1.5 * distance(joined(plain.gradients), joined(exact.gradients)) + 2e-3
    assert 1e-4 < distance(joined(fused.gradients), joined(exact.gradients)) < allowed


@pytest.mark.parametrize("kernels", BOTH_KERNELS)
@pytest.mark.parametrize("texts", [[""], ["rain"], ["", "rain"]], ids=["end-token", "one-word", "both"])
def test_the_shortest_texts(folders: dict[str, Path], texts: list[str], kernels: str) -> None:
    embedder = load(folders["mistral"], kernels=kernels)
    assert embedder.pack(texts).segments.lengths == tuple(len(text.split()) + 1 for text in texts)
    assert_same_run(run(embedder, texts), run(load(folders["mistral"]), texts))


@pytest.mark.parametrize("kernels", BOTH_KERNELS)
@pytest.mark.parametrize("family", ["llama", "mistral", "phi"])
def test_texts_longer_than_the_first_rotary_tables(tmp_path: Path, family: str, kernels: str) -> None:
    """Tables begin with 256 positions and grow; shorter texts afterwards are as before."""
    folder = save_variant(family, tmp_path / "m", max_position_embeddings=1024)
    long = [" ".join(f"w{(7 * index + start) % 200}" for index in range(300 + start)) for start in range(2)]
    fused = load(folder, kernels=kernels, max_length=512)
    plain = load(folder, max_length=512)
    assert max(fused.pack(long).segments.lengths) == 302
    before = run(fused, MIXED)
    assert_same_run(run(fused, long), run(plain, long))
    assert_same_run(run(fused, MIXED), before)


@pytest.mark.parametrize("kernels", BOTH_KERNELS)
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_pieces_of_a_row_get_the_masks_of_the_whole(folders: dict[str, Path], pooling: str, kernels: str) -> None:
    settings = {"pooling": pooling, "dropout": 0.3, "targets": every_linear("llama")}
    embedder = load(folders["llama"], kernels=kernels, **settings)
    packed = embedder.pack(MIXED)
    pieces = packed.pieces(max_tokens=14)
    assert len(pieces) > 2

    def embed(part: PackedTexts) -> torch.Tensor:
        torch.manual_seed(5)
        with torch.no_grad(), embedder.dropout(is_on=True):
            return embedder.embed(part)

    together = torch.cat([embed(piece) for piece in pieces])
    torch.testing.assert_close(together[packed.segment_of_text], embed(packed), rtol=0, atol=2e-6)


class RecordingKernels(TorchKernels):
    """Notes which norms were asked to keep their state."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[bool] = []

    def add_norm(
        self, x: torch.Tensor, updates: tuple[torch.Tensor, ...], *, alpha: float, norm: Norm, dtype: torch.dtype,
        keep: bool,
    ) -> tuple[torch.Tensor, NormState | None]:  # fmt: skip
        self.kept.append(keep)
        return super().add_norm(x, updates, alpha=alpha, norm=norm, dtype=dtype, keep=keep)


def test_only_layers_from_the_lowest_adapter_on_save_anything(folders: dict[str, Path]) -> None:
    embedder = load(folders["llama"], targets=["layers.1.mlp.up_proj", "layers.2.self_attn.q_proj"])
    kernels = RecordingKernels()
    embedder.decoder = FusedDecoder(embedder.backbone.model, kernels=kernels)
    packed = embedder.pack(MIXED)
    assert embedder.embed(packed).requires_grad
    assert kernels.kept == [False, False, True, True, True, True]  # two norms a layer
    kernels.kept.clear()
    with torch.no_grad():
        assert not embedder.embed(packed).requires_grad
    assert kernels.kept == [False] * 6


@pytest.mark.parametrize("kernels", BOTH_KERNELS)
def test_without_an_adapter_there_is_no_graph(folders: dict[str, Path], kernels: str) -> None:
    embedder = Embedder.load(str(folders["llama"]), precision="fp32", max_length=64, fused=False)
    with torch.no_grad():
        expected = embedder.embed(embedder.pack(MIXED))
    embedder.decoder = FusedDecoder(embedder.backbone.model, kernels=make_kernels(kernels))
    actual = embedder.embed(embedder.pack(MIXED))
    assert not actual.requires_grad
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


def test_a_second_backward_is_refused(folders: dict[str, Path]) -> None:
    """What the first one needed is gone by then; without this check the gradients would be wrong."""
    embedder = load(folders["llama"], kernels="torch")
    total = embedder.hidden_states(embedder.pack(MIXED)).sum()
    total.backward(retain_graph=True)
    with pytest.raises(AssertionError, match="backward has run already"):
        total.backward()
