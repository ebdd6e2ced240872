"""OpenVINO folders as openvino and the tokenizers library alone run them: equal to the model."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from embedsmith.cli import run_command
from embedsmith.export import openvino_files
from embedsmith.export.folders import Dtype, Format, export
from embedsmith.model.graph_encoder import GraphEncoder
from embedsmith.support.errors import ConfigError, MissingExtraError
from embedsmith.support.libraries import import_openvino
from tests.made_tokenizers import MARKS, SPECIAL
from tests.tiny import TEXTS
from tests.tuned import save_tuned

ALL = [*TEXTS, "", "x", " a  cat ", "a cat runs away " * 20, *SPECIAL, *MARKS]


@pytest.fixture(autouse=True)
def _package() -> None:
    if not all(map(find_spec, ("openvino", "nncf"))):  # an import would report itself
        pytest.skip("pip install 'embedsmith[openvino]'")


def _run_alone(folder: Path, texts: list[str], *, side: str = "right") -> np.ndarray:
    """Vectors, by what the folder holds and nothing of embedsmith."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding(**{**tokenizer.padding, "direction": side})
    encoded = tokenizer.encode_batch(texts)
    model = (
        import_openvino()
        .Core()
        .compile_model(folder / "openvino" / "openvino_model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    )
    assert {name for output in model.outputs for name in output.names} >= {"last_hidden_state", "sentence_embedding"}
    return model(
        {
            "input_ids": np.array([one.ids for one in encoded]),
            "attention_mask": np.array([one.attention_mask for one in encoded]),
        }
    )["sentence_embedding"]


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("llama", {"bidirectional_layers": "all", "prompt": 'the cat "{text}" runs:', "end_token": False}),
        ("gemma3_text", {"pooling": "mean"}),
    ],
)
def test_exported_equals_live(
    family: str, settings: dict[str, object], model_folders: dict[str, str], tmp_path: Path
) -> None:
    live = save_tuned(model_folders[family], tmp_path / "run", **settings)
    parity = export(str(tmp_path / "run"), folder=tmp_path / "out", to=Format.OPENVINO)
    assert parity.smallest > 0.99999
    assert json.loads((tmp_path / "out" / "parity.json").read_text())["num_texts"] == parity.num_texts > 190
    expected = live.encode(ALL)
    for side in ("left", "right"):
        np.testing.assert_allclose(_run_alone(tmp_path / "out", ALL, side=side), expected, atol=1e-5)
    np.testing.assert_allclose(_run_alone(tmp_path / "out", ALL[:1]), expected[:1], atol=1e-5)


def test_fewer_bits_are_smaller_files(
    model_folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "openvino_telemetry", raising=False)  # tests/conftest.py hides it
    live = save_tuned(model_folders["llama"], tmp_path / "run", prompt="pretended-cot", end_token=False)
    shares = {}
    for dtype, least in ((Dtype.FP16, 0.9999), (Dtype.INT8, 0.9)):
        folder = tmp_path / dtype
        assert run_command(["export", str(tmp_path / "run"), str(folder), "--to", "openvino", "--dtype", dtype]) == 0
        size = (folder / "openvino" / "openvino_model.bin").stat().st_size
        shares[dtype] = size / (4 * sum(weight.numel() for weight in live.backbone.model.parameters()))
        cosines = np.einsum("kd,kd->k", _run_alone(folder, TEXTS), live.encode(TEXTS))
        assert least < cosines.min() < 0.99999 or dtype == Dtype.FP16
    assert 0.2 < shares[Dtype.INT8] < 0.4 < shares[Dtype.FP16] < 0.6
    assert "openvino_telemetry" not in sys.modules  # which would report all of this over the network


def test_a_missing_package_is_named_with_its_extra(
    model_folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_files, "find_spec", lambda name: None if name == "nncf" else name)
    with pytest.raises(MissingExtraError, match=r"'nncf', which is not(.|\n)*pip install 'embedsmith\[openvino\]'"):
        export(model_folders["llama"], folder=tmp_path / "out", to=Format.OPENVINO, dtype=Dtype.INT8)
    with pytest.raises(ConfigError, match="--dtype is bf16, and openvino takes fp32 or fp16 or int8"):
        export(model_folders["llama"], folder=tmp_path / "out", to=Format.OPENVINO, dtype=Dtype.BF16)


def test_a_folder_is_run_as_a_model(model_folders: dict[str, str], tmp_path: Path) -> None:
    live = save_tuned(model_folders["llama"], tmp_path / "run", query_prompt="the cat: {text}")
    export(str(tmp_path / "run"), folder=tmp_path / "out", to=Format.OPENVINO)
    encoder = GraphEncoder.load(str(tmp_path / "out"))
    assert (encoder.run_by, encoder.dim, encoder.max_length) == ("openvino", live.dim, 40)
    for side in ("query", "document"):
        np.testing.assert_allclose(encoder.encode(ALL, side=side), live.encode(ALL, side=side), atol=1e-5)
    rough = GraphEncoder.load(str(tmp_path / "out"), precision="bf16").encode(TEXTS)
    assert np.einsum("kd,kd->k", rough, live.encode(TEXTS)).min() > 0.99
