"""MiniCPM as Granite == MiniCPM's published forward (minicpm_reference.py); and what is refused."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from embedsmith.model.embedder import Embedder
from embedsmith.model.loading.minicpm import granite_config, is_minicpm
from embedsmith.support.errors import ModelError
from tests.model.loading.minicpm_reference import minicpm_states
from tests.published import MINICPM, minicpm_weights, save_minicpm
from tests.tiny import TEXTS


def assert_equal_states(folder: Path, values: dict[str, object], *, fused: bool) -> None:
    embedder = Embedder.load(str(folder), precision="fp32", fused=fused)
    packed = embedder.pack(TEXTS)
    with torch.no_grad():
        segments = embedder.hidden_states(packed).split(packed.segments.lengths)
    weights = minicpm_weights(values)
    for tokens, segment in zip(embedder.tokenizer(TEXTS), packed.segment_of_text, strict=True):
        expected = minicpm_states(weights, values, torch.from_numpy(tokens))
        torch.testing.assert_close(segments[segment].double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_key_value_heads": 2},  # MiniCPM-1B
        {"rope_theta": 500.0},
        {"rope_scaling": {"type": "linear", "factor": 4.0}},
        {"scale_emb": 1, "scale_depth": 3, "rms_norm_eps": 1e-2},
    ],
    ids=["2b", "kv-heads", "theta", "linear-rope", "scalars"],
)
def test_states_equal_the_published_forward(tmp_path: Path, changes: dict[str, object], fused: bool) -> None:
    folder = save_minicpm(tmp_path / "m", changes=changes)
    assert_equal_states(folder, {**MINICPM, **changes}, fused=fused)


def test_it_runs_through_fused_blocks(tmp_path: Path) -> None:
    embedder = Embedder.load(str(save_minicpm(tmp_path / "m")), precision="fp32")
    assert embedder.why_not_fused is None
    assert embedder.backbone.model.config.model_type == "granite"


def test_the_code_beside_the_checkpoint_is_not_run(tmp_path: Path) -> None:
    folder = save_minicpm(tmp_path / "m")
    assert "raise RuntimeError" in (folder / "modeling_minicpm.py").read_text()
    Embedder.load(str(folder))
    assert not [name for name in sys.modules if name.startswith("transformers_modules")]


def test_shards_and_an_lm_head(tmp_path: Path) -> None:
    folder = save_minicpm(tmp_path / "m", num_shards=3)
    file = folder / "model-00001-of-00003.safetensors"
    head = {"lm_head.weight": torch.randn(MINICPM["vocab_size"], MINICPM["hidden_size"])}
    save_file({**load_file(file), **head}, file, metadata={"format": "pt"})
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"]["lm_head.weight"] = file.name
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_equal_states(folder, MINICPM, fused=True)


def test_a_config_without_model_type(tmp_path: Path) -> None:
    folder = save_minicpm(tmp_path / "m", changes={"model_type": "absent"})
    assert_equal_states(folder, MINICPM, fused=True)


def test_what_is_minicpm() -> None:
    assert is_minicpm({"model_type": "minicpm"})
    assert is_minicpm({"architectures": ["MiniCPMForCausalLM"]})
    assert not is_minicpm({"model_type": "minicpm3", "architectures": ["MiniCPM3ForCausalLM"]})
    assert not is_minicpm({"model_type": "llama", "architectures": ["MiniCPMForCausalLM"]})
    assert not is_minicpm({})


def test_the_configuration_in_closed_form() -> None:
    published = {
        "model_type": "minicpm",
        "hidden_size": 2304,
        "intermediate_size": 5760,
        "num_attention_heads": 36,
        "num_hidden_layers": 40,
        "num_key_value_heads": 36,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "vocab_size": 122753,
        "scale_emb": 12,
        "scale_depth": 1.4,
        "dim_model_base": 256,
    }
    config = granite_config(published, name="m")
    assert config.embedding_multiplier == 12
    assert config.residual_multiplier == pytest.approx(0.2213594362)  # 1.4 / sqrt(40)
    assert config.attention_multiplier == 0.125  # heads of width 64
    assert config.logits_scaling == 9
    assert config.rope_parameters == {"rope_type": "default", "rope_theta": 10000.0}
    assert config.tie_word_embeddings
    assert (config.rms_norm_eps, config.hidden_act, config.bos_token_id, config.eos_token_id) == (1e-5, "silu", 1, 2)
    # As transformers 5 would write the same.
    again = {**published, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 7.0}}
    assert granite_config(again, name="m").rope_parameters == again["rope_parameters"]


def test_missing_keys_have_the_published_defaults() -> None:
    config = granite_config({"model_type": "minicpm"}, name="m")
    assert (config.hidden_size, config.num_hidden_layers, config.num_key_value_heads) == (4096, 32, 32)
    assert (config.embedding_multiplier, config.logits_scaling, config.rms_norm_eps) == (1, 4096, 1e-6)
    assert config.residual_multiplier == 1 / math.sqrt(32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_experts": 8}, "num_experts is set: a mixture of experts"),
        ({"architectures": ["MiniCPMModel"]}, r"architectures is \['MiniCPMModel'\], not \[MiniCPMForCausalLM\]"),
        ({"is_causal": False}, "is_causal is false: attention looks both ways"),
        ({"sparse_config": {"topk": 64}}, "sparse_config is set: sparse attention"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is set: quantised weights"),
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, "rope_scaling is of type 'dynamic'"),
        ({"rope_scaling": {"rope_type": "longrope"}}, "rope_scaling is of type 'longrope'"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling has the factor None"),
        ({"hidden_act": "fatrelu"}, "hidden_act is 'fatrelu'"),
        ({"head_dim": 32}, "head_dim is 32, not hidden_size"),
        ({"dim_model_base": 0}, "dim_model_base is 0, not a positive number"),
        ({"scale_depth": "1.4"}, "scale_depth is '1.4', not a positive number"),
        ({"scale_emb": True}, "scale_emb is True, not a positive number"),
    ],
)
def test_variants_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    folder = save_minicpm(tmp_path / "m")
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **changes}))
    with pytest.raises(ModelError, match=rf"(?s)kind that cannot be loaded:.*{message}.*MiniCPM-2B"):
        Embedder.load(str(folder))


def test_all_reasons_together() -> None:
    with pytest.raises(ModelError, match=r"(?s)num_experts is set.*rope_scaling is of type"):
        granite_config({"num_experts": 4, "rope_scaling": {"type": "dynamic"}}, name="m")


def test_weights_left_over_are_refused(tmp_path: Path) -> None:
    folder = save_minicpm(tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.self_attn.q_norm.weight"] = torch.ones(8)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"has no place: model\.layers\.0\.self_attn\.q_norm\.weight"):
        Embedder.load(str(folder))
