"""ONNX folders as onnxruntime and the tokenizers library alone run them: equal to the model."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from embedsmith.cli import run_command
from embedsmith.export import folders, onnx_files
from embedsmith.export.folders import Dtype, Format, export
from embedsmith.export.graph import WEIGHTS, EmbeddingGraph, example_inputs
from embedsmith.export.placing import place_prompts
from embedsmith.export.plain_tokenizers import write_closing_tokenizer
from embedsmith.model.embedder import Embedder
from embedsmith.support.errors import ConfigError, MissingExtraError, ModelError, RunError
from tests.made_tokenizers import KINDS, MARKS, SPECIAL, save_with
from tests.tiny import TEXTS, save_model
from tests.tuned import save_tuned

ALL = [*TEXTS, "", "x", " a  cat ", "Ünï 東京 🙂", "a cat runs away " * 20, "stop at </s>", *SPECIAL, *MARKS]


def _run_alone(folder: Path, texts: list[str], *, side: str = "right") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """States, vectors and mask, by what the folder holds and nothing of embedsmith."""
    runtime = pytest.importorskip("onnxruntime", reason="pip install 'embedsmith[onnx]'")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding(**{**tokenizer.padding, "direction": side})
    encoded = tokenizer.encode_batch(texts)
    mask = np.array([one.attention_mask for one in encoded])
    session = runtime.InferenceSession(str(folder / "onnx" / "model.onnx"))
    states, vectors = session.run(
        ["last_hidden_state", "sentence_embedding"],
        {"input_ids": np.array([one.ids for one in encoded]), "attention_mask": mask},
    )
    return states, vectors, mask


@pytest.fixture(autouse=True)
def _packages() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="pip install 'embedsmith[onnx]'")


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("llama", {"prompt": 'the cat "{text}" runs:', "end_token": False}),
        ("gemma2", {"pooling": "mean"}),
        ("qwen3", {"pooling": "weighted_mean", "prompt": "a cat {text}"}),
        ("llama", {"bidirectional_layers": "all", "prompt": "pretended-cot", "end_token": False}),
        ("gemma3_text", {"bidirectional_layers": 2, "pooling": "mean"}),
    ],
)
def test_exported_equals_live(
    family: str, settings: dict[str, object], model_folders: dict[str, str], tmp_path: Path
) -> None:
    live = save_tuned(model_folders[family], tmp_path / "run", **settings)
    parity = export(str(tmp_path / "run"), folder=tmp_path / "out", to=Format.ONNX)
    assert parity.smallest > 0.99999
    assert json.loads((tmp_path / "out" / "parity.json").read_text())["num_texts"] == parity.num_texts > 190
    lead = place_prompts(live).texts["document"]
    texts = [lead + text for text in ALL]
    expected = live.encode(ALL)
    states, vectors, mask = _run_alone(tmp_path / "out", texts)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    left_states, left_vectors, left_mask = _run_alone(tmp_path / "out", texts, side="left")
    np.testing.assert_array_equal(left_vectors, vectors)
    np.testing.assert_array_equal(left_states[left_mask == 1], states[mask == 1])
    for text, vector in zip(texts, expected, strict=True):
        alone_states, alone, alone_mask = _run_alone(tmp_path / "out", [text])
        np.testing.assert_allclose(alone[0], vector, atol=1e-5)
        weights = WEIGHTS[live.settings.pooling](torch.from_numpy(alone_mask)).numpy()
        pooled = (weights @ alone_states[0])[0]
        np.testing.assert_allclose(pooled / np.linalg.norm(pooled), vector, atol=1e-5)


def test_half_precision_is_half_as_large(model_folders: dict[str, str], tmp_path: Path) -> None:
    live = save_tuned(model_folders["llama"], tmp_path / "run", prompt="pretended-cot", end_token=False)
    sizes = {}
    for dtype in ("fp32", "fp16"):
        folder = tmp_path / dtype
        assert run_command(["export", str(tmp_path / "run"), str(folder), "--to", "onnx", "--dtype", dtype]) == 0
        sizes[dtype] = (folder / "onnx" / "model.onnx").stat().st_size
        assert b"site-packages" not in (folder / "onnx" / "model.onnx").read_bytes()
    assert sizes["fp16"] < 0.75 * sizes["fp32"]  # the nodes are as many
    _, vectors, _ = _run_alone(tmp_path / "fp16", TEXTS)
    assert np.einsum("kd,kd->k", vectors, live.encode(TEXTS)).min() > 0.9999


def test_products_in_8_bits(tmp_path: Path) -> None:
    import onnx

    live = save_tuned(
        str(save_model("llama", tmp_path / "base", intermediate_size=160)),
        tmp_path / "run",
        prompt="pretended-cot",
        end_token=False,
    )
    parity = export(str(tmp_path / "run"), folder=tmp_path / "out", to=Format.ONNX, dtype=Dtype.INT8)
    assert 0.9 < parity.smallest < parity.mean < 0.99999
    _, vectors, _ = _run_alone(tmp_path / "out", TEXTS)
    assert np.einsum("kd,kd->k", vectors, live.encode(TEXTS)).min() > 0.9
    kinds = [node.op_type for node in onnx.load(tmp_path / "out" / "onnx" / "model.onnx").graph.node]
    layers = live.backbone.model.config.num_hidden_layers
    assert kinds.count("MatMulNBits") == layers  # the MLP's last product
    assert kinds.count("MatMulInteger") == 6 * layers
    assert sorted(path.name for path in (tmp_path / "out" / "onnx").iterdir()) == ["model.onnx"]


def test_large_weights_lie_beside_the_graph(
    model_folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_files, "_MOST_BYTES", 1000)
    live = Embedder.load(model_folders["llama"], precision="fp32", query_prompt="the cat {text}")
    live.save(tmp_path / "model")
    export(model_folders["llama"], folder=tmp_path / "out", to=Format.ONNX)
    assert {one.name for one in (tmp_path / "out" / "onnx").iterdir()} == {"model.onnx", "model.onnx_data"}
    assert (tmp_path / "out" / "onnx" / "model.onnx").stat().st_size < 150_000
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["transformers.js_config"]["use_external_data_format"] is True
    np.testing.assert_allclose(_run_alone(tmp_path / "out", TEXTS)[1], live.encode(TEXTS), atol=1e-5)


@pytest.mark.parametrize("template", ["the cat: {text}", "<image>a {text}</s>!", "{text} is: "])
@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_that_is_read_alone(kind: str, template: str, tmp_path: Path) -> None:
    save_with(kind, tmp_path / "base")
    live = Embedder.load(str(tmp_path / "base"), precision="fp32", max_length=40, prompt=template)
    placed = place_prompts(live)
    write_closing_tokenizer(live.tokenizer, folder=tmp_path / "out", prompts=placed, stands_alone=True)
    alone = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    encoded = alone.encode_batch([placed.texts["document"] + text for text in ALL])
    found = [[index for index, kept in zip(one.ids, one.attention_mask, strict=True) if kept] for one in encoded]
    expected = live.tokenizer.tokenize(ALL, prompts=live.prompt_of())
    assert found == [row.tolist() for row in expected.ids]
    state = json.loads((tmp_path / "out" / "tokenizer.json").read_text())
    vocabulary = alone.get_vocab()
    named = state["post_processor"]["special_tokens"]
    assert {name: token["ids"] for name, token in named.items()} == {name: [vocabulary[name]] for name in named}


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"pooling": "concat"}, "pooling concat"),
        ({"prompt": "echo"}, "goes on behind the text"),
        ({"query_prompt": "{text} cat"}, "go on behind the text in several ways"),
    ],
)
def test_what_cannot_be_expressed_is_refused_by_name(
    settings: dict[str, object], fault: str, model_folders: dict[str, str], tmp_path: Path
) -> None:
    save_tuned(model_folders["llama"], tmp_path / "run", **settings)
    with pytest.raises(ConfigError, match=f"Cannot be expressed in onnx: .*{fault}(.|\n)*Export to merged"):
        export(str(tmp_path / "run"), folder=tmp_path / "out", to=Format.ONNX)
    assert not (tmp_path / "out").exists()


def test_formats_have_their_dtypes(model_folders: dict[str, str], tmp_path: Path) -> None:
    for to, dtype in ((Format.ONNX, Dtype.BF16), (Format.MERGED, Dtype.FP16)):
        with pytest.raises(ConfigError, match=f"--dtype is {dtype}, and {to} takes fp32 or"):
            export(model_folders["llama"], folder=tmp_path / "out", to=to, dtype=dtype)


def test_a_missing_package_is_named_with_its_extra(
    model_folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_files, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"'onnx', which is not(.|\n)*pip install 'embedsmith\[onnx\]'"):
        export(model_folders["llama"], folder=tmp_path / "out", to=Format.ONNX)


def test_a_graph_that_embeds_otherwise_is_not_kept(
    model_folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pool_otherwise(live: Embedder) -> EmbeddingGraph:
        return EmbeddingGraph(live.backbone.model, pooling="mean", dense=())

    monkeypatch.setattr(folders, "make_graph", pool_otherwise)
    with pytest.raises(RunError, match="does not embed as the model does"):
        export(model_folders["llama"], folder=tmp_path / "out", to=Format.ONNX)
    assert not list(tmp_path.iterdir())


def test_what_torch_cannot_export_is_said_in_one_line(model_folders: dict[str, str], tmp_path: Path) -> None:
    live = Embedder.load(model_folders["llama"], precision="fp32", fused=False)
    graph = EmbeddingGraph(live.backbone.model, pooling="last", dense=())
    forward = graph.network.forward

    def branch(input_ids: torch.Tensor, **named: object) -> object:
        return forward(input_ids=input_ids if input_ids.sum() > 3 else input_ids + 1, **named)

    graph.network.forward = branch
    with pytest.raises(ModelError, match=r"cannot express the model 'a model': \w+: .*\nExport to sentence"):
        onnx_files.write_onnx(graph, folder=tmp_path, model="a model")


def test_a_graph_before_it_is_exported(model_folders: dict[str, str]) -> None:
    """A row without tokens harms no other, whatever its own vector is."""
    live = Embedder.load(model_folders["llama"], precision="fp32", fused=False)
    expected = live.encode(["the cat"])
    graph = EmbeddingGraph(live.backbone.model, pooling="last", dense=())
    ids, mask = example_inputs()
    own = torch.from_numpy(live.tokenizer(["the cat"])[0])
    ids[1], mask[0], mask[1] = 0, 0, 0
    ids[1, 2 : 2 + len(own)], mask[1, 2 : 2 + len(own)] = own, 1
    with torch.no_grad():
        np.testing.assert_allclose(graph(ids, mask)[1][1], expected[0], atol=1e-5)
