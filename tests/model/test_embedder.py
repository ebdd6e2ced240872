"""Loading, saving and the adapter: saved == live, base untouched, the same weights give the same bytes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from embedsmith.model.embedder import Embedder
from embedsmith.model.tokens import TokenizedTexts
from embedsmith.settings.choices import Pooling, Side
from embedsmith.settings.config import AdapterSection
from embedsmith.support.errors import ConfigError, ModelError
from tests.model.layers.fused.cases import save_variant
from tests.tiny import TEXTS


def _disturb(embedder: Embedder) -> None:
    """Give the adapter weights that change embeddings (a fresh one changes nothing)."""
    torch.manual_seed(1)
    embedder.add_adapter(AdapterSection(lora_alpha=64))
    with torch.no_grad():
        for name, weight in embedder.backbone.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3)


def test_a_saved_adapter_loads_equal(llama: Embedder, tmp_path: Path) -> None:
    base = llama.encode(TEXTS)
    _disturb(llama)
    live = llama.encode(TEXTS)
    assert np.abs(live - base).max() > 0.05
    llama.save(tmp_path / "run" / "adapter")
    for folder in ("run", "run/adapter"):
        loaded = Embedder.load(str(tmp_path / folder), precision="fp32")
        np.testing.assert_array_equal(loaded.encode(TEXTS), live)
        assert loaded.settings == llama.settings
        with loaded.without_adapter():
            np.testing.assert_array_equal(loaded.encode(TEXTS), base)


def test_the_adapter_folder_is_peft_s(llama: Embedder, tmp_path: Path) -> None:
    _disturb(llama)
    llama.save(tmp_path / "a")
    llama.save(tmp_path / "b")
    for name in ("adapter_config.json", "adapter_model.safetensors", "embedding.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == llama.backbone.name
    assert config["target_modules"] == ["q_proj", "v_proj"]
    assert config["inference_mode"] is True
    weights = load_file(tmp_path / "a" / "adapter_model.safetensors")
    assert len(weights) == 3 * 2 * 2
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


def test_dropout_is_on_only_when_asked(llama: Embedder) -> None:
    torch.manual_seed(1)
    llama.add_adapter(AdapterSection(lora_dropout=0.5))
    with torch.no_grad():
        for name, weight in llama.backbone.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3)
        packed = llama.pack(TEXTS)
        torch.testing.assert_close(llama.embed(packed), llama.embed(packed), rtol=0, atol=0)
        with llama.dropout(is_on=True):
            assert (llama.embed(packed) - llama.embed(packed)).abs().max() > 1e-3
        torch.testing.assert_close(llama.embed(packed), llama.embed(packed), rtol=0, atol=0)


def test_settings_given_at_loading_win(llama: Embedder, tmp_path: Path) -> None:
    _disturb(llama)
    llama.save(tmp_path)
    loaded = Embedder.load(str(tmp_path), pooling="mean", prompt="the {text}", max_length=10, precision="fp32")
    assert (loaded.settings.pooling, loaded.settings.prompt, loaded.settings.max_length) == ("mean", "the {text}", 10)


def test_several_poolings_of_one_forward(llama: Embedder, model_folders: dict[str, str]) -> None:
    several = llama.encode_poolings(TEXTS, poolings=list(Pooling))
    for pooling, vectors in several.items():
        one = Embedder.load(model_folders["llama"], pooling=pooling, precision="fp32", max_length=64)
        # Not the same products: with the end token as embedding the last layer computes one row a text.
        np.testing.assert_allclose(one.encode(TEXTS), vectors, atol=1e-6)


def test_encode_reports_progress_and_takes_no_text(llama: Embedder) -> None:
    done: list[int] = []
    llama.encode(TEXTS, max_tokens=10, on_progress=done.append)
    assert sum(done) == len(TEXTS)
    assert len(done) > 1
    assert llama.encode([]).shape == (0, 64)


def test_faulty_settings(model_folders: dict[str, str]) -> None:
    folder = model_folders["llama"]
    with pytest.raises(ConfigError, match="pooling is 'cls'; it must be one of last, mean, weighted_mean, concat"):
        Embedder.load(folder, pooling="cls")
    with pytest.raises(ConfigError, match=r"max_length is 500, but .* takes 128"):
        Embedder.load(folder, max_length=500)
    with pytest.raises(ConfigError, match="max_length is 0, but start token, prompt and end token alone take 2"):
        Embedder.load(folder, max_length=0)
    with pytest.raises(ConfigError, match=r"w_pack: the model has no such layer[\s\S]*q_proj"):
        Embedder.load(folder, max_length=64).add_adapter(AdapterSection(target_modules=["w_pack"]))


def test_damaged_run_folders(llama: Embedder, tmp_path: Path) -> None:
    _disturb(llama)
    llama.save(tmp_path)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"has no adapter_model\.safetensors"):
        Embedder.load(str(tmp_path))
    (tmp_path / "embedding.json").write_text("{}")
    with pytest.raises(ModelError, match="is damaged"):
        Embedder.load(str(tmp_path))


def test_many_texts_are_tokenized_ahead_and_equal_ones_computed_once(
    llama: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"w{number % 50} cat w{number % 7}" for number in range(500)]
    expected = llama.encode(texts)
    monkeypatch.setattr("embedsmith.model.tokens._TEXTS_AHEAD", 64)
    done: list[int] = []
    computed: list[int] = []
    states = llama.hidden_states
    monkeypatch.setattr(
        llama,
        "hidden_states",
        lambda packed, **kw: computed.append(len(packed.segments.lengths)) or states(packed, **kw),
    )
    np.testing.assert_allclose(llama.encode(texts, on_progress=done.append), expected, atol=1e-6)
    assert sum(done) == len(texts)
    assert sum(computed) == len(set(texts))
    assert len(computed) == -(-len(set(texts)) // 64)


def test_queries_and_documents_get_their_prompts(model_folders: dict[str, str]) -> None:
    def load(prompt: str | None = None, **settings: str) -> Embedder:
        return Embedder.load(model_folders["llama"], precision="fp32", max_length=64, prompt=prompt, **settings)

    both = load("the {text}", query_prompt="{instruction} runs {text}", instruction="rain")
    np.testing.assert_allclose(both.encode(TEXTS), load("the {text}").encode(TEXTS), atol=1e-6)
    for instruction in (None, "a cat"):
        expected = load(f"{instruction or 'rain'} runs {{text}}").encode(TEXTS)
        np.testing.assert_allclose(both.encode(TEXTS, side="query", instruction=instruction), expected, atol=1e-6)
    assert np.abs(both.encode(TEXTS, side="query") - both.encode(TEXTS)).max() > 0.01
    np.testing.assert_array_equal(load("the {text}").encode(TEXTS, side="query"), load("the {text}").encode(TEXTS))
    with pytest.raises(ConfigError, match="needs an instruction"):
        load(query_prompt="{instruction} runs {text}")
    with pytest.raises(ConfigError, match="An instruction is given, but no prompt holds"):
        load("the {text}").encode(TEXTS, instruction="a cat")


@pytest.mark.parametrize("max_tokens", [1, 30, 4096])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("pooling", list(Pooling))
def test_a_prompt_is_computed_once_for_all_texts_of_a_row(
    model_folders: dict[str, str], pooling: str, fused: bool, max_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"precision": "fp32", "max_length": 64, "pooling": pooling, "fused": fused}
    embedder = Embedder.load(model_folders["gemma2"], prompt="two old men play chess {text} a", **settings)
    rows: list[int] = []
    states = embedder.hidden_states
    monkeypatch.setattr(
        embedder, "hidden_states", lambda packed, **kw: rows.append(packed.num_tokens) or states(packed, **kw)
    )
    found = embedder.encode([*TEXTS, ""], max_tokens=max_tokens)
    assert max_tokens == 1 or max(rows) <= max_tokens
    count = sum(rows)
    rows.clear()
    embedder.shares_prefixes = False
    expected = embedder.encode([*TEXTS, ""])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert count == sum(rows) if max_tokens == 1 else count < sum(rows) - 6


def test_tokens_of_queries_and_documents_are_embedded_together(model_folders: dict[str, str]) -> None:
    """Within float32's roundings, which depend on what else lies in a row."""
    embedder = Embedder.load(model_folders["llama"], precision="fp32", prompt="cat {text}", query_prompt="roof {text}")
    documents, queries = embedder.tokenize(TEXTS), embedder.tokenize(TEXTS, side=Side.QUERY)
    both = TokenizedTexts(
        [*documents.ids, *queries.ids],
        [*documents.pool_from, *queries.pool_from],
        [*documents.shared, *queries.shared],
    )
    together = embedder.encode_tokens(both, max_tokens=40)
    apart = np.concatenate([embedder.encode(TEXTS), embedder.encode(TEXTS, side="query")])
    np.testing.assert_allclose(together, apart, atol=1e-6)
    assert np.abs(apart[: len(TEXTS)] - apart[len(TEXTS) :]).max() > 0.05
    np.testing.assert_array_equal(embedder.encode_tokens(documents), embedder.encode(TEXTS))


@pytest.mark.parametrize("pooling", ["mean", "weighted_mean", "concat"])
def test_an_echo_is_pooled_over_the_second_copy(model_folders: dict[str, str], pooling: str) -> None:
    def load(prompt: str | None, pooling: str) -> Embedder:
        return Embedder.load(model_folders["llama"], precision="fp32", max_length=64, prompt=prompt, pooling=pooling)

    echo = load("the {text} cat {text}", pooling)
    packed = echo.pack(TEXTS, prompts=[echo.prompt_of()] * len(TEXTS))
    hidden = echo.hidden_states(packed)
    expected = []
    for text in TEXTS:
        num_words = len(text.split())
        tokens = echo.tokenizer.tokenize([text], prompts=echo.prompt_of()).ids[0]
        assert len(tokens) == 4 + 2 * num_words  # start, the, text, cat, text, end
        alone = echo.hidden_states(echo.pack([text]))[3 + num_words :]  # (num_words + 1, H)
        weights = torch.arange(1.0, len(alone) + 1) if pooling == "weighted_mean" else torch.ones(len(alone))
        mean = (alone * weights[:, None]).sum(dim=0) / weights.sum()
        expected.append(torch.cat([alone[-1], mean]) if pooling == "concat" else mean)
    vectors = torch.nn.functional.normalize(torch.stack(expected), dim=1)
    np.testing.assert_allclose(echo.encode(TEXTS), vectors.numpy(), atol=1e-5)
    assert echo.dim == vectors.shape[1]
    assert len(hidden) == packed.num_tokens


def test_prompts_are_saved_with_the_adapter(model_folders: dict[str, str], tmp_path: Path) -> None:
    embedder = Embedder.load(
        model_folders["llama"],
        precision="fp32",
        max_length=64,
        prompt="prompteol",
        query_prompt="{instruction} {text}",
        instruction="rain",
        end_token=False,
        pooling="concat",
    )
    _disturb(embedder)
    embedder.save(tmp_path)
    loaded = Embedder.load(str(tmp_path), precision="fp32")
    assert loaded.settings == embedder.settings
    for side in ("query", "document"):
        np.testing.assert_array_equal(loaded.encode(TEXTS, side=side), embedder.encode(TEXTS, side=side))


def test_shorter_embeddings(llama: Embedder) -> None:
    full = llama.encode(TEXTS)
    cut = llama.encode(TEXTS, dim=16)
    np.testing.assert_allclose(cut, full[:, :16] / np.linalg.norm(full[:, :16], axis=1, keepdims=True), atol=1e-6)
    np.testing.assert_array_equal(llama.encode(TEXTS, dim=64), full)
    for dim in (0, 65):
        with pytest.raises(ConfigError, match=f"dim is {dim}, but the model's embeddings have 64"):
            llama.encode(TEXTS, dim=dim)


def test_trained_widths_are_recorded(llama: Embedder, tmp_path: Path) -> None:
    _disturb(llama)
    llama.save(tmp_path / "without")
    assert Embedder.load(str(tmp_path / "without")).settings.matryoshka_dims == ()
    llama.settings = replace(llama.settings, matryoshka_dims=(8, 64))
    llama.save(tmp_path / "with")
    assert Embedder.load(str(tmp_path / "with")).settings == llama.settings
    path = tmp_path / "with" / "embedding.json"
    values = json.loads(path.read_text())
    del values["matryoshka_dims"]  # as written before there were widths
    path.write_text(json.dumps(values))
    assert Embedder.load(str(tmp_path / "with")).settings.matryoshka_dims == ()


def test_texts_end_where_rotary_tables_would_change(tmp_path: Path) -> None:
    """Beyond its first length, longrope turns a whole row otherwise: a text would depend on its neighbours."""
    rotary = {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "short_factor": [1.0] * 8,
        "long_factor": [4.0] * 8,
        "original_max_position_embeddings": 64,
    }
    folder = save_variant(
        "phi3", tmp_path, rope_parameters=rotary, partial_rotary_factor=1.0, original_max_position_embeddings=64
    )
    assert Embedder.load(str(folder)).settings.max_length == 64
    with pytest.raises(ConfigError, match=r"max_length is 100, but .* takes 64"):
        Embedder.load(str(folder), max_length=100)


def test_a_whole_model_is_saved_with_its_weights_from_fused_blocks_too(llama: Embedder, tmp_path: Path) -> None:
    assert llama.decoder is not None
    expected = llama.encode(TEXTS)
    llama.save(tmp_path / "m")
    np.testing.assert_allclose(Embedder.load(str(tmp_path / "m"), precision="fp32").encode(TEXTS), expected, atol=1e-6)
    np.testing.assert_array_equal(llama.encode(TEXTS), expected)
