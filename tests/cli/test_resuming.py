"""A run that was stopped goes on only from what it was begun with."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from embedsmith.cli import run_command
from embedsmith.support.display import TrainingDisplay
from tests.cli.edits import replace_text
from tests.tiny import write_triplets


@pytest.fixture
def stopped(work: list[str], model_folders: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The arguments of a run that was stopped after its first checkpoint; its base is a copy, in `base`."""
    shutil.copytree(model_folders["llama"], "base")
    work += ["--save_steps", "2", "--eval_steps", "2", "--model.model", "base"]

    def stop_at_3(self: object, record: dict[str, object]) -> None:
        if record["step"] == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingDisplay, "update", stop_at_3)
        assert run_command(work) == 130
    return work


def _other_weights() -> None:
    weights = load_file("base/model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] * 1.5
    save_file(weights, "base/model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda: replace_text("t.tsv", "w1 cat", "w9 cat"), "the training data"),
        (lambda: replace_text("sts/dev.tsv", "w3 cat", "w9 cat"), "the development set"),
        (_other_weights, "the base model"),
        (lambda: replace_text("base/tokenizer_config.json", "{", "{ "), "the base model"),
        (
            lambda: replace_text("runs/r/run.yaml", "learning_rate: 0.01", "learning_rate: 0.02"),
            "training.learning_rate: it was 0.01, now it is 0.02",
        ),
        (lambda: replace_text("runs/r/run.yaml", "seed: 7", "seed: 8"), "training.seed: it was 7, now it is 8"),
        (lambda: replace_text("runs/r/checkpoints/inputs.json", "{", "{ x"), "checkpoints/inputs.json is damaged"),
    ],
)
def test_a_stopped_run_notices_what_has_changed(
    change: Callable[[], None], told: str, stopped: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in Path("runs/r").rglob("*") if path.is_file()}
    change()
    capsys.readouterr()
    assert run_command(["train", "--resume", "runs/r"]) == 2
    error = capsys.readouterr().err
    assert told in error
    changed = {path.name for path, kept in before.items() if path.read_bytes() != kept}
    assert changed <= {"run.yaml", "inputs.json"}  # what the change itself touched
    assert "Traceback" not in error


def test_which_files_are_one_source_may_not_change_where_batches_are_of_one(
    work: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "uv":
        write_triplets(Path(f"{name}.tsv"), num_rows=20, first=40 + ord(name))
    work += ["--data.train", "[t.tsv, u.tsv, v.tsv]", "--one_source_batches", "true", "--save_steps", "2"]

    def stop_at_3(self: object, record: dict[str, object]) -> None:
        if record["step"] == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingDisplay, "update", stop_at_3)
        assert run_command([*work, "--dev", "none"]) == 130
    assert "v.tsv: 20 rows, 1 batch, 0.30 passes" in capsys.readouterr().out
    replace_text("runs/r/run.yaml", "- u.tsv\n  - v.tsv", "- '[uv].tsv'")
    assert run_command(["train", "--resume", "runs/r"]) == 2
    assert "the training data" in capsys.readouterr().err
    replace_text("runs/r/run.yaml", "- '[uv].tsv'", "- u.tsv\n  - v.tsv")
    assert run_command(["train", "--resume", "runs/r"]) == 0


def test_what_changes_no_result_may_change(stopped: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """Files may move, memory may be other; a run from before fingerprints were kept goes on, and says so."""
    shutil.move("t.tsv", "moved.tsv")
    shutil.move("base", "elsewhere")
    shutil.copytree("runs/r", "old")
    for run in ("runs/r", "old"):
        replace_text(f"{run}/run.yaml", "- t.tsv", "- moved.tsv")
        replace_text(f"{run}/run.yaml", "model: base", "model: elsewhere")
        replace_text(f"{run}/run.yaml", "max_tokens: null", "max_tokens: 4096")
    Path("old/checkpoints/inputs.json").unlink()
    assert run_command(["train", "--resume", "runs/r"]) == 0
    assert "kept no fingerprints" not in caplog.text
    assert run_command(["train", "--resume", "old"]) == 0
    assert "old kept no fingerprints" in caplog.text
    whole, other = (Path(f"{run}/adapter/adapter_model.safetensors").read_bytes() for run in ("runs/r", "old"))
    assert whole == other


@pytest.mark.parametrize("way", ["apart", "joined"])
def test_a_run_goes_on_with_the_tokens_that_it_was_begun_with(stopped: list[str], way: str) -> None:
    if way == "joined":  # as it was begun before there were two ways
        path = Path("runs/r/checkpoints/inputs.json")
        values = json.loads(path.read_text())
        assert values.pop("prompt_tokens") == "apart"
        path.write_text(json.dumps(values))
    assert run_command(["train", "--resume", "runs/r"]) == 0
    assert json.loads(Path("runs/r/adapter/embedding.json").read_text())["prompt_tokens"] == way


def test_other_software_is_said(stopped: list[str], caplog: pytest.LogCaptureFixture) -> None:
    replace_text("runs/r/checkpoints/inputs.json", "torch 2", "torch 1")
    assert run_command(["train", "--resume", "runs/r"]) == 0
    assert "was begun with other software, so the last digits may differ: embedsmith" in caplog.text
