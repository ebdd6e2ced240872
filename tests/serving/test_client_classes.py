"""LangChain's and LlamaIndex's own classes: what they give is what encode gives, queries and widths included."""

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest

from embedsmith.model.embedder import Embedder
from tests.serving.running import Running, running
from tests.tiny import TEXTS

openai = pytest.importorskip("openai", reason="needs openai: pip install 'embedsmith[dev]'")


@pytest.fixture(scope="module")
def embedder(model_folders: dict[str, str]) -> Embedder:
    return Embedder.load(model_folders["llama"], precision="fp32", max_length=64, query_prompt="roof {text}")


@pytest.fixture(scope="module")
def served(embedder: Embedder) -> Iterator[Running]:
    with running(embedder) as server:
        yield server


def _rows(vectors: object) -> np.ndarray:
    return np.array(vectors, dtype=np.float32)


def test_langchain(served: Running, embedder: Embedder) -> None:
    """Bit for bit, and by its asynchronous methods too."""
    langchain_openai = pytest.importorskip("langchain_openai", reason="needs langchain-openai: 'embedsmith[dev]'")

    def client(**others: object) -> object:
        return langchain_openai.OpenAIEmbeddings(
            model="tiny", base_url=f"{served.url}/v1", api_key="none", check_embedding_ctx_length=False, **others
        )

    documents, queries = client(), client(model_kwargs={"extra_body": {"input_type": "query"}})
    np.testing.assert_array_equal(_rows(documents.embed_documents(TEXTS)), embedder.encode(TEXTS))
    np.testing.assert_array_equal(_rows(queries.embed_query(TEXTS[0])), embedder.encode(TEXTS[:1], side="query")[0])

    async def embed() -> object:
        async with openai.DefaultAsyncHttpxClient() as http:
            return await client(http_async_client=http).aembed_documents(TEXTS)

    np.testing.assert_array_equal(_rows(asyncio.run(embed())), embedder.encode(TEXTS))
    np.testing.assert_array_equal(_rows(client(dimensions=8).embed_documents(TEXTS)), embedder.encode(TEXTS, dim=8))
    # Several requests, as of a long list.
    np.testing.assert_allclose(
        _rows(client(chunk_size=2).embed_documents(TEXTS)), embedder.encode(TEXTS), atol=1e-6, rtol=0
    )


def test_llamaindex(served: Running, embedder: Embedder) -> None:
    """Bit for bit, and by its asynchronous methods too."""
    module = pytest.importorskip(
        "llama_index.embeddings.openai", reason="needs llama-index-embeddings-openai: 'embedsmith[dev]'"
    )

    def client(**others: object) -> object:
        return module.OpenAIEmbedding(
            model_name="tiny", api_base=f"{served.url}/v1", api_key="none", max_retries=0, **others
        )

    documents, queries = client(), client(additional_kwargs={"extra_body": {"input_type": "query"}})
    np.testing.assert_array_equal(_rows(documents.get_text_embedding_batch(TEXTS)), embedder.encode(TEXTS))
    np.testing.assert_array_equal(
        _rows(queries.get_query_embedding(TEXTS[0])), embedder.encode(TEXTS[:1], side="query")[0]
    )

    async def embed() -> object:
        async with openai.DefaultAsyncHttpxClient() as http:
            return await client(async_http_client=http).aget_text_embedding_batch(TEXTS)

    np.testing.assert_array_equal(_rows(asyncio.run(embed())), embedder.encode(TEXTS))
    np.testing.assert_array_equal(
        _rows(client(dimensions=8).get_text_embedding_batch(TEXTS)), embedder.encode(TEXTS, dim=8)
    )
    # It puts a blank where a line ends.
    np.testing.assert_array_equal(
        _rows(documents.get_text_embedding("a cat\nsleeps")), embedder.encode(["a cat sleeps"])[0]
    )
