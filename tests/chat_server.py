"""A chat endpoint on this machine that answers by what it is asked."""

import hashlib
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = tuple[int, dict[str, str], str]


class ChatServer:
    """An endpoint; `script` may answer a request in its own way, else it answers as a good model does."""

    def __init__(self) -> None:
        self.requests: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.script: Callable[[str, int], Answer | None] = lambda prompt, number: None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.requests.append(body)
                outer.headers.append({name.lower(): value for name, value in self.headers.items()})
                prompt = body["messages"][0]["content"]
                status, headers, content = outer.script(prompt, len(outer.requests)) or (200, {}, good(prompt))
                if status == 200:
                    content = json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]})
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                data = content.encode()
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def good(prompt: str) -> str:
    if "JSON list" in prompt:
        return json.dumps([f"Given a thing, find thing {n}." for n in range(5)])
    mark = hashlib.sha256(prompt.encode()).hexdigest()[:8]
    answer = {"anchor": f"q {mark}", "positive": f"right {mark}", "negative": f"wrong {mark}"}
    return f"```json\n{json.dumps(answer)}\n```" if int(mark, 16) % 2 else json.dumps(answer)
