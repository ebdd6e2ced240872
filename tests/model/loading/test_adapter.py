"""Adapters that other tools wrote, in the layout of the paper's published ones; what of an adapter is refused."""

import json
import logging
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize
from transformers import AutoModelForCausalLM

from embedsmith.model.embedder import Embedder
from embedsmith.settings.choices import Pooling
from embedsmith.settings.config import AdapterSection
from embedsmith.support.errors import ConfigError, ModelError
from tests.hub import Trap, put_in_hub_cache
from tests.model.loading.minicpm_reference import minicpm_states
from tests.published import MINICPM, SAVERS, minicpm_weights
from tests.published_adapter import ADAPTER, save_adapter_folder
from tests.tiny import TEXTS, save_model


def reference_embeddings(name: str, base: Path, adapter: Path, token_lists: list[np.ndarray]) -> torch.Tensor:
    """What the authors compute: the last layer's state at the end token, on the class with the LM head."""
    if name == "minicpm-2b":
        weights = minicpm_weights(MINICPM)
        update = load_file(adapter / "adapter_model.safetensors")
        for key in [key for key in update if key.endswith("lora_A.weight")]:
            target = key.removeprefix("base_model.model.").replace("lora_A.weight", "weight")
            weights[target] += 32 / 8 * update[key.replace("lora_A", "lora_B")] @ update[key]
        states = [minicpm_states(weights, MINICPM, torch.from_numpy(tokens)) for tokens in token_lists]
    else:
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        model = PeftModel.from_pretrained(model, str(adapter))
        with torch.no_grad():
            states = [
                model(input_ids=torch.from_numpy(tokens)[None], output_hidden_states=True).hidden_states[-1][0]
                for tokens in token_lists
            ]
    return normalize(torch.stack([rows[-1] for rows in states]).float(), dim=-1)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bases")
    return {name: save(root / name) for name, save in SAVERS.items()}


@pytest.fixture
def adapter(bases: dict[str, Path], tmp_path: Path) -> Path:
    """A published MiniCPM adapter, by name of the folder its base lies in."""
    folder = tmp_path / "adapter"
    save_adapter_folder(folder, base=bases["minicpm-2b"], changes={"base_model_name_or_path": str(bases["minicpm-2b"])})
    return folder


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft's own loading
@pytest.mark.parametrize("name", SAVERS)
def test_published_adapters_give_the_authors_embeddings(
    bases: dict[str, Path], tmp_path: Path, name: str, fused: bool
) -> None:
    base = bases[name]
    save_adapter_folder(tmp_path / "adapter", base=base)
    embedder = Embedder.load(str(tmp_path / "adapter"), base_model=str(base), precision="fp32", fused=fused)
    assert (embedder.settings.pooling, embedder.settings.prompt) == (Pooling.LAST, None)
    vectors = embedder.encode(TEXTS)
    expected = reference_embeddings(name, base, tmp_path / "adapter", embedder.tokenizer(TEXTS))
    np.testing.assert_allclose(vectors, expected.numpy(), atol=1e-5)
    with embedder.without_adapter():
        assert np.abs(embedder.encode(TEXTS) - vectors).max() > 0.01


def test_its_own_base_is_taken_and_what_is_assumed_is_said(
    adapter: Path, bases: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="embedsmith"):
        vectors = Embedder.load(str(adapter), precision="fp32").encode(TEXTS)
    assert "Assumed: pooling last, no prompt, at most 150 tokens or what its base takes, the tokenizer" in caplog.text
    named = Embedder.load(str(adapter), base_model=str(bases["minicpm-2b"]), precision="fp32")
    assert (named.encode(TEXTS) == vectors).all()


def test_a_base_that_is_elsewhere(bases: dict[str, Path], tmp_path: Path) -> None:
    save_adapter_folder(tmp_path / "adapter", base=bases["phi-2"])
    with pytest.raises(
        ModelError, match=r"(?s)base of the adapter .*no model '/home/someone/pretrained/model'.*--base-model MODEL"
    ):
        Embedder.load(str(tmp_path / "adapter"))
    with pytest.raises(ModelError, match="There is no model 'nowhere'") as error:
        Embedder.load(str(tmp_path / "adapter"), base_model="nowhere")
    assert "--base-model" not in str(error.value)
    with pytest.raises(ConfigError, match="is no run or adapter, so it has no base model"):
        Embedder.load(str(bases["phi-2"]), base_model=str(bases["phi-2"]))


def test_a_run_whose_base_has_moved(bases: dict[str, Path], adapter: Path, tmp_path: Path) -> None:
    embedder = Embedder.load(str(adapter), precision="fp32")
    embedder.save(tmp_path / "run" / "adapter")
    settings = tmp_path / "run" / "adapter" / "embedding.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "base_model": "/gone", "max_length": 9}))
    with pytest.raises(ModelError, match="--base-model MODEL"):
        Embedder.load(str(tmp_path / "run"))
    again = Embedder.load(str(tmp_path / "run"), base_model=str(bases["minicpm-2b"]), precision="fp32")
    assert again.settings.max_length == 9
    np.testing.assert_array_equal(again.encode(TEXTS[:1]), embedder.encode(TEXTS[:1]))


def test_what_is_saved_again_is_ours(adapter: Path, tmp_path: Path) -> None:
    embedder = Embedder.load(str(adapter), precision="fp32")
    embedder.save(tmp_path / "ours")
    names = load_file(tmp_path / "ours" / "adapter_model.safetensors").keys()
    assert all(name.startswith("base_model.model.layers.") for name in names)
    assert json.loads((tmp_path / "ours" / "embedding.json").read_text())["pooling"] == "last"
    again = Embedder.load(str(tmp_path / "ours"), precision="fp32")
    np.testing.assert_array_equal(again.encode(TEXTS), embedder.encode(TEXTS))


@pytest.mark.parametrize("values", [{"base_model_name_or_path": None}, {"base_model_name_or_path": ""}, {}])
def test_an_adapter_that_names_no_base(
    adapter: Path, bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch, values: dict[str, object]
) -> None:
    path = adapter / "adapter_config.json"
    config = {key: value for key, value in json.loads(path.read_text()).items() if key != "base_model_name_or_path"}
    path.write_text(json.dumps(config | values))
    expected = Embedder.load(str(adapter), base_model=str(bases["minicpm-2b"]), precision="fp32").encode(TEXTS)
    monkeypatch.chdir(bases["minicpm-2b"])  # a base, but nobody named it
    with pytest.raises(ModelError, match=r"does not say which base model it belongs to .*\n.*--base-model MODEL"):
        Embedder.load(str(adapter))
    again = Embedder.load(str(adapter), base_model=".", precision="fp32")
    assert again.settings.base_model == str(bases["minicpm-2b"])
    np.testing.assert_array_equal(again.encode(TEXTS), expected)


def test_the_revision_of_a_base_is_not_taken_in_silence(adapter: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "revision": "v2"}))
    with caplog.at_level(logging.WARNING, logger="embedsmith"):
        Embedder.load(str(adapter))
    assert "names revision v2 of its base" in caplog.text


def test_an_adapter_from_the_hub(adapter: Path, hub_cache: Path) -> None:
    put_in_hub_cache(hub_cache, "trapoom555/adapter", {path.name: path for path in adapter.iterdir()})
    vectors = Embedder.load("trapoom555/adapter", precision="fp32").encode(TEXTS)
    np.testing.assert_array_equal(vectors, Embedder.load(str(adapter), precision="fp32").encode(TEXTS))


def test_weights_in_bfloat16_become_float32(adapter: Path) -> None:
    rewrite(adapter, lambda weights: {key: value.bfloat16() for key, value in weights.items()})
    embedder = Embedder.load(str(adapter), precision="bf16")
    trained = [weight for name, weight in embedder.adapter.named_parameters() if "lora_" in name]
    assert {weight.dtype for weight in trained} == {torch.float32}
    assert len(trained) == 2 * 2 * MINICPM["num_hidden_layers"]


def rewrite(adapter: Path, change: object) -> None:
    path = adapter / "adapter_model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda w: {k: v for k, v in w.items() if k != FIRST},
            r"file lacks .*layers\.0\.self_attn\.q_proj\.lora_A",
        ),
        (lambda w: {k: v for k, v in w.items() if ".v_proj." not in k}, r"the file lacks .* and 3 more"),
        (
            lambda w: {**w, FIRST.replace("layers.0", "layers.9"): w[FIRST].clone()},
            r"the model has no place for .*layers\.9\.self_attn\.q_proj\.lora_A",
        ),
        (lambda w: {**w, FIRST.replace("q_proj", "k_proj"): w[FIRST].clone()}, r"has no place for .*k_proj"),
        (lambda w: {k.replace("model.model.layers", "layers"): v for k, v in w.items()}, "peft would not name so"),
        (lambda w: {k.replace("model.model.layers", "model.layer"): v for k, v in w.items()}, "has no place for"),
        (
            lambda w: {**w, FIRST: w[FIRST] * float("nan")},
            r"damaged: NaN or infinity in .*q_proj.*\(768 of 768 values\)",
        ),
        (lambda w: {**w, FIRST: w[FIRST][:, :32].clone()}, r"q_proj\.lora_A\.weight is \(8, 32\), the model takes"),
        (lambda w: {**w, FIRST: w[FIRST][:4].clone()}, r"lora_A\.weight is \(4, 96\), the model takes \(8, 96\)"),
        (
            lambda w: {**w, FIRST.replace("lora_A.weight", "lora_magnitude_vector"): torch.ones(96)},
            "is more than a plain LoRA: .*lora_magnitude_vector",
        ),
        (lambda w: {**w, "base_model.model.lm_head.weight": torch.ones(480, 96)}, "more than a plain LoRA: .*lm_head"),
    ],
)
def test_every_weight_must_find_its_place(adapter: Path, change: object, message: str) -> None:
    rewrite(adapter, change)
    with pytest.raises(ModelError, match=message):
        Embedder.load(str(adapter))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_modules": ["q_proj"]}, r"has no place for .*v_proj"),
        ({"target_modules": ["query_key_value"]}, "does not fit the model"),
        ({"use_dora": True}, "is more than a plain LoRA: use_dora: True"),
        ({"modules_to_save": ["embed_tokens"]}, r"is more than a plain LoRA: .*model\.embed_tokens \(modules_to_save"),
        ({"layer_replication": [[0, 2], [1, 3]]}, "is more than a plain LoRA: layer_replication"),
        ({"init_lora_weights": "pissa"}, "'pissa', which changes the base model too"),
        ({"peft_type": "NEW"}, "is of type NEW"),
    ],
)
def test_settings_that_do_not_fit(adapter: Path, changes: dict[str, object], message: str) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ModelError, match=message):
        Embedder.load(str(adapter))


def test_adapters_of_another_kind(adapter: Path) -> None:
    path = adapter / "adapter_config.json"
    base = json.loads(path.read_text())["base_model_name_or_path"]
    values = {"peft_type": "IA3", "target_modules": ["q_proj"], "feedforward_modules": []}
    path.write_text(json.dumps({**values, "base_model_name_or_path": base}))
    with pytest.raises(ModelError, match="is of type IA3"):
        Embedder.load(str(adapter))


def test_another_model_s_adapter(bases: dict[str, Path], adapter: Path) -> None:
    with pytest.raises(ModelError, match="does not fit the model"):
        Embedder.load(str(adapter), base_model=str(bases["gemma-2b"]))


def test_rank_stabilised_and_ranks_by_pattern(adapter: Path, bases: dict[str, Path]) -> None:
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text())
    config |= {"use_rslora": True, "rank_pattern": {"v_proj": 4}, "alpha_pattern": {"v_proj": 5}}
    path.write_text(json.dumps(config))

    def narrow(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {
            key: value if "v_proj" not in key else (value[:4] if "lora_A" in key else value[:, :4]).clone()
            for key, value in weights.items()
        }

    rewrite(adapter, narrow)
    embedder = Embedder.load(str(adapter), precision="fp32")
    weights = minicpm_weights(MINICPM)
    update = load_file(adapter / "adapter_model.safetensors")
    for key in [key for key in update if "lora_A" in key]:
        scale = 5 / math.sqrt(4) if "v_proj" in key else 32 / math.sqrt(8)
        target = key.removeprefix("base_model.model.").replace("lora_A.weight", "weight")
        weights[target] += scale * update[key.replace("lora_A", "lora_B")] @ update[key]
    ends = [minicpm_states(weights, MINICPM, torch.from_numpy(ids))[-1] for ids in embedder.tokenizer(TEXTS)]
    np.testing.assert_allclose(embedder.encode(TEXTS), normalize(torch.stack(ends), dim=-1).numpy(), atol=1e-5)


def test_damaged_files(adapter: Path) -> None:
    base = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    (adapter / "adapter_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"adapter_config\.json is damaged"):
        Embedder.load(str(adapter))
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "lora_alpha": 8, "lora_alpha": 64}')
    with pytest.raises(ModelError, match=r"adapter_config\.json is damaged: the name 'lora_alpha' stands there twice"):
        Embedder.load(str(adapter))
    (adapter / "adapter_model.safetensors").write_bytes(b"")
    (adapter / "adapter_config.json").write_text(json.dumps({**ADAPTER, "base_model_name_or_path": base}))
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors is damaged: "):
        Embedder.load(str(adapter))
    (adapter / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"adapter_config\.json is damaged"):
        Embedder.load(str(adapter))


def test_a_pickled_adapter_is_never_opened(adapter: Path, tmp_path: Path) -> None:
    (adapter / "adapter_model.safetensors").unlink()
    torch.save(Trap(tmp_path / "sprung"), adapter / "adapter_model.bin")
    with pytest.raises(
        ModelError, match=rf"(?s)has no adapter_model\.safetensors.*python -c .*{re.escape(str(adapter))}"
    ):
        Embedder.load(str(adapter))
    assert not (tmp_path / "sprung").exists()


def test_training_on_top_of_an_adapter_is_refused(adapter: Path) -> None:
    embedder = Embedder.load(str(adapter), precision="fp32")
    with pytest.raises(AssertionError, match="there is an adapter already"):
        embedder.add_adapter(AdapterSection())


@pytest.mark.parametrize(
    ("family", "targets", "leaves"),
    [
        ("llama", ["layers.0.self_attn.q_proj", "1.mlp.up_proj"], {"q_proj", "up_proj"}),
        ("llama", ["all-linear"], {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),
        ("phi", ["all-linear"], {"q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"}),
        ("gpt2", None, {"c_attn"}),
        ("gpt2", ["all-linear"], {"c_attn", "c_proj", "c_fc"}),
    ],
)
def test_what_is_adapted_can_be_loaded_again(
    tmp_path: Path, family: str, targets: list[str] | None, leaves: set[str]
) -> None:
    base = save_model(family, tmp_path / "base")
    embedder = Embedder.load(str(base), precision="fp32")
    embedder.add_adapter(AdapterSection(target_modules=targets))
    trained = {name for name, weight in embedder.adapter.named_parameters() if weight.requires_grad}
    assert {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in trained} == leaves
    torch.manual_seed(2)
    for name, weight in embedder.adapter.named_parameters():
        if name in trained:
            weight.data = torch.randn_like(weight) * 0.1
    embedder.save(tmp_path / "adapter")
    again = Embedder.load(str(tmp_path / "adapter"), precision="fp32")
    np.testing.assert_array_equal(again.encode(TEXTS), embedder.encode(TEXTS))


@pytest.mark.parametrize(
    ("targets", "fault"),
    [
        (["q_proj", "embed_tokens"], "embed_tokens: embed_tokens is no linear layer but Embedding"),
        (["q_proj", "norm"], "norm: norm is no linear layer but LlamaRMSNorm"),
        (["q_proj", "mlp"], r"mlp: layers\.0\.mlp is no linear layer but LlamaMLP"),
        (["q_proj", "lm_head"], "lm_head: the model has no such layer"),
        (["q_proj", "q_porj"], "q_porj: the model has no such layer"),
        (["q_proj", "all-linear"], "all-linear: the model has no such layer"),
        (["model.layers.0.self_attn.q_proj"], r"model\.layers\.0\.self_attn\.q_proj: the model has no such layer"),
        (["self_attn.up_proj"], r"self_attn\.up_proj: the model has no such layer"),
        ([r".*\.q_proj"], "the model has no such layer"),
        ([""], ": the model has no such layer"),
    ],
)
def test_what_cannot_be_adapted(llama: Embedder, targets: list[str], fault: str) -> None:
    listed = "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
    with pytest.raises(ConfigError, match=rf"{fault}\n.* are: {listed}\.\n"):
        llama.add_adapter(AdapterSection(target_modules=targets))
    assert llama.adapter is None


@pytest.mark.parametrize(("given", "written"), [(32, b"32"), (32.0, b"32"), (0.5, b"0.5")])
def test_numbers_are_written_as_they_are_read(llama: Embedder, tmp_path: Path, given: float, written: bytes) -> None:
    llama.add_adapter(AdapterSection(lora_alpha=given))
    llama.save(tmp_path / "adapter")
    assert b'"lora_alpha": %s,' % written in (tmp_path / "adapter" / "adapter_config.json").read_bytes()
