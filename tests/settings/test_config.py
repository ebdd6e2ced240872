"""Contracts of the configuration: names, types, ranges, and errors that say all of it at once."""

from pathlib import Path

import pytest

from embedsmith.cli.app import read_overrides
from embedsmith.settings.choices import Pooling
from embedsmith.settings.config import RunConfig
from embedsmith.settings.data import TrainSource
from embedsmith.settings.recipe import known_keys, load_config, parse_config
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
    config = load_config(overrides={"output_dir": "x", "pooling": "mean", "prompt": "say: {text} #1 "})
    path = tmp_path / "run.yaml"
    path.write_text(config.to_yaml())
    assert load_config(path) == config
    assert config.model.pooling is Pooling.MEAN


def test_one_name_may_stand_for_a_list() -> None:
    assert load_config(overrides={"output_dir": "x", "data.train": "a.tsv"}).data.train == ["a.tsv"]
    assert load_config(overrides={"output_dir": "x", "data.train": "[a.tsv, b.tsv]"}).data.train == ["a.tsv", "b.tsv"]


TYPED = [
    "Text {text} #sum",
    "  {text}  ",
    "query: {text}",
    "{text}",
    "'{text}'",
    '"{text}" means',
    "[{text}]",
    "- {text}",
    "*{text}",
    "&{text}",
    "!{text}",
    "{text}: 2026-11-25",
    "\\n {text}",
    "{text}\n",
]
"""Texts that YAML would read as something else, or not at all."""


@pytest.mark.parametrize("text", TYPED)
def test_texts_are_taken_as_typed(text: str, tmp_path: Path) -> None:
    config = load_config(overrides={"output_dir": "x", "model.prompt": text})
    assert config.model.prompt == text
    (tmp_path / "run.yaml").write_text(config.to_yaml(), encoding="utf-8")
    assert load_config(tmp_path / "run.yaml") == config


@pytest.mark.parametrize(
    "text", ["2026-11-25", "007", "1e3", "yes", "no", "true", "null.tsv", "*.tsv", "a, b", "@x", "#"]
)
def test_names_that_look_like_something_else(text: str, tmp_path: Path) -> None:
    given = {"output_dir": text, "data.train": text, "evaluation.dev": text, "model.model": text}
    config = load_config(overrides={**given, "model.prompt": "{instruction}{text}", "instruction": text})
    assert (config.output_dir, config.data.train, config.evaluation.dev, config.model.model) == (
        text,
        [text],
        text,
        text,
    )
    assert config.model.instruction == text
    (tmp_path / "run.yaml").write_text(config.to_yaml(), encoding="utf-8")
    assert load_config(tmp_path / "run.yaml") == config


def test_texts_of_a_recipe_are_texts(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        "output_dir: 2026-11-25\nmodel: {model: 007, instruction: yes, prompt: '{instruction} {text}'}\n"
        "data: {train: [1.10, on]}\ntraining: {learning_rate: 1e-3, use_hard_negatives: false, seed: 3}\n"
    )
    config = load_config(path)
    assert (config.output_dir, config.model.model, config.model.instruction) == ("2026-11-25", "007", "yes")
    assert config.data.train == ["1.10", "on"]
    assert (config.training.learning_rate, config.training.use_hard_negatives, config.training.seed) == (1e-3, False, 3)


@pytest.mark.parametrize("word", ["none", "null"])
def test_none_is_nothing_where_a_setting_may_be_absent(word: str, tmp_path: Path) -> None:
    keys = ("model.prompt", "model.instruction", "data.max_triplets", "training.max_steps", "evaluation.dev")
    config = load_config(overrides={"output_dir": "x", **dict.fromkeys(keys, word)})
    assert {key: getattr(getattr(config, key.split(".")[0]), key.split(".")[1]) for key in keys} == dict.fromkeys(keys)
    (tmp_path / "r.yaml").write_text(
        f"output_dir: {word}\nevaluation: {{dev: {word}}}\nmodel: {{quantization: none}}\n"
    )
    config = load_config(tmp_path / "r.yaml") if word == "none" else config
    assert config.evaluation.dev is None
    assert load_config(overrides={"output_dir": word}).output_dir == word


def _read(**given: str) -> RunConfig:
    return load_config(overrides={"output_dir": "x", **{key.replace("__", "."): text for key, text in given.items()}})


def test_several_values() -> None:
    assert _read(data__train="[2026-11-25, '*.tsv', 'b, c.tsv']").data.train == ["2026-11-25", "*.tsv", "b, c.tsv"]
    assert _read(data__train="[x].tsv").data.train == ["[x].tsv"]
    sources = _read(data__train="[a.tsv, {files: b.tsv, symmetric: true}]", query_prompt="{text}").data.train
    assert sources == ["a.tsv", TrainSource(files="b.tsv", symmetric=True)]
    assert _read(target_modules="q_proj, v_proj").adapter.target_modules == ["q_proj", "v_proj"]
    assert _read(target_modules="[on, off]").adapter.target_modules == ["on", "off"]
    for dims in ("8,32", "[8, 32]"):
        assert _read(matryoshka_dims=dims).training.matryoshka_dims == [8, 32]
    assert _read(data__columns="{anchor: 007, positive: yes}").data.columns == {"anchor": "007", "positive": "yes"}
    with pytest.raises(ConfigError, match=r"--data.train: '\[\*.tsv\]' is no list or mapping in YAML"):
        _read(data__train="[*.tsv]")
    with pytest.raises(ConfigError, match=r"data\.columns: should be a valid dictionary"):
        _read(data__columns="anchor")


def test_a_setting_given_twice_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert _read(seed="1", training__seed="2").training.seed == 2
    assert "--training.seed is given twice; the last one counts: 2" in caplog.text
    assert read_overrides(["--seed", "1", "--seed=3", "--dev", "", "--x=a=b"]) == {"seed": "3", "dev": "", "x": "a=b"}
    assert "--seed is given twice; the last one counts: 3" in caplog.text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"use_hard_negatives": "maybe"}, "training.use_hard_negatives: should be a valid boolean"),
        ({"learning_rate": "inf"}, "training.learning_rate: should be a finite number; it is inf"),
        ({"learning_rate": "nan"}, "training.learning_rate"),
        ({"seed": "true"}, "training.seed: should be a number, not true or false"),
        ({"seed": "1.5"}, "training.seed: should be a valid integer"),
        ({"output_dir": " "}, "output_dir: is empty"),
        ({"data.train": ""}, "data.train.0"),
        ({"dev": ""}, "evaluation.dev: is empty"),
        ({"output_dir": "a\0b"}, "output_dir: holds a NUL"),
    ],
)
def test_values_of_the_wrong_kind(given: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(overrides={"output_dir": "x", **given})
    assert message in str(caught.value)


@pytest.mark.parametrize("key", known_keys())
@pytest.mark.parametrize("value", [3.5, "!", [3.5], {"a": 3.5}, [{"a": 3.5}], [[]]], ids=str)
def test_a_fault_names_its_setting_and_no_program_s_types(key: str, value: object) -> None:
    try:
        parse_config({"output_dir": "x"}, overrides={key: value})
    except ConfigError as error:
        assert key.split(".")[0] in str(error)
        for word in ("function", "validator", "<", "Annotated", "list[", "[str", "0x"):
            assert word not in str(error)


def test_of_a_setting_of_several_kinds_one_fault_is_shown() -> None:
    train = ["a.tsv", 3, {"instruction": "i"}, {"path": "b.tsv", "files": "b.tsv"}]
    settings = {"data": {"train": train}, "model": {"bidirectional_layers": "some"}}
    with pytest.raises(ConfigError) as error:
        parse_config({"output_dir": "x", **settings})
    assert str(error.value).splitlines()[1:-1] == [
        "  model.bidirectional_layers: should be a number of layers, or all; it is 'some'",
        "  data.train.1: should be a valid string; it is 3",
        "  data.train.2.files: must be given",
        "  data.train.3.path: no such setting. Did you mean data.train.3.files?",
    ]


def test_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    sources = "[~/a.tsv, {files: ~/b.tsv}, c~.tsv]"
    given = {"output_dir": "~/x", "data.train": sources, "model.model": "~", "dev": "~/d.tsv", "teacher": "~/t"}
    config = load_config(overrides={**given, "guide": "true"})
    assert (config.output_dir, config.model.model) == ("/home/me/x", "/home/me")
    assert config.data.source_names == ["/home/me/a.tsv", "/home/me/b.tsv", "c~.tsv"]
    assert (config.evaluation.dev, config.teacher.teacher) == ("/home/me/d.tsv", "/home/me/t")


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("output_dir: x\ntraining:\n  seed: 1\n  seed: 2\n")
    with pytest.raises(ConfigError, match="'seed' stands there twice, on line 3 and line 4"):
        load_config(path)


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
        "training.seed: should be a number, not true or false; it is 'true'",
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


@pytest.mark.parametrize(
    ("name", "value"), [("adapter.method", "full"), ("model.quantization", "4bit"), ("training.loss", "mntp")]
)
def test_what_a_base_that_processes_hold_together_cannot_do(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\.sharded is true, which does not go with {name}: {value}: "):
        load_config(overrides={"output_dir": "x", "model.sharded": "true", name: value})


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
    assert load_config(overrides={"output_dir": "x", "prompt": config.model.prompt}) == config


@pytest.mark.parametrize(
    ("settings", "names", "centers"),
    [
        ({}, [], False),
        ({"teacher": "a"}, ["a"], False),
        ({"teacher": "a", "centered": "true"}, ["a"], True),
        ({"teacher": "[a, b]"}, ["a", "b"], True),
        ({"teacher": "[a, b]", "centered": "false"}, ["a", "b"], False),
    ],
)
def test_several_teachers_are_centered(settings: dict[str, str], names: list[str], centers: bool) -> None:
    asked = {"guide": "true"} if settings else {}
    teacher = load_config(overrides={"output_dir": "x", **settings, **asked}).teacher
    assert (teacher.names, teacher.centers) == (names, centers)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"teacher": "smollm2-135m"}, "teacher.teacher is 'smollm2-135m', but nothing asks it"),
        ({"guide": "true"}, "need a teacher; name it with teacher.teacher"),
        ({"centered": "true"}, "teacher.centered is True, but does nothing without teacher.teacher"),
        ({"teacher": "[]", "guide": "true"}, "teacher.teacher"),
        ({"distill_weight": "0.5"}, "need a teacher"),
        ({"teacher": "t", "distill_weight": "0.5", "margin": "0.1"}, "margin is 0.1, but does nothing without"),
        (
            {"teacher": "t", "guide": "true", "distill_temperature": "0.1"},
            "distill_temperature is 0.1, but does nothing",
        ),
        ({"embedding_weight": "0.5"}, "need a teacher"),
        (
            {"teacher": "t", "guide": "true", "embedding_distance": "squared"},
            "embedding_distance is squared, but does nothing without teacher.embedding_weight",
        ),
        (
            {"teacher": "t", "embedding_weight": "1", "temperature": "0.1", "loss": "cosent", "guide": "true"},
            "so nothing comes of training.temperature, training.loss, teacher.guide",
        ),
        ({"teacher": "t", "guide": "true", "distill_weight": "1"}, "leaves nothing of the contrastive loss"),
        (
            {"teacher": "t", "hard_negative_weight": "2", "distill_weight": "1"},
            "leaves nothing of the contrastive loss",
        ),
        ({"matryoshka_dims": "[0]"}, "training.matryoshka_dims.0: should be greater than or equal to 1"),
        ({"hard_negative_weight": "-1"}, "training.hard_negative_weight: should be greater than or equal to 0"),
        ({"loss": "triplet"}, "training.loss"),
        (
            {"one_source_batches": "true", "data.train": "n/*.tsv"},
            "one_source_batches is true, but data.train names one",
        ),
        ({"source_temperature": "2"}, "source_temperature is 2.0, but does nothing without data.one_source_batches"),
        ({"directions": "anchor_to_anchor"}, "contrast.directions lacks anchor_to_candidate"),
        ({"directions": "[anchor_to_candidate, anchor_to_candidate]"}, "names a direction twice"),
        ({"directions": "[anchor_to_candidate, query_to_doc]"}, "contrast.directions.1"),
        ({"partition_mode": "per_direction"}, "per_direction, but contrast.directions has one alone"),
        (
            {"partition_mode": "per_direction", "directions": "[anchor_to_candidate, anchor_to_anchor]"},
            "anchor_to_anchor does not hold the positive",
        ),
        ({"hardness_strength": "9"}, "hardness_strength is 9.0, but does nothing without contrast.hardness_mode"),
        ({"hardness_form": "importance"}, "hardness_form is importance, but does nothing without"),
        ({"spread_out_moments": "[2]"}, "does nothing without contrast.spread_out_weight"),
        ({"spread_out_weight": "1", "spread_out_moments": "[2, 2]"}, "names a moment twice"),
        ({"spread_out_weight": "1", "spread_out_moments": "[3]"}, "should be less than or equal to 2"),
        ({"hardness_mode": "hard_negatives", "hard_negative_weight": "0"}, "takes a row's own negatives out"),
        (
            {"teacher": "t", "distill_weight": "1", "false_negative_margin": "0.1"},
            "lower it, or drop contrast.false_negative_margin",
        ),
    ],
)
def test_settings_of_the_loss_that_do_nothing_or_make_no_sense(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(overrides={"output_dir": "x", **settings})
    assert message in str(caught.value)


def test_an_alias_means_what_it_names(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("output_dir: x\ndata:\n  columns: &named {anchor: q}\nevaluation:\n  dev_columns: *named\n")
    config = load_config(recipe)
    assert config.data.columns == config.evaluation.dev_columns == {"anchor": "q"}
