"""Read images straight from an S3 bucket, with requests running ahead of who uses them (notebook 12).

Asked for one at a time, an image is mostly waited for. So many threads ask at once, each over a connection that it
keeps, and the answers are handed out in order: the network works while the images before are decoded and trained on.

The client is the standard library's, not the one of `bpsutils.download`: that one has threads of its own, which a
forked process lacks, and a loader's workers are forked on Linux. There it would wait for ever.
"""

from __future__ import annotations

import random
import ssl
import threading
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from itertools import islice
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

from bpsutils.bucket import BACKOFF_S, ENDPOINT, check_body, is_local

REMOTE = "s3://"
TIMEOUT_S = 30.0  # without a byte


def fetch_ahead(paths: Iterable[str], ahead: int = 64, endpoint: str = ENDPOINT) -> Generator[bytes, None, None]:
    """The content of objects, in the order of their paths, while the next ones are on their way.

    Nothing is asked for before the first is taken. Closing the generator, as leaving a loop over it does, drops
    what is waiting, ends what is under way and leaves no thread behind.

    Args:
        paths: ``s3://bucket/key`` of each object, in a bucket that anybody may read.
        ahead: Objects that are under way or wait to be taken: this many are in memory at most.
        endpoint: URL of the S3 server that holds the buckets.

    Yields:
        Each object's bytes, checked by size and checksum.

    Raises:
        FileNotFoundError: If there is no such object.
        ConnectionError: If it cannot be fetched, also after waiting; the message names the object and the cause.

    Example:
        >>> next(fetch_ahead(["s3://bucket/image.tif"], endpoint="http://example.org"))
        Traceback (most recent call last):
            ...
        ValueError: endpoint must be an https:// URL (http:// only on this machine), got 'http://example.org'
    """
    client, queue = _Client(endpoint), iter(paths)
    pool = ThreadPoolExecutor(ahead, thread_name_prefix="fetch-ahead")
    try:
        waiting = deque(pool.submit(client.fetch, path) for path in islice(queue, ahead))
        while waiting:
            body = waiting.popleft().result()
            waiting.extend(pool.submit(client.fetch, path) for path in islice(queue, 1))
            yield body
    finally:
        client.stopped.set()
        pool.shutdown(cancel_futures=True)  # waits for answers under way, so that no thread is left when workers fork
        client.close()


class _Client:
    """Fetches objects for many threads, over one connection for each."""

    def __init__(self, endpoint: str) -> None:
        is_local(endpoint)  # refuses what is no URL of a server
        self.endpoint = endpoint.rstrip("/")
        # One for all connections: reading the certificates takes longer than fetching an image.
        self.tls = ssl.create_default_context() if endpoint.startswith("https") else None
        self.stopped = threading.Event()
        self.thread, self.connections = threading.local(), list[HTTPConnection]()
        self.jitter = random.Random()  # the global generator is the user's

    def fetch(self, path: str) -> bytes:
        # The first time again at once: a server closes connections that were idle, as while a model was validated.
        for wait in (0.0, *BACKOFF_S, None):
            try:
                return self._get(path)
            except FileNotFoundError:
                raise
            except (OSError, HTTPException) as error:
                self._connection().close()  # the next request opens it again
                if wait is None or self.stopped.wait(wait * self.jitter.uniform(0.5, 1.5)):
                    cause = getattr(error, "strerror", None) or str(error) or type(error).__name__
                    raise ConnectionError(f"{path} cannot be fetched from {self.endpoint}: {cause}") from error
        raise AssertionError("not reached")

    def close(self) -> None:
        for connection in self.connections:
            connection.close()

    def _get(self, path: str) -> bytes:
        connection = self._connection()
        connection.request("GET", f"{urlsplit(self.endpoint).path}/{quote(path.removeprefix(REMOTE))}")
        with connection.getresponse() as answer:
            body = answer.read()
        if answer.status == 404:
            raise FileNotFoundError(f"{path} is not in its bucket at {self.endpoint}")
        if answer.status != 200:
            raise ConnectionError(f"status {answer.status} {answer.reason}")
        return check_body(body, int(answer.headers.get("Content-Length", len(body))), answer.headers["ETag"])

    def _connection(self) -> HTTPConnection:
        if not hasattr(self.thread, "connection"):
            self.thread.connection = _connect(self.endpoint, self.tls)
            self.connections.append(self.thread.connection)
        connection: HTTPConnection = self.thread.connection
        return connection


def _connect(endpoint: str, tls: ssl.SSLContext | None) -> HTTPConnection:
    """A connection that opens with its first request, through the proxy that the environment names."""
    url = urlsplit(endpoint)
    host = url.hostname or ""
    if url.scheme == "http":
        return HTTPConnection(host, url.port, timeout=TIMEOUT_S)
    proxy = None if proxy_bypass(host) else getproxies().get("https")
    if proxy is None:
        return HTTPSConnection(host, url.port, timeout=TIMEOUT_S, context=tls)
    through = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    connection = HTTPSConnection(through.hostname or "", through.port, timeout=TIMEOUT_S, context=tls)
    connection.set_tunnel(host, url.port or 443)
    return connection
