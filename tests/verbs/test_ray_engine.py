"""What Ray's actors are given, and what is refused before any starts.

A real cluster: `tests/reliability/ray_cluster.py`.
"""

import sys
from pathlib import Path

import pytest

from embedsmith.cli import run_command
from embedsmith.support.errors import ConfigError, ModelError
from embedsmith.verbs.ray_engine import Machines, Worker
from embedsmith.verbs.vector_maker import VectorMaker, VectorOptions


@pytest.mark.parametrize(
    ("machines", "num_workers", "expected"),
    [
        (Machines([16, 16], num_gpus=0), None, (2, {"num_cpus": 16})),  # a machine each
        (Machines([16, 16], num_gpus=0), 4, (4, {"num_cpus": 8})),
        (Machines([16, 16], num_gpus=0), 3, (3, {"num_cpus": 8})),  # two of one machine must find room there
        (Machines([16, 4], num_gpus=0), None, (2, {"num_cpus": 4})),
        (Machines([2], num_gpus=0), 2, (2, {"num_cpus": 1})),
        (Machines([96], num_gpus=8), None, (8, {"num_gpus": 1})),
        (Machines([96], num_gpus=8), 3, (3, {"num_gpus": 1})),
    ],
)
def test_workers_share_what_there_is(
    machines: Machines, num_workers: int | None, expected: tuple[int, dict[str, int]]
) -> None:
    assert machines.choose(num_workers, on_gpus=True) == expected


def test_more_workers_than_there_is_room_for_are_refused() -> None:
    with pytest.raises(ConfigError, match="--workers is 9, and the Ray cluster has 8 GPUs"):
        Machines([96], num_gpus=8).choose(9, on_gpus=True)
    with pytest.raises(ConfigError, match="--workers is 5, and the Ray cluster has 4 processors"):
        Machines([2, 2], num_gpus=0).choose(5, on_gpus=True)
    assert Machines([96], num_gpus=8).choose(None, on_gpus=False) == (1, {"num_cpus": 96})


def test_a_worker_makes_the_vectors_of_encode_or_says_that_they_are_others(model_folders: dict[str, str]) -> None:
    texts = ["a cat sleeps", "the " * 200]
    worker, local = (one(model_folders["llama"]) for one in (lambda model: Worker(model, VectorOptions()), _load))
    kind = worker.describe()
    vectors, num_cut = worker.embed(texts, (kind.embedding, kind.computed_by))
    assert (vectors == local.embed(texts)).all() and num_cut == 1
    other = Worker(model_folders["mistral"], VectorOptions())
    with pytest.raises(ModelError, match=r"makes other vectors than the first one: .*weights"):
        other.embed(texts, (kind.embedding, kind.computed_by))
    with pytest.raises(ModelError, match="makes other vectors than the first one: device 'tpu' and 'cpu'"):
        worker.embed(texts, (kind.embedding, {**kind.computed_by, "device": "tpu"}))


def _load(model: str) -> VectorMaker:
    return VectorMaker.load(model, options=VectorOptions(), ranges=None)


def test_what_does_not_fit_is_refused(
    tmp_path: Path,
    model_folders: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.txt").write_text("a cat\n")
    encode = ["encode", model_folders["llama"], "t.txt", "--out"]
    assert run_command([*encode, "out", "--workers", "2"]) == 2
    assert "Workers are Ray's, and this machine alone has none.\nLeave --workers away" in capsys.readouterr().err
    assert run_command([*encode, "out.npy", "--engine", "ray"]) == 2
    assert "--engine is for a folder, and --out is the file out.npy" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run_command([*encode, "out", "--engine", "ray"]) == 2
    assert "Install it with: pip install 'embedsmith[ray]'" in capsys.readouterr().err
    assert not Path("out").exists()
