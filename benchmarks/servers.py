"""Servers of embeddings as processes: embedsmith and the others, started one at a time on the same model and precision.

What is not set up is left out, and said; peers/README.md tells how.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.pool import ROOT

EMBEDSMITH = "embedsmith"
MODEL_NAME = "m"
API_KEY = "key-of-the-benchmark"
_START_S = 300


@dataclass(frozen=True)
class ServerKind:
    """A server that can be started.

    Attributes:
        name: key, short.
        label: as tables show it.
        command: as it is started, `{port}` to be filled in.
        environment: variables of its process.
        missing: why it cannot run here, or None.
    """

    name: str
    label: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    missing: str | None = None


@dataclass(frozen=True)
class ServerFiles:
    """What servers are started with.

    Attributes:
        model: built-in name, folder or run, for embedsmith.
        folder: the same as a sentence-transformers folder.
        gguf: the same as a GGUF file, its end token put by the tokenizer; None: there is none.
        infinity: command of infinity-emb, in its own environment.
        llama_server: llama.cpp's.
    """

    model: str
    folder: Path
    gguf: Path | None
    infinity: str
    llama_server: str


def server_kinds(given: ServerFiles, *, precision: str) -> list[ServerKind]:
    """All servers, those that cannot run here marked."""
    dtype = {"bf16": "bfloat16", "fp32": "float32"}[precision]
    peer = Path(__file__).parent / "peers" / "sentence_transformers_server.py"
    serve = (sys.executable, "-m", "embedsmith", "serve", f"{MODEL_NAME}={given.model}", "--port", "{port}")
    return [
        ServerKind(
            EMBEDSMITH,
            f"embedsmith, {precision}",
            (*serve, "--precision", precision),
            {"EMBEDSMITH_API_KEY": API_KEY},
        ),
        ServerKind(
            "infinity",
            f"infinity-emb, {precision}",
            (
                *(given.infinity, "v2", "--model-id", str(given.folder), "--served-model-name", MODEL_NAME),
                *("--engine", "torch", "--device", "cpu", "--dtype", dtype, "--no-model-warmup"),
                "--no-bettertransformer",
                *("--url-prefix", "/v1", "--host", "127.0.0.1", "--port", "{port}", "--log-level", "error"),
            ),
            {"DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0", "PYTHONPATH": ""},
            None if shutil.which(given.infinity) else "not set up",
        ),
        ServerKind(
            "sentence-transformers",
            f"sentence-transformers behind the same route, {precision}",
            (sys.executable, str(peer), str(given.folder), "{port}", dtype),
        ),
        _llama(given),
    ]


def _llama(given: ServerFiles) -> ServerKind:
    """llama.cpp's, with as many slots as clients, all of them in one cache, and its own sizes of batches.

    Larger ones, which longer texts than the load test's would need, make it slower for few clients.
    """
    num_threads = str(len(os.sched_getaffinity(0)))
    missing = "there is no GGUF file" if given.gguf is None else None
    return ServerKind(
        "llama.cpp",
        "llama.cpp's server, weights as in the GGUF file",
        (
            *(given.llama_server, "-m", str(given.gguf), "--embeddings", "--pooling", "last", "-t", num_threads),
            *("-np", "64", "-c", "32768", "--kv-unified", "-b", "2048", "-ub", "512"),
            *("--override-kv", "tokenizer.ggml.add_eos_token=bool:true", "--log-disable"),
            *("--host", "127.0.0.1", "--port", "{port}"),
        ),
        missing=missing if shutil.which(given.llama_server) else "not set up",
    )


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    kind: ServerKind
    url: str
    process: subprocess.Popen[bytes]
    start_s: float

    def count_bytes(self) -> int:
        """Memory that it and its children have now."""
        own = psutil.Process(self.process.pid)
        return sum(one.memory_info().rss for one in (own, *own.children(recursive=True)))


@contextmanager
def running(kind: ServerKind, *, log: Path) -> Iterator[Running]:
    """A server, from its first answer to its end.

    Raises:
        RuntimeError: it does not answer; the log says why.
    """
    port = _free_port()
    command = [part.format(port=port) for part in kind.command]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **kind.environment}
    started = time.perf_counter()
    with log.open("ab") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)  # noqa: S603 (ours)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_it_answers(f"{url}/health", process, log=log)
        yield Running(kind, url, process, time.perf_counter() - started)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes], *, log: Path) -> None:
    until = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < until:
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310 (our own)
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    last = log.read_text(errors="replace").splitlines()[-3:]
    raise RuntimeError(f"it did not answer: {' '.join(last) or 'no message'}")


def _free_port() -> int:
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        port: int = own.getsockname()[1]
        return port
