"""From a folder of files to a table that can be trusted (notebook 05).

The index on disk (`bpsutils.index`) holds only what the image files themselves say. File names, ``meta.csv``,
labels and filters are applied afresh by every call, so that changing any of them never needs a rebuild.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bpsutils.config import Config
from bpsutils.images import PathLike
from bpsutils.index import SCHEMA, Report, note, update_index
from bpsutils.scan import fast_scan

__all__ = ["SCHEMES", "build_metadata", "fast_scan", "load_table", "parse_names", "read_labels", "read_meta"]

SCHEMES = {
    "bps": r"^(?P<plate>P\d+)_(?P<barcode>\d+)-(?P<well>[A-Z]\d+)_(?P<field>\d{3})_(?P<nucleus>\d{3})_proj\.tif$",
    "slides": r"^(?P<case>case\d+)_(?P<stain>h&e|melan|sox10)_s(?P<slice>\d+)_(?P<patch>\d+)\.png$",
}
EXAMPLES = 20

# What can be odd about a folder and its tables. Each is reported, none stops the work.
PROBLEMS = {
    "unreadable": "unreadable image files or folders, left out (errno 107: mount the drive again)",
    "unmatched": "file names that do not fit the scheme, left out",
    "without_row": "files without a row in the meta or labels file, whose columns stay empty",
    "without_file": "rows of the meta file without an image file, left out",
    "duplicates": "repeated rows in the meta file, one of each kept",
    "conflicts": "file names with rows in the meta file that differ, all of these rows left out",
    "spaces": "lines with spaces beside a comma, the spaces ignored",
    "hidden_columns": "columns that the image files give too, taken from there",
    "index": "index rebuilt from the image files",
}


def build_metadata(
    image_dir: PathLike,
    index_path: PathLike,
    scheme: str = "bps",
    *,
    meta: PathLike | None = None,
    labels: PathLike | None = None,
    stain: str | None = None,
    min_size: int | None = None,
    max_size: int | None = None,
    force_rebuild_metadata_full: bool = False,
) -> pd.DataFrame:
    """Table of all images below a folder: one row an image, sorted by path.

    Headers are read only of files that are new, or whose size or time of change differs from the index: the
    result is the same as from reading all. What is odd about the files is shown as a warning with a count and
    examples, and kept in ``table.attrs["report"]``.

    Args:
        image_dir: Folder with TIFF or PNG images, searched with everything below it.
        index_path: The index, a Parquet file, inside or outside of ``image_dir``; made if missing.
        scheme: How names are read: ``"bps"``, ``"slides"``, or a regular expression, see `parse_names`.
        meta: See `read_meta`. Default: ``image_dir/meta.csv`` where it exists.
        labels: See `read_labels`. Needs a scheme that gives ``case``.
        stain: Keep only this stain.
        min_size: Keep images whose shorter side has at least this many pixels.
        max_size: Keep images whose longer side has at most this many pixels.
        force_rebuild_metadata_full: Read every header, even where the index knows it.

    Returns:
        Columns ``path`` (absolute), the groups of the scheme as text, ``height``, ``width``, ``dtype``,
        ``channels``, ``simulated`` (whether this package drew the image), the columns of ``meta`` and of ``labels``.

    Raises:
        FileNotFoundError: If the folder, an image in it, ``meta`` or ``labels`` is not there.
        ValueError: If the scheme, a filter or a table cannot be used, or no image passes the filters.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> import numpy as np
        >>> from bpsutils.images import write_image
        >>> with TemporaryDirectory() as folder:
        ...     name = "P242_73665006707-A6_003_013_proj.tif"
        ...     write_image(f"{folder}/{name}", np.full((79, 114), 500, np.uint16))
        ...     table = build_metadata(folder, f"{folder}/index.parquet")
        >>> print(table[["plate", "well", "height", "width"]].to_string(index=False))
        plate well  height  width
         P242   A6      79    114
    """
    root = Path(os.path.abspath(image_dir))  # noqa: PTH100  (Path.absolute would keep "..")
    report: Report = {}
    try:
        index = update_index(root, Path(index_path), force_rebuild_metadata_full, report)
        table = _name_table(index.to_pandas(), root, scheme, report)
        meta = meta or (root / "meta.csv" if (root / "meta.csv").is_file() else None)
        if meta is not None:
            facts = _meta_rows(Path(meta), report)
            note(report, "without_file", facts.index.difference(table["filename"]))
            table = _join(table, facts, report)
        if labels is not None:
            table = _join(table, _label_rows(Path(labels), report), report)
        table = _filter(table.drop(columns="filename"), stain, min_size, max_size)
    finally:  # also before an error: what is odd about the files may be its cause
        problems = _publish(report)
    table.attrs["report"] = problems
    return table


def load_table(config: Config) -> pd.DataFrame:
    """`build_metadata` with a configuration's paths and filters (all doses, also those it would not train on)."""
    return build_metadata(
        config.image_dir,
        config.index,
        config.scheme,
        meta=config.meta,
        labels=config.labels,
        stain=config.stain,
        min_size=config.min_size,
        max_size=config.max_size,
        force_rebuild_metadata_full=config.force_rebuild_metadata_full,
    )


# -------------------------------------------------------------------------------------------------------- names


def parse_names(names: Iterable[str], scheme: str = "bps") -> pd.DataFrame:
    r"""Read what file names say.

    Args:
        names: File names, or paths with ``/``.
        scheme: ``"bps"``, ``"slides"``, or a regular expression with named groups. It is searched in the file
            name; one that itself has a ``/`` is searched in the whole path, so that folders can be named too.

    Returns:
        One row a name and one column of text a group; a name that does not fit has missing values.

    Raises:
        ValueError: If the scheme is no regular expression with named groups.

    Example:
        >>> parse_names(["P242_73665006707-A6_003_013_proj.tif"]).iloc[0].tolist()
        ['P242', '73665006707', 'A6', '003', '013']
        >>> parse_names(["scans/mouse7/day2.png"], r"/(?P<mouse>\w+)/day(?P<day>\d+)").iloc[0].tolist()
        ['mouse7', '2']
    """
    expected = f"{', '.join(map(repr, SCHEMES))}, or a regular expression with named groups such as (?P<case>\\d+)"
    try:
        pattern = re.compile(SCHEMES.get(scheme, scheme))
    except re.error as error:
        raise ValueError(f"scheme {scheme!r} must be {expected}: {error}") from error
    taken = sorted({*SCHEMA.names, "filename"} & set(pattern.groupindex))
    if not pattern.groupindex or taken:
        raise ValueError(f"scheme {scheme!r} must be {expected}" + (f"; not named {taken}" if taken else ""))
    texts = names if "/" in pattern.pattern else (name.rsplit("/", 1)[-1] for name in names)
    matches = [pattern.search(text) for text in texts]
    groups = list(pattern.groupindex)
    return pd.DataFrame([m.groupdict() if m else dict.fromkeys(groups) for m in matches], columns=groups, dtype="str")


def _name_table(facts: pd.DataFrame, root: Path, scheme: str, report: Report) -> pd.DataFrame:
    names = parse_names(facts["path"], scheme)
    fits = names.notna().any(axis=1)
    note(report, "unmatched", facts["path"][~fits])
    paths = [os.path.join(root, path) for path in facts["path"]]  # noqa: PTH118  (plain text is faster)
    files = pd.DataFrame({"path": paths, "filename": [path.rsplit("/", 1)[-1] for path in facts["path"]]}, dtype="str")
    table = pd.concat([files, names, facts.drop(columns=["path", "size", "mtime_ns"])], axis=1)
    if not fits.any():
        raise FileNotFoundError(
            f"no image below {root} can be used: {len(report['unreadable'])} are unreadable, {len(facts)} have names "
            f"that do not fit scheme {scheme!r}; check Config.image_dir and Config.scheme"
        )
    return table[fits].reset_index(drop=True)


# ------------------------------------------------------------------------------------------------------- tables


def read_meta(csv: PathLike) -> pd.DataFrame:
    r"""Read a table with one row an image, as in the data set's ``meta.csv``.

    Spaces beside commas are ignored, a repeated row is kept once, and rows that give one file name different
    values are left out: each with a warning, and in ``attrs["report"]``.

    Args:
        csv: A file with a column ``filename`` and any others; ``dose_Gy`` is in gray, ``hr_post_exposure`` in hours.

    Returns:
        The columns of the file, each ``filename`` once, in the order of the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no CSV table with a column ``filename``.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     _ = Path(folder, "meta.csv").write_text("filename,dose_Gy\na.tif,0.82\n")
        ...     print(read_meta(f"{folder}/meta.csv").to_string(index=False))
        filename  dose_Gy
           a.tif     0.82
    """
    report: Report = {}
    table = _meta_rows(Path(csv), report).reset_index()
    table.attrs["report"] = _publish(report)
    return table


def read_labels(csv: PathLike) -> dict[str, Any]:
    r"""Read the labels map, for labels that are kept apart from the images.

    Args:
        csv: A file with the columns ``case`` and ``label``, with one row or more a case. Others are not used here.

    Returns:
        ``{case: label}``; cases are text, labels as in the file. A case with an empty label is not in it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a column is missing, or a case has more than one label; the message lists these.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     _ = Path(folder, "labels.csv").write_text("case,label\ncase01,benign\ncase02,tumour\n")
        ...     read_labels(f"{folder}/labels.csv")
        {'case01': 'benign', 'case02': 'tumour'}
    """
    report: Report = {}
    labels: dict[str, Any] = _label_rows(Path(csv), report)["label"].to_dict()
    _publish(report)
    return labels


def _read_csv(path: Path, needed: Sequence[str], report: Report) -> pd.DataFrame:
    """Columns of a CSV file, without the spaces beside commas; the first of ``needed`` is the key, and text."""
    if not path.is_file():
        raise FileNotFoundError(f"no table {path}; check Config.meta and Config.labels")
    try:
        cells = pd.read_csv(path, header=None, dtype="str", keep_default_na=False, encoding="utf-8-sig").fillna("")
        names = cells.iloc[0].str.strip().tolist()
        options: dict[str, Any] = {"names": names, "dtype": {needed[0]: "str"}, "encoding": "utf-8-sig"}
        table = pd.read_csv(path, header=0, skipinitialspace=True, **options)
    except ValueError as error:  # pandas' ParserError and EmptyDataError, and UnicodeDecodeError, are all of these
        raise ValueError(f"{path} is no CSV table in UTF-8: {error}") from error
    missing = [name for name in needed if name not in table]
    if missing:
        raise ValueError(f"{path} needs the columns {', '.join(needed)} in its first line; it has {', '.join(names)}")
    stripped = cells.apply(lambda column: column.str.strip())
    note(report, "spaces", [f"{path.name} line {line + 1}" for line in cells.index[(cells != stripped).any(axis=1)]])
    texts = [name for name in names if not pd.api.types.is_numeric_dtype(table[name])]
    table[texts] = table[texts].apply(lambda column: column.str.strip() if column.notna().any() else column)
    return table


def _meta_rows(path: Path, report: Report) -> pd.DataFrame:
    """One row a file name, which is the index."""
    table = _read_csv(path, ["filename"], report)
    table["filename"] = table["filename"].fillna("")
    note(report, "duplicates", table["filename"][table.duplicated()])
    table = table.drop_duplicates()
    differ = table["filename"].duplicated(keep=False)
    note(report, "conflicts", table["filename"][differ].unique())
    return table[~differ].set_index("filename")


def _label_rows(path: Path, report: Report) -> pd.DataFrame:
    """One row a case, which is the index: its label, and the other columns that are constant within each case."""
    table = _read_csv(path, ["case", "label"], report).dropna(subset=["case", "label"])
    values = table.groupby("case").nunique(dropna=False)
    torn = values.index[values["label"] > 1]
    if len(torn):
        listed = "; ".join(
            f"{case}: {', '.join(map(str, table['label'][table['case'] == case].unique()))}" for case in torn
        )
        raise ValueError(f"{path} gives {len(torn)} case(s) more than one label: {listed}; a case has one")
    constant = [name for name in values if values[name].max() <= 1]
    return table.drop_duplicates("case").set_index("case")[constant]


def _join(table: pd.DataFrame, facts: pd.DataFrame, report: Report) -> pd.DataFrame:
    """Add the columns of ``facts`` where its index meets the table's column of that name."""
    key = facts.index.name
    if key not in table:
        raise ValueError(
            f"labels go by case, but the scheme's groups are {', '.join(table.columns)}; add (?P<case>...)"
        )
    note(report, "without_row", table["path"][~table[key].isin(facts.index)])
    known = [name for name in facts if name in table]
    note(report, "hidden_columns", known)
    extra = facts.drop(columns=known).reindex(table[key])
    return pd.concat([table, extra.set_axis(table.index)], axis=1)


def _filter(table: pd.DataFrame, stain: str | None, min_size: int | None, max_size: int | None) -> pd.DataFrame:
    sides, keep = table[["height", "width"]], pd.Series(True, table.index)
    if stain is not None:
        if stain not in set(table.get("stain", ())):
            found = sorted(set(table["stain"].dropna())) if "stain" in table else "none, the scheme gives no stain"
            raise ValueError(f"stain {stain!r} is not among the images; there are: {found}")
        keep &= table["stain"] == stain
    if min_size is not None:
        keep &= sides.min(axis=1) >= min_size
    if max_size is not None:
        keep &= sides.max(axis=1) <= max_size
    if not keep.any():
        shorter, longer = sides.min(axis=1), sides.max(axis=1)
        raise ValueError(
            f"no image passes the filters stain={stain}, min_size={min_size}, max_size={max_size}; shorter sides "
            f"are {shorter.min()} to {shorter.max()} px, longer sides {longer.min()} to {longer.max()} px"
        )
    return table[keep].reset_index(drop=True)


# ------------------------------------------------------------------------------------------------------- report


def _publish(report: Report) -> dict[str, Any]:
    """Warn once a kind; keep counts and the first examples only, because pandas copies ``attrs`` again and again."""
    for kind, items in report.items():
        if items:
            warnings.warn(f"{PROBLEMS[kind]}: {len(items)}, such as {', '.join(items[:3])}", stacklevel=3)
    return {kind: {"count": len(items), "examples": items[:EXAMPLES]} for kind, items in report.items() if items}
