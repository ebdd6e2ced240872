"""What MODEL may be, and what is refused with which words."""

import json
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel, MambaConfig, MambaModel, T5Config, T5Model

from embedsmith.model.loading.backbone import find_adapter, find_model, load_backbone
from embedsmith.support.errors import ModelError
from tests.hub import Trap
from tests.tiny import save_model

CPU = torch.device("cpu")


def _load(model: str) -> None:
    load_backbone(model, device=CPU)


@pytest.mark.parametrize("model", ["no/such-model", "nowhere", "smollm3-135m"])
def test_an_unknown_model(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = f"There is no model '{model}' that can be loaded: there is no such folder, and the hub[\\s\\S]*built-in name"
    with pytest.raises(ModelError, match=told):
        _load(model)


@pytest.mark.parametrize("model", ["/home/someone/model", "../pretrained/model", "pretrained/of/another"])
def test_a_folder_that_is_not_there(model: str) -> None:
    with pytest.raises(ModelError, match=f"There is no model '{model}' that can be loaded: there is no such folder"):
        _load(model)


def test_a_config_with_a_value_of_the_wrong_type(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": "wide"}))
    with pytest.raises(ModelError, match=r"There is no model .* field 'hidden_size'"):
        _load(str(tmp_path))


def test_models_that_are_no_decoders(tmp_path: Path) -> None:
    small = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "num_hidden_layers": 1}
    BertModel(BertConfig(vocab_size=20, **small)).save_pretrained(tmp_path / "bert")
    T5Model(T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)).save_pretrained(
        tmp_path / "t5"
    )
    for kind in ("bert", "t5"):
        with pytest.raises(ModelError, match=f"model_type {kind}\\) is not a decoder"):
            _load(str(tmp_path / kind))


def test_a_model_without_the_attention_interface(tmp_path: Path) -> None:
    MambaModel(MambaConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1)).save_pretrained(tmp_path / "mamba")
    with pytest.raises(ModelError, match="does not take its attention from transformers' attention interface"):
        _load(str(tmp_path / "mamba"))


def test_pickled_weights_are_never_opened(tmp_path: Path) -> None:
    folder = save_model("llama", tmp_path / "m")
    (folder / "model.safetensors").unlink()
    torch.save({"weight": torch.zeros(1)}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot be loaded"):
        _load(str(folder))


def test_damaged_weights(tmp_path: Path) -> None:
    file = save_model("llama", tmp_path / "m") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ModelError, match=r"model\.safetensors is damaged"):
        _load(str(tmp_path / "m"))


def test_folders_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds neither a model"):
        find_adapter(str(tmp_path))
    (tmp_path / "run.yaml").touch()
    with pytest.raises(ModelError, match="holds no adapter yet"):
        find_adapter(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert find_adapter(str(tmp_path)) is None
    (tmp_path / "adapter_config.json").write_text("{}")  # an adapter may have its base's configuration beside it
    assert find_adapter(str(tmp_path)) == tmp_path
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ModelError, match=r"holds a model .* and an adapter"):
        find_adapter(str(tmp_path))


def test_a_name_that_is_empty_is_not_the_folder_at_work() -> None:
    for name in ("", " "):
        with pytest.raises(ModelError, match="No model is named"):
            find_model(name)


def test_a_file_is_no_model(tmp_path: Path) -> None:
    folder = save_model("llama", tmp_path / "m")
    torch.save(Trap(tmp_path / "sprung"), tmp_path / "pickle.bin")
    for file in (folder / "model.safetensors", folder / "config.json", tmp_path / "pickle.bin"):
        with pytest.raises(ModelError, match=r"is a file\.\nName the folder that holds it"):
            find_model(str(file))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "nope"},
        {"num_attention_heads": 5},
        {"vocab_size": 0},
        {"num_hidden_layers": -1},
        {"rope_parameters": {"rope_type": "nope"}},
    ],
)
def test_a_config_that_no_model_can_have(tmp_path: Path, change: dict[str, object]) -> None:
    file = save_model("llama", tmp_path / "m") / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ModelError, match=r"that can be loaded: |cannot be loaded: |has no place"):
        _load(str(tmp_path / "m"))


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"model": {"type": "None"}}', '{"version": "1.0", "model": 3}'])
def test_a_damaged_tokenizer(tmp_path: Path, content: str) -> None:
    folder = save_model("llama", tmp_path / "m")
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match=r"The tokenizer of .* cannot be loaded: "):
        _load(str(folder))


@pytest.mark.parametrize("content", ["[]", "{", "3", "null"])
def test_a_damaged_config(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match="There is no model"):
        _load(str(tmp_path))
