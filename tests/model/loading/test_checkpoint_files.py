"""Files in folders and in the hub's cache; pickled weights are never opened, and the advice about them works."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from embedsmith.model.embedder import Embedder
from embedsmith.model.embedding_model import load_embedding_model
from embedsmith.model.loading.checkpoint_files import conversion_advice, find_file, why_missing
from embedsmith.model.loading.fingerprint import fingerprint_model
from embedsmith.support.errors import ModelError
from tests.hub import Trap, put_in_hub_cache
from tests.published import save_minicpm
from tests.tiny import TEXTS


def to_pickles(folder: Path, *, num_files: int) -> None:
    """The checkpoint's weights as PyTorch files; an LM head shares the embeddings' memory, as where they are tied."""
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    (folder / "model.safetensors").unlink()
    names = list(weights)
    if num_files == 1:
        torch.save(weights, folder / "pytorch_model.bin")
        return
    weight_map = {}
    for number in range(num_files):
        file = f"pytorch_model-{number + 1:05d}-of-{num_files:05d}.bin"
        part = names[number::num_files]
        torch.save({name: weights[name] for name in part}, folder / file)
        weight_map.update(dict.fromkeys(part, file))
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_find_file(tmp_path: Path, hub_cache: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    assert find_file(str(tmp_path), "a.json") == tmp_path / "a.json"
    assert find_file(str(tmp_path), "b.json") is None
    put_in_hub_cache(hub_cache, "some/repository", {"a.json": tmp_path / "a.json"})
    assert find_file("some/repository", "a.json").read_text() == "{}"
    assert find_file("some/repository", "b.json") is None
    assert find_file("no/such", "a.json") is None
    assert find_file("no name//at all", "a.json") is None


@pytest.mark.parametrize("names", [["pytorch_model.bin"], [f"pytorch_model-0000{n}-of-00002.bin" for n in (1, 2)]])
def test_pickled_weights_are_never_opened(tmp_path: Path, names: list[str]) -> None:
    folder = save_minicpm(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    for name in names:
        torch.save({"model.norm.weight": Trap(tmp_path / "sprung")}, folder / name)
    if len(names) > 1:
        index = {"metadata": {}, "weight_map": {"model.norm.weight": names[0]}}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"(?s)opens no pickled weights.*python -c"):
        Embedder.load(str(folder))
    assert not (tmp_path / "sprung").exists()
    # The trap works, and the advised command does not spring it.
    command = re.search(r"(?s)python -c .*", conversion_advice(str(folder))).group()
    command = command.replace("python", sys.executable, 1)
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert "Weights only load failed" in done.stderr
    assert not (tmp_path / "sprung").exists()
    torch.serialization.load(folder / names[0], weights_only=False)
    assert (tmp_path / "sprung").exists()


def test_a_config_cannot_name_a_pickle(model_folders: dict[str, str], tmp_path: Path) -> None:
    values = json.loads((Path(model_folders["llama"]) / "config.json").read_text())
    values["transformers_weights"] = "adapter_model.bin"
    (tmp_path / "config.json").write_text(json.dumps(values))
    torch.save(Trap(tmp_path / "sprung"), tmp_path / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"(?s)names adapter_model.bin as its weights.*opens no pickled weights"):
        Embedder.load(str(tmp_path))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("num_files", [1, 3])
def test_the_advised_command_converts(tmp_path: Path, num_files: int) -> None:
    folder = save_minicpm(tmp_path / "a folder's name")
    expected = Embedder.load(str(folder), precision="fp32").encode(TEXTS)
    to_pickles(folder, num_files=num_files)
    with pytest.raises(ModelError) as error:
        Embedder.load(str(folder))
    command = re.search(r"(?s)python -c .*", str(error.value)).group().replace("python", sys.executable, 1)
    subprocess.run(command, shell=True, check=True)
    assert (Embedder.load(str(folder), precision="fp32").encode(TEXTS) == expected).all()


def test_a_hub_repository_with_pickled_weights(tmp_path: Path, hub_cache: Path) -> None:
    folder = save_minicpm(tmp_path / "m")
    names = ["config.json", "tokenizer.json", "tokenizer_config.json"]
    put_in_hub_cache(hub_cache, "some/minicpm", {name: folder / name for name in names})
    with pytest.raises(ModelError, match=r"(?s)hf download some/minicpm --local-dir minicpm\npython -c .*folder"):
        Embedder.load("some/minicpm")


def test_a_hub_repository_loads(tmp_path: Path, hub_cache: Path) -> None:
    folder = save_minicpm(tmp_path / "m")
    put_in_hub_cache(hub_cache, "some/minicpm", {path.name: path for path in folder.iterdir()})
    expected = Embedder.load(str(folder), precision="fp32").encode(TEXTS)
    assert (Embedder.load("some/minicpm", precision="fp32").encode(TEXTS) == expected).all()


def test_a_name_beside_runs_is_no_hub_id(
    hub_cache: Path, model_folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`runs/tunde` is a slip of the pen; asking a hub may take minutes, and could bring another's model."""
    monkeypatch.chdir(tmp_path)
    put_in_hub_cache(hub_cache, "runs/tunde", {path.name: path for path in Path(model_folders["llama"]).iterdir()})
    assert load_embedding_model("runs/tunde").dim > 0
    for name in ("tuned", "base"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.yaml").touch()
    for load in (load_embedding_model, fingerprint_model):
        with pytest.raises(ModelError, match=r"'runs/tunde'.*: there is no such folder; runs has base, tuned\."):
            load("runs/tunde")
    assert why_missing("runs/tuned") is None
    assert why_missing("owner/name") is None
