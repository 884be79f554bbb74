"""Train, validation and test, with no group in two of them, and a measure of how much a split leaks (notebook 05)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd

from bpsutils.config import SPLITS, Config

FIELD = ("plate", "barcode", "well", "field")
WELL = ("plate", "barcode", "well")
MOST_SWAPPED = 300  # swaps are tried among this many groups: beyond it, more cost time and gain nothing


def group_ids(table: pd.DataFrame, group: str | Sequence[str]) -> pd.Series:
    """Name the group of each row.

    Args:
        table: Any table.
        group: The column, or the columns, that together name a group. Well C7 is in both branches of the BPS data,
            so a mouse is ``("particle_type", "well")``.

    Returns:
        Text such as ``"Fe/A6"``, on the table's index.

    Raises:
        ValueError: If a column is not there, or a row has no value in it.

    Example:
        >>> group_ids(pd.DataFrame({"particle_type": ["Fe"], "well": ["A6"]}), ("particle_type", "well")).tolist()
        ['Fe/A6']
    """
    columns = [group] if isinstance(group, str) else list(group)
    _check_columns(table, columns)
    parts = [table[column].astype("str") for column in columns]
    return parts[0].str.cat(parts[1:], sep="/").rename("group")


def split_by_group(
    table: pd.DataFrame,
    group: str | Sequence[str],
    stratify: str | None,
    fractions: Sequence[float] = (0.5, 0.25, 0.25),
    seed: int = 0,
) -> pd.Series:
    """Draw whole groups for train, val and test, each class in the shares asked for as nearly as that allows.

    From random starts, two groups change places, or one changes its split, as long as that brings the shares of
    rows nearer; the best of all starts is taken. First comes that every class is in every split, as far as it has
    the groups for it; then the sum of squared differences between the shares of rows, of each class and of all,
    and ``fractions``.

    Args:
        table: One row an image.
        group: The column or columns that name a group, see `group_ids`.
        stratify: Column of the classes; None treats all rows as one class.
        fractions: Shares of the rows for train, val and test. A share of 0 leaves that split empty.
        seed: Decides among splits that are equally good.

    Returns:
        ``"train"``, ``"val"`` or ``"test"`` for each row, on the table's index. ``attrs["group"]`` has the columns.

    Raises:
        ValueError: If a column is missing or has missing values, the fractions are not shares, or there are
            fewer groups than splits.

    Example:
        >>> table = pd.DataFrame({"case": list("abcdefgh") * 5, "label": [0, 0, 0, 0, 1, 1, 1, 1] * 5})
        >>> split = split_by_group(table, "case", "label")
        >>> pd.crosstab(table["label"], split)[["train", "val", "test"]].to_numpy().tolist()
        [[10, 5, 5], [10, 5, 5]]
    """
    shares = _check_fractions(fractions)
    groups = group_ids(table, group)
    if stratify is not None:
        _check_columns(table, [stratify])
    classes = pd.Series("all", table.index) if stratify is None else table[stratify]
    counts = pd.crosstab(groups.to_numpy(), classes.to_numpy())
    if len(counts) < len(shares):
        raise ValueError(
            f"{len(counts)} groups cannot fill {len(shares)} splits: a group is never divided. "
            f"Groups by {group}: {', '.join(counts.index)}"
        )
    places = _best_assignment(counts.to_numpy(), np.array(list(shares.values())), np.random.default_rng(seed))
    chosen = dict(zip(counts.index, np.array(list(shares))[places].tolist(), strict=True))
    split = groups.map(chosen).rename("split")
    split.attrs["group"] = [group] if isinstance(group, str) else list(group)
    return split


def leakage_report(table: pd.DataFrame, split: pd.Series, group: str | Sequence[str]) -> pd.Series:
    """Share of the test rows that have a relative among the training rows.

    Args:
        table: One row an image.
        split: ``"train"``, ``"val"`` or ``"test"`` for each row, by whatever means.
        group: The column or columns that name a group, see `group_ids`.

    Returns:
        Shares from 0 (no leak) to 1, indexed ``"group"``, ``"field"`` (of view) and ``"well"`` (of one plate);
        the last two where the table has their columns.

    Raises:
        ValueError: If no row is in train or none in test, or ``split`` does not match the table.

    Example:
        >>> table = pd.DataFrame({"case": ["a", "a", "b", "b"]})
        >>> leakage_report(table, pd.Series(["train", "test", "test", "test"]), "case").round(2).to_dict()
        {'group': 0.33}
    """
    if len(split) != len(table) or not split.index.equals(table.index):
        raise ValueError(
            f"split has {len(split)} rows that do not match the table's {len(table)}; make it from this table"
        )
    train, test = split == "train", split == "test"
    if not train.any() or not test.any():
        raise ValueError(f"split has {train.sum()} rows 'train' and {test.sum()} rows 'test'; it needs some of both")
    keys = {"group": group, "field": FIELD, "well": WELL}
    shares = {}
    for name, columns in keys.items():
        if name == "group" or set(columns) <= set(table.columns):
            relatives = group_ids(table, columns)
            shares[name] = float(relatives[test].isin(set(relatives[train])).mean())
    return pd.Series(shares, name="share of test rows")


def split_table(table: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Choose the rows that a configuration trains and tests on, and split them.

    Args:
        table: From `bpsutils.metadata.load_table`.
        config: ``irradiated_only`` (where there is a ``dose_Gy``), ``target``, ``classes``, ``group``, and either
            the cases of the three splits or ``fractions`` and ``seed``.

    Returns:
        The chosen rows with the new columns ``group`` and ``split``. Rows left out for another reason than their
        dose (no class, another class, a case that is not named) are counted in a warning.

    Raises:
        ValueError: If a column is missing, a named case is not there, or no row is left.

    Example:
        >>> table = pd.DataFrame({"case": list("abcdef"), "label": ["x", "y"] * 3})
        >>> config = Config(target="label", classes=("x", "y"), group=("case",),
        ...                 train_cases=("a", "b"), val_cases=("c", "d"), test_cases=("e", "f"))
        >>> split_table(table, config)["split"].tolist()
        ['train', 'train', 'val', 'val', 'test', 'test']
    """
    if config.target not in table:
        raise ValueError(
            f"the table has no column {config.target!r} (Config.target); it has {', '.join(table.columns)}"
        )
    if config.irradiated_only and "dose_Gy" in table:
        if not (table["dose_Gy"] > 0).any():
            raise ValueError(
                f"no row is left of {len(table)}: in each, the dose is 0 or empty (Config.irradiated_only)"
            )
        table = table[table["dose_Gy"] > 0]
    target = table[config.target]
    table = _keep(
        table, target.isin(config.classes) if config.classes else target.notna(), f"{config.target} is not a class"
    )
    table = table.assign(group=group_ids(table, config.group))
    named = {case: split for split in SPLITS for case in getattr(config, f"{split}_cases")}
    if named:
        unknown = sorted(set(named) - set(table["group"]))
        if unknown:
            present = ", ".join(sorted(set(table["group"])))
            raise ValueError(f"no images of the cases {', '.join(unknown)} (Config.*_cases); there are {present}")
        table = _keep(table, table["group"].isin(named), "case is not in Config.*_cases")
        split = table["group"].map(named)
    else:
        split = split_by_group(table, config.group, config.target, config.fractions, config.seed)
    table = table.assign(split=split).reset_index(drop=True)
    table.attrs["group"] = list(config.group)
    return table


def _keep(table: pd.DataFrame, keep: pd.Series, reason: str) -> pd.DataFrame:
    if not keep.any():
        raise ValueError(f"no row is left of {len(table)}: in each, the {reason}; check Config")
    if not keep.all():
        warnings.warn(f"{(~keep).sum()} of {len(table)} rows left out: the {reason}", stacklevel=3)
    return table[keep]


def _check_columns(table: pd.DataFrame, columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in table]
    if missing or not columns:
        raise ValueError(f"the table has no column {', '.join(missing)}; it has {', '.join(map(str, table.columns))}")
    for column in columns:
        empty = table.index[table[column].isna()]
        if len(empty):
            raise ValueError(
                f"column {column!r} is empty in {len(empty)} rows, first at index {empty[0]}; "
                "drop these rows, or complete the table they come from"
            )


def _check_fractions(fractions: Sequence[float]) -> dict[str, float]:
    if len(fractions) != len(SPLITS) or min(fractions) < 0 or not abs(sum(fractions) - 1) < 1e-6:
        raise ValueError(f"fractions must be three shares (train, val, test) that add up to 1, got {fractions}")
    return {split: share / sum(fractions) for split, share in zip(SPLITS, fractions, strict=True) if share > 0}


# ------------------------------------------------------------------------------------------------------- search


def _best_assignment(counts: np.ndarray, fractions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Split number of each group. ``counts``: rows by group and class, shape ``(G, C)``."""
    counts = np.column_stack([counts, counts.sum(axis=1)])  # all rows together are one class more
    sizes = counts / counts.sum(axis=0)  # each class counts the same, however many rows it has
    # Few groups leave few good splits, which a single start may miss; many groups leave many.
    starts = int(np.clip(4000 // len(sizes), 3, 100))
    candidates = [
        _improve(sizes, rng.choice(len(fractions), size=len(sizes), p=fractions), fractions, rng) for _ in range(starts)
    ]
    return min(candidates, key=lambda places: round(_badness(sizes, places, fractions), 9))


def _totals(values: np.ndarray, places: np.ndarray, n_splits: int) -> np.ndarray:
    return np.stack([values[places == split].sum(axis=0) for split in range(n_splits)])


def _badness(sizes: np.ndarray, places: np.ndarray, fractions: np.ndarray) -> float:
    """Squared distance from the shares asked for; a class missing from a split outweighs any distance."""
    shares = _totals(sizes, places, len(fractions))
    return float(((shares - fractions[:, None]) ** 2).sum() - 2 * sizes.shape[1] * (shares > 0).sum())


def _improve(sizes: np.ndarray, places: np.ndarray, fractions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Make the best swap of two groups, again and again, until none is an improvement.

    An empty group in each split makes a move a swap too: the group that moves changes places with it.
    """
    n_splits = len(fractions)
    sizes = np.vstack([sizes, np.zeros((n_splits, sizes.shape[1]))])
    places = np.append(places, np.arange(n_splits))
    real = len(places) - n_splits
    tried = np.append(rng.permutation(real)[:MOST_SWAPPED], np.arange(real, len(places)))
    while True:
        # Rounded, because the last bits of a sum differ between machines, and must not choose between equal swaps.
        gain = _swap_gains(sizes, places, fractions, tried).round(9)
        first, second = np.unravel_index(gain.argmax(), gain.shape)
        if gain[first, second] <= 0:
            return places[:real]
        pair = [tried[first], tried[second]]
        places[pair] = places[pair[::-1]]


def _swap_gains(sizes: np.ndarray, places: np.ndarray, fractions: np.ndarray, tried: np.ndarray) -> np.ndarray:
    """How much `_badness` falls if groups ``tried[i]`` and ``tried[j]`` change places, shape ``(n, n)``."""
    shares = _totals(sizes, places, len(fractions)) - fractions[:, None]
    members = _totals(sizes > 0, places, len(fractions))  # groups of each class in each split
    x, at = sizes[tried], places[tried]
    leaves = x[:, None] - x[None, :]  # what split at[i] loses to split at[j]
    distance = 2 * (leaves * (shares[at][None, :] - shares[at][:, None] + leaves)).sum(axis=-1)
    has = (x > 0).astype(int)
    change = has[None, :] - has[:, None]
    own, other = members[at][:, None], members[at][None, :]
    covered = ((own + change > 0) * 1 + (other - change > 0) - (own > 0) - (other > 0)).sum(axis=-1)
    return np.where(at[:, None] == at[None, :], 0.0, 2 * sizes.shape[1] * covered - distance)
