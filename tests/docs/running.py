"""Commands of the pages, run in small in this process."""

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from typing import Any
from unittest.mock import patch

import httpx2

from embedsmith.cli import run_command
from tests.docs.commands import shrink
from tests.docs.pages import ROOT

RUN_ELSEWHERE = (["pip"], ["make"], ["python", "-m", "pytest"])
"""What installs, which `release/check.py` does with every extra, or is a run of tests."""
_SMALL_MODULES = {
    "benchmarks.drift": ["--models", "smollm2-135m", "--num-pairs", "16", "--batch-size", "4", "--steps", "1"],
    "benchmarks.exchange": ["--processes", "1", "2", "--steps", "1"],
    "benchmarks.exports": ["--forms", "static", "--without-speed"],
    "benchmarks.large_data": ["--rows", "1000"],
    "examples.beyond_sts": ["--libraries", "anyio", "optuna", "--parted", "numpy", "--frames", "narwhals", "polars"],
    "examples.documentation": ["--train", "anyio", "--dev", "optuna", "--test", "httpx2"],
}
"""Options behind those of a page, of which the last count."""
_APART = ("benchmarks.exchange",)
"""Modules that fork, which a process with threads may not."""


def run(words: list[str]) -> int:
    """Run a command in small; returns its exit code."""
    if any(words[: len(start)] == start for start in RUN_ELSEWHERE):
        return 0
    match words:
        case ["embedsmith", "serve", *_]:
            return _serve(shrink(words))
        case ["embedsmith", *_]:
            return run_command(shrink(words))
        case ["python", "-m", module, *arguments]:
            return _run_module(module, [*arguments, *_SMALL_MODULES.get(module, [])])
        case _:
            raise AssertionError("say in front of the block why this is not run: <!-- not run: ... -->")


def _run_module(module: str, arguments: Sequence[str]) -> int:
    if module in _APART:
        apart = [sys.executable, "-m", module, *arguments]
        return subprocess.run(apart, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False).returncode
    with patch.object(sys, "argv", [module, *arguments]):
        try:
            return import_module(module).main() or 0
        except SystemExit as end:
            return int(end.code or 0)


def _serve(arguments: list[str]) -> int:
    """Serve at any port that is free; as soon as the server answers, ask for a vector, and stop it."""
    from embedsmith.serving.server import Server

    started, vectors = Server.startup, list[list[float]]()

    def ask(server: Server, url: str) -> None:
        try:
            vectors.extend(httpx2.post(f"{url}/embed", json={"inputs": "A cat sleeps."}).json())
        finally:
            server.stop()

    async def start(self: Server, sockets: Any = None) -> None:
        await started(self, sockets)
        address, port, *_ = sockets[0].getsockname()
        threading.Thread(target=ask, args=(self, f"http://{address}:{port}")).start()

    with patch.object(Server, "startup", start):
        code = run_command([*arguments, "--port", "0"])
    assert code or len(vectors) == 1
    return code
