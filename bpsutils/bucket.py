"""NASA's bucket: what it holds, how a part of it is chosen, and how an answer is checked (notebook 05).

`bpsutils.download` copies images from it, `bpsutils.streaming` reads them without a copy.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import pandas as pd

from bpsutils.metadata import SCHEMES

BUCKET, PREFIX, REGION = "nasa-bps-training-data", "Microscopy/train", "us-west-2"
ENDPOINT = f"https://s3.{REGION}.amazonaws.com"
COLUMNS = ["filename", "dose_Gy", "particle_type", "hr_post_exposure"]
FILTERS = {"plates": "plate", "dose": "dose_Gy", "particle": "particle_type", "hours": "hr_post_exposure"}
BACKOFF_S = (0.5, 1.0, 2.0, 4.0)


def choose(
    table: pd.DataFrame, limit: int | None = None, seed: int = 0, **filters: Sequence[str] | Sequence[float] | None
) -> pd.DataFrame:
    """Rows of ``meta.csv`` that pass the filters of `download_images`, in an order that is balanced from its start.

    The order takes one image from each well of each plate, then the next from each; a well that has no more is
    passed over. A limit cuts it, so that a larger limit with the same filters and seed adds to a smaller one.

    Example:
        >>> names = [f"P242_1-{well}_001_{n:03d}_proj.tif" for well in ("A6", "C7") for n in range(5)]
        >>> table = pd.DataFrame({"filename": names, "dose_Gy": 0.82, "particle_type": "Fe", "hr_post_exposure": 4})
        >>> choose(table, limit=4)["filename"].str[7:9].tolist().count("A6")
        2
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    table = table.assign(**table["filename"].str.extract(SCHEMES["bps"])[["plate", "well"]])
    kept = table
    for name, wanted in filters.items():
        if wanted is not None:
            kept = kept[_passes(table[FILTERS[name]], name, wanted).reindex(kept.index)]
    if kept.empty:
        conditions = table[list(FILTERS.values())].drop_duplicates().sort_values("plate")
        listed = "; ".join(" ".join(map(str, row)) for row in conditions.to_numpy())
        raise ValueError(f"no image passes all filters; there are (plate, Gy, particle, hours): {listed}")
    # a hash is random enough, and the same on every machine and for every set of filters
    draw = kept["filename"].map(lambda name: hashlib.sha256(f"{seed}/{name}".encode()).hexdigest())
    kept = kept.assign(draw=draw).sort_values("draw")
    kept["turn"] = kept.groupby(["plate", "well"]).cumcount()
    kept["well_turn"] = kept.groupby(["plate", "turn"]).cumcount()  # plates alternate within a turn
    return kept.sort_values(["turn", "well_turn", "draw"]).head(limit or len(kept))[COLUMNS]


def _passes(column: pd.Series, name: str, wanted: Any) -> pd.Series:
    wanted = [wanted] if isinstance(wanted, str | int | float) else list(wanted)
    values = pd.to_numeric(column) if name in ("dose", "hours") else column
    there = sorted(set(values))
    unknown = [value for value in wanted if value not in there]
    if unknown or not wanted:
        raise ValueError(
            f"{name}: no image has {', '.join(map(str, unknown)) or 'none'}; there are {', '.join(map(str, there))}"
        )
    return values.isin(wanted)


def is_local(endpoint: str) -> bool:
    """Whether an S3 server is this machine, where http without encryption does.

    Raises:
        ValueError: If the URL is none that images may come from.

    Example:
        >>> is_local("http://localhost:9000"), is_local(ENDPOINT)
        (True, False)
    """
    url = urlsplit(endpoint)
    local = url.hostname in ("localhost", "127.0.0.1", "::1")
    if not url.hostname or url.scheme not in ("https", "http") or (url.scheme == "http" and not local):
        raise ValueError(f"endpoint must be an https:// URL (http:// only on this machine), got {endpoint!r}")
    return local


def check_body(body: bytes, size: int, tag: str | None) -> bytes:
    """The body of an answer, if it is whole: by its size, and by its ETag where that is the MD5 of the content.

    It is, unless an object was uploaded in parts; then it has a dash.

    Raises:
        ConnectionError: If it is not what was announced.

    Example:
        >>> check_body(b"abc", 3, '"900150983cd24fb0d6963f7d28e17f72"')
        b'abc'
    """
    if len(body) != size:
        raise ConnectionError(f"{len(body)} bytes came, expected {size}")
    tag = (tag or "").strip('"')
    if re.fullmatch(r"[0-9a-f]{32}", tag) and hashlib.md5(body, usedforsecurity=False).hexdigest() != tag:
        raise ConnectionError("the content does not match its checksum")
    return body
