"""A bucket on this machine, to try out on what a network would be needed for (notebook 12).

S3 is HTTP: a GET for each object, whose answer names its size and, as ``ETag``, its checksum. This server gives such
answers from a folder, at the address of NASA's data set.
"""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bpsutils.bucket import BUCKET, PREFIX
from bpsutils.images import PathLike


class LocalBucket:
    """A running server that has the files of a folder as objects ``BUCKET/PREFIX/name``, until `close`.

    Args:
        folder: Images and their ``meta.csv``.

    Attributes:
        url: The endpoint, for `bpsutils.download_images` and `bpsutils.ImageStream`.
        requests: How many objects were asked for so far.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from urllib.request import urlopen
        >>> with TemporaryDirectory() as folder:
        ...     _ = Path(folder, "meta.csv").write_text("filename")
        ...     bucket = LocalBucket(folder)
        ...     with urlopen(f"{bucket.url}/{BUCKET}/{PREFIX}/meta.csv") as answer:
        ...         print(answer.read(), answer.headers["ETag"][:9], bucket.requests)
        ...     bucket.close()
        b'filename' "435ed7e9 1
    """

    def __init__(self, folder: PathLike) -> None:
        self.folder, self.requests, self.lock = Path(folder), 0, threading.Lock()
        handler = type("Handler", (_Handler,), {"bucket": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        """Stop the server."""
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    bucket: LocalBucket
    protocol_version = "HTTP/1.1"  # a client keeps its connection, as with S3

    def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
        folder, _, name = self.path.rpartition("/")
        path = self.bucket.folder / name
        there = folder == f"/{BUCKET}/{PREFIX}" and path.is_file()
        body = path.read_bytes() if there else b""
        with self.bucket.lock:
            self.bucket.requests += 1
        self.send_response(200 if there else 404)
        self.send_header("Content-Length", str(len(body)))
        if there:
            self.send_header("ETag", f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: the notebook's output is the client's."""
