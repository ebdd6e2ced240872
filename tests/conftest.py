"""Shared fixtures: no network, a cache of its own, and tiny random models of every family, saved as real folders."""

import gc
import socket
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from hypothesis import settings

from embedsmith.model.embedder import Embedder
from tests.tiny import FAMILIES, save_model

# A machine with other work to do misses any deadline; speed is no matter of tests. Examples are the same in every run;
# `--hypothesis-profile search` draws others.
settings.register_profile("search", deadline=None, max_examples=1000)
settings.register_profile("the same", deadline=None, derandomize=True, database=None)
settings.load_profile("the same")
LOOPBACK = ("127.0.0.1", b"127.0.0.1")

# A page shows `import openvino` as users write it, and that reports all later conversions from processes of its own,
# which `no_network` does not reach. embedsmith's own imports leave the reporter out: tests/export/test_openvino.py.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment] # Python's way to say that it is not there


def pytest_collection_finish() -> None:
    """Leave what is there by now, modules and tests for the most part, out of all later garbage collections."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def connect_here(own: socket.socket, address: object) -> None:
        if own.family is not socket.AF_UNIX and not (isinstance(address, tuple) and address[0] in LOOPBACK):
            raise OSError("tests run offline")
        connect(own, address)

    def look_up_here(host: object, *rest: object, **named: object) -> object:
        if host not in LOOPBACK:
            raise OSError("tests run offline")
        return look_up(host, *rest, **named)

    monkeypatch.setattr(socket.socket, "connect", connect_here)
    monkeypatch.setattr(socket, "getaddrinfo", look_up_here)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("EMBEDSMITH_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("models")
    return {family: str(save_model(family, root / family)) for family in FAMILIES}


@pytest.fixture
def llama(model_folders: dict[str, str]) -> Embedder:
    torch.manual_seed(0)
    return Embedder.load(model_folders["llama"], precision="fp32", max_length=64)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub of its own; `hub.put_in_hub_cache` fills it."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return folder
