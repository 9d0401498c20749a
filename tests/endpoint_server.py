"""A real HTTP server that speaks OpenAI's API, for tests: what it answers is up to the test."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = str | tuple[int, object] | tuple[int, object, Mapping[str, str]] | None
"""The completion's text; a status and a body (and headers); or None, to close the connection without a word."""


@dataclass
class Server:
    """Where it listens, and what it was asked."""

    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    """Bodies, with the path under `path`, and the header under `authorization`."""
    most_at_a_time: int = 0
    at_once: int = 0


@contextmanager
def serving(answer: Callable[[dict[str, Any]], Answer], seconds: float = 0.0, drip: float = 0.0) -> Iterator[Server]:
    """Serve until the block ends. `seconds`: how long each answer takes; `drip`: how long each byte of it."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked = {**body, "path": self.path, "authorization": self.headers.get("Authorization")}
            with lock:
                server.requests.append(asked)
                server.at_once += 1
                server.most_at_a_time = max(server.most_at_a_time, server.at_once)
            time.sleep(seconds)
            found = answer(asked)
            with lock:
                server.at_once -= 1
            if found is None:
                self.close_connection = True
                return
            status, value, *headers = found if isinstance(found, tuple) else (200, completion(self.path, found))
            content = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            for name, text in dict(*headers).items():
                self.send_header(name, text)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # who asked has given up
                for byte in content if drip else ():
                    self.wfile.write(bytes([byte]))
                    time.sleep(drip)
                self.wfile.write(b"" if drip else content)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server = Server(f"http://127.0.0.1:{http.server_address[1]}/v1")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def completion(path: str, text: str) -> dict[str, object]:
    """The shape of OpenAI's answers."""
    choice = (
        {"message": {"role": "assistant", "content": text}} if path.endswith("/chat/completions") else {"text": text}
    )
    return {
        "object": "completion",
        "choices": [{"index": 0, **choice}],
        "usage": {"completion_tokens": len(text.split())},
    }
