"""Search files: every fault is named before anything runs; what a point stands for."""

from pathlib import Path
from typing import Any

import pytest

from embedsmith.settings.recipe import load_config
from embedsmith.support.errors import ConfigError
from embedsmith.verbs.optimize_space import Choices, Range, SearchConfig, make_search, read_search

SEARCHES = Path(__file__).parents[2] / "recipes" / "searches"
RECIPE = {"training": {"max_steps": 6}, "evaluation": {"eval_steps": 2}}
SPACE = {"learning_rate": {"low": "1e-4", "high": "1e-3", "log": "true"}}


def _plan(**changes: Any) -> SearchConfig:
    return SearchConfig.model_validate({"output_dir": "s", "recipe": RECIPE, "space": SPACE, "trials": 3, **changes})


@pytest.mark.parametrize("path", sorted(SEARCHES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_search_of_ours_is_sound(path: Path) -> None:
    search = make_search(read_search(path, overrides={}))
    assert search.plan.output_dir == f"runs/search-{path.stem}"
    assert search.base.model.model == path.stem
    assert search.plan.trials and search.plan.budget_minutes and len(search.plan.final_seeds) == 3
    (batch,) = [one for one in search.space if one.name == "batch"]
    assert isinstance(batch, Choices)
    seen = {int(one["training.batch_size"]) * int(one["training.max_steps"]) for one in batch.changes.values()}
    assert len(seen) == 1  # as many triplets


def test_a_point_becomes_a_run() -> None:
    space = {
        **SPACE,
        "lora_r": {"low": 4, "high": 16, "step": 4},
        "lora_dropout": [0.0, "0.1"],
        "prompt": {"none": {"prompt": None}, "sum": {"prompt": "sum", "end_token": False}},
        "model.pooling": [{"end": "last"}, "mean"],
    }
    search = make_search(_plan(space=space))
    rate, rank, dropout, prompt, pooling = search.space
    assert isinstance(rate, Range) and (rate.low, rate.high, rate.log, rate.is_integer) == (1e-4, 1e-3, True, False)
    assert isinstance(rank, Range) and (rank.ends, rank.step) == ([4, 16], 4)
    assert [one.ends for one in (dropout, prompt, pooling)] == [["0", "0.1"], ["none", "sum"], ["end", "mean"]]
    point = {"learning_rate": 5e-4, "lora_r": 8, "lora_dropout": "0.1", "prompt": "sum", "model.pooling": "end"}
    config = search.config_of(point, seed=3)
    assert (config.training.learning_rate, config.training.seed) == (5e-4, 3)
    assert (config.adapter.lora_r, config.adapter.lora_dropout) == (8, 0.1)
    assert (config.model.end_token, config.model.pooling) == (False, "last")
    assert config.model.prompt == 'This sentence : "{text}" can be summarized as'


def test_all_faults_of_a_file_show_together(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("spase: {}\nseed: x\nhalving: {reduction_factor: 1}\nfinal_seeds: [a]\n")
    with pytest.raises(ConfigError) as caught:
        read_search(tmp_path / "bad.yaml", overrides={})
    for part in (
        "spase",
        "space: must be given",
        "recipe: must be given",
        "output_dir: must be given in the file, or as --output-dir DIR",
        "seed:",
        "halving.reduction_factor: should be greater than or equal to 2",
        "final_seeds.0",
    ):
        assert part in str(caught.value)
    with pytest.raises(ConfigError, match=r"no search file .*nowhere\.yaml"):
        read_search(tmp_path / "nowhere.yaml", overrides={})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"trials": None}, "a search has no end: give trials or budget_minutes, or both"),
        ({"finalists": 2}, "finalists does nothing without final_seeds"),
        ({"final_seeds": [1, 1]}, "final_seeds names a seed twice"),
        ({"space": {}}, "space: dictionary should have at least 1 item"),
    ],
)
def test_faults_between_keys(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    (tmp_path / "s.yaml").write_text("{output_dir: s, recipe: r.yaml, space: {lora_r: [1, 2]}, trials: 2}")
    with pytest.raises(ConfigError) as caught:
        read_search(tmp_path / "s.yaml", overrides=changes)
    assert told in str(caught.value)


def test_all_faults_of_a_space_show_together() -> None:
    space = {
        "no_such": [1, 2],
        "lora_r": {"low": 1.5, "high": 4},
        "learning_rate": {"low": 1, "high": 0, "log": True, "step": 1},
        "temperature": {"low": 0.1, "high": 0.25, "step": 0.1},
        "prompt": {"low": 1, "high": 2},
        "weight_decay": {"low": 1, "hihg": 2},
        "pooling": ["last"],
        "lora_dropout": "0.1",
        "max_length": [32, 32],
        "seed": [1, 2],
        "lora": {"a": {"lora_alpha": 1}, "b": {"lora_alpha": 2}},
        "adapter.lora_alpha": [1, 2],
    }
    with pytest.raises(ConfigError) as caught:
        make_search(_plan(space=space, final_seeds=[7]))
    for part in (
        "no_such is no setting, and 1 does not say",
        "lora_r: the setting takes whole numbers",
        "learning_rate: low must be below high",
        "learning_rate: log and step exclude each other",
        "temperature: high is no whole number of steps above low",
        "prompt: a range needs a setting that takes a number",
        "weight_decay.high: field required",
        "weight_decay.hihg",
        "lora_dropout: should be a list of choices, {low, high}, or {label: {setting: value}}; it is '0.1'",
        "pooling: there is nothing to choose",
        "max_length: a choice stands there twice",
        "seed: training.seed is no part of a space",
        "adapter.lora_alpha is changed by lora and by adapter.lora_alpha",
        "final_seeds holds 7, the seed of the trials themselves",
    ):
        assert part in str(caught.value)


def test_values_are_checked_alone_and_by_twos() -> None:
    space = {
        **SPACE,
        "batch_size": [1, 4],
        "keep": ["best", "average"],
        "average": {"plain": {"eval_at_start": True}, "two": {"average_last": 2}, "three": {"average_last": 3}},
        "warmup_steps": {"low": 1, "high": 6},
    }
    with pytest.raises(ConfigError) as caught:
        make_search(_plan(space=space))
    lines = [line.strip() for line in str(caught.value).split("\n")[1:-1]]
    assert len(lines) == 5
    assert lines[0].startswith("batch_size = 1: training.batch_size: should be greater than or equal to 2")
    assert any(line.startswith("keep = best, average = two: evaluation.average_last is 2, but does") for line in lines)
    assert any(line.startswith("keep = best, average = three: ") for line in lines)
    assert any(
        line.startswith("keep = average, average = plain: evaluation.average_last is 4, but the") for line in lines
    )
    assert any(
        line.startswith("warmup_steps = 6: training.warmup_steps is 6, but the run has only 6") for line in lines
    )


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"dev": "none"}, "every trial: evaluation.dev is none, but a search goes by the development set"),
        ({"max_steps": "none"}, "every trial: training.max_steps is none, but a search needs runs of a known length"),
        ({"eval_steps": "6"}, "halving.first_evaluation is 1, but the runs have 1 evaluations behind their start"),
    ],
)
def test_runs_that_cannot_be_compared(settings: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_search(_plan(), settings=settings)
    assert told in str(caught.value)


def test_without_halving_one_evaluation_is_enough() -> None:
    search = make_search(_plan(halving="none"), settings={"eval_steps": "6"})
    assert search.plan.halving is None
    assert search.base == load_config(overrides={"output_dir": "s", "max_steps": "6", "eval_steps": "6"})
