"""Exports as sentence-transformers loads them where this environment cannot: its version 3, and its ONNX and OpenVINO
backends, which want other versions of transformers; and as transformers.js does.

`make test-versions` sets those environments up and runs this; where they are not, it is left out.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from embedsmith.export.folders import Format, export
from embedsmith.model.embedder import Embedder
from tests.made_tokenizers import MARKS, SPECIAL, save_with
from tests.tiny import TEXTS
from tests.tuned import save_tuned

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("load_elsewhere.py")
ALL = [*TEXTS, "x", " a  cat ", "Ünï 東京 🙂", "a cat runs away " * 20, "stop at </s>", *SPECIAL, *MARKS]
BACKENDS = {Format.SENTENCE_TRANSFORMERS: "torch", Format.ONNX: "onnx", Format.OPENVINO: "openvino"}
VERSIONS = {"3": tuple(BACKENDS), "6": (Format.SENTENCE_TRANSFORMERS, Format.OPENVINO)}
"""Of the package -> formats that it loads; none has an ONNX backend for transformers 5."""
SETTINGS = {
    "PromptEOL": {"prompt": 'the cat "{text}" is one word:"', "end_token": False},
    "queries": {"query_prompt": "the cat: {text}", "pooling": "mean"},
}
CASES = [(version, to, kind) for version, formats in VERSIONS.items() for to in formats for kind in SETTINGS]


def _python_of(version: str) -> Path:
    return ROOT / f".venv-versions-{version}" / "bin" / "python"


@pytest.fixture(scope="module")
def exported(
    model_folders: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Embedder]]:
    """A folder with kind/format in it, and the models."""
    root = tmp_path_factory.mktemp("exported")
    models = {
        kind: save_tuned(model_folders["llama"], root / kind / "run", **settings) for kind, settings in SETTINGS.items()
    }
    for kind in SETTINGS:
        for to in BACKENDS:
            export(str(root / kind / "run"), folder=root / kind / to, to=to)
    return root, models


@pytest.fixture(scope="module")
def encoded(exported: tuple[Path, dict[str, Embedder]]) -> dict[str, Path]:
    """Version -> where what it made of all folders lies; one process for each."""
    root, _ = exported
    found = {}
    for version, formats in VERSIONS.items():
        if not _python_of(version).exists():
            continue
        found[version] = root / version
        found[version].mkdir()
        jobs = [
            {
                "folder": str(root / kind / to),
                "backend": BACKENDS[to],
                "texts": {"": ALL, "query": ALL},
                "out": str(found[version] / f"{kind} {to}.npz"),
            }
            for kind in SETTINGS
            for to in formats
        ]
        (found[version] / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
        command = [_python_of(version), "-I", SCRIPT, found[version] / "jobs.json"]
        subprocess.run(command, env={**os.environ, "HF_HUB_OFFLINE": "1"}, check=True, timeout=600)
    return found


@pytest.mark.parametrize(("version", "to", "kind"), CASES)
def test_exported_equals_live(version: str, to: Format, kind: str, request: pytest.FixtureRequest) -> None:
    if not _python_of(version).exists():
        pytest.skip(f"there is no .venv-versions-{version}: make test-versions")
    folder = request.getfixturevalue("encoded")[version]
    reason = folder / f"{kind} {to}.txt"
    assert not reason.exists(), reason.read_text()[-3000:]
    live = request.getfixturevalue("exported")[1][kind]
    with np.load(folder / f"{kind} {to}.npz", allow_pickle=False) as found:
        for side, name in (("document", "bare"), ("query", "query")):
            np.testing.assert_allclose(found[name], live.encode(ALL, side=side), atol=1e-5)


def test_transformers_js(tmp_path: Path) -> None:
    modules = ROOT / ".venv-versions-node" / "node_modules"
    node = shutil.which("node")
    if node is None or not modules.exists():
        pytest.skip("there is no .venv-versions-node: make test-versions, where there are Node and npm")
    long_enough = {**SETTINGS["PromptEOL"], "max_length": 120}  # it cuts what is too long otherwise
    live = save_tuned(str(save_with("bytes", tmp_path / "base")), tmp_path / "run", **long_enough)
    export(str(tmp_path / "run"), folder=tmp_path / "out", to=Format.ONNX)
    texts = [*TEXTS, "x", "Ünï 東京 🙂", "stop at </s>"]
    jobs = tmp_path / "jobs.json"
    jobs.write_text(json.dumps([{"folder": "./out", "texts": texts, "out": "found.json"}]), encoding="utf-8")
    subprocess.run([node, SCRIPT.with_suffix(".mjs"), modules, jobs], cwd=tmp_path, check=True, timeout=300)
    found = np.array(json.loads((tmp_path / "found.json").read_text()))
    np.testing.assert_allclose(found, live.encode(texts), atol=1e-5)
