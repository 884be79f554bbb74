"""`python -m tests.bench`: make the data, run the tables, print them."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from .data import Data, make, warm
from .harness import BenchError, Table
from .report import entries, header, markdown

# Each is a module with `tables(data, quick) -> Iterator[Table]`.
TABLES = ("scan", "decode", "epochs", "padding", "growth", "training")
FILES, QUICK_FILES = 20_000, 2_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, 1 if a floor is missed, 2 if a contender fails or differs."""
    parser = argparse.ArgumentParser("python -m tests.bench", description="Ratios of speeds, measured in one run.")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_FILES:,} files instead of {FILES:,}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=TABLES, metavar="TABLE", help=", ".join(TABLES))
    parser.add_argument("--data", type=Path, metavar="DIR", help="make the files there and keep them for the next run")
    options = parser.parse_args(arguments)
    count = QUICK_FILES if options.quick else FILES
    print(header(count), flush=True)
    done: list[Table] = []
    with TemporaryDirectory(prefix="bench") as temporary:
        data = make(options.data or Path(temporary), count)
        warm(data.paths)
        try:
            for table in _run(options.only, data, options.quick):
                done.append(table)
                print(markdown(table), flush=True)
        except BenchError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        finally:  # what was measured before an error is kept
            if options.json:
                options.json.write_text(json.dumps(entries(done), indent=2) + "\n", encoding="utf-8")
    missed = [f"{table.name}: {row.name}" for table in done for row in table.rows if row.missed]
    print("\nFloors missed: " + "; ".join(missed) if missed else "\nAll floors met.")
    return 1 if missed else 0


def _run(names: Sequence[str], data: Data, quick: bool) -> Iterator[Table]:
    for name in names:
        with redirect_stderr(StringIO()):  # bars of progress
            yield from importlib.import_module(f".{name}", __package__).tables(data, quick)


if __name__ == "__main__":
    sys.exit(main())
