"""Each family: packed == transformers' padded forward, for every text, and it trains through the same path.

The paper's models besides, in the very layout of their published checkpoints (MiniCPM: test_minicpm.py).
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize
from transformers import AutoModelForCausalLM

from embedsmith.model.embedder import Embedder
from embedsmith.model.layers.attention import PACKED_ATTENTION
from embedsmith.settings.choices import Pooling
from embedsmith.settings.config import AdapterSection
from embedsmith.settings.families import lora_targets
from embedsmith.support.errors import ConfigError
from tests.published import save_gemma_2b, save_phi_2
from tests.tiny import FAMILIES, TEXTS, save_model


def padded_states(embedder: Embedder, *, side: str) -> list[torch.Tensor]:
    """transformers' own forward on a padded batch, padding on either side; states of each text's own tokens."""
    token_lists = embedder.tokenizer(TEXTS)
    longest = max(len(tokens) for tokens in token_lists)
    ids = torch.full((len(TEXTS), longest), 2)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(token_lists):
        span = slice(longest - len(tokens), longest) if side == "left" else slice(0, len(tokens))
        ids[row, span] = torch.from_numpy(tokens)
        mask[row, span] = 1
    model = embedder.backbone.model
    model.set_attn_implementation("eager")
    with torch.no_grad(), embedder.plain_layers():
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        states = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).last_hidden_state
    model.set_attn_implementation(PACKED_ATTENTION)
    return [row[keep.bool()] for row, keep in zip(states, mask, strict=True)]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_states_equal_the_padded_forward(model_folders: dict[str, str], family: str, side: str) -> None:
    embedder = Embedder.load(model_folders[family], precision="fp32", max_length=64)
    packed = embedder.pack(TEXTS)
    with torch.no_grad():
        hidden = embedder.hidden_states(packed)
    segments = hidden.split(packed.segments.lengths)
    for expected, segment in zip(padded_states(embedder, side=side), packed.segment_of_text, strict=True):
        # float32 rounding only: the sums run in another order, and either side is up to 2.6e-5 from float64's
        torch.testing.assert_close(segments[segment], expected, rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize("pooling", list(Pooling))
@pytest.mark.parametrize("family", FAMILIES)
def test_alone_equals_together(model_folders: dict[str, str], family: str, pooling: Pooling) -> None:
    embedder = Embedder.load(model_folders[family], precision="fp32", max_length=64, pooling=pooling)
    together = embedder.encode(TEXTS)
    assert together.dtype == np.float32
    for text, vector in zip(TEXTS, together, strict=True):
        np.testing.assert_allclose(embedder.encode([text])[0], vector, atol=2e-6)
    np.testing.assert_allclose(embedder.encode(TEXTS, max_tokens=9), together, atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_learns(model_folders: dict[str, str], family: str) -> None:
    embedder = Embedder.load(model_folders[family], precision="fp32", max_length=64)
    torch.manual_seed(0)
    embedder.add_adapter(AdapterSection())
    trained = {name for name, weight in embedder.backbone.model.named_parameters() if weight.requires_grad}
    assert trained
    assert all("lora_" in name and any(target in name for target in lora_targets(family)) for name in trained)
    optimizer = torch.optim.Adam([w for w in embedder.backbone.model.parameters() if w.requires_grad], lr=1e-2)
    similarities = []
    for _ in range(15):
        first, second = embedder.embed(embedder.pack(TEXTS[:2]))
        similarities.append(float((first @ second).detach()))
        optimizer.zero_grad()
        (1 - first @ second).backward()
        optimizer.step()
    assert similarities[-1] > similarities[0] + 0.02


def test_bfloat16_stays_near_float32(model_folders: dict[str, str]) -> None:
    exact = Embedder.load(model_folders["llama"], precision="fp32", max_length=64).encode(TEXTS)
    rough = Embedder.load(model_folders["llama"], precision="bf16", max_length=64).encode(TEXTS)
    cosines = normalize(torch.from_numpy(exact)).mul(normalize(torch.from_numpy(rough))).sum(1)
    assert cosines.min() > 0.99  # bf16 has eight bits; three layers of it


def published_states(folder: Path, token_lists: list[np.ndarray], *, side: str) -> list[torch.Tensor]:
    """The class with the LM head as transformers loads and runs it, on a padded batch; states of each text's tokens."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    longest = max(len(tokens) for tokens in token_lists)
    ids, mask = torch.zeros(len(token_lists), longest, dtype=torch.long), torch.zeros(len(token_lists), longest)
    for row, tokens in enumerate(token_lists):
        span = slice(longest - len(tokens), longest) if side == "left" else slice(0, len(tokens))
        ids[row, span] = torch.from_numpy(tokens)
        mask[row, span] = 1
    positions = (mask.cumsum(1) - 1).clamp(min=0).long()
    with torch.no_grad():
        output = model(input_ids=ids, attention_mask=mask, position_ids=positions, output_hidden_states=True)
    return [row[keep.bool()] for row, keep in zip(output.hidden_states[-1], mask, strict=True)]


PUBLISHED = {
    "phi-2": (save_phi_2, {}),
    "phi-2, shards": (save_phi_2, {"num_shards": 2}),
    "phi-2, wider rotary": (save_phi_2, {"changes": {"partial_rotary_factor": 0.8, "rope_theta": 500.0}}),
    "gemma-2b": (save_gemma_2b, {}),
    "gemma-2b, hidden_activation null": (save_gemma_2b, {"changes": {"hidden_activation": None}}),
    "gemma-2b, hidden_activation": (
        save_gemma_2b,
        {"changes": {"hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh"}},
    ),
}


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_layouts_equal_transformers(tmp_path: Path, name: str, side: str, fused: bool) -> None:
    save, settings = PUBLISHED[name]
    folder = save(tmp_path / "m", **settings)
    embedder = Embedder.load(str(folder), precision="fp32", fused=fused)
    assert (embedder.why_not_fused is None) == fused
    packed = embedder.pack(TEXTS)
    with torch.no_grad():
        segments = embedder.hidden_states(packed).split(packed.segments.lengths)
    expected = published_states(folder, embedder.tokenizer(TEXTS), side=side)
    for states, segment in zip(expected, packed.segment_of_text, strict=True):
        torch.testing.assert_close(segments[segment], states, rtol=1e-5, atol=1e-5)


def test_phi_2_with_norms_on_queries_and_keys_takes_the_plain_path(tmp_path: Path) -> None:
    folder = save_phi_2(tmp_path / "m", changes={"qk_layernorm": True})
    embedder = Embedder.load(str(folder), precision="fp32")
    assert embedder.why_not_fused == "layer norms on queries and keys"
    expected = published_states(folder, embedder.tokenizer(TEXTS), side="right")
    ends = normalize(torch.stack([states[-1] for states in expected]), dim=-1)
    np.testing.assert_allclose(embedder.encode(TEXTS), ends.numpy(), atol=1e-5)


def test_unknown_families_ask_for_targets(tmp_path) -> None:
    known = r"(?s)model_type 'olmo'.*Known families: .*llama, minicpm, mistral.*--adapter.target_modules '\[q_proj"
    with pytest.raises(ConfigError, match=known):
        lora_targets("olmo")
    embedder = Embedder.load(str(save_model("olmo", tmp_path / "m")), precision="fp32", max_length=64)
    embedder.add_adapter(AdapterSection(target_modules=["q_proj"]))
    assert embedder.encode(TEXTS).shape == (len(TEXTS), 64)
