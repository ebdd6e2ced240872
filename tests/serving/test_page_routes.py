"""The playground's files and its route; a base out of the weights of what was tuned from it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embedsmith.model.embedder import Embedder
from embedsmith.serving.served_model import serve_model, serve_with_base
from tests.serving.running import Running, running
from tests.tiny import TEXTS
from tests.tuned import save_tuned

KEY = "s3cret"


@pytest.fixture(scope="module")
def tuned(model_folders: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    folder: Path = tmp_path_factory.mktemp("run")
    return save_tuned(model_folders["llama"], folder, prompt="the {text} rain", pooling="mean")


@pytest.fixture(scope="module")
def served(tuned: Embedder) -> Iterator[Running]:
    with running(*serve_with_base(tuned, name="mine"), api_key=KEY) as server:
        server.client.headers["Authorization"] = f"Bearer {KEY}"
        yield server


def _rows(served: Running, model: str, texts: list[str]) -> np.ndarray:
    reply = served.client.post("/v1/embeddings", json={"model": model, "input": texts}).json()
    return np.array([item["embedding"] for item in reply["data"]], np.float32)


def test_a_base_is_the_model_before_it_was_tuned(
    served: Running, tuned: Embedder, model_folders: dict[str, str]
) -> None:
    """Bit for bit, and what was tuned is the same before and after."""
    base = Embedder.load(
        model_folders["llama"], prompt="the {text} rain", pooling="mean", max_length=40, precision="fp32"
    )
    expected = tuned.encode(TEXTS)
    np.testing.assert_array_equal(_rows(served, "mine", TEXTS), expected)
    np.testing.assert_array_equal(_rows(served, "mine:base", TEXTS), base.encode(TEXTS))
    np.testing.assert_array_equal(_rows(served, "mine", TEXTS), expected)
    assert np.abs(expected - base.encode(TEXTS)).max() > 0.1
    listed = served.client.get("/v1/models").json()["data"]
    assert [(model["id"], model["parent"]) for model in listed] == [("mine", "mine:base"), ("mine:base", None)]


def test_what_has_no_adapter_has_no_base(llama: Embedder) -> None:
    assert [model.name for model in serve_with_base(llama, name="mine")] == ["mine"]
    assert serve_model(llama, name="mine").parent is None


def test_files_are_open_to_everyone_and_shut_to_other_hosts(served: Running) -> None:
    page = served.client.get("/", headers={"Authorization": ""})
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    for path, kind in {"style.css": "text/css", "app.js": "text/javascript", "icon.svg": "image/svg+xml"}.items():
        answer = served.client.get(f"/page/{path}", headers={"Authorization": ""})
        assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, kind)
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    for path in ("/page/", "/page/../app.py", "/page/%2e%2e/app.py", "/page/none.js"):
        assert served.client.get(path).status_code == 404
    assert served.client.get("/page/none.js", headers={"Authorization": ""}).status_code == 401


def test_tokens(served: Running) -> None:
    reply = served.client.post("/tokens", json={"model": "mine:base", "input": ["a cat", "cat " * 50]}).json()
    assert (reply["model"], reply["prompt"], reply["pooling"]) == ("mine:base", "the {text} rain", "mean")
    short, long = reply["texts"]
    assert [(token["token"], token["role"]) for token in short["tokens"]] == [
        ("<s>", "start"),
        ("the", "prompt"),
        ("a", "text"),
        ("cat", "text"),
        ("rain", "prompt"),
        ("</s>", "end"),
    ]
    assert all(token["is_pooled"] for token in short["tokens"])
    assert (short["is_cut"], long["is_cut"], len(long["tokens"])) == (False, True, 40)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"input": []}, 422, "input"),
        ({"input": ["a"] * 65}, 422, "input"),
        ({"input": "a"}, 422, "input"),
        ({"input": ["a" * 20_001]}, 413, "20,001 characters"),
        ({"input": ["a"], "model": "none"}, 404, "'none'"),
        ({"input": ["a"], "instruction": "find"}, 400, "instruction"),
    ],
)
def test_tokens_that_cannot_be_shown(served: Running, body: dict[str, object], status: int, said: str) -> None:
    answer = served.client.post("/tokens", json=body)
    assert (answer.status_code, said in answer.json()["error"]["message"]) == (status, True)


def test_tokens_ask_for_the_key(served: Running) -> None:
    answer = served.client.post("/tokens", json={"input": ["a"]}, headers={"Authorization": ""})
    assert answer.status_code == 401
