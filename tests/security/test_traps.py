"""Nothing that is read runs: traps in every format, through every command that takes a MODEL or a file."""

import json
import shlex
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants

from embedsmith.cli import run_command
from embedsmith.model.embedder import Embedder
from embedsmith.model.embedding_model import load_embedding_model
from tests.faults.digest import digest_of
from tests.security.conftest import MODELS
from tests.security.traps import arm, pickled, program, spring, tagged

SOUND = (
    "doctor base",
    "evaluate base --data sts --out base.json",
    "evaluate runs/r --data sts",
    "evaluate peft --data sts",
    "evaluate merged --data sts",
    "evaluate published --data sts --prompt poem",
    "evaluate encoder --data sts",
    "encode hostile.gguf texts.txt --out vectors-of-gguf.npy",
    "train --config recipe.yaml",
    "train --config recipe.yaml --output_dir runs/q --data.train t.parquet --batch_size 2",
    "train --config recipe.yaml --output_dir runs/s --model.model published --batch_size 2",
    "train --config recipe.yaml --output_dir runs/t --batch_size 2 --teacher encoder --distill_weight 1",
    "export runs/r out/merged --to merged",
    "export runs/r out/peft --to peft",
    "export runs/r out/sentence --to sentence-transformers",
    "encode base texts.txt --out vectors-of-base.npy",
    "encode sentence texts.txt --out vectors-of-sentence.npy",
    "encode average texts.txt --out shards",
    "compare base runs/r --data sts",
    "average runs/r average --to mean",
    "report runs/r --data sts --out report.html",
    "evaluate runs/r --data sts --out of-r.json && card runs/r --results of-r.json",
    "push runs/r a/b --dry-run",
    "data stats t.parquet --model base",
    "init t.tsv --model base --out init.yaml --no-plan",
)
"""Commands that end well in a folder full of traps."""


def test_every_trap_springs_when_it_is_trusted(tmp_path: Path) -> None:
    marker = tmp_path / "sprung"
    arm(tmp_path, marker)
    assert {name for name, is_sprung in spring(tmp_path, marker).items() if not is_sprung} == set()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Addresses that somebody looks up or connects to, as if a hub could be reached."""
    found: list[object] = []

    def note(*arguments: object, **_: object) -> None:
        found.append(arguments)
        raise OSError("tests run offline")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket.socket, "connect", note)
    monkeypatch.setattr(socket, "getaddrinfo", note)
    return found


@pytest.mark.parametrize("command", SOUND)
def test_a_command_runs_nothing_asks_nobody_and_changes_no_model(
    trapped: Path, asked: list[object], command: str
) -> None:
    before = {name: digest_of(Path(name)) for name in MODELS}
    for one in command.split(" && "):
        assert run_command(shlex.split(one)) == 0, one
    assert "evil" not in sys.modules
    assert asked == []
    changed = [name for name in MODELS if digest_of(Path(name)) != before[name]]
    assert changed == (["runs/r"] if "card" in command else [])  # whose README.md is its card


def test_a_server_runs_nothing(trapped: Path) -> None:
    from tests.serving.running import running

    encoder = load_embedding_model("encoder")
    for model in (Embedder.load("base"), Embedder.load("published"), encoder):
        with running(model) as server:
            assert server.embed("a cat").status_code == 200


def _without(path: str, name: str) -> Callable[[Path], None]:
    """A pickle in the place of weights."""

    def make(marker: Path) -> None:
        Path(path, Path(name).with_suffix(".safetensors").name.replace("pytorch_model", "model")).unlink()
        Path(path, name).write_bytes(pickled(name, marker))

    return make


def _data(name: str) -> Callable[[Path], None]:
    return lambda marker: Path(name).write_bytes(pickled("a.pkl", marker)) and None


def _yaml(name: str, key: str) -> Callable[[Path], None]:
    return lambda marker: Path(name).write_text(f"{Path(name).read_text()}{key}: {tagged(marker)}\n") and None


def _json(name: str, **values: object) -> Callable[[Path], None]:
    return lambda _: Path(name).write_text(json.dumps(json.loads(Path(name).read_text()) | values)) and None


def _module(kind: str) -> Callable[[Path], None]:
    def make(_: Path) -> None:
        modules = json.loads(Path("sentence/modules.json").read_text())
        modules[1]["type"] = kind
        Path("sentence/modules.json").write_text(json.dumps(modules))

    return make


def _activation(marker: Path) -> None:
    """Of the encoder's dense layer, which sentence-transformers imports by its name."""
    _json("encoder/2_Dense/config.json", activation_function="evil.Activation")(marker)


def _script(marker: Path) -> None:
    """A data set's script, as the hub's library once ran them."""
    Path("owner/name").mkdir(parents=True)
    Path("owner/name/name.py").write_text(program(marker))


def _graph(marker: Path) -> None:
    """A graph whose weights are said to lie outside of its folder."""
    onnx = pytest.importorskip("onnx", reason="pip install 'embedsmith[onnx]'")
    pytest.importorskip("onnxruntime", reason="pip install 'embedsmith[onnx]'")
    folder = Path("graph/onnx")
    folder.mkdir(parents=True)
    Path("secret.bin").write_bytes(bytes(320 * 8 * 4))
    shutil.copy("base/tokenizer.json", "graph/tokenizer.json")
    table = onnx.TensorProto(name="table", dims=[320, 8], data_type=1, data_location=1)
    table.external_data.add(key="location", value="../../secret.bin")
    kinds = {"input_ids": 7, "attention_mask": 7, "last_hidden_state": 1, "sentence_embedding": 1}
    values = {name: onnx.helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()}
    nodes = [
        onnx.helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"]),
        onnx.helper.make_node("ReduceMean", ["last_hidden_state"], ["sentence_embedding"], axes=[1], keepdims=0),
    ]
    inputs, outputs = list(values.values())[:2], list(values.values())[2:]
    graph = onnx.helper.make_graph(nodes, "evil", inputs, outputs, initializer=[table])
    opsets = [onnx.helper.make_opsetid("", 17)]
    Path("graph/onnx/model.onnx").write_bytes(
        onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    )


ENCODE = "encode {} texts.txt --out x.npy"
REFUSED: dict[str, tuple[str, Callable[[Path], None]]] = {
    "weights": (ENCODE.format("base"), _without("base", "pytorch_model.bin")),
    "an adapter": (ENCODE.format("peft"), _without("peft", "adapter_model.bin")),
    "a run's adapter": ("evaluate runs/r --data sts", _without("runs/r/adapter", "adapter_model.bin")),
    "a base to train": ("train --config recipe.yaml", _without("base", "pytorch_model.bin")),
    "a model to export": ("export base out/m --to merged", _without("base", "pytorch_model.bin")),
    "a model to serve": ("serve base", _without("base", "pytorch_model.bin")),
    "a model to compare": ("compare base runs/r --data sts", _without("base", "pytorch_model.bin")),
    "an adapter to average": ("average runs/r peft --to mean2", _without("peft", "adapter_model.bin")),
    "an encoder's weights": ("evaluate encoder --data sts", _without("encoder", "pytorch_model.bin")),
    "a checkpoint's optimizer": (
        "train --resume stopped",
        lambda marker: [
            path.write_bytes(pickled("optimizer.pt", marker)) for path in Path("stopped").rglob("optimizer.*")
        ],
    ),
    "weights named safetensors": (ENCODE.format("base"), _data("base/model.safetensors")),
    "a GGUF file": (ENCODE.format("x.gguf"), _data("x.gguf")),
    "a file as a model": (ENCODE.format("base/pytorch_model.bin"), _data("base/pytorch_model.bin")),
    **{
        f"data named .{kind}": (f"train --config recipe.yaml --data.train x.{kind}", _data(f"x.{kind}"))
        for kind in ("jsonl", "csv", "tsv", "tsv.gz", "parquet", "txt", "npy", "npz", "pkl", "pt", "arrow")
    },
    "scored pairs": ("evaluate base --data x.tsv", _data("x.tsv")),
    "texts": (ENCODE.format("base").replace("texts.txt", "x.txt"), _data("x.txt")),
    "ranges": ("encode base texts.txt --out y.npy --vector-precision int8 --ranges x.json", _data("x.json")),
    "results": ("compare x.json results.json", _data("x.json")),
    "similarities": ("compare results.json of-base.json", _data("results.similarities.safetensors")),
    "a data set's script": ("train --config recipe.yaml --data.train owner/name", _script),
    "a recipe": ("train --config recipe.yaml --output_dir runs/u", _yaml("recipe.yaml", "evaluation")),
    "a sweep": ("sweep --config sweep.yaml", _yaml("sweep.yaml", "settings")),
    "a search": ("optimize --config search.yaml", _yaml("search.yaml", "final_seeds")),
    "a run's recipe": ("train --resume stopped", _yaml("stopped/run.yaml", "evil")),
    "an architecture": (
        ENCODE.format("base"), _json("base/config.json", model_type="evil", auto_map={"AutoConfig": "evil.Config"})
    ),
    "an architecture of the hub's": (
        ENCODE.format("base"), _json("base/config.json", model_type="evil", auto_map={"AutoConfig": "a/b--evil.Config"})
    ),
    "a tokenizer": (
        ENCODE.format("base"),
        _json("base/tokenizer_config.json", tokenizer_class="Evil", auto_map={"AutoTokenizer": ["evil.T", "evil.T"]}),
    ),
    "a module": (ENCODE.format("sentence"), _module("evil.Pooling")),
    "a module of the package's name": (ENCODE.format("sentence"), _module("sentence_transformers.evil.Module")),
    "an activation": ("evaluate encoder --data sts", _activation),
    "an adapter's kind": (ENCODE.format("peft"), _json("peft/adapter_config.json", peft_type="evil.Tuner")),
    "weights outside of a graph's folder": (ENCODE.format("graph"), _graph),
}  # fmt: skip
"""What holds the trap -> the command that must refuse it, and how it is laid."""


@pytest.mark.parametrize("what", REFUSED)
def test_what_would_have_to_run_is_refused(
    what: str, trapped: Path, marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    command, make = REFUSED[what]
    shutil.copytree(trapped, tmp_path / "room")
    monkeypatch.chdir(tmp_path / "room")
    make(marker)
    assert run_command(shlex.split(command)) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert "evil" not in sys.modules


@pytest.mark.parametrize("option", ["--data.columns", "--data.train", "--target_modules"])
def test_values_of_the_command_line_hold_no_objects(trapped: Path, marker: Path, option: str) -> None:
    value = f"[{tagged(marker)}]" if option != "--data.columns" else f"{{anchor: {tagged(marker)}}}"
    assert run_command(["train", "--config", "recipe.yaml", "--output_dir", "runs/v", option, value]) == 2
