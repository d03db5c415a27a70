"""A server on 127.0.0.1 that answers as a test says: for the faults of services that no real one can be brought to."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator


class StubServer:
    """``answer(n, path, body)`` of the n-th POST, or of a GET, whose body is None: (status, content), (status, content, headers),
    or seconds to hang before it hangs up."""

    def __init__(self, answer: Callable[[int, str, object], tuple | float]) -> None:
        self.answer = answer
        self.asked: list[tuple[str, dict, object]] = []  # path, headers, body
        self.busy = self.most_busy = 0
        self.lock = threading.Lock()

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        """Its address, while it runs."""
        handler = type("Handler", (_Handler,), {"stub": self})
        server = _Quiet(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stub: StubServer

    def do_GET(self) -> None:
        self.reply(None)

    def do_POST(self) -> None:
        self.reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def reply(self, body: object) -> None:
        stub = self.stub
        with stub.lock:
            stub.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            n = sum(earlier is not None for _, _, earlier in stub.asked)
            stub.busy += 1
            stub.most_busy = max(stub.most_busy, stub.busy)
        try:
            self.send(stub.answer(n, self.path, body))
        finally:
            with stub.lock:
                stub.busy -= 1

    def send(self, answer: tuple | float) -> None:
        if isinstance(answer, float):
            time.sleep(answer)
            self.close_connection = True
            return
        status, content, *headers = answer
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers[0] if headers else {})}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass
