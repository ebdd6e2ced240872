"""An embedder with fused blocks beside one without: switching, adapters that change, and the plain layers inside."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from embedsmith.model.embedder import Embedder
from embedsmith.model.layers.fused.linear import Product
from embedsmith.model.layers.segments import PackedTexts
from embedsmith.settings.config import AdapterSection
from embedsmith.support.errors import ModelError
from tests.model.layers.fused.cases import (
    BOTH_KERNELS,
    adapter_weights,
    assert_same_run,
    every_linear,
    load,
    needs_compiler,
    run,
    save_variant,
)
from tests.tiny import FAMILIES, TEXTS, save_model


def embeddings(embedder: Embedder) -> torch.Tensor:
    return torch.from_numpy(embedder.encode(TEXTS))


def plain_states(embedder: Embedder, packed: PackedTexts) -> torch.Tensor:
    """transformers' own forward."""
    with torch.no_grad():
        output = embedder.backbone.model(
            input_ids=packed.input_ids, position_ids=packed.position_ids, use_cache=False, segments=packed.segments
        )
    return output.last_hidden_state[0]


def owns_weights(dtype: torch.dtype) -> bool:
    return Product(torch.ones(16, 16, dtype=dtype), None).owns_weight


def test_fused_by_default_and_switched_off_on_request(folders: dict[str, Path]) -> None:
    fused = Embedder.load(str(folders["llama"]), precision="fp32", max_length=64)
    assert fused.why_not_fused is None
    assert fused.decoder is not None
    assert fused.path == f"fused blocks, {fused.decoder.kernels.name} kernels"
    plain = Embedder.load(str(folders["llama"]), precision="fp32", max_length=64, fused=False)
    assert plain.why_not_fused == "switched off"
    assert plain.decoder is None
    assert plain.path == "blocks not fused: switched off"
    torch.testing.assert_close(embeddings(fused), embeddings(plain), rtol=0, atol=1e-5)


def test_an_unknown_family_takes_the_plain_path(tmp_path: Path) -> None:
    embedder = Embedder.load(str(save_model("olmo", tmp_path / "m")), precision="fp32", max_length=64)
    assert embedder.decoder is None
    assert embedder.why_not_fused == "no fused blocks for model_type olmo"
    assert embeddings(embedder).isfinite().all()


def test_rotary_tables_that_change_with_the_length_take_the_plain_path(tmp_path: Path) -> None:
    rotary = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    folder = save_variant("llama", tmp_path / "m", rope_parameters=rotary)
    embedder = Embedder.load(str(folder), precision="fp32", max_length=64)
    assert embedder.decoder is None
    assert embedder.why_not_fused == "rotary embedding of type dynamic"


@pytest.mark.parametrize("kernels", BOTH_KERNELS)
@pytest.mark.parametrize("family", FAMILIES)
def test_without_its_adapter_it_is_the_base(folders: dict[str, Path], family: str, kernels: str) -> None:
    embedder = load(folders[family], kernels=kernels, targets=every_linear(family))
    base = embeddings(Embedder.load(str(folders[family]), precision="fp32", max_length=64, fused=False))
    adapted = embeddings(embedder)
    with embedder.without_adapter():
        torch.testing.assert_close(embeddings(embedder), base, rtol=0, atol=1e-5)
    assert (adapted - base).abs().max() > 0.01
    torch.testing.assert_close(embeddings(embedder), adapted, rtol=0, atol=0)


@pytest.mark.parametrize("kernels", BOTH_KERNELS)
def test_merged_plain_weights_equal_the_fused_adapter(folders: dict[str, Path], kernels: str) -> None:
    """An adapter is merged on the plain path; fused weights stay as they are."""
    merged = load(folders["llama"], targets=every_linear("llama"))
    merged.adapter.merge_adapter()
    fused = load(folders["llama"], kernels=kernels, targets=every_linear("llama"))
    torch.testing.assert_close(embeddings(fused), embeddings(merged), rtol=0, atol=1e-5)


@needs_compiler
@pytest.mark.skipif(not owns_weights(torch.float32), reason="weights are shared here, and merging works")
def test_merging_into_packed_weights_is_refused(folders: dict[str, Path]) -> None:
    embedder = load(folders["llama"], kernels="C")
    with (
        pytest.raises(ModelError, match=r"cannot be merged[\s\S]*fused=False"),
        embedder.plain_layers(),
    ):
        embedder.adapter.merge_adapter()


@pytest.mark.parametrize("kernels", BOTH_KERNELS)
def test_the_fused_path_follows_the_optimizer(folders: dict[str, Path], kernels: str) -> None:
    fused, plain = load(folders["llama"], kernels=kernels), load(folders["llama"])
    start = run(plain, TEXTS).embeddings
    for embedder in (fused, plain):
        weights = [weight for _, weight in adapter_weights(embedder)]
        optimizer = torch.optim.SGD(weights, lr=0.01)  # not Adam, which turns rounding into whole steps
        for _ in range(3):
            run(embedder, TEXTS)
            optimizer.step()
    moved = run(plain, TEXTS)
    assert (moved.embeddings - start).abs().max() > 0.01
    assert_same_run(run(fused, TEXTS), moved, tolerance=1e-4)  # three steps let rounding grow


@pytest.mark.parametrize("kernels", BOTH_KERNELS)
def test_a_saved_adapter_loads_into_either_path(folders: dict[str, Path], tmp_path: Path, kernels: str) -> None:
    embedder = load(folders["llama"], kernels=kernels)
    embedder.save(tmp_path / "adapter")
    for fused in (True, False):
        other = Embedder.load(str(tmp_path / "adapter"), precision="fp32", fused=fused)
        torch.testing.assert_close(embeddings(other), embeddings(embedder), rtol=0, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_plain_layers_have_their_weights_inside(folders: dict[str, Path], family: str, precision: str) -> None:
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    original = AutoModel.from_pretrained(folders[family], dtype=dtype).state_dict()
    embedder = Embedder.load(str(folders[family]), precision=precision, max_length=64)
    # torch's products of bfloat16 leave weights where they are on some processors that have products of our own
    assert embedder.decoder is not None
    are_laid_out = owns_weights(dtype) or (precision == "bf16" and embedder.decoder.kernels.products is not None)
    packed = embedder.pack(TEXTS)
    with torch.no_grad():
        fused = embedder.hidden_states(packed)
    for _ in range(2):  # filled and emptied any number of times
        with embedder.plain_layers() as model:
            weights = model.state_dict()
            assert weights.keys() == original.keys()
            assert all(torch.equal(weights[name], weight) for name, weight in original.items())
            inside = plain_states(embedder, packed)
        outside = plain_states(embedder, packed)
        assert outside.isnan().all() if are_laid_out else torch.equal(outside, inside)
    with torch.no_grad():
        assert torch.equal(embedder.hidden_states(packed), fused)
    # bf16: each path rounds where the other does not, eight bits over three layers
    tolerance = 1e-5 if precision == "fp32" else 0.02
    assert (inside.float() - fused).norm() / fused.norm() < tolerance


def test_plain_layers_include_the_adapter(folders: dict[str, Path]) -> None:
    embedder = Embedder.load(str(folders["qwen3"]), precision="fp32", max_length=64)
    embedder.add_adapter(AdapterSection(target_modules=every_linear("qwen3")))
    for _, weight in adapter_weights(embedder):
        weight.data.normal_(std=0.05)
    packed = embedder.pack(TEXTS)
    with torch.no_grad(), embedder.plain_layers():
        inside = plain_states(embedder, packed)
        torch.testing.assert_close(embedder.hidden_states(packed), inside, rtol=1e-5, atol=2e-5)


def test_weights_are_emptied_again_after_an_error(folders: dict[str, Path]) -> None:
    embedder = Embedder.load(str(folders["llama"]), precision="fp32", max_length=64)
    weight = embedder.backbone.model.layers[0].mlp.down_proj.weight
    with pytest.raises(RuntimeError, match="stop"), embedder.plain_layers():
        assert weight.isfinite().all()
        raise RuntimeError("stop")
    assert weight.isnan().all() == owns_weights(torch.float32)
