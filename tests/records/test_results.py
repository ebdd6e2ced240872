"""The results.json form."""

import json

from embedsmith.records.results import EvaluationResult, TaskResult


def test_results_go_through_json_unchanged() -> None:
    tasks = {"STS12": TaskResult(0.5, (0.58, 0.62), 3108), "STS14": TaskResult(0.75, (0.69, 0.71), 3750)}
    result = EvaluationResult("m", tasks)
    value = result.to_json()
    assert value == {
        "model": "m",
        "tasks": {
            "STS12": {"cosine_spearman": 0.5, "ci95": [0.58, 0.62], "num_pairs": 3108},
            "STS14": {"cosine_spearman": 0.75, "ci95": [0.69, 0.71], "num_pairs": 3750},
        },
        "average": 0.625,
    }
    assert EvaluationResult.from_json(json.loads(json.dumps(value))) == result
