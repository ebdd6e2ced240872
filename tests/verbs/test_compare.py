"""compare: models and saved evaluations give the same, by command too; what cannot be compared is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from embedsmith.cli import run_command
from embedsmith.evaluation.saved import load_evaluation, save_evaluation
from embedsmith.records.results import EvaluationResult, PairSimilarities
from embedsmith.support.errors import ConfigError, DataError
from embedsmith.verbs.compare import compare_models, split_seeds
from tests.tiny import write_pairs


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sts").mkdir()
    write_pairs(tmp_path / "sts" / "one.tsv", num_rows=24)
    write_pairs(tmp_path / "sts" / "two.tsv", num_rows=30)
    return tmp_path


def test_models_and_their_saved_evaluations_compare_alike(
    work: Path, model_folders: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    models = [model_folders["llama"], model_folders["mistral"]]
    for name, model in zip("ab", models, strict=True):
        assert run_command(["evaluate", model, "--data", "sts", "--out", f"{name}.json"]) == 0
    (live,) = compare_models(models, data="sts", num_draws=200)
    (saved,) = compare_models(["a.json", "b.json"], num_draws=200)
    assert (live.tasks, live.average) == (saved.tasks, saved.average)
    assert list(saved.tasks) == ["one", "two"]

    capsys.readouterr()
    assert run_command(["compare", "a.json", "b.json", "a.json", "--out", "c.json", "--draws", "200"]) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    written = json.loads(Path("c.json").read_text())
    assert last == f"verdict: {written[0]['verdict']}; cannot tell"
    assert [one["model"] for one in written] == ["b.json", "a.json (again)"]
    assert written[0]["tasks"]["one"]["difference"] == pytest.approx(saved.tasks["one"].gain)


def test_seeds_stand_between_commas(work: Path, model_folders: dict[str, str]) -> None:
    run_command(["evaluate", model_folders["llama"], "--data", "sts", "--tasks", "one", "--out", "a.json"])
    base = load_evaluation(Path("a.json"))
    for seed in (1, 2):
        pairs = base.similarities["one"]
        noise = np.random.default_rng(seed).standard_normal(24) / 10
        kept = {"one": PairSimilarities(pairs.gold + noise, pairs.gold, pairs.fingerprint)}
        save_evaluation(Path(f"{seed}.json"), EvaluationResult(str(seed), base.tasks, kept))
    (found,) = compare_models(["a.json", "1.json,2.json"], num_draws=200)
    assert found.average.num_seeds == (1, 2)
    assert found.model == "1.json,2.json"
    assert found.verdict == "better"


def test_what_cannot_be_compared(work: Path, model_folders: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    model = model_folders["llama"]
    run_command(["evaluate", model, "--data", "sts", "--out", "a.json"])
    run_command(["evaluate", model, "--data", "sts", "--tasks", "one", "--out", "b.json"])
    with pytest.raises(ConfigError, match="two models or more"):
        compare_models(["a.json"])
    with pytest.raises(DataError, match="has one; asked for are one, two"):
        compare_models(["a.json", "b.json"])
    assert compare_models(["a.json", "b.json"], tasks=["one"], num_draws=100)[0].verdict == "cannot tell"
    write_pairs(work / "sts" / "one.tsv", num_rows=26)
    run_command(["evaluate", model, "--data", "sts", "--tasks", "one", "--out", "c.json"])
    assert run_command(["compare", "b.json", "c.json"]) == 2
    assert "was scored on other pairs of one" in capsys.readouterr().err


def test_a_comma_in_a_name_is_no_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a,b.json", "runs, mine", "c"):
        Path(name).mkdir()
    assert split_seeds("a,b.json") == ["a,b.json"]
    assert split_seeds("c,a,b.json,runs, mine,x,c") == ["c", "a,b.json", "runs, mine", "x", "c"]
    assert split_seeds("a,c") == ["a", "c"]
    assert split_seeds("a") == ["a"]
    with pytest.raises(ConfigError, match="A name is empty"):
        compare_models(["a,", "b"])
