"""Attention both ways takes effect in every family, in the layers asked for, fused or not; packed == one by one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from embedsmith.model.doctor import examine
from embedsmith.model.embedder import Embedder
from embedsmith.settings.config import AdapterSection
from embedsmith.support.errors import ConfigError
from tests.tiny import FAMILIES, TEXTS

LAYERS = 3  # of the tiny models


def _load(folder: str, layers: int | str, **settings: object) -> Embedder:
    return Embedder.load(folder, precision="fp32", max_length=64, bidirectional_layers=layers, **settings)


def _first_states(embedder: Embedder, texts: list[str]) -> torch.Tensor:
    """The state at each text's first token, (K, H)."""
    packed = embedder.pack(texts)
    states = embedder.hidden_states(packed)
    return states[packed.segments.cu_seqlens[:-1].long()][packed.segment_of_text]


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("layers", "moves"), [(0, False), (1, True), ("all", True)])
def test_the_last_token_moves_the_first_state(
    model_folders: dict[str, str], family: str, layers: int | str, moves: bool, fused: bool
) -> None:
    embedder = _load(model_folders[family], layers, fused=fused)
    with torch.no_grad():
        for others in ([], TEXTS[:3]):  # a batch of one, and among others
            before, after = (_first_states(embedder, [f"a cat sleeps {word}", *others]) for word in ("rain", "the"))
            assert ((before - after)[0].abs().max() > 1e-3) == moves
            torch.testing.assert_close(before[1:], after[1:], rtol=0, atol=1e-5)


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layers", [1, "all"])
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_it_equals_transformers_with_an_open_mask(
    model_folders: dict[str, str], family: str, layers: int | str, pooling: str, fused: bool
) -> None:
    """The doctor compares with transformers' padded forward under a mask open both ways, and packed with one by one."""
    embedder = _load(model_folders[family], layers, pooling=pooling, fused=fused)
    diagnosis = examine(embedder, text=TEXTS[0])
    assert diagnosis.is_healthy, diagnosis.findings
    causal = _load(model_folders[family], 0, pooling=pooling)
    assert np.abs(embedder.encode(TEXTS) - causal.encode(TEXTS)).max() > 1e-3 or (pooling, layers) == ("last", 1)


def test_the_doctor_would_notice_a_causal_layer(model_folders: dict[str, str]) -> None:
    embedder = _load(model_folders["llama"], "all", pooling="mean", fused=False)
    embedder.causal_layers = 1  # attends as if the first layer were causal, but the settings say it is not
    texts = ["a cat sleeps", "rain falls on the roof"]
    wrong = embedder.encode(texts)
    assert np.abs(wrong - _load(model_folders["llama"], "all", pooling="mean").encode(texts)).max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layers", [1, "all"])
def test_fused_gradients_equal_plain_ones(model_folders: dict[str, str], family: str, layers: int | str) -> None:
    gradients = []
    for fused in (True, False):
        embedder = _load(model_folders[family], layers, pooling="mean", fused=fused)
        torch.manual_seed(0)
        embedder.add_adapter(AdapterSection(lora_dropout=0.2))
        weights = [weight for weight in embedder.backbone.model.parameters() if weight.requires_grad]
        for weight in weights:
            weight.data.normal_(std=0.05, generator=torch.Generator().manual_seed(1))
        torch.manual_seed(2)
        with embedder.dropout(is_on=True):
            embeddings = embedder.embed(embedder.pack(TEXTS))
        (embeddings * torch.arange(embeddings.numel()).view_as(embeddings).cos()).sum().backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in weights]))
    assert (gradients[0] - gradients[1]).norm() < 1e-4 * gradients[1].norm()


def test_it_is_part_of_what_defines_an_embedding(model_folders: dict[str, str], tmp_path: Path) -> None:
    embedder = _load(model_folders["llama"], "all")
    embedder.add_adapter(AdapterSection())
    embedder.save(tmp_path)
    loaded = Embedder.load(str(tmp_path), precision="fp32")
    assert loaded.settings.bidirectional_layers == "all"
    np.testing.assert_array_equal(loaded.encode(TEXTS), embedder.encode(TEXTS))
    assert Embedder.load(str(tmp_path), bidirectional_layers=0).settings.bidirectional_layers == 0
    path = tmp_path / "embedding.json"
    values = json.loads(path.read_text())
    del values["bidirectional_layers"]  # as written before there was such a setting
    path.write_text(json.dumps(values))
    assert Embedder.load(str(tmp_path)).settings.bidirectional_layers == 0


def test_no_more_layers_than_there_are(model_folders: dict[str, str]) -> None:
    assert _load(model_folders["llama"], LAYERS).causal_layers == 0
    with pytest.raises(ConfigError, match=f"bidirectional_layers is 4, but the model has {LAYERS} layers"):
        _load(model_folders["llama"], LAYERS + 1)
