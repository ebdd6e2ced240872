"""average: a folder that every command takes, equal to averaged merged weights; smaller adapters; refusals."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from embedsmith.cli import run_command
from embedsmith.model.embedder import Embedder
from embedsmith.settings.config import AdapterSection
from tests.model.loading.test_plain_lora import peft_vectors, write_adapter
from tests.tiny import TEXTS, save_model, write_pairs, write_triplets

STEPS = ["--max_steps", "2", "--batch_size", "8", "--warmup_steps", "0", "--dev", "none", "--precision", "fp32"]


@pytest.fixture
def here(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and adapters on it, `a` and `b`, of different ranks and layers."""
    monkeypatch.chdir(tmp_path)
    save_model("llama", tmp_path / "m")
    _save_run("a", lora_r=4, target_modules=["q_proj", "v_proj"])
    _save_run("b", lora_r=2, target_modules=["q_proj", "up_proj"], lora_alpha=5)
    return tmp_path


def _save_run(name: str, *, model: str = "m", pooling: str = "mean", **settings: object) -> None:
    embedder = Embedder.load(model, precision="fp32", pooling=pooling, max_length=64)
    embedder.add_adapter(AdapterSection.model_validate(settings))
    torch.manual_seed(len(name) + ord(name[0]))
    state = {key: tensor + 0.2 * torch.randn_like(tensor) for key, tensor in embedder.trained.state.items()}
    embedder.trained.set_state(state)
    embedder.save(f"{name}/adapter")


def _train(output_dir: str, *settings: str) -> None:
    write_triplets(Path("t.tsv"), num_rows=24)
    command = ["train", "--output_dir", output_dir, "--model.model", "m", "--data.train", "t.tsv", *STEPS]
    assert run_command([*command, "--learning_rate", "1e-2", *settings]) == 0


def _encode(model: str, *, fused: bool = True) -> np.ndarray:
    return Embedder.load(model, precision="fp32", fused=fused).encode(TEXTS)


def _encode_merged_mean(models: list[str], *, weights: list[float]) -> np.ndarray:
    merged = [Embedder.load(model, precision="fp32", fused=False, as_base=True) for model in models]
    states = [one.backbone.model.state_dict() for one in merged]
    merged[0].backbone.model.load_state_dict(
        {name: sum(weight * state[name] for weight, state in zip(weights, states, strict=True)) for name in states[0]}
    )
    return merged[0].encode(TEXTS)


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize(("options", "weights"), [([], [0.5, 0.5]), (["--weights", "3", "1"], [0.75, 0.25])])
def test_an_average_is_that_of_the_merged_weights(
    here: Path, fused: bool, options: list[str], weights: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["average", "a", "b", "--to", "soup", *options]) == 0
    assert "soup: an adapter of rank 2 to 6," in capsys.readouterr().out
    expected = _encode_merged_mean(["a", "b"], weights=weights)
    np.testing.assert_allclose(_encode("soup", fused=fused), expected, atol=1e-5)
    assert min(np.abs(_encode(name) - expected).max() for name in ("a", "b")) > 0.01


def test_runs_with_every_weight_trained(here: Path) -> None:
    for seed in ("1", "2"):
        _train(f"run{seed}", "--method", "full", "--seed", seed)
    assert run_command(["average", "run1", "run2", "--to", "soup"]) == 0
    np.testing.assert_allclose(_encode("soup"), _encode_merged_mean(["run1", "run2"], weights=[0.5, 0.5]), atol=1e-5)
    assert np.abs(_encode("soup") - _encode("run1")).max() > 1e-3
    assert "all weights of `m`, made with embedsmith as the average of 2." in (here / "soup/README.md").read_text()
    assert run_command(["average", "run1", "run2", "--to", "no", "--dtype", "bf16"]) == 2
    assert run_command(["average", "run1", "a", "--to", "no"]) == 2


def test_bases_in_other_number_formats_are_said(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    for seed in ("1", "2"):
        _train(f"run{seed}", "--seed", seed)
    inputs = here / "run2" / "checkpoints" / "inputs.json"
    inputs.write_text(inputs.read_text().replace("float32 on cpu", "bfloat16 on cpu"))
    with caplog.at_level(logging.WARNING, logger="embedsmith"):
        assert run_command(["average", "run1", "run2", "--to", "soup"]) == 0
    assert "trained on their base in different ways: bfloat16 on cpu, float32 on cpu" in caplog.text


def test_every_command_takes_it(here: Path) -> None:
    for seed in ("1", "2"):
        _train(f"run{seed}", "--seed", seed)
    write_pairs(here / "d.tsv")
    assert run_command(["average", "run1", "run2", "--to", "soup"]) == 0
    assert run_command(["evaluate", "soup", "--data", ".", "--tasks", "d", "--out", "r.json"]) == 0
    assert run_command(["card", "soup", "--results", "r.json"]) == 0
    card = (here / "soup/README.md").read_text()
    assert "a LoRA adapter for `m`, made with embedsmith as the average of 2." in card
    assert "| run1 | 0.5 | 24 triplets | 2 |" in card
    assert "Their recipes are the same but for `training.seed` 1, 2." in card
    assert "| d | 24 |" in card
    assert run_command(["export", "soup", "merged", "--to", "merged"]) == 0
    np.testing.assert_allclose(_encode("merged"), _encode("soup"), atol=1e-5)
    assert run_command(["report", "soup", "run1", "--data", ".", "--tasks", "d", "--out", "page.html"]) == 0
    assert run_command(["doctor", "soup"]) == 0
    _train("next", "--model.model", "soup")
    assert run_command(["average", "soup", "--rank", "3", "--to", "small"]) == 0
    small = (here / "small/README.md").read_text()
    assert "made with embedsmith as the average of 2, reduced to rank 3." in small
    assert "| run2 in soup | 0.5 | 24 triplets | 2 |" in small


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft's own loading
@pytest.mark.parametrize(
    ("dtype", "stored", "atol"), [("fp32", "F32", 1e-5), ("bf16", "BF16", 0.03), ("fp16", "F16", 3e-3)]
)
def test_a_smaller_adapter(
    here: Path, dtype: str, stored: str, atol: float, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["average", "a", "b", "--to", "soup"]) == 0
    assert run_command(["average", "a", "b", "--to", "small", "--rank", "5", "--dtype", dtype]) == 0
    said = capsys.readouterr().out
    assert "Kept of the updates' squared norm: 9" in said
    assert "at least (layers." in said
    record = json.loads((here / "small/average.json").read_text())
    assert {layer: share == 1 for layer, share in record["kept"].items() if "q_proj" not in layer} == {
        f"layers.{index}.{name}": True for index in range(3) for name in ("mlp.up_proj", "self_attn.v_proj")
    }
    assert f"Smallest cosine to what it was made from, whole: {record['smallest_cosine']:.6f}" in said
    assert {str(tensor.dtype) for tensor in load_file("small/adapter/adapter_model.safetensors").values()} == {
        {"F32": "torch.float32", "BF16": "torch.bfloat16", "F16": "torch.float16"}[stored]
    }
    # What is lost is the smallest singular value of each query projection.
    live = Embedder.load("small", precision="fp32")
    for index in range(3):
        name = f"base_model.model.layers.{index}.self_attn.q_proj"
        ours, whole = (_update(folder, name) for folder in ("small", "soup"))
        values = torch.linalg.svdvals(whole)
        assert record["kept"][f"layers.{index}.self_attn.q_proj"] == pytest.approx(
            float((values[:5] ** 2).sum() / (values**2).sum()), abs=1e-5
        )
        assert float(torch.linalg.norm(whole - ours, 2)) == pytest.approx(float(values[5]), rel=0.1, abs=0.01)
    tokens = live.tokenizer(TEXTS)
    by_peft = peft_vectors(here / "small/adapter", base="m", with_head=False, token_lists=tokens)
    np.testing.assert_allclose(
        Embedder.load("small", precision="fp32", pooling="last").encode(TEXTS), by_peft, atol=1e-5
    )
    if dtype != "fp32":
        assert run_command(["average", "a", "b", "--to", "exact", "--rank", "5"]) == 0
        np.testing.assert_allclose(live.encode(TEXTS), _encode("exact"), atol=atol)


def _update(folder: str, name: str) -> torch.Tensor:
    weights = load_file(f"{folder}/adapter/adapter_model.safetensors")
    return weights[f"{name}.lora_B.weight"].float() @ weights[f"{name}.lora_A.weight"].float()


def test_adapters_of_other_tools(here: Path) -> None:
    for name, rank in (("x", 3), ("y", 4)):
        write_adapter(here / name, base="m", r=rank, target_modules=["q_proj"])
    command = ["average", "x", "y", "--to", "soup"]
    assert run_command([*command, "--base-model", "m"]) == 0
    assert json.loads((here / "soup/adapter/adapter_config.json").read_text())["r"] == 7
    assert "| x | 0.5 |  |  |" in (here / "soup/README.md").read_text()


def test_what_has_no_average(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _save_run("last", pooling="last")
    save_model("qwen2", here / "other")
    _save_run("elsewhere", model="other")
    shutil.copytree("m", "copy")
    _save_run("copied", model="copy")
    (here / "taken").mkdir()
    (here / "taken" / "x").touch()
    refused = [
        (["a", "last"], "last: pooling is 'last', of a it is 'mean'"),
        (
            ["a", "elsewhere"],
            f"elsewhere was trained on the base {here / 'other'}, a on {here / 'm'}, which is another",
        ),
        (["a", "a/adapter"], "'a' is named twice"),
        (["a", "m"], "'m' is neither a run nor an adapter"),
        (["a", "nowhere"], "There is no run or adapter 'nowhere'"),
        (["a"], "One model alone is its own average"),
        (["a", "b", "--weights", "1"], "--weights has 1 numbers for 2 models"),
        (["a", "b", "--weights", "1", "0"], "--weights holds 0; a weight is a number above 0"),
        (["a", "b", "--rank", "6"], "--rank is 6, but no layer has more than 6"),
        (["a", "b", "--dtype", "int8"], "--dtype is 'int8'; it may be fp32, bf16, fp16"),
    ]
    for arguments, message in refused:
        assert run_command(["average", *arguments, "--to", "no"]) == 2, arguments
        assert message in capsys.readouterr().err
        assert not (here / "no").exists()
    assert run_command(["average", "a", "b", "--to", "taken"]) == 2
    assert "taken exists already" in capsys.readouterr().err
    assert run_command(["average", "a", "copied", "--to", "same"]) == 0  # the same base under another name
