"""Published embedding models with decoder bodies == sentence-transformers' own vectors, and what their files say."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling as TheirPooling
from transformers import AutoConfig, AutoModel, AutoTokenizer

from embedsmith.export.folders import Format, export
from embedsmith.model.doctor import examine
from embedsmith.model.embedder import Embedder
from embedsmith.settings.choices import Pooling, Precision, Side
from embedsmith.settings.config import AdapterSection
from embedsmith.settings.recipe import load_config
from embedsmith.support.errors import ConfigError, ModelError
from embedsmith.verbs.base_settings import with_base_settings
from embedsmith.verbs.evaluate import evaluate
from embedsmith.verbs.prepare import prepare_run
from embedsmith.verbs.train import train
from tests.published_embedders import SAVERS, save_embedding_gemma, save_llm2vec_merged
from tests.tiny import TEXTS, write_pairs, write_triplets

LONG = " ".join(f"w{n}" for n in range(90))
ALL = [*TEXTS, LONG, "", "Ünïcödé — 東京 🙂", " a  space  before and after "]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("embedders")
    return {name: str(save(root / name)) for name, save in SAVERS.items()}


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", SAVERS)
def test_vectors_are_those_of_sentence_transformers(name: str, fused: bool, folders: dict[str, str]) -> None:
    embedder = Embedder.load(folders[name], precision="fp32", fused=fused)
    other = SentenceTransformer(folders[name], device="cpu", model_kwargs={"dtype": "float32"})
    assert (embedder.why_not_fused is None) is fused
    _assert_same(embedder.encode(ALL, side="query"), other.encode_query(ALL, normalize_embeddings=True))
    _assert_same(embedder.encode(ALL), other.encode_document(ALL, normalize_embeddings=True))
    for prompt in embedder.settings.prompts:
        by_name = Embedder.load(folders[name], precision="fp32", prompt=prompt, fused=fused)
        _assert_same(by_name.encode(ALL), other.encode(ALL, prompt_name=prompt, normalize_embeddings=True))


def _assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    # That package leaves a zero vector where a text's tokens are as many as its prompt's alone, and none is pooled.
    has_vector = np.linalg.norm(expected, axis=1) > 0
    assert has_vector.sum() >= len(ALL) - 2
    np.testing.assert_allclose(found[has_vector], expected[has_vector], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "qwen3-embedding",
            {
                "pooling": "last (1_Pooling/config.json); unit length, 64 dimensions",
                "attention": "causal (config.json)",
                "end token": "'<|endoftext|>' (id 400) stands 1 time(s), last (its tokenizer)",
                "prompt": "none (config_sentence_transformers.json)",
                "prompts by name": "query (config_sentence_transformers.json)",
                "truncation": "a long text is cut to 128 tokens (config.json)",
            },
        ),
        (
            "embeddinggemma",
            {
                "pooling": "mean (1_Pooling/config.json), then dense layers 64 -> 96 -> 64; unit length, 64 dimensions",
                "attention": "both ways (config.json)",
                "end token": "'<eos>' (id 1) stands 1 time(s), last (its tokenizer)",
                "prompt of queries": "'task: search result | query: {text}' (config_sentence_transformers.json)",
                "prompts by name": "query, document, Clustering, STS (config_sentence_transformers.json)",
                "truncation": "a long text is cut to 64 tokens (sentence_bert_config.json)",
            },
        ),
        (
            "llm2vec-modules",
            {
                "pooling": "mean, means over what stands behind the prompt (1_Pooling/config.json)",
                "attention": "both ways (config.json)",
                "end token": "'</s>' (id 2) is not put (its tokenizer)",
            },
        ),
    ],
)
def test_the_doctor_says_what_is_in_force_and_which_file_says_it(
    name: str, said: dict[str, str], folders: dict[str, str]
) -> None:
    diagnosis = examine(Embedder.load(folders[name], precision="fp32"))
    assert diagnosis.is_healthy, diagnosis.findings
    found = {finding.check: finding.detail for finding in diagnosis.findings}
    assert {check: detail for check, detail in said.items() if not found[check].startswith(detail)} == {}


def test_what_the_caller_asks_for_comes_first(folders: dict[str, str]) -> None:
    embedder = Embedder.load(
        folders["qwen3-embedding"], precision="fp32", pooling="mean", end_token=False, max_length=100, prompt="a {text}"
    )
    assert (embedder.settings.pooling, embedder.settings.end_token) == (Pooling.MEAN, False)
    found = {finding.check: finding.detail for finding in examine(embedder).findings}
    assert found["pooling"].startswith("mean (asked for)")
    assert "is not put (asked for)" in found["end token"]
    assert "100 tokens (asked for)" in found["truncation"]
    assert found["prompt"].startswith("'a {text}' (asked for)")


def test_a_merged_llm2vec_model_is_its_own_files_arithmetic(tmp_path: Path) -> None:
    folder = save_llm2vec_merged(tmp_path / "merged")
    embedder = Embedder.load(str(folder), precision="fp32")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = AutoConfig.from_pretrained(folder)
    config.is_causal = False
    model = AutoModel.from_pretrained(folder, config=config, dtype=torch.float32, attn_implementation="eager")
    for instruction in ("", "Retrieve the text that means the same:"):
        template = f"{instruction} {{text}}" if instruction else None
        found = Embedder.load(str(folder), precision="fp32", prompt=template).encode(TEXTS)
        for text, vector in zip(TEXTS, found, strict=True):
            ids = tokenizer(f"{instruction} {text}" if instruction else text, return_tensors="pt")
            num_text = len(tokenizer(text, add_special_tokens=False)["input_ids"])
            with torch.inference_mode():
                mean = model(**ids).last_hidden_state[0, -num_text:].mean(dim=0)
            np.testing.assert_allclose(vector, torch.nn.functional.normalize(mean, dim=0).numpy(), atol=1e-5)
    details = {finding.check: finding.detail for finding in examine(embedder).findings}
    assert details["attention"] == "both ways (llm2vec_config.json)"
    assert details["pooling"].startswith("mean, means over the text and what stands behind it (llm2vec_config.json)")


@pytest.mark.parametrize("name", SAVERS)
def test_an_adapter_on_top_keeps_what_the_base_says_and_leaves_again(
    name: str, folders: dict[str, str], tmp_path: Path
) -> None:
    recipe = {
        "model.model": folders[name],
        "model.precision": "fp32",
        "data.train": str(write_triplets(tmp_path / "triplets.tsv", num_rows=40)),
        "evaluation.dev": str(write_pairs(tmp_path / "pairs.tsv")),
        "training.max_steps": 3,
        "training.batch_size": 8,
        "training.learning_rate": 0.01,
        "output_dir": str(tmp_path / "run"),
    }
    live = train(load_config(None, overrides=recipe)).embedder
    base = Embedder.load(folders[name], precision="fp32")
    assert replace(live.settings, base_model="") == replace(base.settings, base_model="")
    assert np.abs(live.encode(TEXTS) - base.encode(TEXTS)).max() > 1e-3
    loaded = Embedder.load(str(tmp_path / "run"), precision="fp32")
    for side in Side:
        np.testing.assert_array_equal(loaded.encode(ALL, side=side), live.encode(ALL, side=side))

    assert export(str(tmp_path / "run"), folder=tmp_path / "out", to=Format.SENTENCE_TRANSFORMERS).smallest > 0.99999
    other = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    again = Embedder.load(str(tmp_path / "out"), precision="fp32")
    for prompt in live.settings.prompts:
        under_it = Embedder.load(str(tmp_path / "run"), precision="fp32", prompt=prompt)
        _assert_same(under_it.encode(ALL), other.encode(ALL, prompt_name=prompt, normalize_embeddings=True))
    _assert_same(live.encode(ALL, side="query"), other.encode_query(ALL, normalize_embeddings=True))
    _assert_same(live.encode(ALL), other.encode_document(ALL, normalize_embeddings=True))
    (tmp_path / "out" / "embedding.json").unlink()  # as anyone's folder in this layout
    published = Embedder.load(str(tmp_path / "out"), precision="fp32")
    for side in Side:
        expected = live.encode(ALL, side=side)
        np.testing.assert_allclose(again.encode(ALL, side=side), expected, atol=1e-5)
        np.testing.assert_allclose(published.encode(ALL, side=side), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("1_Pooling/config.json", {"pooling_mode_cls_token": True}, r"pools by cls and mean \(1_Pooling/config.json\)"),
        ("1_Pooling/config.json", {"pooling_mode": "max"}, "pools by max"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "has do_lower_case in sentence_bert_config.json"),
        ("2_Dense/config.json", {"use_residual": True}, "2_Dense of .* has use_residual True"),
        ("2_Dense/config.json", {"activation_function": "my.code.Act"}, "has activation_function my.code.Act"),
        ("2_Dense/config.json", {"activation_function": "torch.nn.Bilinear"}, "has activation_function torch.nn.Bilin"),
        (
            "2_Dense/config.json",
            {"out_features": 90},
            r"damaged: its weights are \(96, 64\), its config.json says \(90",
        ),
        ("2_Dense/config.json", {"module_input_name": "token_embeddings"}, "has module_input_name token_embeddings"),
        ("config_sentence_transformers.json", {"prompts": {"query": "Find {text}: "}}, r"query of .* holds \{text\}"),
        ("config_sentence_transformers.json", {"prompts": {"query": 3}}, "that are no texts"),
        ("config_sentence_transformers.json", [], "holds no table of names and values"),
    ],
)
def test_what_is_not_computed_here_is_refused_by_name(
    file: str, change: dict[str, object] | list[object], message: str, tmp_path: Path
) -> None:
    path = save_embedding_gemma(tmp_path / "model") / file
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, **change} if isinstance(change, dict) else change))
    with pytest.raises(ModelError, match=message):
        Embedder.load(str(tmp_path / "model"))


def test_dense_layers_take_the_pooling_that_they_were_made_for(folders: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="dense layers take vectors of 64, but its pooling gives 128"):
        Embedder.load(folders["embeddinggemma"], pooling="concat")
    with pytest.raises(
        ConfigError, match=r"dense layers behind the pooling\.\nExport to sentence-transformers, or load"
    ):
        export(folders["embeddinggemma"], folder=tmp_path / "out", to=Format.MERGED)


def test_a_dense_layer_has_a_bias_and_an_activation_as_its_package_computes_them(tmp_path: Path) -> None:
    folder = save_embedding_gemma(tmp_path / "model")
    path = folder / "2_Dense" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "bias": True, "activation_function": "torch.nn.Tanh"}))
    weights = load_file(folder / "2_Dense" / "model.safetensors")
    save_file({**weights, "linear.bias": torch.linspace(-1, 1, 96)}, folder / "2_Dense" / "model.safetensors")
    other = SentenceTransformer(str(folder), device="cpu")
    _assert_same(Embedder.load(str(folder), precision="fp32").encode(ALL), other.encode_document(ALL))


def test_a_recipe_that_departs_from_the_files_says_so_and_all_weights_are_refused(
    folders: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = {"model.model": folders["embeddinggemma"], "model.pooling": "last", "model.prompt": "none"}
    config = load_config(None, overrides={**values, "output_dir": str(tmp_path / "run")})
    with caplog.at_level(logging.WARNING):
        settled = with_base_settings(config).model
    assert "departs from what" in caplog.text and "pooling last instead of mean" in caplog.text
    assert "prompt none instead of 'title: none | text: {text}'" in caplog.text
    assert (settled.pooling, settled.prompt, settled.query_prompt) == (
        Pooling.LAST,
        "{text}",
        "task: search result | query: {text}",
    )
    full = load_config(None, overrides={**values, "adapter.method": "full", "output_dir": str(tmp_path / "full")})
    with pytest.raises(ConfigError, match=r"adapter\.method is full, but .* is published as an embedding model"):
        prepare_run(full)


def test_sts_is_scored_under_the_prompt_that_the_model_has_for_it(
    folders: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "sts"
    data.mkdir()
    write_pairs(data / "toy.tsv")
    with caplog.at_level(logging.INFO):
        (own,) = evaluate(folders["embeddinggemma"], data=data, precision=Precision.FP32).values()
    assert "stand under its own prompt for STS, 'task: sentence similarity | query: {text}'" in caplog.text
    (named,) = evaluate(folders["embeddinggemma"], data=data, prompt="STS", precision=Precision.FP32).values()
    (query,) = evaluate(folders["embeddinggemma"], data=data, prompt="query", precision=Precision.FP32).values()
    np.testing.assert_array_equal(own.similarities["toy"].cosine, named.similarities["toy"].cosine)
    assert np.abs(own.similarities["toy"].cosine - query.similarities["toy"].cosine).max() > 1e-4
    with pytest.raises(ConfigError, match=r"own prompts are query, document, Clustering, STS"):
        evaluate(folders["embeddinggemma"], data=data, prompt="Stss")


def test_an_adapter_of_another_tool_embeds_as_its_published_base(folders: dict[str, str], tmp_path: Path) -> None:
    embedder = Embedder.load(folders["embeddinggemma"], precision="fp32")
    embedder.add_adapter(AdapterSection())
    embedder.save(tmp_path / "adapter")
    (tmp_path / "adapter" / "embedding.json").unlink()
    loaded = Embedder.load(str(tmp_path / "adapter"), precision="fp32")
    assert replace(loaded.settings, base_model="") == replace(embedder.settings, base_model="")
    np.testing.assert_array_equal(loaded.encode(TEXTS), embedder.encode(TEXTS))


def test_an_adapter_that_sentence_transformers_saved_embeds_as_its_own_modules_say(
    model_folders: dict[str, str], tmp_path: Path
) -> None:
    transformer = Transformer(model_folders["llama"], model_kwargs={"dtype": torch.float32})
    network = SentenceTransformer(modules=[transformer, TheirPooling(64, "mean"), Normalize()], device="cpu")
    network.add_adapter(LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    network.max_seq_length = 40
    network.save(str(tmp_path / "adapter"))
    embedder = Embedder.load(str(tmp_path / "adapter"), precision="fp32")
    assert (embedder.settings.pooling, embedder.settings.end_token) == (Pooling.MEAN, False)
    np.testing.assert_allclose(embedder.encode(TEXTS), network.encode(TEXTS), atol=1e-5)
