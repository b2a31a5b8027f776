"""A small web server over a directory that can be told to misbehave, to test downloads against.

web = Web(directory); web.fail(503, 503, "cut"); web.url; web.requests -> [(path, headers)]
"""

from __future__ import annotations

import hashlib
import http.server
import ssl
import threading
from pathlib import Path
from typing import Any


class Web:
    """Serves ``root`` with Range, If-Range and ETag. ``plan`` holds what the next requests for big files meet.

    A number is a status to answer with; ``cut``: the connection ends half way; ``stall``: it stops sending;
    ``long``/``short``: a Content-Length that is not the file's; ``ignore_range``: 200 although a range was asked for.
    """

    def __init__(self, root: Path, certificate: tuple[Path, Path] | None = None, etags: bool = True) -> None:
        self.root = Path(root)
        self.etags = etags
        self.plan: list[int | str] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.sent = 0
        self.release_stall = threading.Event()
        web = self

        class Handler(_Handler):
            owner = web

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
            scheme = "https"
        self.url = f"{scheme}://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def fail(self, *plan: int | str) -> None:
        """What the next requests for big files (not release.json, not model.sig) meet, in turn."""
        self.plan.extend(plan)

    def close(self) -> None:
        """Stop."""
        self.release_stall.set()
        self.server.shutdown()
        self.server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    owner: Web
    protocol_version = "HTTP/1.1"

    def log_message(self, *_args: Any) -> None:
        pass

    def do_GET(self) -> None:
        web = self.owner
        web.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        path = web.root / self.path.lstrip("/")
        if not path.is_file():
            return self._status(404)
        big = path.name not in ("release.json", "model.sig")
        meet = web.plan.pop(0) if big and web.plan else None
        if isinstance(meet, int):
            return self._status(meet)
        if isinstance(meet, str) and meet.startswith("http"):
            return self._status(302, {"Location": meet})
        self._file(path.read_bytes(), meet)
        return None

    def _status(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()

    def _file(self, data: bytes, meet: str | None) -> None:
        web = self.owner
        tag = '"' + hashlib.sha256(data).hexdigest()[:16] + '"'
        start, status = 0, 200
        asked = self.headers.get("Range")
        if asked and meet != "ignore_range" and self.headers.get("If-Range", tag) == tag:
            start, status = int(asked[len("bytes=") : -1]), 206
            if start >= len(data):
                return self._status(416)
        body = data[start:]
        self.send_response(status)
        length = len(body) + {"long": 5, "short": -5}.get(meet or "", 0)
        self.send_header("Content-Length", str(length))
        if web.etags:
            self.send_header("ETag", tag)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        half = len(body) // 2 if meet in ("cut", "stall") else len(body)
        try:
            self.wfile.write(body[:half])
            web.sent += half
            if meet == "stall":
                self.wfile.flush()
                web.release_stall.wait(30)
        except OSError:
            pass
        if meet in ("cut", "stall", "long", "short"):
            self.close_connection = True
        return None
