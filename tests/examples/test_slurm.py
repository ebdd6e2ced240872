"""examples/slurm.sbatch, by bash alone: srun and scontrol are programs that only say what they are asked."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "slurm.sbatch"
SRUN = '#!/bin/bash\necho "$@" > asked\ntrap "echo stopped > told; exit 143" TERM\n{work}\n'
SCONTROL = '#!/bin/bash\n[ "$1" = show ] && printf "node3\\nnode4\\n" || echo "$@" > requeued\n'

pytestmark = pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")


def _start(folder: Path, *, work: str) -> subprocess.Popen[bytes]:
    for name, text in (("srun", SRUN.format(work=work)), ("scontrol", SCONTROL)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    job = {"SLURM_JOB_ID": "1234", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "node[3-4]", "SLURM_GPUS_ON_NODE": "8"}
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(["bash", SCRIPT, "r.yaml", "run"], cwd=folder, env={**os.environ, **job, "PATH": path})


def test_a_job_starts_a_run_and_ends_with_it(tmp_path: Path) -> None:
    assert _start(tmp_path, work="exit 0").wait(timeout=30) == 0
    asked = (tmp_path / "asked").read_text()
    assert "torchrun --nnodes 2 --nproc-per-node 8" in asked
    assert "--rdzv-endpoint node3:29734 -m embedsmith train --config r.yaml --output_dir run" in asked
    assert not (tmp_path / "requeued").exists()


def test_a_run_that_is_there_is_gone_on_with_and_a_failure_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.yaml").touch()
    assert _start(tmp_path, work="exit 2").wait(timeout=30) == 2
    assert (tmp_path / "asked").read_text().endswith("embedsmith train --resume run\n")
    assert not (tmp_path / "requeued").exists()


@pytest.mark.parametrize("is_finished", [False, True])
def test_a_job_whose_time_is_up_comes_back_unless_it_is_finished(tmp_path: Path, is_finished: bool) -> None:
    if is_finished:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "outcome.json").touch()
    job = _start(tmp_path, work="touch ready; while true; do sleep 0.05; done")
    until = time.monotonic() + 30
    while not (tmp_path / "ready").exists() and time.monotonic() < until:
        time.sleep(0.02)
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=30) == 143
    assert (tmp_path / "told").read_text() == "stopped\n"  # the processes heard of it, and were waited for
    assert (tmp_path / "requeued").exists() != is_finished
