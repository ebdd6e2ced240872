"""A base in 8 or 4 bits: near the whole one, trained and loaded alike, smaller."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from embedsmith.model.doctor import examine
from embedsmith.model.embedder import Embedder
from embedsmith.model.loading.quantization import loading_options
from embedsmith.settings.choices import Quantization
from embedsmith.settings.config import AdapterSection
from embedsmith.support.errors import ConfigError, MissingExtraError
from tests.tiny import FAMILIES, TEXTS


def _load(folder: str, quantization: str, **settings: object) -> Embedder:
    return Embedder.load(folder, precision="fp32", max_length=64, quantization=quantization, **settings)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_embeddings_stay_near_and_the_adapter_learns(
    family: str, quantization: str, model_folders: dict[str, str], tmp_path: Path
) -> None:
    whole = _load(model_folders[family], "none", pooling="mean")
    embedder = _load(model_folders[family], quantization, pooling="mean")
    assert "quantised" in embedder.path
    assert examine(embedder).is_healthy
    cosines = (embedder.encode(TEXTS) * whole.encode(TEXTS)).sum(axis=1)
    assert 0.5 < cosines.min() < 1 - 1e-7  # random weights suffer more than trained ones, but it is the same model
    footprint = [model.backbone.model.get_memory_footprint() for model in (embedder, whole)]
    assert footprint[0] < footprint[1]

    torch.manual_seed(0)
    embedder.add_adapter(AdapterSection())
    embedder.embed(embedder.pack(TEXTS)).sum().backward()
    trained = [weight for weight in embedder.backbone.model.parameters() if weight.requires_grad]
    assert all(weight.grad is not None and weight.dtype is torch.float32 for weight in trained)
    for weight in trained:
        weight.data.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    live = embedder.encode(TEXTS)
    embedder.save(tmp_path)
    loaded = Embedder.load(str(tmp_path), precision="fp32")
    assert loaded.settings.quantization == quantization
    np.testing.assert_allclose(loaded.encode(TEXTS), live, atol=1e-5)


@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_gradients_are_those_of_the_weights_given_back_their_width(
    quantization: str, model_folders: dict[str, str]
) -> None:
    from bitsandbytes.functional import dequantize_4bit

    embedder = _load(model_folders["llama"], quantization)
    whole = _load(model_folders["llama"], "none", fused=False)
    for name, module in embedder.backbone.model.named_modules():
        if type(module).__module__.startswith("bitsandbytes."):
            weight = module.weight
            if quantization == "4bit":
                values = dequantize_4bit(weight.data, weight.quant_state)
            else:
                values = weight.CB.float() * weight.SCB[:, None] / 127
            whole.backbone.model.get_submodule(name).weight.data.copy_(values)
    gradients = []
    for one in (embedder, whole):
        torch.manual_seed(0)
        one.add_adapter(AdapterSection())
        weights = [weight for weight in one.backbone.model.parameters() if weight.requires_grad]
        for weight in weights:
            weight.data.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
        embeddings = one.embed(one.pack(TEXTS))
        (embeddings * torch.arange(embeddings.numel()).view_as(embeddings).cos()).sum().backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in weights]))
    assert (gradients[0] - gradients[1]).norm() < 1e-3 * gradients[1].norm()


def test_a_run_cannot_be_quantised(llama: Embedder, tmp_path: Path) -> None:
    llama.add_adapter(AdapterSection())
    llama.save(tmp_path)
    with pytest.raises(ConfigError, match="whose adapter would have to be merged first"):
        Embedder.load(str(tmp_path), quantization="4bit", as_base=True)


def test_a_missing_package_is_named(model_folders: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setattr("embedsmith.model.loading.quantization.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'embedsmith\[quantization\]'"):
        _load(model_folders["llama"], "4bit")
    with pytest.raises(ConfigError, match="quantization is '3bit'; it must be one of none, 8bit, 4bit"):
        _load(model_folders["llama"], "3bit")


def test_8_bits_on_a_gpu_would_let_texts_see_each_other() -> None:
    gpu = torch.device("cuda", 0)
    with pytest.raises(ConfigError, match="would depend on the others"):
        loading_options(Quantization.EIGHT_BIT, dtype=torch.bfloat16, device=gpu)
    assert loading_options(Quantization.FOUR_BIT, dtype=torch.bfloat16, device=gpu)["device_map"] == {"": gpu}
