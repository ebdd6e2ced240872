"""Clients that read slowly or not at all, or go amid their answer: nobody else waits, and their place is freed."""

import json
import socket
import time
from collections.abc import Iterator
from http.client import HTTPResponse

import numpy as np
import pytest

from embedsmith.model.embedder import Embedder
from embedsmith.serving.server import _UNREAD_SECONDS
from tests.serving.running import Running, running, wait_until
from tests.tiny import TEXTS

LARGE = [f"w{number % 200} cat w{number // 200}" for number in range(2000)]
"""The answer has 1.7 MB, much more than the buffers between, which are made small."""


@pytest.fixture(scope="module")
def embedder(model_folders: dict[str, str]) -> Embedder:
    return Embedder.load(model_folders["llama"], precision="fp32", max_length=64)


@pytest.fixture
def served(embedder: Embedder) -> Iterator[Running]:
    with running(embedder) as server:
        _listening(server).setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)  # connections inherit it
        before = server.embed(TEXTS).json()
        yield server
        assert server.embed(TEXTS).json() == before


def _listening(served: Running) -> socket.socket:
    return served.server.servers[0].sockets[0]


def _ask(served: Running) -> tuple[socket.socket, HTTPResponse]:
    """A connection that has asked for much, and its answer, of which the head has come."""
    own = socket.socket()
    own.settimeout(60)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    own.connect(("127.0.0.1", served.client.base_url.port))
    body = json.dumps({"model": "tiny", "input": LARGE}).encode()
    head = "POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\n"
    own.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    answer = HTTPResponse(own)
    answer.begin()
    assert answer.status == 200
    return own, answer


def test_who_reads_slowly_gets_everything_and_holds_up_nobody(served: Running, embedder: Embedder) -> None:
    own, answer = _ask(served)
    with own:
        text = b""
        for _ in range(5):
            text += answer.read(100)
            assert served.embed(TEXTS).status_code == 200
        until = time.monotonic() + 60
        while served.server.gate.num_inside > 1 and time.monotonic() < until:  # an answer comes before its end
            time.sleep(0.01)
        assert served.server.gate.num_inside == 1
        reply = json.loads(text + answer.read())
    found = np.array([item["embedding"] for item in reply["data"]], np.float32)
    np.testing.assert_allclose(found, embedder.encode(LARGE), atol=1e-6)


def test_who_does_not_read_is_cut_off(served: Running) -> None:
    listening = _listening(served)
    assert listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1000 * _UNREAD_SECONDS
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 500)
    own, _ = _ask(served)
    with own:
        assert served.server.gate.num_inside == 1
        wait_until(lambda: served.server.gate.num_inside == 0)


def test_who_goes_amid_the_answer_frees_the_place(served: Running) -> None:
    for _ in range(3):
        _ask(served)[0].close()
    wait_until(lambda: served.server.gate.num_inside == 0)
