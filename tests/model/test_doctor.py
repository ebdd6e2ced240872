"""The doctor passes sound models and names what is wrong with others."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from embedsmith.cli import run_command
from embedsmith.model import vector_checks
from embedsmith.model.doctor import Diagnosis, examine
from embedsmith.model.embedder import Embedder
from embedsmith.model.loading.settings import PromptTokens
from embedsmith.support.errors import ModelError
from tests.tiny import FAMILIES, save_model


def _wrong(diagnosis: Diagnosis) -> dict[str, str]:
    return {finding.check: finding.detail for finding in diagnosis.findings if not finding.is_ok}


@pytest.mark.parametrize("family", FAMILIES)
def test_sound_models_pass(model_folders: dict[str, str], family: str) -> None:
    diagnosis = examine(Embedder.load(model_folders[family], precision="fp32", max_length=64))
    assert diagnosis.is_healthy, _wrong(diagnosis)
    assert diagnosis.tokens[0] == (1, "<s>")
    assert diagnosis.tokens[-1] == (2, "</s>")
    diagnosis.raise_if_wrong()


def test_a_prompt_with_an_end_token_of_its_own(model_folders: dict[str, str]) -> None:
    embedder = Embedder.load(model_folders["llama"], max_length=64, prompt="the {text} </s> cat")
    diagnosis = examine(embedder)
    assert "stands 2 time(s)" in _wrong(diagnosis)["end token"]
    with pytest.raises(ModelError, match=r"end token[\s\S]*Remove the end token from model.prompt"):
        diagnosis.raise_if_wrong()


@pytest.mark.parametrize(
    ("prompt", "layers", "told"),
    [
        ("the {text}", 0, None),
        ("{text} the", 1, None),
        ("the {text}", 1, "computed anew with every text: attention goes both ways"),
        ("the {text} a {text}", 0, "computed anew with every text: it gives the text twice"),
    ],
)
def test_it_says_where_a_prompt_is_computed_with_every_text(
    model_folders: dict[str, str], prompt: str, layers: int, told: str | None
) -> None:
    embedder = Embedder.load(
        model_folders["llama"], precision="fp32", max_length=64, prompt=prompt, bidirectional_layers=layers
    )
    diagnosis = examine(embedder)
    assert diagnosis.is_healthy, _wrong(diagnosis)
    [detail] = [finding.detail for finding in diagnosis.findings if finding.check == "prompt"]
    assert told in detail if told else "computed" not in detail
    packed = embedder.pack(["a cat", "rain falls"])
    assert bool(packed.segments.prefixes) == (prompt == "the {text}" and not layers)


def test_texts_that_see_each_other_are_found(llama: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:

    def joined(hidden_of: object) -> object:
        def hidden_states(packed: object, *, ends_only: bool = False, **_: object) -> torch.Tensor:
            # one segment for the whole row: what packing without segment bounds would do
            segments = type(packed.segments)(
                (packed.num_tokens,), torch.tensor([0, packed.num_tokens], dtype=torch.int32)
            )
            hidden = hidden_of(type(packed)(packed.input_ids, packed.position_ids, segments, packed.segment_of_text))
            return hidden[packed.segments.ends] if ends_only else hidden

        return hidden_states

    monkeypatch.setattr(llama, "hidden_states", joined(llama.hidden_states))
    assert "packed with other texts" in _wrong(examine(llama))


def test_a_wrong_attention_is_found(llama: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedsmith.model.vector_checks._reference", lambda *_: np.zeros((5, 64)))
    assert list(_wrong(examine(llama))) == ["transformers' padded forward"]


def test_a_model_that_fails_in_the_forward(llama: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(llama, "hidden_states", fail)
    assert _wrong(examine(llama)) == {"forward": "fails: no such kernel"}


@pytest.mark.parametrize("fused", [True, False])
def test_numbers_that_grow_too_large(tmp_path: Path, fused: bool) -> None:
    file = save_model("llama", tmp_path / "m") / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.1.mlp.down_proj.weight"] *= 1e38
    save_file(weights, file, metadata={"format": "pt"})
    diagnosis = examine(Embedder.load(str(tmp_path / "m"), precision="fp32", fused=fused))
    assert _wrong(diagnosis) == {"forward": "gives NaN in 64 of 64 dimensions, in float32"}


@pytest.mark.parametrize("command", ["doctor", "evaluate", "train"])
def test_weights_that_are_no_numbers(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    file = save_model("llama", tmp_path / "m") / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = float("nan")
    save_file(weights, file, metadata={"format": "pt"})
    target = ["--model.model", str(tmp_path / "m"), "--output_dir", str(tmp_path / "run")]
    assert run_command([command, *(target if command == "train" else [str(tmp_path / "m")])]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "damaged: NaN or infinity in layers.1.mlp.up_proj.weight (1 of 4096 values)" in said
    assert not (tmp_path / "run").exists()


def test_collapsed_weights_are_found(llama: Embedder) -> None:
    with torch.no_grad():
        llama.backbone.model.embed_tokens.weight[:] = llama.backbone.model.embed_tokens.weight[5]
    assert "another text" in _wrong(examine(llama))


def test_the_built_in_model_is_sound() -> None:
    diagnosis = examine(Embedder.load("smollm2-135m", precision="fp32"))
    assert diagnosis.is_healthy, _wrong(diagnosis)
    assert [token for _, token in diagnosis.tokens][-1] == "<|im_end|>"
    details = {finding.check: finding.detail for finding in diagnosis.findings}
    assert details["chat template"] == "there is one, not applied"
    assert "the same as the end token" in details["pad token"]


def test_spelled_control_tokens_that_count_are_found(llama: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {finding.check: finding for finding in examine(llama).findings}["spelled control tokens"]
    assert (seen.is_ok, seen.detail) == (True, "'</s>' in a text becomes its characters")
    tokenizer = llama.backbone.tokenizer
    monkeypatch.setattr(
        llama.tokenizer.encoder,
        "encode_alone",
        lambda texts: [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts],
    )
    wrong = {finding.check: finding for finding in examine(llama).findings}["spelled control tokens"]
    assert (wrong.is_ok, wrong.detail) == (False, "'</s>' in a text becomes a control token")


@pytest.mark.parametrize(
    ("kind", "dtype", "products", "expected"),
    [
        ("cuda", torch.float32, "high", 5e-3),
        ("cuda", torch.float32, "highest", 1e-4),
        ("cuda", torch.bfloat16, "high", 0.15),
        ("cpu", torch.float32, "high", 1e-4),
    ],
)
def test_products_of_rounded_inputs_are_no_fault_of_the_model(
    kind: str, dtype: torch.dtype, products: str, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: products)
    assert vector_checks._tolerance(dtype, device=torch.device(kind)) == expected


@pytest.mark.parametrize("layers", [0, "all"])
def test_rounding_is_told_from_a_fault_in_float32(
    model_folders: dict[str, str],
    layers: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As with a model whose attention has just begun to go both ways: bfloat16 moves its vectors by 0.3 and more."""
    monkeypatch.setitem(vector_checks._TOLERANCE, torch.bfloat16, 1e-9)
    settings = {"precision": "bf16", "max_length": 64, "bidirectional_layers": layers, "prompt": "the {text}"}
    diagnosis = examine(Embedder.load(model_folders["llama"], **settings))
    assert diagnosis.is_healthy, _wrong(diagnosis)
    details = {finding.check: finding.detail for finding in diagnosis.findings}
    assert "by rounding: in float32 differs from the text alone by" in details["transformers' padded forward"]
    assert "bfloat16 rounds the vectors" in caplog.text

    monkeypatch.setattr(vector_checks, "_reference", lambda *_: np.zeros((5, 64)))
    assert list(_wrong(examine(Embedder.load(model_folders["llama"], **settings)))) == ["transformers' padded forward"]


@pytest.mark.parametrize(("way", "said"), [("apart", "apart from the text"), ("joined", "joined with the text")])
def test_how_a_prompt_is_tokenised_is_said(way: PromptTokens, said: str, model_folders: dict[str, str]) -> None:
    embedder = Embedder.load(model_folders["llama"], prompt="the cat {text}", prompt_tokens=way, precision="fp32")
    diagnosis = examine(embedder)
    assert diagnosis.is_healthy
    (detail,) = [finding.detail for finding in diagnosis.findings if finding.check == "prompt"]
    assert f", tokenised {said}" in detail
