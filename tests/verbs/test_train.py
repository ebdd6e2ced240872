"""train: a run that was stopped and resumed leaves the files of one that was not."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator, DistributedType
from safetensors.torch import load_file

from embedsmith.cli import run_command
from embedsmith.model.embedder import Embedder
from embedsmith.training import keeping
from tests.run_folders import read_folder
from tests.tiny import TEXTS, save_model, save_teacher, write_pairs, write_triplets

AVERAGE = ["--keep", "average", "--average_last", "2"]


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["--adapter.lora_alpha", "24"],
        ["--adapter.method", "full"],
        AVERAGE,
        [*AVERAGE, "--adapter.method", "full"],
        ["--teacher", "teacher", "--embedding_weight", "0.5"],
    ],
)
def test_a_resumed_run_leaves_the_same_files(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, settings: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_model("llama", tmp_path / "m")
    save_teacher(tmp_path)
    write_triplets(tmp_path / "t.tsv", num_rows=32)
    write_pairs(tmp_path / "d.tsv")
    command = ["train", "--output_dir", "run/", "--model.model", "m", "--data.train", "t.tsv", "--dev", "d.tsv"]
    command += ["--max_steps", "4", "--batch_size", "8", "--eval_steps", "2", *settings]
    assert run_command(command) == 0
    whole = read_folder(tmp_path / "run")
    assert whole.keys() >= {"run.yaml", "README.md", "metrics.jsonl", "outcome.json"}
    shutil.rmtree(tmp_path / "run")

    save = keeping.save_checkpoint

    def save_and_stop(*arguments: object, **named: Any) -> None:
        save(*arguments, **named)
        if named["progress"].step:  # not the one of the start
            raise KeyboardInterrupt

    monkeypatch.setattr(keeping, "save_checkpoint", save_and_stop)
    assert run_command(command) == 130
    monkeypatch.setattr(keeping, "save_checkpoint", save)
    assert run_command(["train", "--resume", str(tmp_path / "run")]) == 0
    resumed = read_folder(tmp_path / "run")
    assert resumed.keys() == whole.keys()
    assert [name for name in whole if resumed[name] != whole[name]] == []


def test_the_last_adapter_can_be_kept_while_pairs_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_model("llama", tmp_path / "m")
    write_triplets(tmp_path / "t.tsv", num_rows=32)
    write_pairs(tmp_path / "d.tsv")
    command = ["train", "--model.model", "m", "--data.train", "t.tsv", "--max_steps", "4", "--batch_size", "8"]
    command += ["--learning_rate", "1e-6", "--warmup_steps", "0", "--output_dir"]
    watched = ["--dev", "d.tsv", "--eval_steps", "1"]
    assert run_command([*command, "unwatched", "--dev", "none"]) == 0
    assert run_command([*command, "last", *watched, "--keep", "last"]) == 0
    assert run_command([*command, "best", *watched]) == 0
    unwatched, last, best = ((tmp_path / name / "adapter/adapter_model.safetensors").read_bytes()
                             for name in ("unwatched", "last", "best"))  # fmt: skip
    assert last == unwatched
    assert last != best  # at this rate no order changes, and of equal scores the first is kept
    kept = {
        name: json.loads((tmp_path / name / "outcome.json").read_text())["facts"]["kept"] for name in ("last", "best")
    }
    assert kept == {"last": "step 4 of 4, the last", "best": kept["best"]}
    assert kept["best"].endswith("best on the development pairs")


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_average_of_the_last_states_is_kept(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    monkeypatch.chdir(tmp_path)
    save_model("llama", tmp_path / "m")
    write_triplets(tmp_path / "t.tsv", num_rows=32)
    write_pairs(tmp_path / "d.tsv")
    command = ["train", "--output_dir", "run", "--model.model", "m", "--data.train", "t.tsv", "--max_steps", "4"]
    command += ["--batch_size", "8", "--learning_rate", "1e-2", "--dev", "d.tsv", "--eval_steps", "1"]
    command += ["--keep", "average", "--average_last", "3", "--adapter.method", method, "--precision", "fp32"]
    assert run_command(command) == 0
    said = capsys.readouterr().out
    assert "The average of steps 2, 3 and 4 will be kept. Their states stay in run/late: 3 x" in said
    assert "average of steps 2, 3, 4: dev Spearman" in said
    states = sorted(str(path) for path in (tmp_path / "run" / "late").iterdir())
    assert [Path(path).name for path in states] == ["step-000002", "step-000003", "step-000004"]
    kept = Embedder.load("run", precision="fp32", fused=False)
    merged = [Embedder.load(path, precision="fp32", fused=False, as_base=True) for path in states]
    weights = [one.backbone.model.state_dict() for one in merged]
    merged[0].backbone.model.load_state_dict({name: sum(one[name] for one in weights) / 3 for name in weights[0]})
    np.testing.assert_allclose(kept.encode(TEXTS), merged[0].encode(TEXTS), atol=1e-5)
    assert np.abs(kept.encode(TEXTS) - merged[2].encode(TEXTS)).max() > 1e-3
    assert (
        "What is kept is the average of the weights after steps 2, 3 and 4." in (tmp_path / "run/README.md").read_text()
    )
    *_, last = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    outcome = json.loads((tmp_path / "run" / "outcome.json").read_text())
    assert (last["averaged_steps"], outcome["averaged"]) == ([2, 3, 4], [2, 3, 4])
    assert outcome["facts"]["kept"] == "the average of steps 2, 3 and 4 of 4"
    # What was trained is the run's adapter, not the average's larger one.
    trained, _, whole, _ = outcome["facts"]["trained"].split()
    assert trained == ("5,376" if method == "lora" else whole)
    assert (
        run_command(["evaluate", "run", "--data", ".", "--tasks", "d", "--precision", "fp32", "--out", "r.json"]) == 0
    )
    scored = json.loads((tmp_path / "r.json").read_text())["tasks"]["d"]["cosine_spearman"]
    assert scored == pytest.approx(last["averaged_dev_cosine_spearman"], abs=1e-6)
    assert run_command(["evaluate", states[0], "--data", ".", "--tasks", "d"]) == 0
    before = read_folder(tmp_path / "run")
    assert run_command(["train", "--resume", "run"]) == 0  # as if it had been stopped before its average was made
    assert read_folder(tmp_path / "run") == before


def test_an_average_without_a_development_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_model("llama", tmp_path / "m")
    write_triplets(tmp_path / "t.tsv", num_rows=32)
    command = ["train", "--output_dir", "run", "--model.model", "m", "--data.train", "t.tsv", "--max_steps", "4"]
    command += ["--batch_size", "8", "--dev", "none", "--eval_steps", "2", *AVERAGE]
    assert run_command(command) == 0
    assert json.loads((tmp_path / "run/adapter/adapter_config.json").read_text())["r"] == 16
    shutil.rmtree(tmp_path / "run" / "late" / "step-000002")
    assert run_command(["train", "--resume", "run"]) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["--average_last", "3"], "evaluation.average_last is 3, but does nothing while evaluation.keep is best"),
        (["--keep", "average", "--average_last", "3", "--eval_steps", "2"], "has only 2 evaluations behind its start"),
    ],
)
def test_averages_that_cannot_be(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    settings: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_triplets(tmp_path / "t.tsv", num_rows=32)
    command = ["train", "--output_dir", "run", "--model.model", "m", "--data.train", "t.tsv", "--max_steps", "4"]
    assert run_command([*command, "--batch_size", "8", *settings]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_what_nobody_asks_for_fits_the_model(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model takes 128 tokens, less than the 150 of larger ones."""
    monkeypatch.chdir(tmp_path)
    save_model("llama", tmp_path / "m")
    write_triplets(tmp_path / "t.tsv", num_rows=16)
    command = ["train", "--output_dir", "run", "--model.model", "m", "--data.train", "t.tsv", "--max_steps", "1"]
    command += ["--batch_size", "4", "--dev", "null"]
    assert run_command(command) == 0
    assert json.loads((tmp_path / "run" / "adapter" / "embedding.json").read_text())["max_length"] == 128


def _train_elsewhere(folder: Path, model: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """In a process of its own: accelerate reads its settings once."""
    command = [sys.executable, "-m", "embedsmith", "train", "--output_dir", str(folder), "--model.model", str(model)]
    command += ["--data.train", str(folder.parent / "t.tsv"), "--evaluation.dev", "none", "--precision", "fp32"]
    command += ["--max_steps", "3", "--batch_size", "6", "--max_length", "64", "--max_tokens", "60"]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


def test_a_users_settings_of_accelerate_change_no_gradient(tmp_path: Path) -> None:
    model = save_model("llama", tmp_path / "model")
    write_triplets(tmp_path / "t.tsv", num_rows=40)
    others = {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4", "ACCELERATE_MIXED_PRECISION": "fp16"}
    for name, environment in (("plain", {}), ("others", others)):
        done = _train_elsewhere(tmp_path / name, model, environment)
        assert done.returncode == 0, done.stderr
    adapters = [load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("plain", "others")]
    torch.testing.assert_close(adapters[1], adapters[0], rtol=0, atol=0)


def test_weights_in_shares_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Accelerator, "distributed_type", DistributedType.FSDP)
    write_triplets(tmp_path / "t.tsv", num_rows=40)
    model = save_model("llama", tmp_path / "model")
    command = ["train", "--output_dir", str(tmp_path / "run"), "--model.model", str(model)]
    assert run_command([*command, "--data.train", str(tmp_path / "t.tsv"), "--batch_size", "6"]) == 2
    assert "accelerate is set to" in (told := capsys.readouterr().err) and "torchrun" in told
    assert not (tmp_path / "run").exists()
