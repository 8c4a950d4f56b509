"""local_server: a web server on this machine that is slow, forgets, cuts and lies, where a test asks for it."""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Iterator, Optional

import pytest


class Server:
    """Files in memory (by path, "/a.bin"), or in folders (by the path's beginning); what goes wrong is set by path."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.folders: dict[str, Path] = {}
        self.ranges = True                 # does it know Range?
        self.pause = 0.0                   # seconds before every 4 KiB
        self.stall = 0.0                   # seconds before an answer
        self.lengths = True                # does it say Content-Length?
        self.etags: dict[str, str] = {}    # instead of the content's own
        self.claimed: dict[str, int] = {}  # a Content-Length that is not true
        self.cuts: dict[str, list[int]] = defaultdict(list)      # of the next answers: bytes before the line is cut
        self.statuses: dict[str, list[int]] = defaultdict(list)  # of the next answers: an error instead
        self.headers: dict[str, dict[str, str]] = {}             # more of them, or others; "404": of what is not there
        self.redirects: dict[str, str] = {}                      # where an answer sends on to
        self.chunked = False               # a body in chunks, as where nobody knows its length
        self.slow_head = 0.0               # seconds before each line of an answer's head, of which there are many
        self.asked: list[tuple[str, Optional[str]]] = []         # what came in: path, Range
        self.sent = 0                                            # bytes of bodies
        self.busy = self.busiest = 0                             # answers in the making: now, and the most at a time
        self.counting = threading.Lock()
        self.address = ""

    def url(self, path: str) -> str:
        return self.address + path

    def content(self, path: str) -> Optional[bytes]:
        if path in self.files:
            return self.files[path]
        for beginning, folder in self.folders.items():
            file = folder / path[len(beginning):]
            if path.startswith(beginning) and file.is_file():
                return file.read_bytes()
        return None


class _Http(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is what a test wants, and no news."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.server.told
        with server.counting:
            server.busy += 1
            server.busiest = max(server.busiest, server.busy)
        try:
            self.answer(server)
        except OSError:  # the other side is gone
            self.close_connection = True
        finally:
            with server.counting:
                server.busy -= 1

    do_HEAD = do_GET

    def answer(self, server: Server) -> None:
        path, wanted = self.path, self.headers.get("Range")
        server.asked.append((path, wanted))
        time.sleep(server.stall)
        if path in server.redirects:
            self.send_response(302)
            self.send_header("Location", server.redirects[path])
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if server.slow_head:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            for i in range(50):
                time.sleep(server.slow_head)
                self.wfile.write(b"X-%d: 1\r\n" % i)
        body = server.content(path)
        if server.statuses[path] or body is None:
            self.extra = server.headers.get(path, server.headers.get("404", {}))
            return self.send_error(server.statuses[path].pop(0) if server.statuses[path] else 404)
        etag = server.etags.get(path, f'"{hashlib.sha1(body).hexdigest()[:8]}"')
        total, start = len(body), 0
        if wanted and server.ranges and self.headers.get("If-Range", etag) == etag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= total:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{total}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        else:
            self.send_response(200)
        self.send_header("ETag", etag)
        for name, value in server.headers.get(path, {}).items():
            self.send_header(name, value)
        if server.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif server.lengths:
            self.send_header("Content-Length", str(server.claimed.get(path, total - start)))
        else:
            self.close_connection = True
        self.end_headers()
        if self.command == "HEAD":
            return
        body = body[start:]
        if server.cuts[path]:
            body, self.close_connection = body[:max(0, server.cuts[path].pop(0) - start)], True
        if path in server.claimed:
            body, self.close_connection = body[:server.claimed[path]], True
        for place in range(0, len(body), 4096):
            time.sleep(server.pause)
            piece = body[place:place + 4096]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if server.chunked else piece)
            server.sent += len(piece)
        if server.chunked:
            self.wfile.write(b"0\r\n\r\n")

    def end_headers(self) -> None:
        for name, value in getattr(self, "extra", {}).items():
            self.send_header(name, value)
        self.extra: dict[str, str] = {}
        super().end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of its own, which no proxy stands before."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "*")
    with serving_at() as server:
        yield server


@contextmanager
def serving_at() -> Iterator[Server]:
    """A server on a free port of this machine."""
    server, http = Server(), _Http(("127.0.0.1", 0), _Handler)
    http.daemon_threads, http.told = True, server
    server.address = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
