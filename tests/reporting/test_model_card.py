"""The card's front matter is YAML whatever the names are, and what cannot be done elsewhere is not promised."""

from typing import Any

import pytest
import yaml

from embedsmith.records.results import EvaluationResult, MtebScore, TaskResult
from embedsmith.reporting.model_card import CardContent, model_card
from embedsmith.settings.choices import Pooling


def _content(**changes: Any) -> CardContent:
    values: dict[str, Any] = {
        "name": "r",
        "base_model": "a/b",
        "hub_base": "a/b",
        "base_remark": "",
        "license": None,
        "family": "llama",
        "is_adapter": True,
        "pooling": Pooling.LAST,
        "prompt": None,
        "instruction": None,
        "prompt_tokens": "apart",
        "end_token": True,
        "max_length": 150,
        "has_query_prompt": False,
        "attends_as_base": True,
        "opens_all_layers": False,
        "is_plain": True,
        "is_quantized": False,
        "matryoshka_dims": (),
        "origin": "fine-tuned with embedsmith on 9 pairs in 3 steps",
        "details": (),
        "datasets": [],
        "config_yaml": "a: 1\n",
    }
    return CardContent(**{**values, **changes})


def _front(card: str) -> dict[str, Any]:
    _, front, _ = card.split("---\n", 2)
    values: dict[str, Any] = yaml.safe_load(front)
    return values


def test_front_matter_and_text() -> None:
    result = EvaluationResult("r", {"dev: 1": TaskResult(0.81234, (0.8, 0.82), 99)})
    card = model_card(
        _content(
            name="my: run",
            base_model="base",
            hub_base=None,
            results=[("tuned", result)],
            origin="fine-tuned on 10 triplets in 3 steps",
            chose_step=True,
        )
    )
    values = _front(card)
    assert not {"base_model", "base_model_relation"} & set(values)  # a hub takes its own ids alone
    assert values["library_name"] == "peft"
    assert "license" not in values
    [record] = values["model-index"][0]["results"]
    assert values["model-index"][0]["name"] == "my: run"
    assert record["dataset"] == {"type": "sts", "name": "dev: 1"}
    assert record["metrics"] == [
        {"type": "cosine_spearman", "value": 81.23},
        {"type": "main_score", "value": 81.23},
    ]
    assert "| dev: 1 | 99 | 81.2 [80.0, 82.0] |" in card
    assert "10 triplets in 3 steps" in card
    assert "slightly optimistic" in card
    assert "/models" not in card


def test_tasks_of_mtebs_stand_in_its_form() -> None:
    card = model_card(
        _content(
            license="apache-2.0",
            datasets=["owner/data"],
            mteb={"NFCorpus": MtebScore("Retrieval", "ndcg_at_10", 0.25)},
            mteb_data={"NFCorpus": ("mteb/nfcorpus", "abc", "test")},
        )
    )
    values = _front(card)
    assert values["license"] == "apache-2.0"
    assert values["datasets"] == ["owner/data"]
    assert "mteb" in values["tags"]
    [record] = values["model-index"][0]["results"]
    assert record["task"] == {"type": "Retrieval"}
    assert record["dataset"] == {
        "type": "mteb/nfcorpus",
        "name": "MTEB NFCorpus",
        "config": "default",
        "split": "test",
        "revision": "abc",
    }
    assert record["metrics"][0] == {"type": "ndcg_at_10", "value": 25.0}
    assert "| NFCorpus | Retrieval | ndcg_at_10 | 25.0 |" in card


def test_a_task_with_an_interval_stands_there_once() -> None:
    result = EvaluationResult("r", {"STS12": TaskResult(0.7, (0.6, 0.8), 99)})
    score = MtebScore("STS", "cosine_spearman", 0.7)
    card = model_card(
        _content(results=[("tuned", result)], mteb={"STS12": score}, mteb_data={"STS12": ("a", "b", "c")})
    )
    assert card.count("| STS12 |") == 1
    [record] = _front(card)["model-index"][0]["results"]
    assert record["dataset"]["name"] == "MTEB STS12"


def test_without_results() -> None:
    card = model_card(_content())
    assert "model-index" not in card
    assert "## Scores" not in card


def test_a_remark_on_the_base_stands_where_the_base_is_loaded() -> None:
    card = model_card(_content(base_remark="Mind the base."))
    assert card.index("AutoModel") < card.index("Mind the base.")
    assert "Mind the base." not in model_card(_content(base_remark="Mind the base.", is_adapter=False))


def test_trained_widths_are_told() -> None:
    card = model_card(_content(matryoshka_dims=(8, 64)))
    assert "Trained for 8, 64 dimensions: `embedder.encode(texts, dim=8)`" in card


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"attends_as_base": False}, "open all layers to attention both ways, or none"),
        ({"is_quantized": True}, "few bits"),
        ({"pooling": Pooling.CONCAT}, "side by side"),
        ({"prompt": "{text} in one word:", "prompt_tokens": "joined"}, "goes on behind the text"),
        ({"prompt": "{text} in one word:", "has_query_prompt": True}, "goes on behind the text"),
        ({"prompt": "{text} again: {text}"}, "goes on behind the text"),
        ({"prompt": "{instruction}: {text}"}, "an instruction with every text"),
    ],
)
def test_what_other_tools_cannot_do_is_not_promised(changes: dict[str, Any], reason: str) -> None:
    card = model_card(_content(**changes))
    assert reason in card
    assert "sentence_transformers" not in card
    assert "AutoModel" not in card


def test_attention_both_ways_in_all_layers_is_exported() -> None:
    card = model_card(_content(attends_as_base=False, opens_all_layers=True))
    assert "sentence-transformers on transformers 5.2 or newer, after" in card
    assert "--to merged" in card
    assert "AutoModel" not in card  # of the base, which is causal


def test_granite_may_be_minicpm() -> None:
    card = model_card(_content(family="granite"))
    assert "--to merged" in card
    assert "AutoModel" not in card


@pytest.mark.parametrize(("prompt", "is_on"), [(None, True), ("query: {text}", True), ("<|im_start|>{text}", False)])
def test_a_text_s_control_tokens_are_characters_unless_the_prompt_has_some(prompt: str | None, is_on: bool) -> None:
    assert ("split_special_tokens=True" in model_card(_content(prompt=prompt, prompt_tokens="joined"))) == is_on
    assert "split_special_tokens=True" in model_card(_content(prompt=prompt))
