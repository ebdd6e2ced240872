"""The output matrix: read where the model has one of its own, never made up."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from embedsmith.model.loading.backbone import load_backbone
from embedsmith.model.loading.head import load_head
from embedsmith.settings.choices import Precision
from embedsmith.support.errors import ModelError
from tests.tiny import save_model


@pytest.mark.parametrize("family", ["llama", "phi", "gemma"])
def test_the_head_is_the_files_own(tmp_path: Path, family: str) -> None:
    folder = save_model(family, tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    head = load_head(load_backbone(str(folder), precision=Precision.FP32, device=torch.device("cpu")))
    expected = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
    torch.testing.assert_close(head.weight, expected, rtol=0, atol=0)
    assert (head.bias is None) == ("lm_head.bias" not in weights)


def test_a_head_that_is_not_there_or_no_numbers(tmp_path: Path) -> None:
    folder = save_model("llama", tmp_path / "m")
    backbone = load_backbone(str(folder), device=torch.device("cpu"))
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][0, 0] = float("inf")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ModelError, match=r"output matrix of .* damaged: NaN or infinity in weight \(1 of 20480 values\)"
    ):
        load_head(backbone)
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"hold no output matrix \(lm_head\.weight\)"):
        load_head(backbone)
