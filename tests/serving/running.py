"""A real server in a thread of the test's process; tests that import this are skipped where the extra is missing."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx2
import pytest

from embedsmith.model.embedder import Embedder
from embedsmith.model.sentence_encoder import SentenceEncoder
from embedsmith.serving.limits import Limits
from embedsmith.serving.served_model import ServedModel, serve_model

if TYPE_CHECKING:
    from embedsmith.serving.server import Server
    from embedsmith.serving.service import Service

for package in ("fastapi", "uvicorn", "orjson", "prometheus_client"):
    pytest.importorskip(package, reason=f"serving needs {package}: pip install 'embedsmith[dev]'")


@dataclass(frozen=True)
class Running:
    """A server, and a client of it."""

    server: "Server"
    service: "Service"
    client: httpx2.Client
    thread: threading.Thread
    url: str

    def embed(self, given: object, **others: object) -> httpx2.Response:
        return self.client.post("/v1/embeddings", json={"model": "tiny", "input": given, **others})


@contextmanager
def running(
    *models: ServedModel | Embedder | SentenceEncoder, limits: Limits | None = None, api_key: str | None = None
) -> Iterator[Running]:
    from embedsmith.serving.app import make_app
    from embedsmith.serving.metrics import Metrics
    from embedsmith.serving.server import Server, open_socket
    from embedsmith.serving.service import Service

    served: Sequence[ServedModel] = [
        serve_model(model, name="tiny") if isinstance(model, Embedder | SentenceEncoder) else model for model in models
    ]
    service = Service(served, limits=limits or Limits(), metrics=Metrics())
    server = Server(make_app(service, api_key=api_key))
    own = open_socket("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [own]})
    thread.start()
    try:
        url = f"http://127.0.0.1:{own.getsockname()[1]}"
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        with httpx2.Client(base_url=url, timeout=60) as client:
            yield Running(server, service, client, thread, url)
    finally:
        server.stop()
        thread.join(timeout=60)
        assert not thread.is_alive()


def wait_until(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.01)
