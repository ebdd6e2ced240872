"""Findings -> who won, lines, Markdown."""

from pathlib import Path

import pytest

from embedsmith.records.optimized import Finalist, SearchFindings, Trial
from embedsmith.reporting.optimize_report import best_line, final_rows, search_markdown, trial_line, write_search_page


def _trial(
    number: int, score: float | None, state: str = "complete", *, run: str = "", failed: str | None = None
) -> Trial:
    point = {"training.learning_rate": 0.000123456, "prompt": "a|b"}
    evaluations = ((5, score),) if score is not None else ()
    return Trial(number, point, state, score, evaluations, 60.0, run or f"run-{number}", failed)


TRIALS = (
    _trial(0, 0.5),
    _trial(1, 0.9, "stopped"),
    _trial(2, 0.7),
    _trial(3, None, "failed", failed="it broke\nat once"),
    _trial(4, 0.8),
    _trial(5, 0.8, run="run-4"),
    _trial(6, 0.6),
)


def test_whole_runs_alone_are_ranked_and_equal_settings_count_once() -> None:
    findings = SearchFindings(TRIALS)
    assert [trial.number for trial in findings.ranked] == [4, 2, 6, 0]
    assert findings.winner is TRIALS[4]
    assert [round(score, 1) for *_, score in findings.best_so_far] == [0.5, 0.5, 0.7, 0.7, 0.8, 0.8, 0.8]
    assert findings.best_so_far[2][:2] == (2, 3.0)
    assert SearchFindings((TRIALS[1], TRIALS[3])).winner is None


def test_the_winner_has_the_best_mean_of_the_further_seeds_and_none_missing() -> None:
    finalists = (Finalist(2, (0.72, 0.76)), Finalist(4, (0.70, 0.74)), Finalist(6, (0.9, None), ("no room",)))
    findings = SearchFindings(TRIALS, (8, 9), finalists)
    assert findings.winner is TRIALS[2]
    assert best_line(findings) == (
        "Trial 2 is the best of 7: 74.0 (standard deviation 2.83) on the development set with seeds 8, 9."
    )
    assert final_rows(findings)[2] == ["6", "90.0", "-", "1 of 2", "90.0, -; no room", "60.0"]
    assert SearchFindings(TRIALS, (8, 9), finalists[2:]).winner is None


@pytest.mark.parametrize(
    ("trial", "told"),
    [
        (TRIALS[0], "trial 0: 50.0, complete, 60 s (best 80.0, trial 4); learning_rate 0.000123, prompt a|b"),
        (TRIALS[1], "trial 1: 90.0, stopped after step 5, 60 s (best 80.0, trial 4); "),
        (TRIALS[3], "trial 3: failed: it broke, 60 s (best 80.0, trial 4); "),
    ],
)
def test_a_line_for_a_trial(trial: Trial, told: str) -> None:
    assert trial_line(trial, SearchFindings(TRIALS)).startswith(told)


def test_markdown_and_page_hold_all_of_it(tmp_path: Path) -> None:
    findings = SearchFindings(TRIALS, (8,), (Finalist(4, (0.7,)),), {"prompt": 0.8, "training.learning_rate": 0.2})
    text = search_markdown(findings)
    assert "| 4 | 80.0 | complete | 1.0 | 0.000123 | a/b |" in text
    assert "| prompt | 0.80 |" in text
    write_search_page(tmp_path / "a.html", findings, title="mine", recipe_yaml="x: <1>")
    page = (tmp_path / "a.html").read_text()
    assert page.index("<h3>prompt: importance 0.80") < page.index("<h3>training.learning_rate: importance 0.20")
    assert "5 trials ran to their end, 1 were stopped early, 1 failed; 7 minutes" in page
    assert "x: &lt;1&gt;" in page
