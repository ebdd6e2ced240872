"""Searches of a tiny model: killed == uninterrupted, lagging trials stopped, the budget, failures, the winner."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from embedsmith.cli import run_command
from embedsmith.records.optimized import SearchFindings, Trial
from embedsmith.settings.recipe import load_config
from embedsmith.support.errors import ConfigError, RunError
from embedsmith.support.lock import only_one
from embedsmith.verbs.optimize import run_search
from embedsmith.verbs.optimize_space import SearchConfig, make_search, read_search
from embedsmith.verbs.run_set import identity_of
from tests.tiny import write_pairs, write_triplets

QUIET = Console(quiet=True)
RECIPE = """\
output_dir: unused
model: {{model: {model}, max_length: 64, precision: fp32}}
data: {{train: t.tsv}}
training: {{batch_size: 4, max_steps: 3, warmup_steps: 0}}
evaluation: {{dev: dev.tsv, eval_steps: 1, eval_at_start: false}}
"""
SEARCH = """\
output_dir: s
recipe: recipe.yaml
space:
  learning_rate: {low: 1.0e-4, high: 1.0e-1, log: true}
  lora_r: [2, 4]
trials: 4
startup_trials: 2
halving: {reduction_factor: 2}
"""


@pytest.fixture
def work(model_folders: dict[str, str], tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_triplets(tmp_path / "t.tsv", num_rows=40)
    write_pairs(tmp_path / "dev.tsv")
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(model=model_folders["llama"]))
    (tmp_path / "search.yaml").write_text(SEARCH)
    return tmp_path


def _search(*, retry_failed: bool = False, **changes: Any) -> SearchFindings:
    plan = SearchConfig.model_validate({**read_search(Path("search.yaml"), overrides={}).model_dump(), **changes})
    return run_search(make_search(plan), retry_failed=retry_failed, console=QUIET)


def _without_times(trials: tuple[Trial, ...]) -> list[tuple[Any, ...]]:
    return [(one.point, one.state, one.score, one.evaluations, one.run, one.failed) for one in trials]


def test_a_killed_search_goes_on_and_ends_the_same(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["optimize", "--config", "search.yaml", "--output-dir"]
    assert run_command([*command, "whole"]) == 0
    told = capsys.readouterr().out
    assert "learning_rate, lora_r: at most 4 trials" in told
    assert [line[:8] for line in told.split("\n") if line.startswith("trial ")] == [f"trial {n}:" for n in range(4)]
    # Killed behind the first checkpoint of the third trial, then between a result and its record.
    program = (
        "import os, sys\n"
        "from embedsmith.cli import run_command\n"
        "from embedsmith.training import keeping\n"
        "from embedsmith.verbs import optimize\n"
        "begun = set()\n"
        "def save_and_die(folder, *, save=keeping.save_checkpoint, **settings):\n"
        "    save(folder, **settings)\n"
        "    if settings['progress'].step: begun.add(folder)\n"
        "    if len(begun) == 3: os._exit(9)\n"
        "def record_and_die(self, run, result, watcher, record=optimize._Runs._record):\n"
        "    record(self, run, result, watcher)\n"
        "    os._exit(8)\n"
        "if sys.argv[1] == 'saved': keeping.save_checkpoint = save_and_die\n"
        "else: optimize._Runs._record = record_and_die\n"
        "run_command(sys.argv[2:])\n"
    )
    for when, code in (("saved", 9), ("recorded", 8)):
        killed = subprocess.run([sys.executable, "-c", program, when, *command, "killed"], check=False)
        assert killed.returncode == code
    assert run_command([*command, "killed"]) == 0
    assert "2 trials are there already" in capsys.readouterr().out
    whole, killed = (json.loads(Path(name, "search.json").read_text()) for name in ("whole", "killed"))
    for trial in (*whole["trials"], *killed["trials"]):
        trial.pop("elapsed_s")
    assert killed["trials"] == whole["trials"]
    assert killed["winner"] == whole["winner"]
    best = whole["trials"][whole["winner"]]["run"]
    weights = [Path(name, "runs", best, "adapter", "adapter_model.safetensors") for name in ("whole", "killed")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_trials_that_lag_are_stopped_and_the_best_is_run_again(work: Path) -> None:
    findings = _search(trials=5, final_seeds=[8, 9], finalists=1)
    stopped = [trial for trial in findings.trials if trial.state == "stopped"]
    assert stopped
    for trial in stopped:
        run = Path("s/runs") / trial.run
        assert len(trial.evaluations) < 3
        assert trial.score == max(score for _, score in trial.evaluations)
        assert {path.name for path in run.iterdir()} == {"run.yaml", "metrics.jsonl", "result.json", "checkpoints"}
        assert {path.name for path in (run / "checkpoints").iterdir()} == {".lock", "inputs.json"}
        first = [other.evaluations[0][1] for other in findings.trials[: trial.number]]
        assert trial.evaluations[0][1] < max(first)  # one in two goes on, at least the best
    best = max((one for one in findings.trials if one.state == "complete"), key=lambda one: one.score or 0)
    assert findings.winner is not None and findings.winner.score == best.score
    (finalist,) = findings.finalists
    assert finalist.is_whole and finalist.number == findings.winner.number
    config = load_config("s/best.yaml")
    assert config.output_dir == "s/best"
    assert str(config.adapter.lora_r) == findings.winner.point["lora_r"]
    assert config.training.learning_rate == findings.winner.point["learning_rate"]
    page = Path("s/search.html").read_text()
    assert page.count("<svg") == 3
    assert not any(mark in page for mark in ("<script", "<link", " src=", 'href="http'))
    # The recipe does what it says; the same again, only what is new is run.
    assert run_command(["train", "--config", "s/best.yaml"]) == 0
    again = _search(trials=5, final_seeds=[8, 9], finalists=1)
    assert again == findings
    told = json.loads(Path("s/runs", findings.winner.run, "result.json").read_text())["dev"]
    assert told["cosine_spearman"] == findings.winner.score
    kept = [Path(folder, "adapter/adapter_model.safetensors") for folder in ("s/best", f"s/runs/{findings.winner.run}")]
    assert kept[0].read_bytes() == kept[1].read_bytes()


def test_the_budget_holds_and_more_of_it_goes_on_where_it_was(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["optimize", "--config", "search.yaml", "--trials", "3", "--output-dir"]
    assert run_command([*command, "cut", "--budget-minutes", "1e-6"]) == 0
    told = capsys.readouterr().out
    assert "used up before trial 0 is finished" in told
    assert "No trial has won yet." in told
    (run,) = Path("cut/runs").glob("trial-000-*")
    assert {path.name for path in (run / "checkpoints").glob("step-*")} == {"step-000000", "step-000001"}
    assert not (run / "result.json").exists() and not Path("cut/best.yaml").exists()
    before = (run / "metrics.jsonl").read_bytes()
    assert run_command([*command, "cut", "--budget-minutes", "1e-6"]) == 0  # nothing is left for it
    assert (run / "metrics.jsonl").read_bytes() == before
    assert run_command([*command, "cut", "--budget-minutes", "60"]) == 0
    assert run_command([*command, "whole"]) == 0
    cut, whole = (json.loads(Path(name, "search.json").read_text())["trials"] for name in ("cut", "whole"))
    for trial in (*cut, *whole):
        trial.pop("elapsed_s")
    assert cut == whole


def test_a_budget_alone_ends_where_nothing_is_new(work: Path) -> None:
    space = {"lora_r": [2, 4]}
    findings = _search(space=space, trials=None, budget_minutes=60, halving=None)
    runs = {trial.run for trial in findings.trials}
    assert len(runs) == 2
    assert [trial.elapsed_s for trial in findings.trials[-20:]] == [0.0] * 20
    assert len(findings.ranked) == 2


def test_failures_are_recorded_and_tried_again_only_when_asked(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = {"learning_rate": {"bad": {"learning_rate": 1e30}, "good": {"learning_rate": 1e-2}}}
    first = _search(space=space, trials=3, halving=None)
    failed = [trial.number for trial in first.trials if trial.state == "failed"]
    assert failed and all("has collapsed" in (first.trials[number].failed or "") for number in failed)
    assert all(first.trials[number].elapsed_s == 0 for number in failed[1:])  # not repeated
    assert first.winner is not None and first.winner.point == {"learning_rate": "good"}
    again = _search(space=space, trials=3, halving=None)
    assert again.trials == first.trials
    retried = _search(space=space, trials=3, halving=None, retry_failed=True)
    assert retried.trials[:3] == first.trials
    assert [trial.repeats for trial in retried.trials[3:]] == failed
    path = Path("bad.yaml")
    path.write_text(SEARCH.replace("{low: 1.0e-4, high: 1.0e-1, log: true}", "[1e30, 1e29]"))
    assert run_command(["optimize", "--config", "bad.yaml", "--output-dir", "bad", "--trials", "1"]) == 2
    captured = capsys.readouterr()
    assert "trial 0: The model has collapsed" in captured.err.replace("\n", " ")
    assert "No trial has won yet." in captured.out


def test_what_concerns_all_trials_ends_the_search(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["optimize", "--config", "search.yaml"]
    assert run_command([*command, "--adapter.target_modules", "no_such_layer"]) == 2
    assert "no_such_layer" in capsys.readouterr().err
    assert not Path("s/search.json").exists()
    assert run_command([*command, "--data.train", "nowhere.tsv", "--output-dir", "t"]) == 2


def test_a_search_whose_files_have_changed_is_refused(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["optimize", "--config", "search.yaml", "--trials"]
    assert run_command([*command, "1"]) == 0
    before = Path("s/study.jsonl").read_bytes()
    kept = Path("dev.tsv").read_text()
    Path("dev.tsv").write_text(kept.replace("w1 ", "w9 ", 1))
    assert run_command([*command, "2"]) == 2
    assert "the development set" in capsys.readouterr().err
    Path("dev.tsv").write_text(kept)
    assert run_command([*command, "2", "--weight_decay", "0.5"]) == 2
    assert "recipe.training.weight_decay: it was 0.0001, now it is 0.5" in capsys.readouterr().err
    assert Path("s/study.jsonl").read_bytes() == before
    assert run_command([*command, "1", "--report-only"]) == 0


def test_faulty_files_and_folders(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.yaml").write_text(SEARCH.replace("[2, 4]", "[0, 4]").replace("1.0e-4", "-1"))
    assert run_command(["optimize", "--config", "bad.yaml"]) == 2
    assert "learning_rate: low must be above 0 where log is true" in capsys.readouterr().err
    Path("bad.yaml").write_text(SEARCH.replace("[2, 4]", "[0, 4]"))
    assert run_command(["optimize", "--config", "bad.yaml"]) == 2
    assert "lora_r = 0: adapter.lora_r: should be greater than or equal to 1" in capsys.readouterr().err
    assert run_command(["optimize", "--config", "search.yaml", "--report-only"]) == 2
    assert "Nothing has been searched in s" in capsys.readouterr().err
    assert not Path("s").exists()
    with only_one(Path("s/runs"), what="search"), pytest.raises(RunError, match="Another search works in s"):
        _search()
    with pytest.raises(ConfigError, match="no search file"):
        read_search(Path("nowhere.yaml"), overrides={})


def test_a_trial_is_found_by_what_it_is(work: Path) -> None:
    search = make_search(read_search(Path("search.yaml"), overrides={}))
    point = {"learning_rate": 1e-3, "lora_r": "4"}
    assert identity_of(search.config_of(point)) == identity_of(search.config_of(dict(reversed(point.items()))))
    assert identity_of(search.config_of(point)) != identity_of(search.config_of(point, seed=8))
