"""What goes to a model hub, through the hub's own client, against a stand-in of its HTTP API."""

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread

import pytest
import yaml
from huggingface_hub import constants

from embedsmith.cli import run_command
from embedsmith.support.errors import RunError
from embedsmith.verbs.push import plan_push, push
from tests.tiny import save_model, write_pairs, write_triplets

# What the client says of the library that it uses.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
TOKEN = "hf_stand_in"
OWN = "someone/tiny"


@dataclass
class Hub:
    """Repositories as the hub's API makes and fills them.

    Attributes:
        repositories: owner/name -> its files.
        visibility: of each.
        asked: method and path of each request.
        refuses: status to answer every request with.
        loses_files: whether large files do not arrive.
        tokens: that came with what is sent.
    """

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    visibility: dict[str, str | None] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    refuses: int | None = None
    loses_files: bool = False
    tokens: set[str | None] = field(default_factory=set)
    address: str = ""

    def answer(self, method: str, path: str, body: bytes, token: str | None) -> tuple[int, object]:
        """Status and JSON."""
        self.asked.append(f"{method} {path}")
        if path.startswith("/storage/") and self.loses_files:
            return 500, {}
        if path.startswith("/storage/"):
            oid = path.rpartition("/")[2]
            assert hashlib.sha256(body).hexdigest() == oid
            self.large[oid] = body
            return 200, {}
        if method == "POST":  # the client asks for lists of its own, without a token
            self.tokens.add(token)
        if self.refuses:
            return self.refuses, {"error": "not for you"}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        repository = next((name for name in self.repositories if f"/{name}" in path), None)
        if repository is None:
            return 404, {"error": "Repository not found"}
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            modes = {one["path"]: "lfs" if one["path"].endswith(".safetensors") else "regular" for one in files}
            known = [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]
            return 200, {"files": known}
        if path.endswith("/info/lfs/objects/batch"):
            return 200, {"transfer": "basic", "objects": [self._where_to(one) for one in json.loads(body)["objects"]]}
        assert "/commit/" in path, path
        return self._commit(repository, body)

    def _create(self, asked: dict[str, str]) -> tuple[int, object]:
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.repositories:
            return 409, {"error": "You already created this model repo", "url": f"{self.address}/{name}"}
        self.repositories[name], self.visibility[name] = {}, asked.get("visibility")
        return 200, {"url": f"{self.address}/{name}"}

    def _where_to(self, one: dict[str, object]) -> dict[str, object]:
        return {**one, "actions": {"upload": {"href": f"{self.address}/storage/{one['oid']}"}}}

    def _commit(self, repository: str, body: bytes) -> tuple[int, object]:
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                self.repositories[repository][value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                self.repositories[repository][value["path"]] = self.large[value["oid"]]
        return 200, {"commitUrl": f"{self.address}/{repository}/commit/1", "commitOid": "1"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """One on this machine, which the client takes for its own."""
    made = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, value = made.answer(self.command, self.path, body, self.headers.get("Authorization"))
            text = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_PUT = do_POST  # noqa: N815
        do_GET = do_POST  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    made.address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", made.address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # another protocol, of a library in Rust
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder, with what a user may have put there."""
    root = tmp_path_factory.mktemp("push")
    save_model("llama", root / "base")
    write_triplets(root / "triplets.tsv", num_rows=16)
    write_pairs(root / "dev.tsv")
    arguments = ["train", "--output_dir", str(root / "mine"), "--model.model", str(root / "base")]
    arguments += ["--data.train", str(root / "triplets.tsv"), "--dev", str(root / "dev.tsv")]
    assert run_command([*arguments, "--max_steps", "2", "--batch_size", "8", "--eval_steps", "1"]) == 0
    folder = root / "mine"
    for name in (".env", "token", "triplets.tsv", "adapter/.env", "adapter/notes.json"):
        (folder / name).write_text("secret", encoding="utf-8")
    return folder


WEIGHTS = ["adapter_config.json", "adapter_model.safetensors", "embedding.json"]


def test_a_dry_run_lists_what_would_go_and_sends_nothing(
    run: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["push", str(run), OWN, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    listed = [line.split()[0] for line in printed.splitlines() if line.startswith("  ")]
    assert listed == ["README.md", *WEIGHTS]
    size = (run / "adapter" / "adapter_model.safetensors").stat().st_size
    assert f"  adapter_model.safetensors  {size:,} bytes\n" in printed
    assert f"{OWN} (private):" in printed
    stays = next(line for line in printed.splitlines() if line.startswith("Stays here: "))
    for name in (".env", "token", "triplets.tsv", "checkpoints/", "adapter/.env", "adapter/notes.json", "run.yaml"):
        assert name in stays.removeprefix("Stays here: ").split(", ")
    assert "License: none is named" in printed
    assert "which others do not have" in printed  # the base is a folder here
    assert "Nothing was sent." in printed
    assert not hub.asked


def test_a_run_goes_in_one_commit(run: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["push", str(run), OWN]) == 0
    assert f"Sent: {hub.address}/{OWN}" in capsys.readouterr().out
    sent = hub.repositories[OWN]
    assert sorted(sent) == ["README.md", *WEIGHTS]
    for name in WEIGHTS:
        assert sent[name] == (run / "adapter" / name).read_bytes()
    assert list(hub.large.values()) == [sent["adapter_model.safetensors"]]
    assert hub.visibility == {OWN: "private"}
    assert hub.tokens == {f"Bearer {TOKEN}"}
    assert sum("/commit/" in one for one in hub.asked) == 1
    card = sent["README.md"].decode()
    assert f'Embedder.load("{OWN}")' in card
    assert f'"{OWN}")\n' in card
    assert '"mine"' not in card
    assert "mine/" not in card
    assert (run / "README.md").read_text() != card  # the folder's own is as it was


def test_what_was_sent_loads_as_it_lies(run: Path, hub: Hub, tmp_path: Path) -> None:
    import numpy as np

    from embedsmith.model.embedder import Embedder

    push(plan_push(run, repository=OWN))
    for name, content in hub.repositories[OWN].items():
        (tmp_path / name).write_bytes(content)
    again, own = (Embedder.load(str(folder), precision="fp32") for folder in (tmp_path, run))
    np.testing.assert_array_equal(again.encode(["a cat"]), own.encode(["a cat"]))


def test_an_export_goes_with_a_card_of_its_own(run: Path, hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert run_command(["export", str(run), str(folder), "--to", "sentence-transformers"]) == 0
    (folder / "results.json").write_text("{}", encoding="utf-8")
    (folder / "elsewhere.safetensors").symlink_to(run / "token")
    assert run_command(["push", str(folder), OWN, "--public"]) == 0
    sent = hub.repositories[OWN]
    here = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert set(sent) == {*here, "README.md"} - {"results.json", "elsewhere.safetensors"}
    assert all(sent[name] == (folder / name).read_bytes() for name in set(sent) - {"README.md"})
    assert hub.visibility == {OWN: "public"}
    front, body = sent["README.md"].decode().removeprefix("---\n").split("---\n", 1)
    assert yaml.safe_load(front)["library_name"] == "sentence-transformers"
    assert f'SentenceTransformer("{OWN}")' in body
    assert "smallest 1.00000" in body
    assert not (folder / "README.md").exists()


def test_a_repository_that_is_there_takes_commits_if_told_so(
    run: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.repositories[OWN] = {"old.txt": b"old"}
    assert run_command(["push", str(run), OWN]) == 2
    assert f"{OWN} is there already.\nGive --update" in capsys.readouterr().err
    assert hub.repositories[OWN] == {"old.txt": b"old"}
    assert run_command(["push", str(run), OWN, "--update"]) == 0
    assert sorted(hub.repositories[OWN]) == ["README.md", *WEIGHTS, "old.txt"]
    assert hub.visibility == {}
    assert run_command(["push", str(run), "someone/else", "--update"]) == 2
    assert "There is no repository someone/else" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "or set HF_TOKEN"), (403, "does not let you write"), (400, "refuses (400)")],
)
def test_what_the_hub_refuses_is_said(
    status: int, message: str, run: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.refuses = status
    assert run_command(["push", str(run), OWN]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "not for you" in error
    assert TOKEN not in error
    assert not hub.repositories


def test_a_file_that_does_not_arrive(
    run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.loses_files = True
    monkeypatch.setattr("time.sleep", lambda _: None)  # twenty seconds between the client's attempts
    assert run_command(["push", str(run), OWN]) == 2
    assert f"Nothing was put into {OWN}: Error while uploading 'adapter_model.safetensors'" in capsys.readouterr().err
    assert hub.repositories == {OWN: {}}


def test_without_a_token(
    run: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    hub.refuses = 401
    assert run_command(["push", str(run), OWN]) == 2
    assert "hf auth login, or set HF_TOKEN" in capsys.readouterr().err
    assert hub.tokens == {None}


def test_where_no_hub_answers(
    run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the port that throws all away
    assert run_command(["push", str(run), OWN]) == 2
    assert "127.0.0.1:9 is not reached" in capsys.readouterr().err
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert run_command(["push", str(run), OWN]) == 2
    assert "HF_HUB_OFFLINE" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a/b/c", "-x", "some one/x"])
def test_names_that_no_hub_takes(name: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["push", "--dry-run", "--", str(run), name]) == 2
    assert "no name of a repository" in capsys.readouterr().err


def test_folders_of_other_things_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    for folder in (tmp_path, save_model("llama", tmp_path / "base")):
        with pytest.raises(RunError, match="no run, average or export"):
            plan_push(folder, repository=OWN)
    with pytest.raises(RunError, match=f"There is no {tmp_path / 'none'}\\."):
        plan_push(tmp_path / "none", repository=OWN)


@pytest.mark.parametrize(
    ("kind", "package", "file"),
    [("onnx", "onnxscript", "onnx/model.onnx"), ("openvino", "nncf", "openvino/openvino_model.xml")],
)
def test_a_graph_goes(kind: str, package: str, file: str, run: Path, tmp_path: Path) -> None:
    if find_spec(package) is None:  # an import would report itself
        pytest.skip(f"pip install 'embedsmith[{kind}]'")
    assert run_command(["export", str(run), str(tmp_path / "out"), "--to", kind]) == 0
    uploads = {one.path: one.content for one in plan_push(tmp_path / "out", repository=OWN).uploads}
    assert {file, "tokenizer.json", "parity.json"} <= uploads.keys()
    assert f"exported by embedsmith to {kind}".encode() in bytes(uploads["README.md"])
