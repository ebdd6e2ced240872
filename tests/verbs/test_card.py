"""A run's card: its snippets run as they stand and give what the model gives; scores of an evaluation go in."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file, save_file

from embedsmith.cli import run_command
from embedsmith.model.embedder import Embedder
from embedsmith.settings.recipe import load_config
from embedsmith.verbs.card import write_card
from embedsmith.verbs.evaluate import base_of
from embedsmith.verbs.train import train
from tests.made_tokenizers import save_with
from tests.tiny import save_model, write_pairs, write_triplets

SAID = ["A cat sleeps.", "An animal is asleep."]  # in every snippet


def _train(folder: Path, **settings: str) -> None:
    values = {
        "output_dir": "run",
        "model.model": "base",
        "max_length": "64",
        "model.precision": "fp32",
        "data.train": str(write_triplets(folder / "t.tsv", num_rows=60)),
        "dev": "null",  # the last step is kept, so that the adapter does something
        "batch_size": "6",
        "max_steps": "3",
        "warmup_steps": "1",
        "learning_rate": "0.01",
    }
    train(load_config(overrides={**values, **settings}))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"model.pooling": "mean", "model.prompt": "the cat {text}"},
        {"model.pooling": "weighted_mean", "model.end_token": "false"},
        {"model.prompt": "the cat: {text} runs:", "model.end_token": "false"},
        {"model.pooling": "mean", "model.prompt": '<image>the "{text}" runs'},
        {"model.query_prompt": "the roof {text}"},
        {"adapter.method": "full", "learning_rate": "0.001"},
    ],
    ids=lambda settings: " ".join(settings) or "plain",
)
def test_the_snippets_give_what_the_model_gives(
    settings: dict[str, str], tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_with("bytes", tmp_path / "base")
    _train(tmp_path, **settings)
    assert Path(base_of("run")).name == "base"
    card = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    [export] = re.findall(r"```\nembedsmith (.+)\n```", card)
    assert run_command(export.split()) == 0
    snippets = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    assert len(snippets) == 3
    live = Embedder.load("run", precision="fp32")
    expected = live.encode(SAID)
    for snippet in snippets:
        names: dict[str, object] = {}
        exec(snippet, names)  # our own text, which a reader is told to run
        np.testing.assert_allclose(
            np.asarray(names["vectors"]), expected, atol=0.02 if "embedsmith" in snippet else 1e-5
        )
        if "model.query_prompt" in settings and "AutoModel" not in snippet:
            found = np.asarray(names["queries"])
            np.testing.assert_allclose(found, live.encode(["sleeping animals"], side="query"), atol=0.02)


def test_scores_of_an_evaluation_go_into_the_card(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_model("llama", tmp_path / "base")
    _train(tmp_path)
    (tmp_path / "sts").mkdir()
    write_pairs(tmp_path / "sts" / "mine.tsv", num_rows=40)
    assert run_command(["evaluate", "run", "--data", "sts", "--out", "r.json"]) == 0
    values = json.loads((tmp_path / "r.json").read_text())
    values["mteb"] = {"scores": {"NFCorpus": {"kind": "Retrieval", "metric": "ndcg_at_10", "score": 0.1}}}
    (tmp_path / "r.json").write_text(json.dumps(values))
    assert run_command(["card", "run", "--results", "r.json"]) == 0
    card = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(card.split("---\n")[1])
    own, other = front["model-index"][0]["results"]
    assert own["metrics"][0]["value"] == round(100 * values["tasks"]["mine"]["cosine_spearman"], 2)
    assert other["dataset"]["type"] == "mteb/nfcorpus"
    assert "slightly optimistic" not in card
    capsys.readouterr()
    front.pop("model-index")
    assert "base_model" not in front  # a folder
    assert run_command(["card", "base", "--results", "r.json"]) == 2
    assert "base is not the folder of a finished run: it has no run.yaml" in capsys.readouterr().err
    assert run_command(["card", "nowhere", "--results", "r.json"]) == 2
    assert "nowhere is not the folder of a finished run: there is no such folder" in capsys.readouterr().err
    assert run_command(["card", "run", "--results", "t.tsv"]) == 2
    assert "does not hold the results of one model" in capsys.readouterr().err


@pytest.fixture
def scored(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of base `bases/base` in `run`, and scores of it in `r.json`."""
    monkeypatch.chdir(tmp_path)
    save_model("llama", tmp_path / "bases" / "base")
    _train(tmp_path, **{"model.model": "bases/base"})
    (tmp_path / "sts").mkdir()
    write_pairs(tmp_path / "sts" / "mine.tsv", num_rows=40)
    assert run_command(["evaluate", "run", "--data", "sts", "--out", "r.json"]) == 0
    return tmp_path


def _refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    before = Path("run/README.md").read_bytes()
    capsys.readouterr()
    assert run_command(["card", *arguments]) == 2
    assert Path("run/README.md").read_bytes() == before
    return capsys.readouterr().err


def test_results_of_another_model_are_refused(scored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By what the vectors depend on, whatever the models are called."""
    _train(scored, **{"model.model": "bases/base", "output_dir": "other", "training.seed": "8"})
    assert run_command(["evaluate", "other", "--data", "sts", "--out", "other.json"]) == 0
    assert "other.json holds the scores of another model" in _refused(capsys, "run", "--results", "other.json")
    values = json.loads(Path("other.json").read_text())
    Path("renamed.json").write_text(json.dumps(values | {"model": "run"}))
    assert "holds the scores of another model" in _refused(capsys, "run", "--results", "renamed.json")
    assert run_command(["evaluate", "bases/base", "--data", "sts", "--out", "base.json"]) == 0
    assert "holds the scores of another model" in _refused(capsys, "run", "--results", "base.json")
    shutil.move("run", "moved")
    assert run_command(["card", "moved", "--results", "r.json"]) == 0  # the same model elsewhere


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--pooling", "mean"], "pooling was 'mean', of the run it is 'last'"),
        (["--dim", "8"], "dim was 8, of the run it is None"),
        (["--prompt", "say {text}"], "prompt was 'say {text}', of the run it is None"),
        (["--no-end-token"], "end_token was False, of the run it is True"),
    ],
)
def test_results_under_other_settings_are_refused(
    options: list[str], told: str, scored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["evaluate", "run", "--data", "sts", "--out", "o.json", *options]) == 0
    assert told in _refused(capsys, "run", "--results", "o.json")


def test_results_of_a_run_that_has_changed_since(scored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = load_file("bases/base/model.safetensors")
    save_file(
        {name: tensor * 1.5 for name, tensor in weights.items()}, "bases/base/model.safetensors", {"format": "pt"}
    )
    assert "holds the scores of another model" in _refused(capsys, "run", "--results", "r.json")
    shutil.rmtree("bases")  # the run's own weights then decide
    assert run_command(["card", "run", "--results", "r.json"]) == 0


def test_older_results_go_by_the_name(
    scored: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    values = json.loads(Path("r.json").read_text())
    del values["embedding"]
    Path("old.json").write_text(json.dumps(values))
    assert run_command(["card", "run", "--results", "old.json"]) == 0
    assert "tells no more of its model than the name 'run'" in caplog.text
    Path("old.json").write_text(json.dumps(values | {"model": "run (mean)"}))
    assert "holds the scores of 'run (mean)', not of 'run'" in _refused(capsys, "run", "--results", "old.json")


def test_a_run_on_a_run_names_no_folder_as_its_base(scored: Path) -> None:
    _train(scored, **{"model.model": "run", "output_dir": "second"})
    card = Path("second/README.md").read_text(encoding="utf-8")
    assert "base_model" not in yaml.safe_load(card.split("---\n")[1])
    assert "for `run`, fine-tuned" in card
    for settings in scored.glob("*/adapter/embedding.json"):
        values = json.loads(settings.read_text())
        if values["base_model"].endswith("base"):
            settings.write_text(json.dumps(values | {"base_model": "who/what"}))
    write_card(scored / "second")
    front = yaml.safe_load(Path("second/README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert front["base_model"] == "who/what"
