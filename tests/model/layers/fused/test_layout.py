"""Which models are fused, why others are not, and what is read from one."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModel, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from embedsmith.model.embedder import Embedder
from embedsmith.model.layers.fused.layout import (
    FUSED_FAMILIES,
    longest_static,
    read_layout,
    rotary_tables,
    why_not_fused,
)
from embedsmith.model.layers.fused.torch_kernels import TorchKernels
from tests import tiny


def make_model(family: str = "llama", **changes: object) -> PreTrainedModel:
    torch.manual_seed(0)
    config = CONFIG_MAPPING[family](**{**tiny.SHAPE, **tiny.FAMILIES.get(family, {}), **changes})
    return AutoModel.from_config(config).requires_grad_(False).train(mode=False)


def rotary(kind: str, **values: object) -> dict[str, object]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 1e4, "factor": 2.0, **values}}


def test_every_fused_family_is_tested() -> None:
    assert set(FUSED_FAMILIES) <= set(tiny.FAMILIES)


@pytest.mark.parametrize("family", FUSED_FAMILIES)
def test_fused_families(family: str) -> None:
    assert why_not_fused(make_model(family)) is None
    assert why_not_fused(make_model(family).bfloat16()) is None


@pytest.mark.parametrize("family", ["olmo", "opt", "gpt_neox"])
def test_other_families_are_named(family: str) -> None:
    assert why_not_fused(make_model(family)) == f"no fused blocks for model_type {family}"


@pytest.mark.parametrize(
    ("family", "activation"), [("llama", "relu"), ("llama", "gelu"), ("phi", "relu"), ("qwen2", "quick_gelu")]
)
def test_other_activations(family: str, activation: str) -> None:
    assert why_not_fused(make_model(family, hidden_act=activation)) == f"activation {activation}"


@pytest.mark.parametrize("activation", ["silu", "gelu_new", "gelu_pytorch_tanh"])
def test_known_activations(activation: str) -> None:
    assert why_not_fused(make_model(hidden_act=activation)) is None


def test_rotary_embeddings_that_change_with_the_length() -> None:
    assert why_not_fused(make_model(**rotary("dynamic"))) == "rotary embedding of type dynamic"


STATIC_ROTARY = {
    "default": {},
    "linear": rotary("linear"),
    "llama3": rotary("llama3", low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16),
    "yarn": rotary("yarn", original_max_position_embeddings=16),
    "longrope": rotary(
        "longrope",
        short_factor=[1.0 + i / 4 for i in range(8)],
        long_factor=[2.0] * 8,
        original_max_position_embeddings=1000,
    ),
}


@pytest.mark.parametrize("num_positions", [20, 900])
@pytest.mark.parametrize("kind", STATIC_ROTARY)
def test_rotary_tables_are_the_models_own(kind: str, num_positions: int) -> None:
    model = make_model(**STATIC_ROTARY[kind])
    assert why_not_fused(model) is None
    cos, sin = rotary_tables(model, num_positions)
    assert cos.shape == sin.shape == (num_positions, 8)
    for position in (0, 7, num_positions - 1):
        expected = model.rotary_emb(torch.empty(0), torch.tensor([[position]]))
        for table, values in zip((cos, sin), expected, strict=True):
            assert torch.equal(table[position].repeat(2), values[0, 0])


def test_rotary_tables_of_a_bfloat16_model_are_exact(folders: dict[str, Path]) -> None:
    def tables(precision: str) -> tuple[torch.Tensor, torch.Tensor]:
        embedder = Embedder.load(str(folders["llama"]), precision=precision, max_length=64, fused=False)
        return rotary_tables(embedder.backbone.model, 100)

    rough = tables("bf16")
    assert all(table.dtype is torch.float32 for table in rough)
    assert all(torch.equal(a, b) for a, b in zip(tables("fp32"), rough, strict=True))


def test_longrope_is_static_up_to_its_first_length() -> None:
    factors = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8, "original_max_position_embeddings": 64}
    model = make_model(**rotary("longrope", **factors))
    cos, _ = rotary_tables(model, 100)
    assert len(cos) == longest_static(model.config) == 64
    assert torch.equal(cos[:10], rotary_tables(model, 10)[0])
    assert longest_static(make_model().config) > 10**9


def test_norms_on_queries_and_keys() -> None:
    assert why_not_fused(make_model("phi", qk_layernorm=True)) == "layer norms on queries and keys"


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
def test_other_number_formats(dtype: torch.dtype) -> None:
    assert why_not_fused(make_model().to(dtype)) == f"weights of type {dtype}"


class QuantizedLinear(torch.nn.Linear):
    """Stands for the layers of a quantisation library, which are subclasses of nn.Linear."""


@pytest.mark.parametrize(
    ("family", "path"),
    [
        ("llama", "layers.2.self_attn.o_proj"),
        ("llama", "layers.0.mlp.gate_proj"),
        ("phi", "layers.1.self_attn.dense"),
        ("phi", "layers.2.mlp.fc2"),
    ],
)
def test_linear_layers_of_another_kind(family: str, path: str) -> None:
    model = make_model(family)
    layer = model.get_submodule(path)
    other = QuantizedLinear(layer.in_features, layer.out_features).requires_grad_(False)
    model.set_submodule(path, other)
    assert why_not_fused(model) == "linear layers of another kind, perhaps quantised"


def test_weights_that_are_trained_themselves() -> None:
    model = make_model()
    model.norm.weight.requires_grad_()
    assert why_not_fused(model) == "weights that are trained themselves"


# ---- what is read ---------------------------------------------------------------------------------------------------


def test_windows_of_each_layer() -> None:
    def windows(family: str, **changes: object) -> list[int | None]:
        return [layer.window for layer in read_layout(make_model(family, **changes), kernels=TorchKernels()).layers]

    assert windows("llama") == [None, None, None]
    assert windows("mistral") == [6, 6, 6]
    assert windows("mistral", sliding_window=None) == [None, None, None]
    assert windows("qwen2") == [None, None, None]
    some = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}
    assert windows("qwen2", **some) == [None, 5, 5]
    assert windows("qwen3", **some) == [None, 5, 5]
    assert windows("gemma2") == [6, None, 6]
    assert windows("gemma3_text") == [6, None, 6]
    assert windows("phi3") == [6, 6, 6]
    assert windows("smollm3", no_rope_layers=[1, 1, 0]) == [None, None, None]


def test_shapes_and_multipliers() -> None:
    granite = read_layout(make_model("granite"), kernels=TorchKernels())
    assert (granite.embedding_multiplier, granite.residual_multiplier, granite.scaling) == (3.0, 0.4, 0.2)
    gemma = read_layout(make_model("gemma"), kernels=TorchKernels())
    assert (gemma.head_dim, gemma.num_heads, gemma.num_kv_heads) == (32, 4, 2)
    assert gemma.scaling == pytest.approx(32**-0.5)
    assert (gemma.activation.kind, gemma.activation.is_gated) == ("gelu", True)
    assert torch.equal(gemma.final_norm.weight, torch.ones(64))  # the file holds weight - 1


def test_phi_runs_attention_and_mlp_side_by_side() -> None:
    layout = read_layout(make_model("phi"), kernels=TorchKernels())
    assert all(layer.mlp_norm is None for layer in layout.layers)
    assert layout.final_norm.is_centered
    assert layout.final_norm.bias is not None
    assert (layout.activation.kind, layout.activation.is_gated) == ("gelu", False)


def test_rotary_tables_by_layer() -> None:
    def kinds(family: str) -> list[str]:
        return [layer.rotary for layer in read_layout(make_model(family), kernels=TorchKernels()).layers]

    assert kinds("llama") == ["", "", ""]
    assert kinds("smollm3") == ["", "none", ""]
    assert kinds("gemma3_text") == ["sliding_attention", "full_attention", "sliding_attention"]
    model = make_model("gemma3_text")
    near, far = (rotary_tables(model, 50, kind=kind) for kind in ("sliding_attention", "full_attention"))
    assert not torch.equal(near[0], far[0])  # another base frequency
    assert [tuple(table.shape) for table in rotary_tables(model, 50, kind="none")] == [(50, 0), (50, 0)]


def test_norms_before_and_behind() -> None:
    def norms(family: str) -> list[bool]:
        layer = read_layout(make_model(family), kernels=TorchKernels()).layers[0]
        return [norm is not None for norm in (layer.norm, layer.out_norm, layer.mlp_norm, layer.down_norm)]

    assert norms("llama") == [True, False, True, False]
    assert norms("gemma2") == norms("gemma3_text") == [True, True, True, True]
    assert norms("olmo2") == [False, True, False, True]
    assert norms("phi") == [True, False, False, False]
    gemma = read_layout(make_model("gemma2"), kernels=TorchKernels())
    assert gemma.softcap == 2.0
    assert torch.equal(gemma.layers[0].out_norm.weight, torch.ones(64))  # the file holds weight - 1


def test_joined_projections_stay_joined() -> None:
    layers = read_layout(make_model("phi3"), kernels=TorchKernels()).layers
    assert all(layer.qkv and layer.q is None for layer in layers)


def test_only_the_last_layer_splits_queries_from_keys() -> None:
    layers = read_layout(make_model("qwen3"), kernels=TorchKernels()).layers
    assert [layer.qkv is None for layer in layers] == [False, False, True]
    assert [layer.q is None and layer.kv is None for layer in layers] == [True, True, False]
    assert all(layer.head_norms is not None for layer in layers)
