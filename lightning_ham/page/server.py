"""A server of the page's files on this machine, from memory."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from lightning_ham.page.site import PAGE

_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "md": "text/markdown"}


def make_server(files: Mapping[str, bytes], port: int = 0) -> ThreadingHTTPServer:
    """Return a server of files on loopback only; ``serve_forever`` runs it.

    Args:
        files: Contents by names.
        port: Where to listen; 0 for any free port.

    Raises:
        OSError: If it cannot listen there; the message says why, and what to do.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.partition("?")[0].removeprefix("/") or PAGE
            if name not in files:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", f"{_KINDS[name.rpartition('.')[2]]}; charset=utf-8")
            self.send_header("Content-Length", str(len(files[name])))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(files[name])

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Print nothing."""

    try:
        return ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        reason = {
            errno.EADDRINUSE: "another program uses it",
            errno.EACCES: "this user may not use it",
        }.get(error.errno or 0, str(error.strerror))
        raise OSError(f"Expected a free port, but {port} is none: {reason}. Choose another --port, or none.") from error
