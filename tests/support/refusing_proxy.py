"""A proxy in front of an HTTP server. It refuses some requests, like a gateway with its own rules."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@contextmanager
def refusing_proxy(server: str, path: str, status: int, content: str, *, body: str = "") -> Iterator[str]:
    """Run a proxy in front of `server`; gives its address. It refuses requests to a path with this ending.

    It answers them with `status` and `content`. If `body` is given, it refuses only requests whose body contains it.
    """

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            given = self.rfile.read(length)
            if self.path.partition("?")[0].endswith(path) and body in given.decode():
                return self.send(status, content.encode())
            headers = {"Content-Type": "application/json"}
            request = urllib.request.Request(server + self.path, given or None, headers, method=self.command)  # noqa: S310
            try:
                with urllib.request.urlopen(request) as answer:  # noqa: S310  (http, by ourselves)
                    return self.send(answer.status, answer.read())
            except urllib.error.HTTPError as error:
                return self.send(error.code, error.read())

        do_GET = do_POST = do_DELETE = do_PATCH = answer  # noqa: N815  (the base class calls them so)

        def send(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=proxy.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{proxy.server_port}"
    finally:
        proxy.shutdown()
        thread.join()
        proxy.server_close()
