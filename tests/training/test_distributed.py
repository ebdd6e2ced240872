"""Two processes == one: the same losses and the same adapter, and one set of files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from embedsmith.data.table import Triplets
from embedsmith.support.errors import ConfigError
from embedsmith.training.distributed import Processes
from tests.tiny import save_teacher, write_pairs, write_ragged_triplets, write_triplets

TERMS = {
    "directions": "[anchor_to_candidate, positive_to_anchor, anchor_to_anchor, positive_to_candidate]",
    "false_negative_margin": "0.1",
    "hardness_mode": "all_negatives",
    "spread_out_weight": "1",
    "data.train": "[t.jsonl, t.tsv]",
    "one_source_batches": "true",
    "source_temperature": "3",
}
"""All that looks across the rows of a batch, and says which rows meet."""


class Two:
    """One of two processes, without the other: enough for what needs no exchange."""

    num_processes, process_index, is_main_process = 2, 1, False


def _train(folder: Path, *, num_processes: int, settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes)]
    command = [sys.executable, *(launcher if num_processes > 1 else []), "-m", "embedsmith", "train"]
    for key, value in settings.items():
        command += [f"--{key}", value]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "EMBEDSMITH_CACHE": str(folder / "cache")}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("kind", ["one negative", "several", "a teacher's vectors", "an average"])
def test_two_processes_equal_one(model_folders: dict[str, str], tmp_path: Path, kind: str) -> None:
    write_triplets(tmp_path / "t.tsv", num_rows=60)
    write_ragged_triplets(tmp_path / "t.jsonl", counts=[3, 0, 1, 4, 0, 2] * 10)
    write_pairs(tmp_path / "dev.tsv")
    settings = {
        "model.model": model_folders["llama"],
        "data.train": "t.tsv",
        "hard_negative_weight": "2",
        "dev": "dev.tsv",
        "max_length": "64",
        "precision": "fp32",
        "lora_dropout": "0",  # masks depend on where a text lies among a process's own
        "batch_size": "8",
        "max_steps": "6",
        "learning_rate": "1e-2",
        "max_tokens": "60",
        **({} if kind != "several" else TERMS),
    }
    if kind == "a teacher's vectors":
        settings |= {"teacher": str(save_teacher(tmp_path)), "embedding_weight": "0.9"}
    if kind == "an average":
        settings |= {"keep": "average", "average_last": "2"}
    for count in (1, 2):
        done = _train(tmp_path, num_processes=count, settings={**settings, "output_dir": f"run{count}"})
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("The run:") == 1
    files = ["adapter/adapter_model.safetensors"]
    files += ["checkpoints/step-000006/projection.safetensors"] if "embedding_weight" in settings else []
    for file in files:
        one, two = (load_file(tmp_path / f"run{count}" / file) for count in (1, 2))
        for name, weight in one.items():
            # Sums in another order, six Adam steps: where a gradient is next to nothing, a tenth of a step.
            torch.testing.assert_close(two[name], weight, rtol=1e-3, atol=1e-3)
    one_records, two_records = (
        [json.loads(line) for line in (tmp_path / f"run{count}" / "metrics.jsonl").read_text().splitlines()]
        for count in (1, 2)
    )
    assert [record["step"] for record in two_records] == [record["step"] for record in one_records]
    for first, second in zip(one_records, two_records, strict=True):
        for key in {"loss", "grad_norm", "dev_cosine_spearman", "averaged_dev_cosine_spearman"} & set(first):
            assert second[key] == pytest.approx(first[key], rel=1e-3, abs=1e-4)


def test_a_batch_is_shared_in_order_and_evenly() -> None:
    processes = Processes(Two())
    batch = Triplets.plain(list("abcdef"), list("ABCDEF"))
    assert processes.shares(batch)[1] == Triplets.plain(list("def"), list("DEF"))
    processes.check_batch(6)
    with pytest.raises(ConfigError, match="batch_size is 7, which 2 processes cannot share evenly"):
        processes.check_batch(7)


def test_one_process_exchanges_nothing() -> None:
    processes = Processes(Accelerator())
    embeddings = torch.randn(6, 3)
    assert processes.gather(embeddings, sizes=[[2, 2, 2]]) is embeddings
    batch = Triplets.plain(list("abcd"), list("ABCD"), [["e", "f"], [], ["g"], ["h"]])
    assert processes.shares(batch)[0] == batch
    assert processes.sum(5) == 5
