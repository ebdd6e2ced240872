"""A stand-in of a hub's HTTP API for datasets: files of one commit, whole or in ranges."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from huggingface_hub import HfFileSystem, constants


@dataclass
class DatasetHub:
    """Datasets as they are at a hub now.

    Attributes:
        datasets: owner/name -> path -> contents.
        asked: method and path of each request.
        is_down: whether every request is refused.
    """

    datasets: dict[str, dict[str, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    is_down: bool = False

    def commit(self, name: str) -> str:
        """What the files of a dataset are called, all together."""
        digest = hashlib.sha1(usedforsecurity=False)
        for path, contents in sorted(self.datasets[name].items()):
            digest.update(path.encode() + contents)
        return digest.hexdigest()

    def answer(self, path: str, asked: dict[str, object]) -> object:
        """JSON of a path behind /api/datasets/, or None."""
        name = next((name for name in self.datasets if path.startswith(name)), None)
        if name is None:
            return None
        files = self.datasets[name]
        what = path.removeprefix(name).split("?")[0]
        if what.startswith("/paths-info/"):
            wanted = asked["paths"]
            assert isinstance(wanted, list)
            folders = {str(parent) for one in files for parent in Path(one).parents} & {*wanted}
            found = [_entry(one, files[one]) for one in wanted if one in files]
            return [*found, *({"type": "directory", "path": one, "oid": "0"} for one in folders)]
        if what.startswith("/tree/"):
            return _list(files, folder="/".join(what.split("/")[3:]), is_deep="recursive=true" in path.lower())
        siblings = [{"rfilename": one} for one in files]
        return {"id": name, "sha": self.commit(name), "siblings": siblings, "private": False, "tags": []}


def _list(files: dict[str, bytes], *, folder: str, is_deep: bool) -> list[dict[str, object]]:
    """What is in a folder; in its folders, too, if it is deep."""
    inside = [path for path in files if not folder.strip("/") or path.startswith(f"{folder.strip('/')}/")]
    folders = {str(parent) for path in inside for parent in Path(path).parents} - {".", folder.strip("/")}
    found = [
        *(_entry(path, files[path]) for path in inside),
        *({"type": "directory", "path": path, "oid": "0"} for path in sorted(folders)),
    ]
    here = folder.strip("/") or "."
    return [one for one in found if is_deep or str(Path(str(one["path"])).parent) == here]


def _entry(path: str, contents: bytes) -> dict[str, object]:
    oid = hashlib.sha1(contents, usedforsecurity=False).hexdigest()
    return {"type": "file", "path": path, "size": len(contents), "oid": oid}


@contextmanager
def dataset_hub(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[DatasetHub]:
    """One on this machine, which the clients take for theirs."""
    import datasets.config

    hub = DatasetHub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub.asked.append(f"{self.command} {self.path}")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if hub.is_down:
                return self._send(503, b"")
            if match := re.fullmatch(r"/datasets/([\w-]+/[\w-]+)/resolve/\w+/(.+)", self.path.split("?")[0]):
                return self._send_file(hub.datasets.get(match[1], {}).get(match[2]), name=match[1])
            fields = json.loads(body) if body[:1] == b"{" else {}
            found = hub.answer(self.path.removeprefix("/api/datasets/"), fields)
            text = json.dumps(found if found is not None else {"error": "not found"}).encode()
            return self._send(200 if found is not None else 404, text)

        do_POST = do_HEAD = do_GET  # noqa: N815

        def _send_file(self, contents: bytes | None, *, name: str) -> None:
            if contents is None:
                return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            etag = hashlib.sha256(contents).hexdigest()
            headers = {"ETag": f'"{etag}"', "X-Repo-Commit": hub.commit(name), "Accept-Ranges": "bytes"}
            if part := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                first, last = int(part[1]), int(part[2] or len(contents) - 1)
                headers["Content-Range"] = f"bytes {first}-{last}/{len(contents)}"
                return self._send(206, contents[first : last + 1], headers)
            return self._send(200, contents, headers)

        def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    for owner, name in ((constants, "ENDPOINT"), (datasets.config, "HF_ENDPOINT")):
        monkeypatch.setattr(owner, name, address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )
    monkeypatch.setattr(
        datasets.config, "HUB_DATASETS_URL", f"{address}/datasets/{{repo_id}}/resolve/{{revision}}/{{path}}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # another protocol, of a library in Rust
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache / "datasets")
    HfFileSystem.clear_instance_cache()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        HfFileSystem.clear_instance_cache()
