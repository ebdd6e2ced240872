"""The command, as a process: from a model to an answer, and an end that loses nothing. Names, keys and addresses."""

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from embedsmith.cli import run_command
from embedsmith.support.errors import ConfigError, MissingExtraError
from embedsmith.verbs.serve import KEY_VARIABLE, name_models, read_key, serve
from tests.tuned import save_tuned


def test_from_the_command_to_an_answer_and_the_end(
    model_folders: dict[str, str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("fastapi", "uvicorn", "orjson", "prometheus_client"):
        pytest.importorskip(package, reason=f"serving needs {package}: pip install 'embedsmith[dev]'")
    monkeypatch.setenv(KEY_VARIABLE, "s3cret")
    command = [sys.executable, "-m", "embedsmith", "serve", f"tiny={model_folders['llama']}", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            _ask_and_stop(process)
        finally:
            process.kill()


def _ask_and_stop(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    said = ""
    while (url := re.search(r"http://127\.0\.0\.1:\d+/v1/embeddings", said)) is None:
        line = process.stderr.readline()
        assert line, said
        said += line
    assert "tiny: 64 dimensions, 128 tokens per text\n" in said
    body = json.dumps({"model": "tiny", "input": "a cat"}).encode()
    headers = {"Content-Type": "application/json", "Authorization": "Bearer s3cret"}
    with urllib.request.urlopen(urllib.request.Request(url[0], body, headers)) as answer:
        assert len(json.load(answer)["data"][0]["embedding"]) == 64
    headers["Authorization"] = "Bearer another"
    with pytest.raises(urllib.error.HTTPError, match="401") as refused:
        urllib.request.urlopen(urllib.request.Request(url[0], body, headers))
    refused.value.close()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert process.stderr.read() == "SIGTERM: answering 0 requests, then stopping\n"


def test_models_have_names(tmp_path: Path) -> None:
    (tmp_path / "a=b").mkdir()
    given = ["smollm2-135m", "runs/mine", "tuned=org/model", f"{tmp_path}/a=b", "home=~/runs"]
    assert name_models(given) == {
        "smollm2-135m": "smollm2-135m",
        "runs/mine": "runs/mine",
        "tuned": "org/model",
        f"{tmp_path}/a=b": f"{tmp_path}/a=b",
        "home": str(Path.home() / "runs"),
    }
    with pytest.raises(ConfigError, match=r"Two models are called 'a'"):
        name_models(["a", "a=b"])


def test_a_base_needs_a_name_of_its_own(
    model_folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("fastapi", "uvicorn", "orjson", "prometheus_client"):
        pytest.importorskip(package, reason=f"serving needs {package}: pip install 'embedsmith[dev]'")
    monkeypatch.chdir(tmp_path)
    save_tuned(model_folders["llama"], tmp_path / "run")
    (tmp_path / "mine:base").symlink_to(model_folders["llama"])
    with pytest.raises(ConfigError, match=r"Two models are called 'mine:base'.*\n.*--without-base"):
        serve(["mine=run/adapter", "mine:base"], port=0)


def test_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    assert read_key(None) is None
    monkeypatch.setenv(KEY_VARIABLE, "from-the-variable")
    assert read_key(None) == "from-the-variable"
    path = tmp_path / "key"
    path.write_text("from-the-file\n")
    assert read_key(path) == "from-the-file"
    for text in ("", " \n", "a b", "é", "a\nb"):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"printable ASCII"):
            read_key(path)
    with pytest.raises(ConfigError, match=r"cannot be read"):
        read_key(tmp_path / "none")
    monkeypatch.setenv(KEY_VARIABLE, "")
    with pytest.raises(ConfigError, match=KEY_VARIABLE):
        read_key(None)


def test_what_cannot_be_served_shows_before_a_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("uvicorn", reason="serving needs uvicorn: pip install 'embedsmith[dev]'")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"(?s)127.0.0.1:{port}: Address already in use.*--port"):
            serve(["no/such-model"], port=port)
    with pytest.raises(ConfigError, match="belongs to one MODEL"):
        serve(["a", "b"], base_model="c")
    assert run_command(["serve", "no/such-model", "--port", "0"]) == 2
    assert "no/such-model" in capsys.readouterr().err


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedsmith.verbs.serve.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'embedsmith\[serve\]'"):
        serve(["smollm2-135m"])
