"""The end: what was accepted is answered, what takes too long is given up and told so, a second signal ends it all."""

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from embedsmith.model.embedder import Embedder
from embedsmith.serving.limits import Limits
from tests.serving.held import Held
from tests.serving.running import running, wait_until

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def embedder(model_folders: dict[str, str]) -> Embedder:
    return Embedder.load(model_folders["llama"], precision="fp32", max_length=64)


def test_a_server_that_stops_answers_what_it_accepted(embedder: Embedder) -> None:
    model = Held(embedder)
    with running(model) as served, ThreadPoolExecutor(2) as clients:
        assert served.client.get("/ready").status_code == 200
        accepted = [clients.submit(served.embed, "rain falls")]
        wait_until(lambda: model.batches == [1])
        accepted.append(clients.submit(served.embed, ["a", "b"]))
        wait_until(lambda: served.service._batchers["tiny"].num_waiting > 0)
        served.server.stop()
        assert served.client.get("/ready").status_code == 503
        assert served.client.get("/health").status_code == 200
        refused = served.embed("a")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert "The server is stopping" in refused.json()["error"]["message"]
        model.let()
        assert [answer.result().status_code for answer in accepted] == [200, 200]
        served.thread.join(30)
        assert not served.thread.is_alive()


def test_what_takes_too_long_is_given_up(embedder: Embedder, caplog: pytest.LogCaptureFixture) -> None:
    """Computed, waiting, or still coming in: each is told, and nothing waits for the batch that is computed."""
    model = Held(embedder)
    with running(model, limits=Limits(drain_seconds=0.3)) as served, ThreadPoolExecutor(2) as clients:
        first = clients.submit(served.embed, "rain falls")
        wait_until(lambda: model.batches == [1])
        second = clients.submit(served.client.post, "/embed", json={"inputs": ["a", "b"]})
        with socket.create_connection(("127.0.0.1", served.client.base_url.port), timeout=30) as third:
            third.sendall(
                b"POST /embed HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{"
            )
            wait_until(lambda: served.server.gate.num_inside == 3)
            served.server.stop()
            assert third.recv(100).startswith(b"HTTP/1.1 503")
        answer = first.result()
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert answer.json()["error"]["message"].startswith("The server stopped before this was answered")
        assert (second.result().status_code, second.result().json()["error_type"]) == (503, "Unhealthy")
        assert "3 requests were not answered in 0.3 seconds" in caplog.text
        model.let()
        served.thread.join(30)
        assert not served.thread.is_alive()


def _ask(url: str) -> None:
    body = json.dumps({"model": "tiny", "input": "a cat"}).encode()
    urllib.request.urlopen(urllib.request.Request(f"{url}/v1/embeddings", body, {"Content-Type": "application/json"}))


def _is_inside(url: str) -> bool:
    with urllib.request.urlopen(f"{url}/metrics") as figures:
        return b"embedsmith_requests_inside 1.0" in figures.read()


def test_a_second_signal_ends_the_process_amid_a_batch(model_folders: dict[str, str]) -> None:
    command = [sys.executable, "-m", "tests.serving.held", model_folders["llama"]]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            said = ""
            while (url := re.search(r"(http://127\.0\.0\.1:\d+)/v1/embeddings", said)) is None:
                line = process.stderr.readline()
                assert line, said
                said += line
            with ThreadPoolExecutor(1) as clients:
                asked = clients.submit(_ask, url[1])
                wait_until(lambda: _is_inside(url[1]))
                process.send_signal(signal.SIGTERM)
                assert process.stderr.readline() == "SIGTERM: answering 1 requests, then stopping\n"
                process.send_signal(signal.SIGTERM)
                assert process.wait(60) == -signal.SIGTERM
                with pytest.raises((urllib.error.URLError, ConnectionError)):
                    asked.result()
        finally:
            process.kill()
