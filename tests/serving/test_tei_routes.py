"""/embed and /similarity, and several models of both kinds at one server."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embedsmith.model.embedder import Embedder
from embedsmith.model.sentence_encoder import SentenceEncoder
from embedsmith.serving.served_model import serve_model
from tests.serving.running import Running, running
from tests.tiny import TEXTS, save_encoder

DECODER, ENCODER = "decoder", "org/encoder"


@pytest.fixture(scope="module")
def models(model_folders: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder: Path = tmp_path_factory.mktemp("encoder") / "encoder"
    encoder = SentenceEncoder.load(str(save_encoder(folder, prompts={"query": "cat ", "document": "the "})))
    decoder = Embedder.load(model_folders["llama"], precision="fp32", max_length=64, query_prompt="roof {text}")
    return {DECODER: decoder, ENCODER: encoder}


@pytest.fixture(scope="module")
def served(models: dict[str, object]) -> Iterator[Running]:
    with running(*[serve_model(model, name=name) for name, model in models.items()]) as server:
        yield server


@pytest.mark.parametrize("name", [DECODER, ENCODER])
@pytest.mark.parametrize("side", ["query", "document"])
def test_embed(served: Running, models: dict[str, object], name: str, side: str) -> None:
    body = {"inputs": TEXTS, "model": name, "prompt_name": side, "normalize": True, "dimensions": 8, "truncate": True}
    found = np.array(served.client.post("/embed", json=body).json(), np.float32)
    np.testing.assert_allclose(found, models[name].encode(TEXTS, side=side, dim=8), atol=1e-6)


def test_one_text_is_a_list_of_one(served: Running, models: dict[str, object]) -> None:
    found = served.client.post("/embed", json={"inputs": TEXTS[0]}).json()
    np.testing.assert_array_equal(np.array(found, np.float32), models[DECODER].encode(TEXTS[:1]))


def test_an_encoder_s_tokens(served: Running, models: dict[str, object]) -> None:
    tokenizer = models[ENCODER].network.tokenizer
    ids = tokenizer(TEXTS)["input_ids"]
    found = np.array(served.client.post("/embed", json={"inputs": ids, "model": ENCODER}).json(), np.float32)
    np.testing.assert_allclose(found, models[ENCODER].encode(TEXTS), atol=1e-6)
    usage = served.client.post("/v1/embeddings", json={"model": ENCODER, "input": TEXTS}).json()["usage"]
    assert usage["prompt_tokens"] == sum(map(len, ids)) + len(TEXTS)  # the prompt is one word
    wrong = served.client.post("/embed", json={"inputs": [[250, 0]], "model": ENCODER})
    assert (wrong.status_code, "another tokenizer's" in wrong.json()["error"]) == (400, True)
    long = served.client.post("/embed", json={"inputs": "cat " * 200, "model": ENCODER})
    assert long.headers["x-truncated-texts"] == "1"


def test_similarity(served: Running, models: dict[str, object]) -> None:
    body = {"inputs": {"source_sentence": TEXTS[0], "sentences": TEXTS[1:]}, "parameters": {"prompt_name": "query"}}
    rows = models[DECODER].encode(TEXTS, side="query")
    np.testing.assert_allclose(served.client.post("/similarity", json=body).json(), rows[1:] @ rows[0], atol=1e-6)


def test_what_cannot_be_done_is_refused(served: Running) -> None:
    for others in ({"normalize": False}, {"truncation_direction": "Left"}, {"prompt_name": "sts"}):
        answer = served.client.post("/embed", json={"inputs": "a", **others})
        assert (answer.status_code, answer.json()["error_type"]) == (422, "Validation"), others
    assert (
        served.client.post("/similarity", json={"inputs": {"source_sentence": "a", "sentences": []}}).status_code == 422
    )


def test_models_are_named(served: Running) -> None:
    listed = served.client.get("/v1/models").json()["data"]
    assert [(model["id"], model["dimensions"], model["max_tokens"]) for model in listed] == [
        (DECODER, 64, 64),
        (ENCODER, 32, 128),
    ]
    assert served.client.get(f"/v1/models/{ENCODER}").json() == listed[1]
    assert served.client.get("/v1/models/none").status_code == 404


def test_figures(served: Running) -> None:
    served.client.post("/embed", json={"inputs": ["a", "b"]})
    figures = served.client.get("/metrics").text
    assert 'embedsmith_requests_total{route="/embed",status="200"}' in figures
    assert 'embedsmith_texts_total{model="decoder"}' in figures
    assert 'embedsmith_stage_seconds_count{stage="tokenize"}' in figures


def test_the_document_names_every_route_and_body(served: Running) -> None:
    document = served.client.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/v1/embeddings",
        "/v1/models",
        "/v1/models/{name}",
        "/embed",
        "/similarity",
        "/tokens",
        "/health",
        "/ready",
        "/metrics",
    }
    schemas = document["components"]["schemas"]
    assert {"EmbeddingsRequest", "EmbedRequest", "SimilarityRequest", "SimilarityInputs", "TokensRequest"} <= set(
        schemas
    )
    assert set(schemas["EmbeddingsRequest"]["required"]) == {"model", "input"}
