"""Requests together: computed as if alone, short ones first, gone ones forgotten."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from embedsmith.model.embedder import Embedder
from embedsmith.serving.limits import Limits
from tests.serving.held import Held
from tests.serving.running import Running, running, wait_until


@pytest.fixture(scope="module")
def embedder(model_folders: dict[str, str]) -> Embedder:
    return Embedder.load(model_folders["llama"], precision="fp32", max_length=64)


def _waiting(served: Running) -> int:
    return served.service._batchers["tiny"].num_waiting


def _rows(answer: object) -> np.ndarray:
    return np.array([item["embedding"] for item in answer.json()["data"]], np.float32)


def test_texts_of_many_clients_are_computed_together(embedder: Embedder) -> None:
    """Cosine to encode at least 0.9999999: the row that a text lies in changes its roundings."""
    model = Held(embedder)
    texts = [[f"w{number} cat", f"w{number + 1} roof w{number} the"] for number in range(8)]
    with running(model) as served, ThreadPoolExecutor(9) as clients:
        first = clients.submit(served.embed, "rain falls")
        wait_until(lambda: model.batches == [1])
        others = [clients.submit(served.embed, some) for some in texts]
        wait_until(lambda: _waiting(served) > 0 and len(served.service._batchers["tiny"]._jobs) == 8)
        model.let()
        assert first.result().status_code == 200
        for some, answer in zip(texts, others, strict=True):
            found, expected = _rows(answer.result()).astype(np.float64), embedder.encode(some).astype(np.float64)
            assert (found * expected).sum(axis=1).min() > 0.9999999
    assert model.batches == [1, 16]


def test_a_short_request_does_not_wait_for_a_long_one(embedder: Embedder) -> None:
    model = Held(embedder)
    with running(model, limits=Limits(batch_tokens=40)) as served, ThreadPoolExecutor(2) as clients:
        long = clients.submit(served.embed, [f"w{number} cat the roof" for number in range(100)])
        wait_until(lambda: model.batches == [6])  # of 6 tokens each, start and end included
        short = clients.submit(served.embed, ["rain", "a"])
        wait_until(lambda: len(served.service._batchers["tiny"]._jobs) == 2)
        model.let(2)
        assert short.result().status_code == 200
        assert not long.done()
        assert model.batches[:2] == [6, 7]  # both of the short one's beside five of the long one's
        model.let()
        np.testing.assert_allclose(
            _rows(long.result()), embedder.encode([f"w{number} cat the roof" for number in range(100)]), atol=1e-6
        )


def test_who_is_gone_frees_the_place(embedder: Embedder) -> None:
    model = Held(embedder)
    with running(model) as served, ThreadPoolExecutor(2) as clients:
        first = clients.submit(served.embed, "rain falls")
        wait_until(lambda: model.batches == [1])
        with pytest.raises(Exception, match="timed out"):
            served.client.post("/v1/embeddings", json={"model": "tiny", "input": ["a", "b"]}, timeout=0.5)
        wait_until(lambda: _waiting(served) == 0 and served.server.gate.num_inside == 1)
        model.let()
        assert first.result().status_code == 200
    assert model.batches == [1]
    assert 'requests_total{route="/v1/embeddings",status="499"} 1.0' in served.service.metrics.render().decode()


def test_too_much_that_waits(embedder: Embedder) -> None:
    model = Held(embedder)
    limits = Limits(max_requests=3, max_queue_tokens=20)
    with running(model, limits=limits) as served, ThreadPoolExecutor(3) as clients:
        accepted = [clients.submit(served.embed, "rain falls")]
        wait_until(lambda: model.batches == [1])
        accepted.append(clients.submit(served.embed, "cat " * 30))  # one may wait, however long
        wait_until(lambda: _waiting(served) == 32)
        refused = served.embed("a")
        assert (refused.status_code, refused.json()["error"]["type"]) == (429, "rate_limit_error")
        assert "32 tokens wait already" in refused.json()["error"]["message"]
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        served.service._batchers["tiny"].max_queue_tokens = 100
        accepted.append(clients.submit(served.embed, "b"))
        wait_until(lambda: len(served.service._batchers["tiny"]._jobs) == 2)
        refused = served.embed("a")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert "3 requests are being answered" in refused.json()["error"]["message"]
        assert served.client.get("/health").status_code == 200
        model.let()
        assert [answer.result().status_code for answer in accepted] == [200] * 3
        assert served.embed("a").status_code == 200


def test_a_batch_that_fails(embedder: Embedder, caplog: pytest.LogCaptureFixture) -> None:
    model = Held(embedder)
    model.fails = True
    model.let()
    with running(model) as served:
        answer = served.embed(["a", "b"])
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "embedding_failed")
        assert "no more memory" in caplog.text and "no more memory" not in answer.text
        model.fails = False
        assert served.embed(["a", "b"]).status_code == 200
        assert _waiting(served) == 0
