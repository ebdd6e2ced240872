"""A folder with an ONNX graph is a MODEL to evaluate, encode and compare, by onnxruntime alone."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from embedsmith.cli import run_command
from embedsmith.export.folders import Format, export
from embedsmith.model.embedder import Embedder
from embedsmith.model.embedding_model import load_embedding_model
from embedsmith.model.graph_encoder import GraphEncoder
from embedsmith.model.loading.fingerprint import fingerprint_model
from embedsmith.serving.served_model import serve_model
from embedsmith.support.errors import ConfigError, ModelError
from tests.tiny import TEXTS, save_model, write_pairs
from tests.tuned import save_tuned

LONG = " ".join(["cat"] * 80)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Embedder, Path]:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="pip install 'embedsmith[onnx]'")
    room = tmp_path_factory.mktemp("exported")
    live = save_tuned(str(save_model("llama", room / "base")), room / "run", query_prompt="the cat: {text}")
    export(str(room / "run"), folder=room / "out", to=Format.ONNX)
    return live, room / "out"


def test_it_embeds_as_the_model_does(exported: tuple[Embedder, Path]) -> None:
    live, folder = exported
    encoder = load_embedding_model(str(folder))
    assert isinstance(encoder, GraphEncoder)
    assert (encoder.run_by, encoder.dim, encoder.max_length) == ("onnxruntime", live.dim, live.max_length)
    texts = [*TEXTS, LONG]
    finished: list[int] = []
    for side in ("query", "document"):
        found = encoder.encode(texts, side=side, on_progress=finished.append)
        np.testing.assert_allclose(found, live.encode(texts, side=side), atol=1e-5)
        np.testing.assert_allclose(
            encoder.encode(texts, side=side, dim=16), live.encode(texts, side=side, dim=16), atol=1e-5
        )
    assert finished[0] == len(texts)
    assert encoder.count_cut(texts) == live.count_cut(texts) == 1
    encoder.change_prompt(encoder.prompts["query"])
    np.testing.assert_allclose(encoder.encode(TEXTS), live.encode(TEXTS, side="query"), atol=1e-5)
    with pytest.raises(ConfigError, match="has its prompts inside and cannot be given"):
        encoder.change_prompt("a {text}")


def test_it_is_scored_and_compared(
    exported: tuple[Embedder, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder = exported
    write_pairs(tmp_path / "PAIRS.tsv")
    files = [tmp_path / name for name in ("graph.json", "run.json")]
    for model, out in zip((folder, folder.parent / "run"), files, strict=True):
        assert run_command(["evaluate", str(model), "--data", str(tmp_path), "--out", str(out)]) == 0
    scores = [json.loads(file.read_text())["tasks"]["PAIRS"]["cosine_spearman"] for file in files]
    assert scores[0] == pytest.approx(scores[1], abs=0.005)
    assert run_command(["compare", *map(str, files)]) == 0
    assert (
        run_command(
            [
                "encode",
                str(folder),
                str(tmp_path / "PAIRS.tsv"),
                "--text-column",
                "sentence1",
                "--out",
                str(tmp_path / "v.npy"),
            ]
        )
        == 0
    )
    assert np.load(tmp_path / "v.npy").shape == (24, 64)
    assert "PAIRS" in capsys.readouterr().out


def test_what_a_graph_cannot_be_asked(exported: tuple[Embedder, Path], tmp_path: Path) -> None:
    _, folder = exported
    for asked in ({"prompt": "a {text}"}, {"pooling": "mean"}, {"end_token": True}, {"instruction": "x"}):
        with pytest.raises(ConfigError, match="is a graph, which embeds as it was exported; it cannot be given"):
            load_embedding_model(str(folder), **asked)
    with pytest.raises(ConfigError, match="onnxruntime computes in float32"):
        load_embedding_model(str(folder), precision="bf16")
    with pytest.raises(ModelError, match="a graph without weights"):
        Embedder.load(str(folder))
    with pytest.raises(ModelError, match="Serve the model that it was exported from"):
        serve_model(load_embedding_model(str(folder)), name="graph")


def test_another_graph_is_another_model_and_a_damaged_one_is_named(
    exported: tuple[Embedder, Path], tmp_path: Path
) -> None:
    _, folder = exported
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert fingerprint_model(str(copy)) == fingerprint_model(str(folder))
    (copy / "onnx" / "model.onnx").write_bytes(b"nothing")
    assert fingerprint_model(str(copy)) != fingerprint_model(str(folder))
    with pytest.raises(ModelError, match=r"cannot be run by onnxruntime(.|\n)*Write it anew"):
        load_embedding_model(str(copy))
    shutil.copy(folder / "onnx" / "model.onnx", copy / "onnx")
    (copy / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be run by onnxruntime"):
        load_embedding_model(str(copy))
