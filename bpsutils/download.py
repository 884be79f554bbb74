"""Fetch NASA's real images: a balanced part for a laptop, or all 77,177 (notebook 05).

Thousands of small objects are a matter of waiting, not of bandwidth: one at a time, most of the time passes until an
answer starts. Many requests under way at once hide that. A file gets its final name only when its size and checksum
are right, and ``downloaded.csv`` notes it, so that a second call fetches only what is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import io
import random
import re
import time
import warnings
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd
from tqdm.auto import tqdm

from bpsutils.bucket import BACKOFF_S, BUCKET, COLUMNS, ENDPOINT, FILTERS, PREFIX, REGION, check_body, choose, is_local
from bpsutils.config import atomically
from bpsutils.images import PathLike
from bpsutils.metadata import SCHEMES, parse_names

if TYPE_CHECKING:
    from obstore.store import S3Store

Result = TypeVar("Result")

LICENCE = """\
NASA BPS Microscopy Benchmark Training Dataset. "There are no restrictions on the use of
this data" (its entry in the Registry of Open Data on AWS). Please cite Penninckx et al.
2019, https://doi.org/10.1667/RR15338.1, and OSD-366, https://doi.org/10.26030/v8w4-rg83."""
JOURNAL = "downloaded.csv"
GIVE_UP_AFTER = 200  # failures in a row: the network is gone, and 77,177 files need not find out one by one


@dataclass
class DownloadSummary:
    """What a download did.

    Attributes:
        folder: Where the images are.
        chosen: Images that were asked for.
        kept: Of these, complete before.
        fetched: Of these, fetched now.
        size: Bytes fetched now.
        seconds: Time for everything.
        failed: Of these, still missing: ``{file name: reason}``.
    """

    folder: Path
    chosen: int
    kept: int
    fetched: int = 0
    size: int = 0
    seconds: float = 0.0
    failed: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [
            f"{self.kept + self.fetched} of {self.chosen} images are complete in {self.folder}: {self.kept} from "
            f"before, {self.fetched} fetched ({self.size / 1e6:.1f} MB in {self.seconds:.0f} s)"
        ]
        for reason in dict.fromkeys(self.failed.values()):
            names = [name for name, why in self.failed.items() if why == reason]
            more = f" and {len(names) - 10} more" if len(names) > 10 else ""
            lines.append(f"failed, {reason}: {len(names)}: {', '.join(names[:10])}{more}")
        if self.failed:
            lines.append("the same command again fetches only what is missing")
        return "\n".join(lines)


def download_images(
    to: PathLike,
    *,
    plates: Sequence[str] | None = None,
    dose: Sequence[float] | None = None,
    particle: Sequence[str] | None = None,
    hours: Sequence[float] | None = None,
    limit: int | None = None,
    endpoint: str | None = None,
    seed: int = 0,
    concurrency: int = 64,
    progress: bool = True,
) -> DownloadSummary:
    """Fetch images and their ``meta.csv`` into one folder; what is complete there is not fetched again.

    ``meta.csv`` in the folder has a row for each complete image and no other, also after failures or Ctrl-C.

    Args:
        to: Folder for the images; made if missing.
        plates: Keep these plates, such as ``["P242"]``. Default for this and the next three: all.
        dose: Keep these doses, in gray.
        particle: Keep these particles, ``"Fe"`` or ``"X-ray"``.
        hours: Keep these times after exposure, in hours.
        limit: Fetch at most so many, spread as `choose` says.
        endpoint: URL of another S3 server that holds the same bucket; http only on this machine.
        seed: Which images a limit takes.
        concurrency: Requests under way at once.
        progress: Show a bar with rate and time left.

    Returns:
        Counts, and each image that failed with its reason: nothing is raised for a single image.

    Raises:
        ValueError: If a filter matches nothing (the message lists what there is), or an argument cannot be right.
        ConnectionError: If the server cannot be reached or does not hold the data set.
        OSError: If the folder cannot be written, or holds images of another source, which then stay as they are.
    """
    started = time.perf_counter()
    if concurrency < 1:
        raise ValueError(f"concurrency must be at least 1, got {concurrency}")
    folder, store = Path(to), _open(endpoint or ENDPOINT)
    table = _remote_meta(store, endpoint or ENDPOINT)
    filters = {"plates": plates, "dose": dose, "particle": particle, "hours": hours}
    chosen = choose(table, limit, seed, **filters)["filename"]
    complete = _prepare(folder, endpoint or ENDPOINT)
    missing = [name for name in chosen if name not in complete]
    summary = DownloadSummary(folder, len(chosen), kept=len(chosen) - len(missing))
    try:
        with tqdm(total=len(chosen), initial=summary.kept, unit="image", disable=not progress) as bar:
            _run(_Fetching(store, summary, bar).all(missing, concurrency))
    finally:
        rows = table[table["filename"].isin(_complete(folder))]
        with atomically(folder / "meta.csv") as temporary:
            rows.to_csv(temporary, index=False, columns=COLUMNS, lineterminator="\n")
    summary.seconds = time.perf_counter() - started
    return summary


def stream_table(
    *,
    plates: Sequence[str] | None = None,
    dose: Sequence[float] | None = None,
    particle: Sequence[str] | None = None,
    hours: Sequence[float] | None = None,
    limit: int | None = None,
    endpoint: str | None = None,
) -> pd.DataFrame:
    """Table of images that stay in the bucket, for `ImageStream`: the same rows as after `download_images`.

    Only ``meta.csv`` is fetched. What the files themselves say is not known before they are read, so that the
    columns ``height``, ``width``, ``dtype`` and ``channels`` of `build_metadata` are missing.

    Args:
        plates: This and the next four are the arguments of `download_images`.
        dose: Doses to keep, in gray.
        particle: Particles to keep.
        hours: Times after exposure to keep, in hours.
        limit: At most so many rows, the ones that `download_images` takes.
        endpoint: URL of another S3 server that holds the same bucket; give it to `ImageStream` too.

    Returns:
        Columns ``path`` (``s3://bucket/key``), ``plate``, ``barcode``, ``well``, ``field``, ``nucleus``,
        ``simulated`` (False), ``dose_Gy``, ``particle_type``, ``hr_post_exposure``; sorted by path.

    Raises:
        ValueError: If a filter matches nothing (the message lists what there is), or an argument cannot be right.
        ConnectionError: If the server cannot be reached or does not hold the data set.
    """
    table = _remote_meta(_open(endpoint or ENDPOINT), endpoint or ENDPOINT)
    chosen = choose(table, limit, plates=plates, dose=dose, particle=particle, hours=hours)
    chosen = chosen.sort_values("filename", ignore_index=True)
    numbers = {name: pd.to_numeric(chosen[name]) for name in ("dose_Gy", "hr_post_exposure")}
    paths = f"s3://{BUCKET}/{PREFIX}/" + chosen["filename"]
    names = parse_names(chosen["filename"]).assign(simulated=False)
    rest = chosen.assign(**numbers).drop(columns="filename")
    return pd.concat([paths.rename("path"), names, rest], axis=1)


# ------------------------------------------------------------------------------------------------------- server


def _open(endpoint: str) -> S3Store:
    from obstore.store import S3Store

    local = is_local(endpoint)
    return S3Store(
        BUCKET,
        prefix=PREFIX,
        endpoint=endpoint.rstrip("/"),
        region=REGION,
        skip_signature=True,
        virtual_hosted_style_request=False,
        client_options={"allow_http": local, "connect_timeout": "10s", "timeout": "60s"},
        retry_config={"max_retries": 0},  # `_fetch` retries, because a wrong checksum needs it too
    )


async def _get(store: S3Store, name: str) -> bytes:
    import obstore

    answer = await obstore.get_async(store, name)
    return check_body(bytes(await answer.bytes_async()), answer.meta["size"], answer.meta["e_tag"])


async def _fetch(store: S3Store, name: str, backoff: Sequence[float]) -> bytes:
    """`_get`, with one more attempt after each wait. A failure of the last attempt is raised as `OSError`."""
    from obstore.exceptions import BaseError

    for wait in (*backoff, None):
        try:
            return await _get(store, name)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"not in the bucket at {PREFIX}/") from error
        except (BaseError, OSError) as error:
            if wait is None:
                raise ConnectionError(_reason(error)) from error
            await asyncio.sleep(wait * random.uniform(0.5, 1.5))  # not all requests again at once
    raise AssertionError("not reached")


def _reason(error: Exception) -> str:
    """The cause alone, alike for all files: obstore prints addresses, times and a tree with the cause deep inside."""
    text = str(error) or type(error).__name__
    causes = re.findall(r'\b(?:message|error): "([^"]+)"', text) + re.findall(r"status code: \d{3}[ \w]*", text)
    return causes[0] if causes else text.splitlines()[0].rpartition(" - ")[2][:200]


def _remote_meta(store: S3Store, endpoint: str) -> pd.DataFrame:
    """The server's ``meta.csv`` as text, so that what is written back is what was read."""
    try:
        body = _run(_fetch(store, "meta.csv", BACKOFF_S[:2]))
    except OSError as error:
        raise ConnectionError(
            f"cannot fetch {BUCKET}/{PREFIX}/meta.csv from {endpoint}: {error}; check the network and --endpoint"
        ) from error
    try:
        table = pd.read_csv(io.BytesIO(body), dtype="str", keep_default_na=False, skipinitialspace=True)[COLUMNS]
    except (ValueError, KeyError) as error:
        raise ConnectionError(f"{endpoint} sent no table with {', '.join(COLUMNS)} as meta.csv") from error
    fits = table["filename"].str.fullmatch(SCHEMES["bps"])  # also keeps a name from leaving the folder
    if not fits.all():
        warnings.warn(f"{(~fits).sum()} rows of meta.csv name no image of the known form, left out", stacklevel=3)
    return table[fits].drop_duplicates("filename")


# ------------------------------------------------------------------------------------------------------- folder


def _prepare(folder: Path, endpoint: str) -> set[str]:
    """Make the folder, clear away what a killed call left, print the licence once. Returns the complete images."""
    folder.mkdir(parents=True, exist_ok=True)
    _check_source(folder, endpoint)
    for stale in folder.glob(f".{'[0-9a-f]' * 32}.tmp"):
        stale.unlink(missing_ok=True)
    if not (folder / JOURNAL).exists():
        print(LICENCE)
        (folder / JOURNAL).write_text(f"filename,bytes,{endpoint}", encoding="utf-8")
    return _complete(folder)


def _check_source(folder: Path, endpoint: str) -> None:
    """Images of two sources must not mix, and files of somebody else must not be overwritten."""
    journal = folder / JOURNAL
    if journal.exists():
        source = journal.read_text(encoding="utf-8").partition("\n")[0].removeprefix("filename,bytes,")
        if source != endpoint:
            raise FileExistsError(f"{folder} holds images from {source}, not from {endpoint}; choose another --to")
    elif (folder / "meta.csv").exists() or any(path.is_file() for path in folder.glob("*.tif")):
        raise FileExistsError(f"{folder} holds images that no download put there; choose another --to")


def _complete(folder: Path) -> set[str]:
    """Images that are in the folder in the size that the journal says (a killed call can cut the journal's end)."""
    sizes = {path.name: str(path.stat().st_size) for path in folder.iterdir()}
    with (folder / JOURNAL).open(encoding="utf-8", newline="") as lines:
        noted = {row[0]: row[1] for row in csv.reader(lines) if len(row) == 2}
    return {name for name, size in noted.items() if sizes.get(name) == size}


class _Fetching:
    """Workers that take names from one list, each starting on the next as soon as it is done with one."""

    def __init__(self, store: S3Store, summary: DownloadSummary, bar: Any) -> None:
        self.store, self.summary, self.bar = store, summary, bar
        self.failed_in_a_row = 0

    async def all(self, names: list[str], concurrency: int) -> None:
        queue = iter(names)
        with (self.summary.folder / JOURNAL).open("ab", buffering=0) as journal:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(concurrency, len(names))):
                    group.create_task(self._work(queue, journal))
        self.summary.failed |= dict.fromkeys(queue, f"not tried after {GIVE_UP_AFTER} failures in a row")

    async def _work(self, queue: Iterator[str], journal: io.FileIO) -> None:
        while self.failed_in_a_row < GIVE_UP_AFTER and (name := next(queue, None)):
            try:
                body = await _fetch(self.store, name, BACKOFF_S)
                await asyncio.to_thread(self._keep, name, body, journal)  # a slow disk holds up no request
            except OSError as error:
                self.summary.failed[name] = error.strerror or str(error)
                self.failed_in_a_row += 1
            else:
                self.failed_in_a_row = 0
                self.summary.fetched += 1
                self.summary.size += len(body)
                self.bar.update()

    def _keep(self, name: str, body: bytes, journal: io.FileIO) -> None:
        with atomically(self.summary.folder / name) as temporary:
            temporary.write_bytes(body)
            # noted before the rename: a file under its final name is always in the journal. The line break comes
            # first, so that a line that was cut does not spoil the next.
            journal.write(f"\n{name},{len(body)}".encode())


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    """`asyncio.run` that also works in a notebook, where a loop runs already: in a thread. Ctrl-C cancels the work."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(work)

    def finish() -> Result:
        try:
            return loop.run_until_complete(task)
        finally:
            loop.run_until_complete(loop.shutdown_default_executor())

    try:
        with ThreadPoolExecutor(1) as thread:
            ending = thread.submit(finish)
            try:
                return ending.result()
            finally:
                loop.call_soon_threadsafe(task.cancel)  # without effect on a task that is done
    finally:
        loop.close()


# ------------------------------------------------------------------------------------------------- command line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m bpsutils download``."""
    parser.add_argument("--plates", nargs="+", metavar="PLATE", help="such as P242 P278")
    parser.add_argument("--dose", nargs="+", type=float, metavar="GY", help="such as 0.82 1.0")
    parser.add_argument("--particle", nargs="+", metavar="NAME", help="Fe or X-ray")
    parser.add_argument("--hours", nargs="+", type=int, metavar="H", help="after exposure: 4, 24 or 48")
    parser.add_argument("--limit", type=int, metavar="N", help="at most so many images, spread over plates and wells")
    parser.add_argument("--to", type=Path, default=Path("data/bps"), metavar="DIR", help="default: data/bps")
    parser.add_argument("--endpoint", metavar="URL", help="another S3 server that holds the same bucket")


def main(args: argparse.Namespace) -> int:
    """Download what the options say and print the summary. 1 if an image failed."""
    options = {name: getattr(args, name) for name in (*FILTERS, "limit", "endpoint")}
    summary = download_images(args.to, **options)
    print(summary)
    return 1 if summary.failed else 0
