"""Adapters as peft writes them, for whatever its settings say: its own vectors, or refused by the true reason."""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize
from transformers import AutoModel, AutoModelForCausalLM

from embedsmith.model.embedder import Embedder
from embedsmith.support.errors import ModelError
from tests.tiny import TEXTS, save_model

QV = ["q_proj", "v_proj"]
LAYERS = "model.layers"


@pytest.fixture(scope="module")
def more_folders(tmp_path_factory: pytest.TempPathFactory, model_folders: dict[str, str]) -> dict[str, str]:
    root = tmp_path_factory.mktemp("more")
    return {**model_folders, **{kind: str(save_model(kind, root / kind)) for kind in ("gpt2", "gpt_neox", "opt")}}


def write_adapter(folder: Path, *, base: str, with_head: bool = True, **settings: Any) -> Path:
    """As peft saves it on the class with or without the LM head; every weight random."""
    torch.manual_seed(3)
    kind = AutoModelForCausalLM if with_head else AutoModel
    task = "CAUSAL_LM" if with_head else "FEATURE_EXTRACTION"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft has things to say that are of no matter here
        model = get_peft_model(kind.from_pretrained(base, dtype=torch.float32), LoraConfig(task_type=task, **settings))
        for weight in model.parameters():
            if weight.requires_grad:
                weight.data += torch.randn_like(weight) * 0.1
        model.save_pretrained(folder)
    return folder


def edit(folder: Path, **values: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def load_by_peft(adapter: Path, base: Any) -> PeftModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PeftModel.from_pretrained(base, str(adapter))


def peft_vectors(adapter: Path, *, base: str, with_head: bool, token_lists: list[np.ndarray]) -> np.ndarray:
    kind = AutoModelForCausalLM if with_head else AutoModel
    model = load_by_peft(adapter, kind.from_pretrained(base, dtype=torch.float32))
    with torch.no_grad():
        states = [
            model(input_ids=torch.from_numpy(tokens)[None], output_hidden_states=True).hidden_states[-1][0, -1]
            for tokens in token_lists
        ]
    return normalize(torch.stack(states), dim=-1).numpy()


@pytest.mark.parametrize(
    ("family", "with_head", "settings"),
    [
        ("llama", True, {"target_modules": QV, "alpha_pattern": {f"{LAYERS}.1.self_attn.v_proj": 64}}),
        ("llama", True, {"target_modules": QV, "alpha_pattern": {r"^model\.layers\.[01]\..*v_proj": 64, "v_proj": 3}}),
        ("llama", False, {"target_modules": QV, "alpha_pattern": {"layers.1.self_attn.v_proj": 64}}),
        (
            "llama",
            True,
            {"target_modules": QV, "rank_pattern": {f"{LAYERS}.1.self_attn.v_proj": 3}, "use_rslora": True},
        ),
        (
            "llama",
            True,
            {"target_modules": QV, "rank_pattern": {"v_proj": 3}, "alpha_pattern": {"0.self_attn.q_proj": 9}},
        ),
        ("llama", True, {"target_modules": QV, "layers_to_transform": [0, 2]}),
        ("llama", True, {"target_modules": QV, "layers_to_transform": 1, "layers_pattern": "layers"}),
        ("llama", False, {"target_modules": QV, "layers_to_transform": [2], "layers_pattern": ["layers"]}),
        ("llama", True, {"target_modules": [f"{LAYERS}.0.self_attn.q_proj", f"{LAYERS}.2.mlp.up_proj"]}),
        ("llama", False, {"target_modules": ["layers.0.self_attn.q_proj", "layers.2.mlp.up_proj"]}),
        ("llama", True, {"target_modules": ["self_attn.q_proj", "1.mlp.up_proj"]}),
        ("llama", True, {"target_modules": r"model\.layers\.[12]\..*(q|v)_proj"}),
        ("llama", False, {"target_modules": r"layers\.[12]\..*(q|v)_proj"}),
        ("llama", True, {"target_modules": QV, "exclude_modules": [f"{LAYERS}.0.self_attn.q_proj"]}),
        ("llama", True, {"target_modules": QV, "exclude_modules": r"model\.layers\.0\..*"}),
        ("llama", True, {"target_modules": "all-linear"}),
        ("llama", False, {"target_modules": "all-linear"}),
        ("llama", True, {"target_modules": [*QV, "lm_head"]}),
        ("llama", True, {"target_modules": QV, "modules_to_save": ["lm_head"]}),
        ("llama", True, {"target_modules": QV, "bias": "all"}),
        ("llama", True, {"target_modules": QV, "init_lora_weights": "orthogonal"}),
        ("llama", True, {"target_modules": QV, "fan_in_fan_out": True}),
        ("phi", True, {"target_modules": "all-linear", "alpha_pattern": {f"{LAYERS}.1.mlp.fc1": 64}}),
        (
            "gpt2",
            True,
            {"target_modules": ["c_attn", "mlp.c_proj"], "alpha_pattern": {"transformer.h.1.attn.c_attn": 64}},
        ),
        ("gpt2", False, {"target_modules": ["c_attn"], "alpha_pattern": {"h.1.attn.c_attn": 64}}),
        ("gpt_neox", True, {"target_modules": ["query_key_value"], "layers_to_transform": [1]}),
        ("opt", True, {"target_modules": QV, "alpha_pattern": {"model.decoder.layers.1.self_attn.v_proj": 64}}),
    ],
)
def test_the_vectors_are_peft_s_own(
    more_folders: dict[str, str], tmp_path: Path, family: str, with_head: bool, settings: dict[str, Any]
) -> None:
    base = more_folders[family]
    adapter = write_adapter(tmp_path / "adapter", base=base, with_head=with_head, **settings)
    for fused in (True, False):
        embedder = Embedder.load(str(adapter), precision="fp32", fused=fused)
        token_lists = embedder.tokenizer(TEXTS)
        expected = peft_vectors(adapter, base=base, with_head=with_head, token_lists=token_lists)
        vectors = embedder.encode(TEXTS)
        np.testing.assert_allclose(vectors, expected, atol=1e-5)
        with embedder.without_adapter():
            assert np.abs(embedder.encode(TEXTS) - vectors).max() > 0.01
    embedder.save(tmp_path / "ours")  # and what is saved says the same without any pattern
    again = Embedder.load(str(tmp_path / "ours"), precision="fp32", fused=False)
    np.testing.assert_array_equal(again.encode(TEXTS), vectors)
    saved = load_by_peft(tmp_path / "ours", AutoModel.from_pretrained(base, dtype=torch.float32))
    assert saved.peft_config["default"].layers_to_transform is None


def test_what_of_a_head_is_left_out_is_said(
    model_folders: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    adapter = write_adapter(tmp_path / "a", base=model_folders["llama"], target_modules=[*QV, "lm_head"])
    with caplog.at_level(logging.INFO, logger="embedsmith"):
        Embedder.load(str(adapter))
    assert "also changes the head, which no embedding depends on: base_model.model.lm_head." in caplog.text


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        (
            "llama",
            {"target_modules": QV, "modules_to_save": ["embed_tokens"]},
            r"model\.embed_tokens \(modules_to_save\)",
        ),
        (
            "llama",
            {"target_modules": QV, "modules_to_save": ["norm"]},
            r"model\.norm|input_layernorm \(modules_to_save\)",
        ),
        ("gemma", {"target_modules": QV, "modules_to_save": ["lm_head"]}, "head is its token embedding"),
        ("llama", {"target_modules": [*QV, "embed_tokens"]}, r"model\.embed_tokens \(Embedding\)"),
        ("qwen2", {"target_modules": QV, "bias": "all"}, "bias: all"),
        ("qwen2", {"target_modules": QV, "bias": "lora_only"}, "bias: lora_only"),
        ("llama", {"target_modules": QV, "lora_bias": True}, r"lora_bias: True \(biases on the updates\)"),
        ("llama", {"target_modules": QV, "use_dora": True}, r"use_dora: True \(DoRA\)"),
        ("llama", {"target_modules": QV, "trainable_token_indices": [1, 2]}, "changed token embeddings"),
        ("llama", {"target_modules": QV, "target_parameters": ["mlp.up_proj.weight"]}, "updates of single tensors"),
        (
            "llama",
            {"target_modules": QV, "layer_replication": [[0, 2], [1, 3]]},
            "layers of the base run several times",
        ),
        ("llama", {"target_modules": QV, "init_lora_weights": "pissa"}, "'pissa', which changes the base model too"),
        ("llama", {"target_modules": QV, "init_lora_weights": "olora"}, "'olora', which changes the base model too"),
        ("llama", {"target_modules": ["lm_head"]}, "adapts no layer below the LM head"),
    ],
)
def test_what_is_more_than_a_plain_lora(
    model_folders: dict[str, str], tmp_path: Path, family: str, settings: dict[str, Any], message: str
) -> None:
    adapter = write_adapter(tmp_path / "adapter", base=model_folders[family], **settings)
    with pytest.raises(ModelError, match=message):
        Embedder.load(str(adapter))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"alpha_pattern": {"model.layers.7.self_attn.v_proj": 64}},
            r"alpha_pattern: model\.layers\.7\.self_attn\.v_proj",
        ),
        ({"alpha_pattern": {"layers.1.self_attn.v_proj": 64, "k_proj": 1}}, "alpha_pattern: k_proj\n"),
        ({"rank_pattern": {"k_proj": 4}}, "rank_pattern: k_proj"),
        ({"target_modules": [*QV, "query"]}, "target_modules: query"),
        ({"layers_to_transform": [0, 1, 2, 7]}, "layers_to_transform: 7"),
        ({"layers_to_transform": [0, 1, 2], "layers_pattern": ["layers", "h"]}, "layers_pattern: h"),
        ({"exclude_modules": ["visual"]}, "exclude_modules: visual"),
        ({"exclude_modules": "visual.*"}, r"exclude_modules: visual\.\*"),
        ({"target_modules": "(q_proj"}, "pattern that cannot be read"),
        ({"alpha_pattern": {"(q_proj": 3}}, "pattern that cannot be read"),
        ({"exclude_modules": "(q_proj"}, "pattern that cannot be read"),
        (
            {"use_something": True, "peft_version": "9.9"},
            r"does not know \(peft 9\.9 wrote them\): use_something: True",
        ),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan, not a finite number"),
        ({"lora_alpha": "16"}, "lora_alpha is '16', not a finite number"),
        ({"alpha_pattern": {"v_proj": None}}, "alpha_pattern of v_proj is None, not a finite number"),
        ({"alpha_pattern": ["v_proj"]}, r"alpha_pattern is \['v_proj'\], not names with numbers"),
        ({"r": "8"}, "r is '8', not a whole number above 0"),
        ({"r": 0}, "r is 0, not a whole number above 0"),
        ({"lora_dropout": "x"}, "lora_dropout is 'x'"),
        ({"target_modules": 5}, "target_modules is 5, not names or a pattern"),
        ({"target_modules": []}, "does not fit the model"),
        ({"target_modules": "dummy-target-modules"}, "adapts no layer"),
        ({"layers_to_transform": "1"}, "layers_to_transform is '1', not numbers of layers"),
        ({"bias": "odd"}, "bias: odd"),
        ({"r": 4}, r"lora_A\.weight is \(8, 64\), the model takes \(4, 64\)"),
        ({"target_modules": ["q_proj"]}, r"no place for .*v_proj"),
        ({"layers_to_transform": [0, 1]}, r"no place for .*layers\.2\."),
        ({"monteclora_config": {"num_samples": 2}}, "sampled updates"),
        ({"alora_invocation_tokens": [1, 2]}, "an activated LoRA"),
        ({"velora_config": {"num_groups": 1}}, "more than a plain LoRA: velora_config"),
        ({"init_lora_weights": "loftq"}, "'loftq', which changes the base model too"),
        ({"peft_type": "LOHA"}, "is of type LOHA"),
        ({"peft_type": None}, "is of type None"),
    ],
)
def test_a_config_that_does_not_mean_these_weights(
    model_folders: dict[str, str], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    adapter = write_adapter(tmp_path / "adapter", base=model_folders["llama"], target_modules=QV)
    edit(adapter, **changes)
    with pytest.raises(ModelError, match=message):
        Embedder.load(str(adapter))


def test_settings_that_are_off_or_of_the_start_alone(
    model_folders: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    adapter = write_adapter(tmp_path / "adapter", base=model_folders["llama"], target_modules=QV)
    expected = Embedder.load(str(adapter), precision="fp32").encode(TEXTS)
    edit(
        adapter, use_something=None, new_list=[], loftq_config={"bits": 4}, init_lora_weights="eva", task_type="SEQ_CLS"
    )
    with caplog.at_level(logging.INFO, logger="embedsmith"):
        found = Embedder.load(str(adapter), precision="fp32").encode(TEXTS)
    np.testing.assert_array_equal(found, expected)
    assert "all of them off: new_list, use_something" in caplog.text


def test_weights_that_peft_would_not_name_so(model_folders: dict[str, str], tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", base=model_folders["llama"], target_modules=QV)
    file = adapter / "adapter_model.safetensors"
    weights = load_file(file)
    for old, new, message in (
        ("base_model.model.", "", "peft would not name so: model.layers.0"),
        ("base_model.model.", "base_model.model.base_model.model.", "has no place for base_model.model.base_model"),
        ("lora_A.", "lora_A.default.", "its file holds .*lora_A.default.weight"),
        ("lora_A.weight", "lora_magnitude_vector", "its file holds .*lora_magnitude_vector"),
    ):
        save_file({key.replace(old, new): value for key, value in weights.items()}, file, metadata={"format": "pt"})
        with pytest.raises(ModelError, match=message):
            Embedder.load(str(adapter))


def test_as_a_base_it_is_part_of_the_weights(model_folders: dict[str, str], tmp_path: Path) -> None:
    settings = {
        "alpha_pattern": {f"{LAYERS}.1.self_attn.v_proj": 64},
        "exclude_modules": [f"{LAYERS}.0.self_attn.q_proj"],
    }
    adapter = write_adapter(tmp_path / "adapter", base=model_folders["llama"], target_modules=QV, **settings)
    expected = Embedder.load(str(adapter), precision="fp32").encode(TEXTS)
    merged = Embedder.load(str(adapter), precision="fp32", as_base=True)
    assert merged.adapter is None
    np.testing.assert_allclose(merged.encode(TEXTS), expected, atol=1e-5)
