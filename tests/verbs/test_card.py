"""A run's card: its snippets run as they stand and give what the model gives; scores of an evaluation go in."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from embedsmith.cli import run_command
from embedsmith.model.embedder import Embedder
from embedsmith.settings.recipe import load_config
from embedsmith.verbs.evaluate import base_of
from embedsmith.verbs.train import train
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
        {"model.query_prompt": "the roof {text}"},
        {"adapter.method": "full", "learning_rate": "0.001"},
    ],
    ids=lambda settings: " ".join(settings) or "plain",
)
def test_the_snippets_give_what_the_model_gives(
    settings: dict[str, str], tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_model("llama", tmp_path / "base")
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
    assert run_command(["card", "base", "--results", "r.json"]) == 2
    assert "base is not the folder of a finished run" in capsys.readouterr().err
    assert run_command(["card", "run", "--results", "t.tsv"]) == 2
    assert "does not hold the results of one model" in capsys.readouterr().err
