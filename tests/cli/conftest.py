"""A user's folder, for tests of the command line."""

from pathlib import Path

import pytest

from tests.tiny import write_pairs, write_triplets


@pytest.fixture
def work(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, model_folders: dict[str, str]) -> list[str]:
    """A folder with data, and the arguments of a small run in it."""
    monkeypatch.chdir(tmp_path)
    write_triplets(tmp_path / "t.tsv", num_rows=40)
    (tmp_path / "sts").mkdir()
    write_pairs(tmp_path / "sts" / "dev.tsv")
    settings = {
        "output_dir": "runs/r",
        "model.model": model_folders["llama"],
        "precision": "fp32",
        "max_length": "64",
        "data.train": "t.tsv",
        "dev": "sts/dev.tsv",
        "batch_size": "6",
        "max_steps": "6",
        "warmup_steps": "1",
        "learning_rate": "1e-2",
    }
    return ["train", *(part for key, value in settings.items() for part in (f"--{key}", value))]
