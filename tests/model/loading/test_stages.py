"""A run as the base of another: merged == with its adapter, and the second adapter comes on top."""

from pathlib import Path

import numpy as np
import pytest
import torch

from embedsmith.export.folders import Format, export
from embedsmith.model.embedder import Embedder
from embedsmith.settings.config import AdapterSection
from tests.tiny import FAMILIES, TEXTS


def _train(embedder: Embedder, folder: Path, *, seed: int) -> np.ndarray:
    """A stand-in for training: an adapter with weights that do something."""
    embedder.add_adapter(AdapterSection())
    generator = torch.Generator().manual_seed(seed)
    for weight in embedder.backbone.model.parameters():
        if weight.requires_grad:
            weight.data.normal_(std=0.1, generator=generator)
    embedder.save(folder)
    return embedder.encode(TEXTS)


@pytest.mark.parametrize("family", FAMILIES)
def test_stages_build_on_each_other(model_folders: dict[str, str], tmp_path: Path, family: str) -> None:
    base = Embedder.load(model_folders[family], precision="fp32", max_length=64, pooling="mean")
    untrained = base.encode(TEXTS)
    first = _train(base, tmp_path / "first", seed=1)
    assert np.abs(first - untrained).max() > 0.01

    for fused in (True, False):
        merged = Embedder.load(str(tmp_path / "first"), precision="fp32", as_base=True, fused=fused)
        assert merged.adapter is None
        assert merged.settings.pooling == "mean"  # what the first stage was, the second is unless told otherwise
        np.testing.assert_allclose(merged.encode(TEXTS), first, atol=1e-5)

    second = _train(merged, tmp_path / "second", seed=2)
    assert np.abs(second - first).max() > 0.01
    loaded = Embedder.load(str(tmp_path / "second"), precision="fp32")
    np.testing.assert_allclose(loaded.encode(TEXTS), second, atol=1e-5)
    with loaded.without_adapter():
        np.testing.assert_allclose(loaded.encode(TEXTS), first, atol=1e-5)
    third = Embedder.load(str(tmp_path / "second"), precision="fp32", as_base=True)
    np.testing.assert_allclose(third.encode(TEXTS), second, atol=1e-5)


def test_the_sum_is_formed_in_float32(model_folders: dict[str, str], tmp_path: Path) -> None:
    """An update below bfloat16's step of the weights is rounded once, not lost in a sum of bfloat16."""
    first = _train(Embedder.load(model_folders["llama"], precision="fp32", max_length=64), tmp_path / "first", seed=1)
    merged = Embedder.load(str(tmp_path / "first"), precision="bf16", as_base=True)
    assert merged.backbone.model.dtype is torch.bfloat16
    assert (merged.encode(TEXTS) * first).sum(axis=1).min() > 0.999


@pytest.mark.parametrize("family", FAMILIES)
def test_in_bfloat16_only_weights_are_rounded_as_where_the_sum_is_loaded(
    family: str, model_folders: dict[str, str], tmp_path: Path
) -> None:
    _train(Embedder.load(model_folders[family], precision="fp32", max_length=64), tmp_path / "first", seed=1)
    export(str(tmp_path / "first"), folder=tmp_path / "merged", to=Format.MERGED)
    merged = Embedder.load(str(tmp_path / "first"), precision="bf16", as_base=True)
    loaded = Embedder.load(str(tmp_path / "merged"), precision="bf16")
    for network in (merged.backbone.model, loaded.backbone.model):
        frequencies = [buffer.dtype for name, buffer in network.named_buffers() if "inv_freq" in name]
        assert set(frequencies) == {torch.float32}
    np.testing.assert_allclose(merged.encode(TEXTS), loaded.encode(TEXTS), atol=1e-6)
