"""What goes wrong while a run trains ends it before anything moves, or is said; a healthy run hears nothing."""

import json
import logging
from pathlib import Path

import pytest
import torch

from embedsmith.cli import run_command
from embedsmith.data.table import TripletTable
from embedsmith.records.results import TaskResult
from embedsmith.support.errors import RunError
from embedsmith.training.health import Health
from tests.tiny import write_pairs, write_triplets
from tests.training.runs import run_config, train


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "embedsmith.training.health"]


def test_a_loss_that_is_no_number_ends_the_run_before_anything_moves(
    tmp_path: Path, model_folders: dict[str, str], triplets: TripletTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps of a learning rate beyond all bounds; the batch of the third is in a file, its rows as they came."""
    moved: list[int] = []
    step = torch.optim.AdamW.step

    def count(*arguments: object) -> object:
        moved.append(1)
        return step(*arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", count)
    with pytest.raises(RunError, match=r"The loss is nan at step 3 \(data rows \d+, ") as caught:
        train(run_config(tmp_path / "run", learning_rate="1e30"), model_folders["llama"], triplets)
    assert len(moved) == 2
    saved = [json.loads(line) for line in (tmp_path / "run" / "non-finite-step-000003.jsonl").read_text().splitlines()]
    assert f"(data rows {', '.join(str(row['row']) for row in saved)}; all of the batch: " in str(caught.value)
    assert len(saved) == 6
    lines = (tmp_path / "t.tsv").read_text().splitlines()
    for row in saved:
        assert row["from"] == f"{tmp_path}/t.tsv, line {row['row'] + 2}"
        assert [row["anchor"], row["positive"], *row["negatives"]] == lines[row["row"] + 1].split("\t")


def test_a_gradient_that_is_no_number_is_told_as_such(tmp_path: Path, triplets: TripletTable) -> None:
    health = Health(tmp_path, max_steps=9, learning_rate=1.0)
    finite, infinite = torch.tensor(2.0), torch.tensor(float("inf"))
    told = {"step": 4, "rows": torch.tensor([0, 1]).numpy(), "triplets": triplets}
    health.check_finite(finite, finite, **told)
    with pytest.raises(RunError, match="The gradient's norm is inf, with a loss of 2 at step 4"):
        health.check_finite(finite, infinite, **told)


def test_the_command_line_keeps_the_batch(
    tmp_path: Path,
    cache: Path,
    model_folders: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_triplets(tmp_path / "t.tsv", num_rows=40)
    write_pairs(tmp_path / "d.tsv")
    command = ["train", "--output_dir", "run", "--model.model", model_folders["llama"], "--data.train", "t.tsv"]
    command += ["--dev", "d.tsv", "--batch_size", "6", "--max_steps", "6", "--warmup_steps", "0", "--eval_steps", "6"]
    assert run_command([*command, "--precision", "fp32", "--learning_rate", "1e30"]) == 2
    error = capsys.readouterr().err
    assert "The optimizer has not moved.\nLower training.learning_rate" in error
    (saved,) = Path("run").glob("non-finite-step-*.jsonl")
    assert f"all of the batch: {saved})" in error
    assert len(saved.read_text().splitlines()) == 6


def test_a_collapse_is_said_once(
    tmp_path: Path, model_folders: dict[str, str], triplets: TripletTable, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"learning_rate": "100", "temperature": "1", "target_modules": "all-linear", "max_steps": "16"}
    train(run_config(tmp_path / "run", **settings), model_folders["llama"], triplets)
    said = [one for one in _warnings(caplog) if "collapsed" in one]
    assert len(said) == 1
    assert "all similarities of the batch's texts are alike" in said[0]
    assert "lower training.learning_rate, now 100." in said[0]


@pytest.mark.parametrize(("learning_rate", "is_said"), [("1e-2", False), ("0.1", True)])
def test_a_learning_rate_that_is_far_too_high_is_said(
    tmp_path: Path,
    model_folders: dict[str, str],
    triplets: TripletTable,
    caplog: pytest.LogCaptureFixture,
    learning_rate: str,
    is_said: bool,
) -> None:
    """What the warm-up had learned is lost as the rate nears its peak."""
    settings = {"learning_rate": learning_rate, "max_steps": "80", "warmup_steps": "60", "save_steps": "80"}
    train(run_config(tmp_path / "run", **settings), model_folders["llama"], triplets)
    said = [one for one in _warnings(caplog) if "the loss has risen from" in one]
    assert len(said) == is_said
    assert all("the learning rate is far too high" in one for one in said)


def test_a_score_below_the_start_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    health = Health(tmp_path, max_steps=9, learning_rate=0.1)
    with caplog.at_level(logging.WARNING):
        health.judge_score(TaskResult(0.6, (0.55, 0.65), 9), step=0)
        health.judge_score(TaskResult(0.5, (0.4, 0.56), 9), step=4)
        assert _warnings(caplog) == []
        health.judge_score(TaskResult(0.3, (0.2, 0.4), 9), step=8)
        health.judge_score(TaskResult(0.2, (0.1, 0.3), 9), step=9)
    (said,) = _warnings(caplog)
    assert said.startswith(
        "Step 8: the development score has fallen from 60.0 [55.0, 65.0] at the first evaluation to 30.0 [20.0, 40.0]"
    )
