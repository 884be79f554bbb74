"""A folder made as unreliable as a bad network mount, so that code for such mounts can be tried out (notebook 05).

`flaky_mount` stands between Python and the file system: while it is active, requests below one folder fail at random
or take longer, and are counted. Nothing on the disk changes.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from bpsutils import images

# Where Python code asks for files: owner, name, kind of request. `bpsutils` also opens without Python's buffer.
_DOORS: tuple[tuple[Any, str, str], ...] = (
    (os, "stat", "stat"),
    (os, "scandir", "list"),
    (os, "listdir", "list"),
    (builtins, "open", "open"),
    (io, "open", "open"),
    (os, "open", "open"),
    (images, "FileIO", "open"),
)


class FlakyMount:
    """What a `flaky_mount` does, and what was asked of it.

    Attributes:
        requests: How often each kind of request was made: ``"stat"``, ``"list"`` (a folder), ``"open"`` (a file).
        failures: How many of them failed, by the same kinds.
    """

    def __init__(self, folder: images.PathLike, rate: float, seed: int, code: int, delay: float) -> None:
        self.requests: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self._root = os.path.abspath(folder)  # noqa: PTH100  (as in scan: ".." goes, links stay)
        self._rate, self._seed, self._code, self._delay = rate, seed, code, delay
        self._asked: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def ask(self, kind: str, path: Any) -> None:
        """Count a request below the folder, and let it wait or fail; any other path passes."""
        place = self._place(path)
        if place is None:
            return
        with self._lock:
            self.requests[kind] += 1
            self._asked[kind, place] += 1
            nth = self._asked[kind, place]
            # Drawn from what is asked, not one after the other: threads must not change what fails.
            fails = random.Random(f"{self._seed}/{kind}/{place}/{nth}").random() < self._rate
            self.failures[kind] += fails
        if kind == "open":
            time.sleep(self._delay)
        if fails:
            raise OSError(self._code, os.strerror(self._code), os.fspath(path))

    def _place(self, path: Any) -> str | None:
        """The path below the folder, with ``/``; None for other paths, and for open files given by number."""
        if path is None or isinstance(path, int):
            return None
        full = os.path.abspath(os.fsdecode(path))  # noqa: PTH100
        inside = full == self._root or full.startswith(os.path.join(self._root, ""))  # noqa: PTH118
        return full[len(self._root) :].replace(os.sep, "/") if inside else None


@contextmanager
def flaky_mount(
    folder: images.PathLike, rate: float = 0.1, seed: int = 0, *, code: int = errno.EIO, delay: float = 0.0
) -> Iterator[FlakyMount]:
    """Make requests below a folder fail at random while a ``with`` block runs.

    The same request fails or succeeds when it is made again, as on Google Drive. Which one fails depends on the seed,
    the path below the folder, the kind of request and how often it was made before, and so not on the machine, nor on
    the order in which threads ask. Made to fail are `os.stat`, `os.scandir`, `os.listdir` and the opening of files in
    Python, all threads included, other processes not.

    Args:
        folder: The folder; everything below it is meant, too.
        rate: Probability that a request fails, from 0 to 1.
        seed: Same seed, same failures.
        code: The error number. 5 (EIO) is what a shaky mount gives, 107 (ENOTCONN on Linux) one that has gone.
        delay: Seconds that each opening of a file takes longer.

    Yields:
        The counts of what is asked for and of what fails.

    Raises:
        ValueError: If ``rate`` is not a probability or ``delay`` is negative.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder, flaky_mount(folder, rate=1) as mount:
        ...     try:
        ...         os.listdir(folder)
        ...     except OSError as error:
        ...         print(error.errno, dict(mount.requests))
        5 {'list': 1}
    """
    if not 0 <= rate <= 1 or delay < 0:
        raise ValueError(f"rate must be from 0 to 1 and delay at least 0 s, got {rate} and {delay}")
    mount = FlakyMount(folder, rate, seed, code, delay)
    with ExitStack() as stack:
        for owner, name, kind in _DOORS:
            stack.enter_context(mock.patch.object(owner, name, _guarded(getattr(owner, name), kind, mount)))
        yield mount


def _guarded(function: Callable[..., Any], kind: str, mount: FlakyMount) -> Callable[..., Any]:
    def guarded(path: Any = ".", *args: Any, **kwargs: Any) -> Any:
        mount.ask(kind, path)
        return function(path, *args, **kwargs)

    return guarded
