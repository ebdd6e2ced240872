"""An evaluation goes through its files unchanged; what is missing or damaged is named."""

from pathlib import Path

import numpy as np
import pytest

from embedsmith.evaluation.saved import load_evaluation, save_evaluation, similarities_path
from embedsmith.records.results import EvaluationResult, PairSimilarities, TaskResult
from embedsmith.support.errors import DataError


@pytest.fixture
def result() -> EvaluationResult:
    pairs = PairSimilarities(np.array([0.1, 0.5, 0.2]), np.array([1.0, 2, 3]), "f")
    return EvaluationResult("m", {"STS12": TaskResult(0.5, (0.4, 0.6), 3)}, {"STS12": pairs})


def test_round_trip(tmp_path: Path, result: EvaluationResult) -> None:
    save_evaluation(tmp_path / "r.json", result)
    loaded = load_evaluation(tmp_path / "r.json")
    assert loaded == result
    kept, own = loaded.similarities["STS12"], result.similarities["STS12"]
    assert kept.fingerprint == "f"
    np.testing.assert_array_equal(kept.cosine, own.cosine)
    np.testing.assert_array_equal(kept.gold, own.gold)


def test_without_similarities_there_is_no_second_file(tmp_path: Path, result: EvaluationResult) -> None:
    save_evaluation(tmp_path / "r.json", EvaluationResult("m", result.tasks))
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]
    with pytest.raises(DataError, match=r"r\.similarities\.safetensors.*is missing or damaged[\s\S]*--out"):
        load_evaluation(tmp_path / "r.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model": "m", "tasks": {"a": 1}}'])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(DataError, match="does not hold the results of one model"):
        load_evaluation(tmp_path / "r.json")


def test_a_missing_file_and_a_damaged_one(tmp_path: Path, result: EvaluationResult) -> None:
    with pytest.raises(DataError, match="There is no file"):
        load_evaluation(tmp_path / "r.json")
    save_evaluation(tmp_path / "r.json", result)
    similarities_path(tmp_path / "r.json").write_bytes(b"12345678901234567890")
    with pytest.raises(DataError, match="missing or damaged"):
        load_evaluation(tmp_path / "r.json")


def test_similarities_of_another_evaluation_are_refused(tmp_path: Path, result: EvaluationResult) -> None:
    save_evaluation(tmp_path / "r.json", result)
    pairs = PairSimilarities(np.array([0.3, 0.5, 0.2]), np.array([1.0, 2, 3]), "f")
    save_evaluation(tmp_path / "other.json", EvaluationResult("n", result.tasks, {"STS12": pairs}))
    similarities_path(tmp_path / "other.json").replace(similarities_path(tmp_path / "r.json"))
    with pytest.raises(DataError, match=r"does not belong to r\.json"):
        load_evaluation(tmp_path / "r.json")
