"""Averages: the embeddings of averaged merged weights; adapters of any ranks, scales and layers, by any forward."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel

from embedsmith.model.averaging import mean_adapter, mean_weights, take_mean
from embedsmith.model.embedder import Embedder
from embedsmith.model.loading.low_rank import make_plain
from embedsmith.support.errors import ModelError
from tests.model.loading.test_plain_lora import write_adapter
from tests.tiny import TEXTS, save_model

ADAPTERS: list[dict[str, Any]] = [
    {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    {"r": 2, "lora_alpha": 3, "use_rslora": True, "target_modules": ["q_proj", "down_proj"]},
    {"r": 3, "target_modules": ["q_proj"], "layers_to_transform": [1], "rank_pattern": {"q_proj": 5}},
]
WEIGHTS = [0.5, 0.2, 0.3]


def _write_adapters(folder: Path, *, base: str) -> list[Path]:
    return [write_adapter(folder / str(number), base=base, **one) for number, one in enumerate(ADAPTERS)]


def merged_mean(folders: list[Path], *, base: str, weights: list[float]) -> np.ndarray:
    """Embeddings of the model whose weights are the mean of the merged ones."""
    merged = [
        Embedder.load(str(folder), base_model=base, precision="fp32", fused=False).adapter.merge_and_unload()  # type: ignore[union-attr]
        for folder in folders
    ]
    states = [model.state_dict() for model in merged]
    mean = Embedder.load(base, precision="fp32", fused=False, prompt_tokens="joined")
    mean.backbone.model.load_state_dict(
        {name: sum(weight * state[name] for weight, state in zip(weights, states, strict=True)) for name in states[0]}
    )
    return mean.encode(TEXTS)


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_a_mean_embeds_as_the_mean_of_merged_weights(
    family: str, model_folders: dict[str, str], tmp_path: Path, fused: bool
) -> None:
    base = model_folders[family]
    folders = _write_adapters(tmp_path, base=base)
    embedder = Embedder.load(str(folders[0]), base_model=base, precision="fp32", fused=fused)
    alone = embedder.encode(TEXTS)
    updates = mean_adapter(embedder, folders, weights=WEIGHTS)
    embedder.replace_adapter(make_plain(updates, backbone=embedder.backbone))
    expected = merged_mean(folders, base=base, weights=WEIGHTS)
    np.testing.assert_allclose(embedder.encode(TEXTS), expected, atol=1e-5)
    assert np.abs(alone - expected).max() > 0.01
    embedder.save(tmp_path / "mean")
    again = Embedder.load(str(tmp_path / "mean"), precision="fp32", fused=fused)
    np.testing.assert_array_equal(again.encode(TEXTS), embedder.encode(TEXTS))


def test_the_mean_of_one_is_that_one(model_folders: dict[str, str], tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "one", base=model_folders["llama"], **ADAPTERS[1])
    embedder = Embedder.load(str(folder), base_model=model_folders["llama"], precision="fp32")
    before = embedder.encode(TEXTS)
    take_mean(embedder, [folder])
    np.testing.assert_allclose(embedder.encode(TEXTS), before, atol=1e-6)


def test_a_mean_of_whole_models(model_folders: dict[str, str], tmp_path: Path) -> None:
    states = []
    for seed in (1, 2):
        model = AutoModel.from_pretrained(model_folders["llama"], dtype=torch.float32)
        torch.manual_seed(seed)
        for weight in model.parameters():
            weight.data += 0.1 * torch.randn_like(weight)
        model.save_pretrained(tmp_path / str(seed))
        states.append(model.state_dict())
    mean = mean_weights([tmp_path / "1", tmp_path / "2"], weights=[0.25, 0.75])
    for name, tensor in mean.items():
        torch.testing.assert_close(tensor, 0.25 * states[0][name] + 0.75 * states[1][name])
    save_model("qwen2", tmp_path / "other")
    with pytest.raises(ModelError, match=r"are models of different shape: layers\.0\.self_attn\.k_proj\.bias"):
        mean_weights([tmp_path / "1", tmp_path / "other"], weights=[0.5, 0.5])
