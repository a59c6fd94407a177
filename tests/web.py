"""A web server on a free port of 127.0.0.1 that serves what a test gives it."""

from __future__ import annotations

import base64
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit


@contextmanager
def serving(
    pages: Mapping[str, bytes],
    *,
    cut_after: int | None = None,
    login: str = "",
    certificate: Path | None = None,
) -> Iterator[str]:
    """Serve path → body and yield the base address; other paths are 404.

    ``cut_after`` closes each connection after so many bytes of the body, as a broken one does.
    ``login`` is the user:password without which nothing is served, ``certificate`` a file for TLS.
    """
    authorization = f"Basic {base64.b64encode(login.encode()).decode()}"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if login and self.headers["Authorization"] != authorization:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="company"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            # A proxy is asked for a whole address.
            body = pages.get(urlsplit(self.path).path)
            if body is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            if self.path.endswith("/"):
                self.send_header("Content-Type", "text/html")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body if cut_after is None else body[:cut_after])

        do_HEAD = do_GET  # noqa: N815 - the base class's name for it

        def log_message(self, *args: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
