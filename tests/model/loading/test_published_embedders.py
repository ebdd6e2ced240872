"""Published embedding models with decoder bodies == sentence-transformers' own vectors, and what their files say."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoConfig, AutoModel, AutoTokenizer

from embedsmith.model.doctor import examine
from embedsmith.model.embedder import Embedder
from embedsmith.settings.config import Pooling
from tests.published_embedders import SAVERS, save_llm2vec_merged
from tests.tiny import TEXTS

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
