"""Full fine-tuning: everything moves, resumed == uninterrupted, and a run's folder loads as a model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from embedsmith.model.embedder import Embedder
from embedsmith.settings.config import RunConfig
from embedsmith.settings.recipe import load_config
from embedsmith.support.errors import ConfigError
from embedsmith.training import keeping
from embedsmith.verbs.train import resume_run, train
from tests.tiny import FAMILIES, TEXTS, write_pairs, write_triplets


def _config(folder: Path, model: str, **changes: str) -> RunConfig:
    settings = {
        "output_dir": str(folder / "run"),
        "model.model": model,
        "max_length": "64",
        "data.train": str(folder / "t.tsv"),
        "dev": str(folder / "dev.tsv"),
        "adapter.method": "full",
        "batch_size": "4",
        "max_steps": "4",
        "warmup_steps": "1",
        "eval_steps": "2",
        "learning_rate": "1e-3",
    }
    write_triplets(folder / "t.tsv", num_rows=40)
    write_pairs(folder / "dev.tsv")
    return load_config(overrides={**settings, **changes})


@pytest.mark.parametrize("family", FAMILIES)
def test_all_weights_move_and_the_run_loads_as_a_model(
    family: str, model_folders: dict[str, str], tmp_path: Path, cache: Path
) -> None:
    run = train(_config(tmp_path, model_folders[family], dev="null"))
    live = run.embedder.encode(TEXTS)
    loaded = Embedder.load(str(tmp_path / "run"), precision="fp32")
    np.testing.assert_allclose(loaded.encode(TEXTS), live, atol=1e-5)
    assert loaded.settings.max_length == 64
    before = AutoModel.from_pretrained(model_folders[family], dtype=torch.float32).state_dict()
    with loaded.plain_layers() as model:
        after = {name: weight.clone() for name, weight in model.state_dict().items()}
    assert [name for name, weight in before.items() if torch.equal(weight, after[name])] == []
    on_top = Embedder.load(str(tmp_path / "run"), precision="fp32", as_base=True)
    np.testing.assert_allclose(on_top.encode(TEXTS), live, atol=1e-5)
    assert "all weights of" in (tmp_path / "run" / "README.md").read_text()


def test_resumed_equals_uninterrupted(
    model_folders: dict[str, str], tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _config(tmp_path, model_folders["llama"])
    train(whole)
    save = keeping.save_checkpoint

    def save_and_stop(*arguments: object, **settings: Any) -> None:
        save(*arguments, **settings)
        if settings["progress"].step:  # not the one of the start
            raise KeyboardInterrupt

    monkeypatch.setattr(keeping, "save_checkpoint", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        train(whole.model_copy(update={"output_dir": str(tmp_path / "killed")}))
    monkeypatch.setattr(keeping, "save_checkpoint", save)
    resume_run(tmp_path / "killed")
    ours, theirs = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("killed", "run"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "bf16"}, "model.precision is bf16"),
        ({"quantization": "4bit"}, "model.quantization is 4bit"),
        ({"lora_r": "16"}, "with which lora_r does nothing"),
    ],
)
def test_settings_that_do_not_fit(changes: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        _config(tmp_path, "x", **changes)
