"""A real Ray cluster on this machine: the files of the local engine, byte for byte, whoever is killed on the way.

Starting one takes longer than all other tests of `encode`, so these run with `make test-reliability` alone, which
names this file.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from embedsmith.cli import run_command
from tests.run_folders import read_folder
from tests.tiny import save_model

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'embedsmith[ray]'")

OPTIONS = ["--shard-rows", "32", "--vector-precision", "int8", "--precision", "fp32"]


@pytest.fixture
def work(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_model("llama", tmp_path / "m")
    texts = [f"w{number % 200} cat w{number * 7 % 200}" for number in range(900)]
    Path("t.txt").write_text("\n".join(texts) + "\n")
    return tmp_path


@pytest.fixture
def cluster(work: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.undo()  # its processes talk to each other
    os.chdir(work)
    os.environ["EMBEDSMITH_CACHE"] = str(work / "cache")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
    del os.environ["EMBEDSMITH_CACHE"]


def _workers() -> list[psutil.Process]:
    return [one for one in psutil.process_iter(["cmdline"]) if "ray::Worker" in " ".join(one.info["cmdline"] or ())]


def test_the_files_are_those_of_the_local_engine(cluster: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["encode", "m", "t.txt", "--out", "local", *OPTIONS]) == 0
    encode = ["encode", "m", "t.txt", "--out", "out", *OPTIONS, "--engine", "ray", "--workers", "2"]
    assert run_command(encode) == 0
    assert read_folder(Path("out")) == read_folder(Path("local"))
    assert "900 of 900 texts" in capsys.readouterr().out


def test_a_worker_that_is_killed_midway_changes_nothing(cluster: None) -> None:
    assert run_command(["encode", "m", "t.txt", "--out", "local", *OPTIONS]) == 0
    killed = []

    def kill() -> None:
        while not killed:
            journal = Path("out/unfinished.jsonl")
            if journal.exists() and journal.read_text().count('"shard"') >= 3:
                for one in _workers()[:1]:
                    one.kill()
                    killed.append(one.pid)
            time.sleep(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        assert run_command(["encode", "m", "t.txt", "--out", "out", *OPTIONS, "--engine", "ray", "--workers", "2"]) == 0
    finally:
        killed.append(0)
        thread.join()
    assert killed[0]
    assert read_folder(Path("out")) == read_folder(Path("local"))


def test_the_command_that_is_killed_goes_on_with_either_engine(cluster: None) -> None:
    assert run_command(["encode", "m", "t.txt", "--out", "local", *OPTIONS]) == 0
    command = [sys.executable, "-m", "embedsmith", "encode", "m", "t.txt", "--out", "out", *OPTIONS]
    environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    process = subprocess.Popen([*command, "--engine", "ray", "--workers", "2"], env=environment)
    journal = Path("out/unfinished.jsonl")
    while not (journal.exists() and journal.read_text().count('"shard"') >= 3):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not Path("out/manifest.json").exists()
    assert run_command(["encode", "m", "t.txt", "--out", "out", *OPTIONS]) == 0
    assert read_folder(Path("out")) == read_folder(Path("local"))


def test_what_a_worker_refuses_is_told_as_by_the_local_engine(
    cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["encode", "nowhere", "t.txt", "--out", "out", "--engine", "ray"]) == 2
    assert "There is no model 'nowhere'" in capsys.readouterr().err
    assert run_command(["encode", "m", "t.txt", "--out", "out", "--engine", "ray", "--workers", "3"]) == 2
    assert "--workers is 3, and the Ray cluster has 2 processors" in capsys.readouterr().err
    assert not Path("out").exists()
