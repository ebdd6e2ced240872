"""A configuration in both versions' words: what version 4 finds there, and that version 5 finds what it found before.

All of these, and every family of `tests/tiny.py`, were loaded by transformers 4.57.6 once: the same hidden states to
the last bit, but for Gemma 2, whose capped scores its default attention leaves out.
"""

import json
from pathlib import Path

import pytest
from transformers import AutoConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from embedsmith.export.older_names import add_older_names, older_rope_names

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
CASES = {
    "base": ("llama", {"rope_type": "default", "rope_theta": 500.0}, {"rope_theta": 500.0}),
    "scaled": ("llama", {**LLAMA3, "rope_theta": 500.0}, {"rope_theta": 500.0, "rope_scaling": LLAMA3}),
    "partial": (
        "phi",
        {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.25},
        {"rope_theta": 500.0, "partial_rotary_factor": 0.25},
    ),
    "by kind of layer": (
        "gemma3_text",
        {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 700.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
        },
        {"rope_theta": 700.0, "rope_local_base_freq": 50.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_both_versions_find_the_same(name: str, tmp_path: Path) -> None:
    family, parameters, older = CASES[name]
    CONFIG_MAPPING[family](rope_parameters=parameters).save_pretrained(tmp_path)
    before = AutoConfig.from_pretrained(tmp_path).to_dict()
    add_older_names(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert {key: written[key] for key in older} == older
    after = AutoConfig.from_pretrained(tmp_path).to_dict()
    assert after["rope_parameters"] == before["rope_parameters"]


def test_a_model_without_rotary_angles() -> None:
    assert older_rope_names(None) == {}
