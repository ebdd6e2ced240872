"""torchrun and accelerate launch: a signal stops a run; a process of another is killed, the other ends with a message,
and the run goes on to its end."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from embedsmith.settings.recipe import load_config
from embedsmith.training.metrics import read_metrics
from embedsmith.verbs.train import train
from tests.tiny import write_pairs, write_triplets
from tests.training.workers import worker_environment

TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ACCELERATE = [
    *("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
    *("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"),
]
LIMIT_S = 60.0
"""From the death of one process to the end of all."""


def _options(settings: dict[str, str]) -> list[str]:
    return [part for key, value in settings.items() for part in (f"--{key}", value)]


def _launch(launcher: list[str], arguments: list[str], *, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", *launcher, "-m", "embedsmith", "train", *arguments, "--device", "cpu"]
    environment = worker_environment(folder)
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _wait_for_step(folder: Path, step: int, *, launch: subprocess.Popen[str]) -> None:
    checkpoint = folder / "checkpoints" / f"step-{step:06d}"
    until = time.monotonic() + 600
    while not checkpoint.exists():
        assert launch.poll() is None, launch.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.01)


def _process(launch: subprocess.Popen[str], *, rank: int) -> psutil.Process:
    found = (child for child in psutil.Process(launch.pid).children() if child.environ().get("RANK") == str(rank))
    return next(found)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal")
def test_a_run_is_stopped_by_a_signal_and_another_survives_a_killed_process(
    model_folders: dict[str, str], tmp_path: Path, cache: Path
) -> None:
    settings = {
        "model.model": model_folders["llama"],
        "data.train": str(write_triplets(tmp_path / "t.tsv", num_rows=200)),
        "dev": str(write_pairs(tmp_path / "dev.tsv")),
        "max_length": "64",
        "precision": "fp32",
        "lora_dropout": "0",
        "batch_size": "40",
        "max_steps": "60",
        "eval_steps": "60",
        "save_steps": "2",
    }
    launch = _launch(TORCHRUN, _options({**settings, "max_steps": "5000", "output_dir": "long"}), folder=tmp_path)
    _wait_for_step(tmp_path / "long", 4, launch=launch)
    launch.terminate()
    said, _ = launch.communicate(timeout=LIMIT_S)  # after 30 s torchrun kills, and nothing is said
    assert launch.returncode != 0
    assert said.count("SIGTERM: the run ends behind the step under way, with a checkpoint.") == 1
    stopped = re.search(r"Stopped by SIGTERM after step (\d+) of 5000", said)
    assert stopped, said
    assert (tmp_path / "long" / "checkpoints" / f"step-{int(stopped[1]):06d}").is_dir()

    launch = _launch(TORCHRUN, _options({**settings, "output_dir": "run"}), folder=tmp_path)
    _wait_for_step(tmp_path / "run", 4, launch=launch)
    _process(launch, rank=1).kill()
    killed_at = time.monotonic()
    said, _ = launch.communicate(timeout=LIMIT_S + 10)
    assert time.monotonic() - killed_at < LIMIT_S
    assert launch.returncode != 0
    assert "Another process of this run has ended, or cannot be reached any more." in said
    assert "go on, with as many processes or with others:\n  embedsmith train --resume run" in said
    steps = [record["step"] for record in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    assert steps[-1] < 60

    launch = _launch(ACCELERATE, ["--resume", "run"], folder=tmp_path)
    said, _ = launch.communicate(timeout=600)
    assert launch.returncode == 0, said
    assert said.count("The run:") == 1
    assert json.loads((tmp_path / "run" / "outcome.json").read_text())["cost"]["num_threads"] == 2

    train(load_config(overrides={**settings, "output_dir": str(tmp_path / "whole")}))
    one, two = (load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("whole", "run"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-3, atol=1e-3)  # 60 steps of Adam apart
