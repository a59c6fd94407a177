"""An image registry on 127.0.0.1, in memory: just enough of the OCI distribution protocol.

Docker speaks plain HTTP to registries on loopback, so it needs no certificate.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@dataclass
class Registry:
    """What was pushed. Blobs and manifests by digest; tags by ``name:tag``."""

    port: int = 0
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its part of an image's name."""
        return f"127.0.0.1:{self.port}"


def digest_of(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    registry: Registry

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, code: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(code)
        self.send_header("Docker-Distribution-API-Version", "registry/2.0")
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        match = re.fullmatch(r"/v2/(.+)/(blobs|manifests)/([^/]+)", self.path)
        if self.path == "/v2/" or match is None:
            self._answer(200 if self.path == "/v2/" else 404, b"{}")
            return
        name, kind, reference = match.groups()
        digest = self.registry.tags.get(f"{name}:{reference}", reference)
        found = (self.registry.blobs if kind == "blobs" else self.registry.manifests).get(digest)
        if found is None:
            self._answer(404, b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}')
            return
        content = _MANIFEST if kind == "manifests" else "application/octet-stream"
        self._answer(200, found, Docker_Content_Digest=digest, Content_Type=content)

    do_HEAD = do_GET  # noqa: N815 - the library's name

    def do_POST(self) -> None:
        upload = str(len(self.registry.uploads))
        self.registry.uploads[upload] = self._body()
        self._answer(202, Location=f"{self.path}{upload}", Docker_Upload_UUID=upload, Range="0-0")

    def do_PATCH(self) -> None:
        upload = self.path.rpartition("/")[2]
        self.registry.uploads[upload] += self._body()
        end = len(self.registry.uploads[upload]) - 1
        self._answer(202, Location=self.path, Docker_Upload_UUID=upload, Range=f"0-{end}")

    def do_PUT(self) -> None:
        path, _, query = self.path.partition("?")
        if match := re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", path):
            body = self._body()
            digest = digest_of(body)
            self.registry.manifests[digest] = body
            self.registry.tags[f"{match[1]}:{match[2]}"] = digest
        else:
            body = self.registry.uploads.pop(path.rpartition("/")[2]) + self._body()
            digest = digest_of(body)
            assert digest in query.replace("%3A", ":")
            self.registry.blobs[digest] = body
        self._answer(201, Location=path, Docker_Content_Digest=digest)


@contextmanager
def registry() -> Iterator[Registry]:
    """A registry that answers until the end."""
    made = Registry()
    handler = type("Handler", (_Handler,), {"registry": made})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    made.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
