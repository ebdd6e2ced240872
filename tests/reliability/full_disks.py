"""Every command that writes, on a disk with room for nothing, for 4 KB, 16 KB, 64 KB ..., until it is enough.

What is written by a library fails in that library's way, so each of them has to be met. A hundred commands take
minutes, so these run with `make test-reliability` alone, which names this file.
"""

import gzip
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reliability.disks import files_on, small_disk
from tests.reliability.jobs import copy_stage, make_stage
from tests.reliability.killing import Command

_SHORT = ("--precision", "fp32", "--batch_size", "6", "--max_steps", "4", "--eval_steps", "2")
_SETTINGS = ("--model.model", "m", "--data.train", "t.tsv", "--dev", "d.tsv", *_SHORT)
_TRAIN = ("train", "--output_dir", "disk/run", *_SETTINGS)
FORMS = ("merged", "peft", "sentence-transformers", "onnx", "openvino", "static")
COMMANDS = {
    "train": _TRAIN,
    "train, all weights": (*_TRAIN, "--adapter.method", "full"),
    "train, average": (*_TRAIN, "--keep", "average", "--average_last", "2"),
    "sweep": (
        "sweep",
        "--config",
        "recipe.yaml",
        "--grid",
        "learning_rate=0.01,0.001",
        "--output-dir",
        "disk/s",
        *_SHORT,
    ),
    "average": ("average", "run", "run2", "--to", "disk/a"),
    "evaluate": ("evaluate", "run", "--data", "sts", "--out", "disk/r.json"),
    "report": ("report", "run", "--data", "sts", "--out", "disk/r.html"),
    "baseline": ("baseline", "m", "--dev", "d.tsv", "--out", "disk/r.json"),
    "data mine": ("data", "mine", "t.tsv", "--model", "m", "--out", "disk/m.jsonl"),
    "init": ("init", "t.tsv", "--model", "m", "--no-plan", "--out", "r.yaml", "--held-out", "disk/held"),
    "encode": ("encode", "m", "texts.txt", "--out", "disk/v.npy"),
    "encode, shards": ("encode", "m", "texts.txt", "--out", "disk/v", "--shard-rows", "64"),
    **{f"export, {form}": ("export", "run", "disk/x", "--to", form) for form in FORMS},
    "train, cache": ("train", "--output_dir", "run3", *_SETTINGS),
}
_MOST_BYTES = 2**22


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stage with two runs, and a folder of pairs."""
    stage = make_stage(tmp_path_factory.mktemp("full") / "stage")
    (stage / "sts").mkdir()
    (stage / "sts" / "STS12.tsv.gz").write_bytes(gzip.compress((stage / "d.tsv").read_bytes()))
    for name in ("run", "run2"):
        command = Command(["train", "--output_dir", name, *_SETTINGS], folder=stage)
        assert command.wait() == 0, command.said
    command.said_in.unlink()
    shutil.rmtree(stage / "cache" / "triplets")
    return stage


def _rooms() -> Iterator[int]:
    yield 0
    room = 4096
    while room <= _MOST_BYTES:
        yield room
        room *= 4


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_has_no_room_says_so_and_leaves_nothing_half_written(name: str, trained: Path) -> None:
    said = "nothing"
    for room in _rooms():
        folder = copy_stage(trained)
        place = "cache/triplets" if name == "train, cache" else "disk"
        with small_disk(folder / place, room=room):
            command = Command(COMMANDS[name], folder=folder)
            code, said, left = command.wait(), command.said, files_on(folder / place)
        if code == 0:
            assert room, "it has written nothing there"
            return
        assert code == 2, said
        assert "Traceback" not in said
        assert "The disk is full: " in said or "and the disk has " in said, said
        assert not [file for file in left if file.endswith(".tmp")], said
    pytest.fail(f"{_MOST_BYTES:,} bytes are not enough: {said}")
