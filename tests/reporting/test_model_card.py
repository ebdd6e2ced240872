"""The card's front matter is YAML whatever the names are."""

import yaml

from embedsmith.reporting.model_card import model_card
from embedsmith.results import EvaluationResult, TaskResult


def test_front_matter_and_text() -> None:
    result = EvaluationResult("r", {"dev: 1": TaskResult(0.81234, (0.8, 0.82), 99)})
    card = model_card(
        name="my: run",
        base_model="/models/base",
        results=[("tuned", result)],
        config_yaml="a: 1\n",
        data="10 triplets",
        num_steps=3,
    )
    _, front, text = card.split("---\n", 2)
    values = yaml.safe_load(front)
    assert values["base_model"] == "base"
    assert values["library_name"] == "peft"
    assert values["model-index"][0]["name"] == "my: run"
    assert values["model-index"][0]["results"][0]["dataset"]["name"] == "dev: 1"
    assert values["model-index"][0]["results"][0]["metrics"] == [{"type": "cosine_spearman", "value": 81.23}]
    assert "| dev: 1 | 99 | 81.2 [80.0, 82.0] |" in text
    assert "10 triplets in 3 steps" in text


def test_without_results() -> None:
    card = model_card(name="r", base_model="a/b", results=[], config_yaml="", data="9 pairs", num_steps=1)
    assert "model-index" not in card
    assert "## Scores" not in card


def test_trained_widths_are_told() -> None:
    card = model_card(
        name="r", base_model="a/b", results=[], config_yaml="", data="9 pairs", num_steps=1, matryoshka_dims=(8, 64)
    )
    assert "Trained for 8, 64 dimensions: `embedder.encode(texts, dim=8)`" in card
