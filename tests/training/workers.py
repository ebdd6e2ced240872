"""Several processes of one launch, forked from one that has imported everything: many processes in few seconds.

python -m tests.training.workers STAGES.json

STAGES.json: a list of {"processes": number, "runs": [settings ...]}, one after the other. A run whose folder is there
is gone on with; one with `stop_at` is stopped behind that step, as a search stops a run. Each process leaves
`held-RANK.json` in the run's folder: which way it computed, and how many of the base's parameters it held.
"""

import json
import multiprocessing
import os
import socket
import sys
from pathlib import Path
from typing import Any

from embedsmith.model.loading.weights import held_parameters
from embedsmith.settings.recipe import load_config
from embedsmith.verbs.train import resume_run, train


def worker_environment(folder: Path) -> dict[str, str]:
    """What a launch in a folder needs: one thread a process, a cache of its own, this repository."""
    path = os.pathsep.join(str(Path(place).resolve()) for place in sys.path)
    return {**os.environ, "OMP_NUM_THREADS": "1", "EMBEDSMITH_CACHE": str(folder / "cache"), "PYTHONPATH": path}


def run_stage(runs: list[dict[str, str]], *, count: int) -> None:
    """Train each of the runs with so many processes; raises SystemExit where one of them failed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=_work, args=(runs,), kwargs={"rank": rank, "count": count, "port": port})
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        sys.exit(f"exit codes: {[process.exitcode for process in processes]}")


def _work(runs: list[dict[str, str]], *, rank: int, count: int, port: int) -> None:
    # As srun and other launchers say it.
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    os.environ |= {**{name: str(value) for name, value in place.items()}, "MASTER_ADDR": "127.0.0.1"}
    for run in runs:
        _train(run, rank=rank)  # all with the same group of processes, as the runs of a sweep


def _train(settings: dict[str, str], *, rank: int) -> None:
    stop_at = int(settings.pop("stop_at", 0))

    def watch(record: dict[str, Any]) -> bool:
        return bool(record["step"] == stop_at)

    folder = Path(settings["output_dir"])
    is_there = folder.exists()
    run = resume_run(folder, watch=watch) if is_there else train(load_config(overrides=settings), watch=watch)
    base = {name: one for name, one in held_parameters(run.embedder.transformer).items() if "lora_" not in name}
    held = {"path": run.embedder.path, "parameters": sum(one.numel() for one in base.values())}
    (folder / f"held-{rank}.json").write_text(json.dumps(held), encoding="utf-8")


if __name__ == "__main__":
    for stage in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        run_stage(stage["runs"], count=stage["processes"])
