"""Memory of a contender: the peak of a process of its own, workers included.

`python -m tests.bench.memory MODULE CONTENDER DATA COUNT` is what `peak` starts; ``MODULE.contenders(data)`` has it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from select import select

from .data import Data, make
from .harness import timed

PAUSE = 0.02  # s between two looks at the process


def peak(module: str, contender: str, data: Data) -> str:
    """Peak growth of memory while a contender prepares and works, in MB, in a fresh process and its workers.

    Pages that processes share are counted once. Mapped files are told apart: the system takes them back at need.

    Args:
        module: Of this package, with a function ``contenders(data) -> list[Contender]``.
        contender: Its name.
        data: Made by `make`.

    Returns:
        Such as ``"210"``, ``"12 + 400 mapped"``, or ``"not measured"`` where the system has no ``/proc``.
    """
    if not Path("/proc/self/smaps_rollup").exists():
        return "not measured"
    home = data.images.parent
    count = home.name.removeprefix("simulated-")
    command = [sys.executable, "-m", f"{__package__}.memory", module, contender, str(home.parent), count]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()  # "ready": torch, the library and the data are loaded, and do not count
        start = highest = _tree(process.pid)
        process.stdin.write("go\n")
        process.stdin.flush()
        while not select([process.stdout], [], [], PAUSE)[0]:  # until "done", or until it died
            now = _tree(process.pid)
            highest = (max(highest[0], now[0]), max(highest[1], now[1]))
        process.stdout.readline()  # unbuffered, "done" comes before the end of its line
        process.stdout.readline()  # the whole line: closed too early, the pipe would break
    if process.returncode:
        raise RuntimeError(f"{contender} failed while its memory was measured; its message is above")
    own, mapped = ((high - low) / 1000 for high, low in zip(highest, start, strict=True))
    return f"{own:.0f} + {mapped:.0f} mapped" if mapped > 10 else f"{own:.0f}"


def _tree(pid: int) -> tuple[int, int]:
    """Own memory of a process and all below it, in kB, and the largest part of mapped files in one of them."""
    own = mapped = 0
    todo = [pid]
    while todo:
        process = Path("/proc", str(todo.pop()))
        try:
            # Proportional shares count what workers share once; of files, other programs' shares would count too.
            own += sum(_field(process / "smaps_rollup", name) for name in ("Pss_Anon", "Pss_Shmem"))
            mapped = max(mapped, _field(process / "status", "RssFile"))
            children = [(task / "children").read_text() for task in (process / "task").iterdir()]
        except OSError:  # a worker that has just ended
            continue
        todo += [int(child) for text in children for child in text.split()]
    return own, mapped


def _field(file: Path, name: str) -> int:
    return next((int(line.split()[1]) for line in file.read_text().splitlines() if line.startswith(f"{name}:")), 0)


def _main(module: str, contender: str, folder: str, count: str) -> None:
    data = make(Path(folder), int(count))
    named = {one.name: one for one in import_module(f".{module}", __package__).contenders(data)}
    one = named[contender]
    import_module(one.needs or "sys")
    print("ready", flush=True)
    sys.stdin.readline()
    with redirect_stderr(StringIO()), redirect_stdout(StringIO()):  # bars of progress; "done" must be the next line
        state = one.prepare()
        timed(one.work, state)
    print("done", flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
