"""Two and four processes == one: the same losses, gradients and adapter, and one set of files; with a base that they
hold together, too, and where a run goes on with other processes than it was begun with."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from filelock import FileLock
from safetensors.torch import load_file

from embedsmith.data.rows import Triplets
from embedsmith.model.embedder import Embedder
from embedsmith.support.errors import ConfigError
from embedsmith.training.distributed import Processes
from embedsmith.training.metrics import read_metrics
from tests.tiny import save_model, save_teacher, write_pairs, write_ragged_triplets, write_triplets
from tests.training.workers import worker_environment

TERMS = {
    "directions": "[anchor_to_candidate, positive_to_anchor, anchor_to_anchor, positive_to_candidate]",
    "false_negative_margin": "0.1",
    "hardness_mode": "all_negatives",
    "spread_out_weight": "1",
    "data.train": "[t.jsonl, t.tsv]",
    "one_source_batches": "true",
    "source_temperature": "3",
}
"""All that looks across the rows of a batch, and says which rows meet; processes get batches cut in unlike pieces."""
PLAIN = {
    "model.model": "llama",
    "data.train": "t.tsv",
    "hard_negative_weight": "2",
    "dev": "dev.tsv",
    "max_length": "64",
    "precision": "fp32",
    "lora_dropout": "0",  # masks depend on where a text lies among a process's own
    "batch_size": "8",
    "max_steps": "6",
    "eval_steps": "2",
    "save_steps": "1",
    "save_total_limit": "9",
    "max_grad_norm": "1e9",  # so that the optimizer's first state is the gradient itself
    "max_tokens": "60",
}
KINDS = {
    "one negative": {},
    "several": TERMS,
    "a teacher's vectors": {"teacher": "teacher", "embedding_weight": "0.9"},
    "an average": {"keep": "average", "average_last": "2"},
}
SHARDED = {**TERMS, "sharded": "true"}
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
"""Sums are formed in another order."""


class Two:
    """One of two processes, without the other: enough for what needs no exchange."""

    num_processes, process_index, is_main_process = 2, 1, False


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all runs, each by what it is and the number of its processes; made once, by whichever of several
    test processes comes first."""
    own = tmp_path_factory.mktemp("launched")
    folder = tmp_path_factory.getbasetemp().parent / "launched" if "PYTEST_XDIST_WORKER" in os.environ else own
    with FileLock(f"{folder}.lock"):
        if not (folder / "done").exists():
            _launch_all(folder)
            (folder / "done").touch()
    return folder


def _launch_all(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    save_model("llama", folder / "llama")
    save_teacher(folder)
    write_triplets(folder / "t.tsv", num_rows=60)
    write_ragged_triplets(folder / "t.jsonl", counts=[3, 0, 1, 4, 0, 2] * 10)
    write_pairs(folder / "dev.tsv")

    def one(kind: str, count: int) -> dict[str, str]:
        return {**PLAIN, **KINDS.get(kind, SHARDED), "output_dir": f"{kind}, {count}"}

    moved = {**PLAIN, "output_dir": "moved"}
    regrouped = {**PLAIN, **SHARDED, "output_dir": "regrouped"}
    stages = [
        {"processes": 1, "runs": [*(one(kind, 1) for kind in KINDS), {**moved, "stop_at": "2"}]},
        {
            "processes": 2,
            "runs": [
                *(one(kind, 2) for kind in [*KINDS, "sharded"]),
                {**moved, "stop_at": "4"},
                {**regrouped, "stop_at": "4"},
            ],
        },
        {"processes": 4, "runs": [*(one(kind, 4) for kind in ("several", "sharded"))]},
        {"processes": 1, "runs": [moved, regrouped]},
    ]
    (folder / "stages.json").write_text(json.dumps(stages), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.workers", "stages.json"],
        cwd=folder,
        env=worker_environment(folder),
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def _assert_equal(one: Path, other: Path) -> None:
    """Of two runs: what was trained, every gradient of the first step, and all that the steps and evaluations said."""
    tensors = ["adapter/adapter_model.safetensors", "checkpoints/step-000006/weights.safetensors"]
    tensors += [
        f"checkpoints/step-000001/{path.name}" for path in (one / "checkpoints/step-000001").glob("*.safetensors")
    ]
    assert "checkpoints/step-000001/optimizer.safetensors" in tensors
    for file in tensors:
        if not file.endswith("random.safetensors"):
            first, second = load_file(one / file), load_file(other / file)
            assert first.keys() == second.keys()
            for name, weight in first.items():
                torch.testing.assert_close(second[name], weight, **CLOSE)
    records, others = (read_metrics(folder / "metrics.jsonl") for folder in (one, other))
    assert [record["step"] for record in others] == [record["step"] for record in records]
    for first, second in zip(records, others, strict=True):
        for key in {"loss", "grad_norm", "dev_cosine_spearman", "averaged_dev_cosine_spearman"} & set(first):
            assert second[key] == pytest.approx(first[key], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_equal_one(launched: Path, kind: str) -> None:
    _assert_equal(launched / f"{kind}, 1", launched / f"{kind}, 2")


def test_four_processes_equal_one(launched: Path) -> None:
    _assert_equal(launched / "several, 1", launched / "several, 4")


@pytest.mark.parametrize("count", [2, 4])
def test_a_base_that_processes_hold_together_equals_a_whole_one(launched: Path, count: int) -> None:
    run, whole = launched / f"sharded, {count}", launched / "several, 1"
    _assert_equal(whole, run)
    held = [json.loads((run / f"held-{rank}.json").read_text()) for rank in range(count)]
    assert {one["path"] for one in held} == {"blocks not fused: several processes hold the base together"}
    whole_base = json.loads((whole / "held-0.json").read_text())["parameters"]
    assert sum(one["parameters"] for one in held) == whole_base
    assert max(one["parameters"] for one in held) <= whole_base / count * 1.01
    names = ("adapter/adapter_config.json", "adapter/embedding.json")
    assert [(run / name).read_bytes() for name in names] == [(whole / name).read_bytes() for name in names]
    vectors = [
        Embedder.load(str(folder), base_model=str(launched / "llama")).encode(["a cat"]) for folder in (run, whole)
    ]
    torch.testing.assert_close(torch.from_numpy(vectors[0]), torch.from_numpy(vectors[1]), **CLOSE)


def test_a_run_goes_on_with_other_processes(launched: Path) -> None:
    _assert_equal(launched / "one negative, 1", launched / "moved")  # 1, then 2, then 1
    _assert_equal(launched / "several, 1", launched / "regrouped")  # 2 that hold the base together, then 1


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
