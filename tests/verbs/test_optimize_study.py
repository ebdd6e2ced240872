"""Suggestions: a function of seed, number and what was found; stopped by successive halving; kept as JSON lines."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from embedsmith.records.optimized import Trial
from embedsmith.support.errors import MissingExtraError, RunError
from embedsmith.verbs.optimize_space import Search, SearchConfig, make_search
from embedsmith.verbs.optimize_study import RunningTrial, Study

SPACE = {
    "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "lora_r": {"low": 2, "high": 16},
    "pooling": ["last", "mean", "concat"],
}


def _search(**changes: Any) -> Search:
    recipe = {"training": {"max_steps": 9}, "evaluation": {"eval_steps": 1}}
    plan = {"output_dir": "s", "recipe": recipe, "space": SPACE, "trials": 9, "startup_trials": 4, **changes}
    return make_search(SearchConfig.model_validate(plan))


def _score(point: dict[str, Any], evaluation: int) -> float:
    """Highest at a rate of 1e-3, a rank of 8 and the mean; rises with the evaluations."""
    far = abs(math.log10(point["learning_rate"]) + 3) + abs(point["lora_r"] - 8) / 8 + (point["pooling"] != "mean")
    return (1 - far / 4) * evaluation / 9


def _run(running: RunningTrial) -> Trial:
    scores: list[tuple[int, float]] = []
    state = "complete"
    for evaluation in range(1, 10):
        scores.append((evaluation, _score(running.point, evaluation)))
        if running.report(scores[-1][1], evaluation=evaluation) and evaluation < 9:
            state = "stopped"
            break
    return Trial(running.number, running.point, state, scores[-1][1], tuple(scores), 1.0, f"run-{running.number}")


def _finish(study: Study, count: int) -> None:
    for _ in range(count):
        running = study.ask()
        running.finish(_run(running))


def test_an_interrupted_study_suggests_what_an_uninterrupted_one_does(tmp_path: Path) -> None:
    whole = Study(tmp_path / "whole.jsonl", search=_search())
    _finish(whole, 14)
    for count in (3, 1, 6, 4):  # opened anew each time, with a trial under way when it was killed
        study = Study(tmp_path / "parts.jsonl", search=_search())
        study.ask().report(0.5, evaluation=1)
        _finish(Study(tmp_path / "parts.jsonl", search=_search()), count)
    parts = Study(tmp_path / "parts.jsonl", search=_search())
    assert parts.trials == whole.trials
    assert len({json.dumps(trial.point) for trial in whole.trials}) == 14
    other = Study(tmp_path / "other.jsonl", search=_search(seed=8))
    _finish(other, 1)
    assert other.trials[0].point != whole.trials[0].point


def test_trials_that_lag_are_stopped_where_they_are_compared(tmp_path: Path) -> None:
    study = Study(tmp_path / "s.jsonl", search=_search())
    _finish(study, 14)
    assert study.trials[0].state == "complete"  # the first is the best until then
    # Recomputed: at the evaluations 1 and 3, one in three of those that came there goes on, at least the best.
    reached: dict[int, list[float]] = {1: [], 3: []}
    for trial in study.trials:
        for rung, values in reached.items():
            value = _score(dict(trial.point), rung)
            values.append(value)
            if value < sorted(values, reverse=True)[max(0, len(values) // 3 - 1)]:
                assert (trial.state, trial.evaluations[-1][0]) == ("stopped", rung)
                break
        else:
            assert (trial.state, trial.evaluations[-1][0]) == ("complete", 9)
    assert len({trial.evaluations[-1][0] for trial in study.trials}) >= 2


def test_it_learns_from_what_was_found(tmp_path: Path) -> None:
    study = Study(tmp_path / "s.jsonl", search=_search(halving="none"))
    _finish(study, 24)
    early, late = ([_score(dict(trial.point), 9) for trial in part] for part in (study.trials[:4], study.trials[-8:]))
    assert sum(late) / 8 > sum(early) / 4
    importances = study.importances()
    assert importances.keys() == SPACE.keys()
    assert sum(importances.values()) == pytest.approx(1)


def test_the_file_is_json_lines_and_a_torn_one_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    _finish(Study(path, search=_search()), 3)
    content = path.read_bytes()
    entries = [json.loads(line) for line in content.decode().split("\n")[:-1]]
    assert len([entry for entry in entries if "distributions" in entry]) == 3
    whole = Study(path, search=_search()).trials
    path.write_bytes(content[:-20])
    torn = Study(path, search=_search())
    assert torn.trials == whole[:2]
    _finish(torn, 1)
    assert Study(path, search=_search()).trials == whole
    path.write_bytes(b"{}\n" + content)
    with pytest.raises(RunError, match="is damaged"):
        Study(path, search=_search())


def test_a_study_of_another_search_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    _finish(Study(path, search=_search()), 1)
    Study(path, search=_search(trials=50, budget_minutes=3, final_seeds=[1]))  # these may change
    wider = {**SPACE, "lora_r": {"low": 2, "high": 32}}
    changed = _search(space=dict(reversed(wider.items())), seed=9, settings={"weight_decay": 0.5}, halving="none")
    with pytest.raises(RunError) as caught:
        Study(path, search=changed)
    for part in (
        "space.lora_r.high: it was 16, now it is 32",
        "seed: it was 7, now it is 9",
        "recipe.training.weight_decay: it was 0.0001, now it is 0.5",
        "halving: it was {'reduction_factor': 3, 'first_evaluation': 1}, now it is None",
        "the order of the space: it was learning_rate, lora_r, pooling",
    ):
        assert part in str(caught.value)


def test_a_point_can_be_asked_for(tmp_path: Path) -> None:
    study = Study(tmp_path / "s.jsonl", search=_search())
    point = {"learning_rate": 1e-3, "lora_r": 5, "pooling": "concat"}
    assert study.ask(point).point == point


def test_what_is_missing_is_told_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "embedsmith.verbs.optimize_study")
    with pytest.raises(MissingExtraError, match=r"pip install 'embedsmith\[optimize\]'"):
        import embedsmith.verbs.optimize_study  # noqa: F401
