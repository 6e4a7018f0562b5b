"""The public end of a tunnel, on loopback: passes requests on whole, under the public host name."""

import contextlib
import http.client
import http.server
import pathlib
import ssl
import threading
import urllib.parse
from collections.abc import Iterator

_HOP_BY_HOP = {
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "te",
    "trailers",
    "transfer-encoding",
    "upgrade",
}


class Forwarder(http.server.ThreadingHTTPServer):
    """Listens on a port of its own and forwards to ``upstream``.

    Args:
        host: the Host header that the upstream sees; None for the forwarder's own address.
        certificate: a PEM file with key and certificate, to be spoken to in HTTPS.
    """

    daemon_threads = True

    def __init__(
        self, upstream: str, host: str | None = None, certificate: pathlib.Path | None = None
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urllib.parse.urlsplit(upstream)
        self.host = host or f"127.0.0.1:{self.server_port}"
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self.server_port}"
        self.answer_with: tuple[int, str] | None = None
        """A status and an ngrok error code that answer everything, where it is set."""
        self.requests: list[tuple[str, str, int]] = []
        """Method, path and status of what was forwarded."""
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def end(self) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser closes connections when it likes."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Forwarder

    def handle_any(self) -> None:
        body = self._body()
        if self.server.answer_with is not None:
            status, code = self.server.answer_with
            self._answer(status, [("Ngrok-Error-Code", code)], f"<html>{code}</html>".encode())
            return
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP_BY_HOP}
        headers |= {"Host": self.server.host, "X-Forwarded-Host": self.server.host}
        headers |= {"X-Forwarded-Proto": "https", "X-Forwarded-For": self.client_address[0]}
        upstream = self.server.upstream
        connection = http.client.HTTPConnection(upstream.hostname, upstream.port, timeout=60)
        try:
            connection.request(self.command, self.path, body=body, headers=headers)
            reply = connection.getresponse()
            content = reply.read()
        except OSError:
            self._answer(502, [("Ngrok-Error-Code", "ERR_NGROK_8012")], b"ERR_NGROK_8012")
            return
        finally:
            connection.close()
        self.server.requests.append((self.command, self.path, reply.status))
        kept = [(k, v) for k, v in reply.getheaders() if k.lower() not in _HOP_BY_HOP]
        self._answer(reply.status, kept, content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = handle_any  # noqa: N815

    def _body(self) -> bytes | None:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            length = int(self.headers.get("Content-Length") or 0)
            return self.rfile.read(length) if length else None
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *args: object) -> None: ...


@contextlib.contextmanager
def forwarding(
    upstream: str, host: str | None = None, certificate: pathlib.Path | None = None
) -> Iterator[Forwarder]:
    """A forwarder while it is needed."""
    forwarder = Forwarder(upstream, host, certificate)
    forwarder.start()
    try:
        yield forwarder
    finally:
        forwarder.end()
