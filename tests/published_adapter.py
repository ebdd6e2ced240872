"""Toy adapters in the layout of those that the paper's authors published: peft 0.10, on the class with the LM head."""

import json
import math
from pathlib import Path

import torch
from safetensors.torch import save_file

ADAPTER = {
    "alpha_pattern": {},
    "auto_mapping": None,
    "base_model_name_or_path": "/home/someone/pretrained/model",
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": "gaussian",
    "layer_replication": None,
    "layers_pattern": None,
    "layers_to_transform": None,
    "loftq_config": {},
    "lora_alpha": 32,
    "lora_dropout": 0.1,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "modules_to_save": None,
    "peft_type": "LORA",
    "r": 8,
    "rank_pattern": {},
    "revision": None,
    "target_modules": ["v_proj", "q_proj"],
    "task_type": "CAUSAL_LM",
    "use_dora": False,
    "use_rslora": False,
}


def save_adapter_folder(
    folder: Path, *, base: Path, changes: dict[str, object] | None = None
) -> dict[str, torch.Tensor]:
    """Random weights for the queries and values of a toy checkpoint."""
    values = json.loads((base / "config.json").read_text())
    hidden, heads = values["hidden_size"], values["num_attention_heads"]
    width = values.get("head_dim") or hidden // heads
    torch.manual_seed(1)
    weights = {}
    for layer in range(values["num_hidden_layers"]):
        for name, num_heads in (("q_proj", heads), ("v_proj", values["num_key_value_heads"])):
            prefix = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            weights[f"{prefix}.lora_A.weight"] = torch.randn(8, hidden) / math.sqrt(hidden)
            weights[f"{prefix}.lora_B.weight"] = torch.randn(num_heads * width, 8) * 0.1
    folder.mkdir()
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps({**ADAPTER, **(changes or {})}, indent=2))
    (folder / "README.md").write_text("---\nlibrary_name: peft\n---\n")
    return weights
