"""What is printed and written: a line about the machine, a table a topic, entries of the JSON file."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .harness import Row, Table


def header(count: int) -> str:
    """Date, kind of machine, versions; never a machine's name."""
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {_cpu()}, {len(_cores())} cores, {_memory()}",
        f"Python {platform.python_version()}, torch {torch.__version__}, NumPy {np.__version__}"
        + (f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""),
        f"Data: {count:,} simulated files in the real format. Ratios: above 1 is faster than the baseline (first row).",
    ]
    return "\n".join(lines)


def markdown(table: Table) -> str:
    """A title, a table, notes."""
    extra = list(dict.fromkeys(heading for row in table.rows for heading in row.more))
    lines = [f"\n### {table.name}: {table.title}\n"]
    lines.append("| | " + "".join(f"{heading} | " for heading in extra) + "ratio [min, max] | floor | |")
    lines.append("|---" * (len(extra) + 4) + "|")
    for row in table.rows:
        cells = [row.name, *(row.more.get(heading, "") for heading in extra), _ratio(row), *_verdict(row)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes)]).rstrip()


def entries(tables: list[Table]) -> list[dict[str, Any]]:
    """One entry a row; ``floor`` is None where there is none."""
    return [
        {"table": t.name, "name": r.name, "ratio": r.ratio, "low": r.low, "high": r.high, "floor": r.floor}
        for t in tables
        for r in t.rows
    ]


def _ratio(row: Row) -> str:
    if row.low == row.high:
        return f"{row.ratio:.3g}"
    return f"{row.ratio:.3g} [{row.low:.3g}, {row.high:.3g}]"


def _verdict(row: Row) -> tuple[str, str]:
    if row.floor is None:
        return "", ""
    return f"{row.floor:g}", "MISSED" if row.missed else "met"


def _cores() -> set[int]:
    if hasattr(os, "sched_getaffinity"):  # Linux: a container may have fewer than the machine
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory() -> str:
    if not hasattr(os, "sysconf"):
        return "memory unknown"
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
