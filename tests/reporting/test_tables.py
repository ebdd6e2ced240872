"""Tables say what was measured, and where intervals overlap."""

from embedsmith.records.results import EvaluationResult, TaskResult
from embedsmith.reporting.tables import results_markdown, results_table

BASE = EvaluationResult("m", {"STS12": TaskResult(0.5, (0.45, 0.55), 100), "STS14": TaskResult(0.25, (0.2, 0.3), 50)})
TUNED = EvaluationResult("r", {"STS12": TaskResult(0.54, (0.5, 0.58), 100), "STS14": TaskResult(0.75, (0.7, 0.8), 50)})


def test_markdown() -> None:
    assert results_markdown([("base", BASE), ("tuned", TUNED)]) == (
        "| task | pairs | base | tuned | gain |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
        "| STS12 | 100 | 50.0 [45.0, 55.0] | 54.0 [50.0, 58.0] | +4.0 (intervals overlap) |\n"
        "| STS14 | 50 | 25.0 [20.0, 30.0] | 75.0 [70.0, 80.0] | +50.0 |\n"
        "| average |  | 37.5 | 64.5 | +27.0 |\n"
    )


def test_one_model_has_no_gain() -> None:
    assert "gain" not in results_markdown([("base", BASE)])
    for table in (results_table([("base", BASE)]), results_table([("base", BASE)], with_gain=False)):
        assert [column.header for column in table.columns] == ["task", "pairs", "base"]
    several = results_table([("base", BASE), ("tuned", TUNED)], with_gain=False)
    assert [column.header for column in several.columns] == ["task", "pairs", "base", "tuned"]
