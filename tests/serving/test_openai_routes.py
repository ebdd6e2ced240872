"""/v1/embeddings and /v1/models: as encode computes, as OpenAI's client reads."""

import base64
from collections.abc import Iterator

import numpy as np
import pytest

from embedsmith.model.embedder import Embedder
from tests.serving.running import Running, running
from tests.tiny import TEXTS


@pytest.fixture(scope="module")
def embedder(model_folders: dict[str, str]) -> Embedder:
    return Embedder.load(
        model_folders["llama"],
        precision="fp32",
        max_length=64,
        query_prompt="roof {instruction} {text}",
        instruction="cat",
    )


@pytest.fixture(scope="module")
def served(embedder: Embedder) -> Iterator[Running]:
    with running(embedder) as server:
        yield server


def _rows(reply: dict) -> np.ndarray:
    return np.array([item["embedding"] for item in reply["data"]], dtype=np.float32)


def test_served_is_encoded(served: Running, embedder: Embedder) -> None:
    """Bit for bit: a request alone is packed as encode packs it, and JSON holds every bit of a float32."""
    answer = served.embed(TEXTS)
    assert answer.status_code == 200
    reply = answer.json()
    np.testing.assert_array_equal(_rows(reply), embedder.encode(TEXTS))
    assert [(item["object"], item["index"]) for item in reply["data"]] == [("embedding", k) for k in range(len(TEXTS))]
    num_tokens = sum(len(ids) for ids in embedder.tokenize(TEXTS).ids)
    assert reply["usage"] == {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
    assert (reply["object"], reply["model"]) == ("list", "tiny")


def test_one_text_and_base64(served: Running, embedder: Embedder) -> None:
    reply = served.embed(TEXTS[0], encoding_format="base64").json()
    row = np.frombuffer(base64.b64decode(reply["data"][0]["embedding"]), dtype="<f4")
    np.testing.assert_array_equal(row, embedder.encode(TEXTS[:1])[0])


def test_queries_instructions_and_widths(served: Running, embedder: Embedder) -> None:
    found = _rows(served.embed(TEXTS, input_type="query", instruction="animal", dimensions=8).json())
    np.testing.assert_array_equal(found, embedder.encode(TEXTS, side="query", instruction="animal", dim=8))


def test_token_ids_are_those_of_the_tokenizer(served: Running, embedder: Embedder) -> None:
    ids = embedder.backbone.tokenizer(TEXTS)["input_ids"]
    assert ids[0][0] == embedder.backbone.tokenizer.bos_token_id
    np.testing.assert_array_equal(_rows(served.embed(ids).json()), embedder.encode(TEXTS))
    np.testing.assert_array_equal(_rows(served.embed(ids[0]).json()), embedder.encode(TEXTS[:1]))


def test_openai_s_client(served: Running, embedder: Embedder) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)
    reply = client.embeddings.create(model="tiny", input=TEXTS)
    np.testing.assert_array_equal(np.array([item.embedding for item in reply.data], np.float32), embedder.encode(TEXTS))
    floats = client.embeddings.create(model="tiny", input="rain falls", encoding_format="float", dimensions=4)
    assert len(floats.data[0].embedding) == 4
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").dimensions == embedder.dim
    with pytest.raises(openai.NotFoundError, match=r"There is no model 'large' here\. There is: tiny"):
        client.embeddings.create(model="large", input="a")
    with pytest.raises(openai.UnprocessableEntityError, match="empty list"):
        client.embeddings.create(model="tiny", input=[])
    client.close()


def test_texts_that_are_cut_are_counted_or_refused(served: Running, embedder: Embedder) -> None:
    long = "cat " * 100
    answer = served.embed([long, "cat", long])
    assert answer.headers["x-truncated-texts"] == "2"
    np.testing.assert_allclose(_rows(answer.json()), embedder.encode([long, "cat", long]), atol=1e-6)
    refused = served.embed([long, "cat"], truncate=False)
    assert refused.status_code == 413
    assert "1 of 2 texts are longer than the 64 tokens" in refused.json()["error"]["message"]


def test_many_texts_come_in_pieces(served: Running, embedder: Embedder) -> None:
    texts = [f"w{number % 200} cat w{number // 200}" for number in range(300)]
    np.testing.assert_allclose(_rows(served.embed(texts).json()), embedder.encode(texts), atol=1e-6)
