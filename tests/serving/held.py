"""A real model that computes when it is let; `python -m tests.serving.held FOLDER` serves one that is never let."""

import logging
import sys
import threading
from collections.abc import Sequence

import numpy as np

from embedsmith.model.embedder import Embedder
from embedsmith.serving.served_model import ServedDecoder, Tokens


class Held(ServedDecoder):
    """Tells of its batches, too."""

    def __init__(self, embedder: Embedder) -> None:
        super().__init__(embedder, name="tiny")
        self._may_go = threading.Semaphore(0)
        self.batches: list[int] = []
        self.fails = False

    def embed(self, items: Sequence[tuple[Tokens, int]]) -> np.ndarray:
        self.batches.append(len(items))
        assert self._may_go.acquire(timeout=60)
        if self.fails:
            raise RuntimeError("no more memory")
        return super().embed(items)

    def let(self, num_batches: int = 1_000) -> None:
        self._may_go.release(num_batches)


def _main(folder: str) -> None:
    from embedsmith.serving.app import make_app
    from embedsmith.serving.limits import Limits
    from embedsmith.serving.metrics import Metrics
    from embedsmith.serving.server import Server, open_socket
    from embedsmith.serving.service import Service

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    model = Held(Embedder.load(folder, precision="fp32", max_length=64))
    service = Service([model], limits=Limits(), metrics=Metrics())
    with open_socket("127.0.0.1", 0) as own:
        Server(make_app(service)).run(sockets=[own])


if __name__ == "__main__":
    _main(sys.argv[1])
