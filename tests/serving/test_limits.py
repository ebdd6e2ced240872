"""Bad input and too much of it: the right status, in the right form, and the next request is answered as before."""

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import numpy as np
import psutil
import pytest

from embedsmith.model.embedder import Embedder
from embedsmith.serving.limits import Limits
from tests.serving.running import Running, running
from tests.tiny import TEXTS

_LIMITS = Limits(max_items=50, max_request_tokens=2000, max_body_bytes=300_000, body_seconds=5)
_HEAD = b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
_DEEP = b'{"model": "tiny", "input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.fixture(scope="module")
def served(model_folders: dict[str, str]) -> Iterator[Running]:
    with running(Embedder.load(model_folders["llama"], precision="fp32", max_length=64), limits=_LIMITS) as server:
        yield server


@pytest.fixture
def still_well(served: Running) -> Iterator[None]:
    """The next request is answered as the one before was."""
    before = served.embed(TEXTS).json()
    yield
    assert served.embed(TEXTS).json() == before


def _body(given: Any = "a", **others: Any) -> bytes:
    return json.dumps({"model": "tiny", "input": given, **others}).encode()


BAD_BODIES = {
    "empty": (b"", 400, "EOF"),
    "no JSON": (b"{'model'", 400, "no JSON in UTF-8"),
    "cut off": (_body()[:-2], 400, "EOF"),
    "invalid UTF-8": (b'{"model": "tiny", "input": "\xff\xfe"}', 400, "no JSON in UTF-8"),
    "half a surrogate pair": (rb'{"model": "tiny", "input": "\ud800"}', 400, "no JSON in UTF-8"),
    "deeply nested": (_DEEP, 400, "recursion limit"),
    "a list": (b"[]", 422, "body: "),
    "a number": (_body(7), 422, "input: it is an integer; it must be a string, a list of strings"),
    "null": (_body(None), 422, "input: it is null"),
    "an object": (_body({"text": "a"}), 422, "input: it is an object"),
    "an empty list": (_body([]), 422, "input: it is an empty list"),
    "mixed": (_body(["a", 7]), 422, "input: item 1 is an integer, and item 0 a string"),
    "nested too far": (_body([[["a"]]]), 422, "input: item 0, token 0 is a list"),
    "no ids": (_body([[1], []]), 422, "input: item 1 is an empty list"),
    "half an id": (_body([5, 7.5]), 422, "input: item 1 is the float 7.5"),
    "true": (_body([True]), 422, "input: item 0 is a boolean"),
    "no input": (b'{"model": "tiny"}', 422, "input: it is missing"),
    "no model": (b'{"input": "a"}', 422, "model: it is missing"),
    "unknown field": (_body(dimension=3), 422, "dimension: there is no such field"),
    "unknown encoding": (_body(encoding_format="hex"), 422, "encoding_format: input should be 'float' or 'base64'"),
    "unknown input type": (_body(input_type="passage"), 422, "input_type: "),
    "width as text": (_body(dimensions="8"), 422, "dimensions: "),
    "no width": (_body(dimensions=0), 422, "dimensions: "),
    "too wide": (_body(dimensions=65), 400, "dim is 65, but the model's embeddings have 64 dimensions"),
    "instruction": (_body(instruction="find"), 400, "instruction"),
    "unknown id": (_body([[4, 400_000]]), 400, "input 0 has the token id 400000"),
    "negative id": (_body([-1]), 400, "input 0 has the token id -1"),
    "another tokenizer's ids": (_body([[250, 0]]), 400, "another tokenizer's"),
    "unknown model": (_body(model="large"), 404, "There is no model 'large' here. There is: tiny."),
    "10,000 items": (_body(["a"] * 10_000), 413, "There are 10,000 texts; there may be 50."),
    "too many tokens": (_body(["a " * 100] * 32), 413, "The texts have 2,048 tokens; they may have 2,000."),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_bad_bodies(served: Running, name: str, still_well: None) -> None:
    body, status, message = BAD_BODIES[name]
    if name == "unknown model":
        body = json.dumps({"model": "large", "input": "a"}).encode()
    answer = served.client.post("/v1/embeddings", content=body, headers={"content-type": "application/json"})
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (status, "invalid_request_error")
    assert message in error["message"]
    assert len(error["message"]) < 500


def test_a_body_of_50_mb_is_refused_before_it_is_read(served: Running, still_well: None) -> None:
    started = time.monotonic()
    headers = {"content-type": "application/json"}
    answer = served.client.post("/v1/embeddings", content=b" " * 50_000_000, headers=headers)
    assert answer.status_code == 413
    assert "50,000,000 bytes; it may have 300,000" in answer.json()["error"]["message"]
    # It says nothing of its length: no more of it is kept than may be.
    parts = (b" " * 10_000 for _ in range(100))
    answer = served.client.post("/v1/embeddings", content=parts, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert time.monotonic() - started < 20  # each a second on a machine with nothing else to do


def _of_openai(text: Any) -> dict[str, Any]:
    return {"model": "tiny", "input": text}


def _of_tei(text: Any) -> dict[str, Any]:
    return {"model": "tiny", "inputs": text}


def _of_similarity(text: Any) -> dict[str, Any]:
    texts = text if isinstance(text, list) else [text]
    return {"model": "tiny", "inputs": {"source_sentence": "a", "sentences": texts}}


ROUTES = {"/v1/embeddings": _of_openai, "/embed": _of_tei, "/similarity": _of_similarity}


@pytest.mark.parametrize("route", ROUTES)
def test_the_worst_of_it_at_every_route_with_the_limits_as_they_come(model_folders: dict[str, str], route: str) -> None:
    """How long each takes is a line of `python -m benchmarks.serving`."""
    make = ROUTES[route]
    good = json.dumps(make("rain falls")).encode()
    bad = {
        "50 MB": (json.dumps(make("a" * 50_000_000)).encode(), 413),
        "10,000 items": (json.dumps(make(["a"] * 10_000)).encode(), 413),
        "invalid UTF-8": (good.replace(b"rain", b"\xff\xfe"), 400),
        "deeply nested": (good.replace(b'"rain falls"', b"[" * 100_000 + b"]" * 100_000), 400),
        "another type": (json.dumps(make({"text": 7})).encode(), 422),
        "unknown model": (good.replace(b"tiny", b"large"), 404),
    }
    with running(Embedder.load(model_folders["llama"], precision="fp32"), api_key="s3cret") as served:
        right, wrong = (
            {"content-type": "application/json", "authorization": f"Bearer {key}"} for key in ("s3cret", "x")
        )
        before = served.client.post(route, content=good, headers=right)
        assert before.status_code == 200
        assert served.client.post(route, content=good, headers=wrong).status_code == 401
        for name, (body, status) in bad.items():
            assert served.client.post(route, content=body, headers=right).status_code == status, name
            assert served.client.post(route, content=good, headers=right).content == before.content, name


def test_what_is_no_json_by_name(served: Running, still_well: None) -> None:
    for headers in ({"content-type": "text/plain"}, {"content-type": ""}):
        assert served.client.post("/v1/embeddings", content=_body(), headers=headers).status_code == 415


def test_unknown_paths_and_methods(served: Running) -> None:
    assert served.client.get("/v2").json()["error"]["message"].startswith("There is nothing at /v2;")
    answer = served.client.get("/v1/embeddings")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert served.client.post("/embed/x", json={}).status_code == 404


def test_text_embeddings_inference_s_errors(served: Running) -> None:
    answer = served.client.post("/embed", json={"inputs": ["a"] * 51})
    assert answer.status_code == 413
    assert answer.json() == {
        "error": "There are 51 texts; there may be 50. Send fewer at one time.",
        "error_type": "Validation",
    }


def _connect(served: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", served.client.base_url.port), timeout=30)


def test_a_body_that_does_not_come(served: Running, still_well: None) -> None:
    with _connect(served) as own:
        own.sendall(_HEAD + b"content-length: 9\r\n\r\n{")
        assert own.recv(100).startswith(b"HTTP/1.1 408")


def test_a_head_that_does_not_come(served: Running, still_well: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of a connection, and a later one."""
    monkeypatch.setattr("embedsmith.serving.server._HEAD_SECONDS", 0.5)
    with _connect(served) as own:
        own.sendall(b"GET /health HTTP/1.1\r\nhost")
        assert own.recv(100) == b""
    with _connect(served) as own:
        own.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        answer = own.recv(1000)
        assert answer.startswith(b"HTTP/1.1 200")
        own.sendall(b"GET /hea")
        while b'{"status":"ok"}' not in answer:
            answer += own.recv(1000)
        assert own.recv(100) == b""


def test_what_is_no_http(served: Running, still_well: None) -> None:
    with _connect(served) as own:
        own.sendall(b"\x16\x03\x01 something else\r\n\r\n")
        assert own.recv(100).startswith(b"HTTP/1.1 400")


def test_the_key(model_folders: dict[str, str]) -> None:
    embedder = Embedder.load(model_folders["llama"], precision="fp32")
    with running(embedder, api_key="s3cret") as served:
        for given in (None, "Bearer", "Bearer wrong", "Bearer s3cret2", "Basic s3cret", "s3cret", "Bearer é"):
            headers = {} if given is None else {"authorization": given.encode()}
            for path in ("/v1/embeddings", "/embed", "/similarity", "/nothing"):
                assert served.client.post(path, json={}, headers=headers).status_code == 401
            for path in ("/v1/models", "/metrics"):
                answer = served.client.get(path, headers=headers)
                assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        for path in ("/health", "/ready", "/openapi.json"):
            assert served.client.get(path).status_code == 200
        served.client.headers["authorization"] = "Bearer s3cret"
        reply = served.embed(TEXTS).json()
        found = np.array([item["embedding"] for item in reply["data"]], np.float32)
        np.testing.assert_array_equal(found, embedder.encode(TEXTS))


def test_nothing_is_kept_of_what_is_over(served: Running) -> None:
    """Refused, cut off or answered: no request is inside, no text waits, and memory stays what it is."""
    _ask_in_many_ways(served, times=80)
    before = psutil.Process().memory_info().rss
    _ask_in_many_ways(served, times=240)
    grown = psutil.Process().memory_info().rss - before
    figures = _settled(served.client)
    assert "embedsmith_requests_inside 0.0" in figures
    assert 'embedsmith_queue_tokens{model="tiny"} 0.0' in figures
    assert grown < 4_000_000  # by 1,200 requests, some of 200 KB


def _ask_in_many_ways(served: Running, *, times: int) -> None:
    for place in range(times):
        with _connect(served) as own:
            own.sendall(_HEAD + b"content-length: 90000\r\n\r\n{")
        served.embed(["a"] * 51)
        served.embed("a")
        served.embed([f"w{place % 200} cat"] * 7, user="x" * 200_000)
        served.client.get(f"/{place}/{times}")


def _settled(client: httpx2.Client) -> str:
    for _ in range(100):
        figures = client.get("/metrics").text
        if "embedsmith_requests_inside 0.0" in figures:
            break
        time.sleep(0.05)
    return figures
