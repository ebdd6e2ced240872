"""Weights that are not what an architecture takes: each is refused by name."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from embedsmith.model.loading.backbone import load_backbone
from embedsmith.model.loading.weights import check_finite
from embedsmith.support.errors import ModelError
from tests.tiny import save_model

CPU = torch.device("cpu")
Q = "model.layers.0.self_attn.q_proj.weight"
Weights = dict[str, torch.Tensor]


def load(folder: Path) -> Weights:
    return dict(load_backbone(str(folder), device=CPU).model.state_dict())


def rewrite(folder: Path, change: Callable[[Weights], Weights]) -> Path:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_model("llama", tmp_path / "m")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda w: {k: v for k, v in w.items() if "1.mlp.up_proj" not in k},
            r"incomplete: layers\.1\.mlp\.up_proj\.weight are missing",
        ),
        (
            lambda w: {**w, Q.replace("weight", "bias"): torch.ones(64)},
            r"\(model_type llama\) has no place: model\.layers\.0\.self_attn\.q_proj\.bias",
        ),
        (
            lambda w: {**w, **{k.replace("layers.2", "layers.3"): v.clone() for k, v in w.items() if "layers.2" in k}},
            r"has no place: model\.layers\.3\.input_layernorm\.weight, .* and 6 more",
        ),
        (lambda w: {**w, Q + "_scale": torch.ones(1)}, r"has no place: .*q_proj\.weight_scale"),
        (lambda w: {f"model.{k}": v for k, v in w.items()}, r"incomplete: .* and 26 more are missing"),
        (lambda w: {**w, Q: w[Q][:, :32].clone()}, r"q_proj\.weight is \(64, 32\), not \(64, 64\)"),
        (lambda w: {**w, Q: (w[Q] * 50).to(torch.int8)}, r"not all real numbers: model\..*q_proj\.weight \(I8\)"),
        (lambda w: {**w, Q: w[Q].to(torch.float8_e4m3fn)}, r"not all real numbers: .*q_proj\.weight \(F8_E4M3\)"),
        (lambda w: {**w, Q: w[Q] > 0}, r"not all real numbers: .*q_proj\.weight \(BOOL\)"),
        (
            lambda w: {**w, Q: w[Q] * float("nan")},
            r"damaged: NaN or infinity in layers\.0\.self_attn\.q_proj\.weight \(4096 of 4096 values\)",
        ),
        (
            lambda w: {**w, Q: w[Q].index_put((torch.tensor(3), torch.tensor(5)), torch.tensor(float("-inf")))},
            r"damaged: NaN or infinity in layers\.0\.self_attn\.q_proj\.weight \(1 of 4096 values\)",
        ),
    ],
)
def test_weights_that_do_not_belong(folder: Path, change: Callable[[Weights], Weights], message: str) -> None:
    rewrite(folder, change)
    with pytest.raises(ModelError, match=message):
        load(folder)


@pytest.mark.parametrize(
    "more",
    [
        {"score.weight": torch.ones(2, 64)},
        {"lm_head.bias": torch.ones(320)},
        {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)},
    ],
    ids=["another task's head", "a head's bias", "rotary tables"],
)
def test_heads_and_rotary_tables_are_no_weights_of_the_backbone(folder: Path, more: Weights) -> None:
    expected = load(folder)
    found = load(rewrite(folder, lambda weights: {**weights, **more}))
    assert found.keys() == expected.keys()
    assert all((found[name] == expected[name]).all() for name in expected)


def test_number_formats_that_hold_the_same(folder: Path) -> None:
    rewrite(folder, lambda weights: {key: value.bfloat16() for key, value in weights.items()})
    expected = load(folder)
    for dtype in (torch.float32, torch.float64):
        found = load(rewrite(folder, lambda weights, dtype=dtype: {key: w.to(dtype) for key, w in weights.items()}))
        assert all((found[name] == expected[name]).all() for name in expected)


def test_a_config_that_says_less_than_the_weights(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "num_hidden_layers": 2}))
    with pytest.raises(ModelError, match=r"has no place: model\.layers\.2\.input_layernorm\.weight.*\n.*config\.json"):
        load(folder)


def write_shards(folder: Path) -> dict[str, str]:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, places = sorted(weights), {}
    for number, part in ((1, names[:10]), (2, names[10:])):
        shard = f"model-0000{number}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, folder / shard, metadata={"format": "pt"})
        places |= dict.fromkeys(part, shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return places


def test_shards(folder: Path) -> None:
    expected = load(folder)
    places = write_shards(folder)
    found = load(folder)
    assert all((found[name] == expected[name]).all() for name in expected)

    first = {name: shard for name, shard in places.items() if "00001" in shard}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": first}))
    with pytest.raises(ModelError, match=r"incomplete: .* and 17 more are missing"):
        load(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}}))
    with pytest.raises(ModelError, match=r"index\.json is damaged: it has no weight_map"):
        load(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"index\.json names 'model-00002-of-00002\.safetensors', which is no file"):
        load(folder)


def test_whole_numbers_in_a_shard(folder: Path) -> None:
    rewrite(folder, lambda weights: {**weights, Q: (weights[Q] * 50).to(torch.int8)})
    write_shards(folder)
    with pytest.raises(ModelError, match=r"not all real numbers: .*q_proj\.weight \(I8\)"):
        load(folder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_finite_in_every_number_format(dtype: torch.dtype) -> None:
    good = {"a": torch.full((300,), torch.finfo(dtype).max, dtype=dtype), "none": torch.empty(0, dtype=dtype)}
    check_finite(good, owner="The weights", advice="")
    for bad in (float("nan"), float("inf"), -float("inf")):
        for place in (0, 150, 299):
            tensor = torch.zeros(300, dtype=dtype)
            tensor[place] = bad
            with pytest.raises(ModelError, match=r"The weights are damaged: NaN or infinity in b \(1 of 300 values\)"):
                check_finite({**good, "b": tensor}, owner="The weights", advice="")
