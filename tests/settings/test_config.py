"""Contracts of the configuration: names, types, ranges, and errors that say all of it at once."""

from pathlib import Path

import pytest

from embedsmith.settings.config import Pooling
from embedsmith.settings.recipe import load_config
from embedsmith.support.errors import ConfigError


def test_leaf_and_dotted_names_mean_the_same() -> None:
    short = load_config(overrides={"output_dir": "x", "learning_rate": "1e-4", "lora-r": "4"})
    full = load_config(overrides={"output_dir": "x", "training.learning_rate": "1e-4", "adapter.lora_r": "4"})
    assert short == full
    assert short.training.learning_rate == 1e-4


def test_the_command_line_wins_over_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("output_dir: a\ntraining:\n  seed: 1\n  batch_size: 8\n")
    config = load_config(path, overrides={"seed": "5"})
    assert (config.training.seed, config.training.batch_size) == (5, 8)


def test_resolved_yaml_reads_back_equal(tmp_path: Path) -> None:
    config = load_config(overrides={"output_dir": "x", "pooling": "mean", "prompt": "'say: {text}'"})
    path = tmp_path / "run.yaml"
    path.write_text(config.to_yaml())
    assert load_config(path) == config
    assert config.model.pooling is Pooling.MEAN


def test_one_name_may_stand_for_a_list() -> None:
    assert load_config(overrides={"output_dir": "x", "data.train": "a.tsv"}).data.train == ["a.tsv"]
    assert load_config(overrides={"output_dir": "x", "data.train": "[a.tsv, b.tsv]"}).data.train == ["a.tsv", "b.tsv"]


def test_all_faults_are_shown_together(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("training:\n  lerning_rate: 1\n  batch_size: many\n  temperature: -1\n  seed: true\nmodell: {}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides={"warmup": "3"})
    message = str(caught.value)
    for part in (
        str(path),
        "training.lerning_rate: no such setting. Did you mean training.learning_rate?",
        "training.batch_size: should be a valid integer, unable to parse string as an integer; it is 'many'",
        "training.temperature: should be greater than 0; it is -1",
        "training.seed: should be a number, not true or false; it is True",
        "modell: no such setting. Did you mean model",
        "--warmup: no such setting. Did you mean training.warmup_steps?",
        "output_dir: must be given",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("text", "message"),
    [("- a\n", "must hold sections"), ("a: [", "is no valid YAML"), ("training: 3\noutput_dir: x\n", "training:")],
)
def test_a_file_that_is_no_recipe(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_a_missing_file() -> None:
    with pytest.raises(ConfigError, match=r"no configuration file nowhere\.yaml"):
        load_config("nowhere.yaml")


def test_unknown_tracker() -> None:
    with pytest.raises(ConfigError, match="unknown tracker 'mlflow'"):
        load_config(overrides={"output_dir": "x", "report_to": "mlflow"})


def test_instructions_need_a_place_in_a_prompt() -> None:
    with pytest.raises(ConfigError, match=r"model\.instruction has an instruction, but no prompt holds"):
        load_config(overrides={"output_dir": "x", "instruction": "find it"})
    with pytest.raises(ConfigError, match=r"data\.train has an instruction, but no prompt holds"):
        load_config(overrides={"output_dir": "x", "data.train": "{files: sample, instruction: find it}"})
    with pytest.raises(ConfigError, match=r"changes nothing without model\.query_prompt"):
        load_config(overrides={"output_dir": "x", "data.train": "{files: sample, symmetric: true}"})


def test_a_prompt_s_name_is_resolved() -> None:
    config = load_config(overrides={"output_dir": "x", "prompt": "prompteol"})
    assert config.model.prompt == 'This sentence : "{text}" means in one word:"'
    assert load_config(overrides={"output_dir": "x", "prompt": repr(config.model.prompt)}) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"teacher": "smollm2-135m"}, "teacher.teacher is 'smollm2-135m', but nothing asks it"),
        ({"guide": "true"}, "need a teacher; name it with teacher.teacher"),
        ({"distill_weight": "0.5"}, "need a teacher"),
        ({"teacher": "t", "distill_weight": "0.5", "margin": "0.1"}, "margin is 0.1, but does nothing without"),
        (
            {"teacher": "t", "guide": "true", "distill_temperature": "0.1"},
            "distill_temperature is 0.1, but does nothing",
        ),
        ({"teacher": "t", "guide": "true", "distill_weight": "1"}, "leaves nothing of the contrastive loss"),
        (
            {"teacher": "t", "hard_negative_weight": "2", "distill_weight": "1"},
            "leaves nothing of the contrastive loss",
        ),
        ({"matryoshka_dims": "[0]"}, "training.matryoshka_dims.0: should be greater than or equal to 1"),
        ({"hard_negative_weight": "-1"}, "training.hard_negative_weight: should be greater than or equal to 0"),
        ({"loss": "triplet"}, "training.loss"),
    ],
)
def test_settings_of_the_loss_that_do_nothing_or_make_no_sense(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(overrides={"output_dir": "x", **settings})
    assert message in str(caught.value)
