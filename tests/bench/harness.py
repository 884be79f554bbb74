"""Contenders that take turns: compared first, then timed, then told as ratios with their spread."""

from __future__ import annotations

import gc
import importlib
import statistics
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

ROUNDS = 7


class BenchError(Exception):
    """A benchmark that cannot be trusted; the message says which contender and why."""


def nothing() -> None:
    """Prepare nothing."""


@dataclass(frozen=True)
class Contender:
    """One way to do a table's job.

    Attributes:
        name: Unique in its table; the first contender of a table is the baseline.
        work: Timed. Gets what ``prepare`` returned; gives the outcome, or an iterator whose pieces (batches) are
            consumed within the timing.
        items: Images (or files) that ``work`` handles: rates are by item, so a slow contender may do fewer.
        checks: One hashable value an item of the outcome (name and size, checksum of pixels), in any order. They
            must be the baseline's, or some of them where there are fewer items. None for a lower bound on the time
            that does only part of the job.
        prepare: Untimed, once; gives the argument of ``work``.
        before: Untimed, before each ``work``, with the same argument.
        needs: Module without which the contender is left out and named.
        floor: Least ratio to the baseline that this project promises.
    """

    name: str
    work: Callable[[Any], Any]
    items: int
    checks: Callable[[Any], Iterable[Hashable]] | None = None
    prepare: Callable[[], Any] = nothing
    before: Callable[[Any], object] | None = None
    needs: str | None = None
    floor: float | None = None


@dataclass(frozen=True)
class Versus:
    """A further row: the ratio of one contender to another than the baseline.

    Attributes:
        name: Of the row.
        contender: Name of the contender whose speed is told...
        against: ...in units of this one's.
        floor: Least ratio that this project promises.
    """

    name: str
    contender: str
    against: str
    floor: float | None = None


@dataclass(frozen=True)
class Row:
    """A line of a table: ``ratio`` is the median over rounds, ``low`` and ``high`` are the least and the largest.

    Attributes:
        more: Texts of further columns, by heading.
    """

    name: str
    ratio: float
    low: float
    high: float
    floor: float | None = None
    more: dict[str, str] = field(default_factory=dict)

    @property
    def missed(self) -> bool:
        """Whether there is a floor and the median is below it."""
        return self.floor is not None and not self.ratio >= self.floor


@dataclass(frozen=True)
class Table:
    """Rows of one topic, and what could not be measured.

    Attributes:
        name: Short: what ``--only`` takes, and the ``table`` of the JSON file.
        title: What was done, to what.
        rows: In the order of printing.
        notes: Lines below the table, such as contenders that are not installed.
    """

    name: str
    title: str
    rows: list[Row]
    notes: list[str] = field(default_factory=list)


def race(
    name: str,
    title: str,
    contenders: Sequence[Contender],
    versus: Sequence[Versus] = (),
    rounds: int = ROUNDS,
    more: Callable[[str], dict[str, str]] = lambda _: {},
) -> Table:
    """Compare, then time all contenders in turn, in another order in each round.

    Args:
        name: As in `Table`.
        title: As in `Table`.
        contenders: The first is the baseline, and must be installed.
        versus: Further rows.
        rounds: At least 7 for a figure that is published.
        more: Further columns for a contender's name, such as its memory.

    Raises:
        BenchError: If a contender fails, or its outcome differs from the baseline's.
    """
    usable, notes = _installed(contenders)
    states = {one.name: _trying(one, one.prepare) for one in usable}
    _compare(usable, states)
    seconds = time_in_turn(usable, states, rounds)
    rates = {one.name: f"{one.items / statistics.median(seconds[one.name]):,.0f}" for one in usable}
    lines = [Versus(one.name, one.name, contenders[0].name, one.floor) for one in usable]
    rows = []
    for line in [*lines, *versus]:
        lacking = [other for other in (line.contender, line.against) if other not in states]
        if lacking:
            notes.append(f"not measured: {line.name} (without {', '.join(lacking)})")
            continue
        ratios = paired_ratios(usable, seconds, line.contender, line.against)
        columns = {"images/s": rates[line.contender], **more(line.contender)} if line in lines else {}
        rows.append(summary(line.name, ratios, line.floor, columns))
    return Table(name, title, rows, notes)


def summary(name: str, ratios: Sequence[float], floor: float | None = None, more: dict[str, str] | None = None) -> Row:
    """The row for one ratio a round."""
    return Row(name, statistics.median(ratios), min(ratios), max(ratios), floor, more or {})


def time_in_turn(contenders: Sequence[Contender], states: dict[str, Any], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender in each round. A round runs all of them, so that a busy neighbour slows all."""
    rng = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {one.name: [] for one in contenders}
    gc.collect()
    gc.freeze()  # what is there by now need not be looked through before each piece
    try:
        for _ in range(rounds):
            for position in rng.permutation(len(contenders)):
                one = contenders[position]
                if one.before:
                    one.before(states[one.name])
                seconds[one.name].append(timed(one.work, states[one.name]))
    finally:
        gc.unfreeze()
    return seconds


def timed(work: Callable[[Any], Any], state: Any) -> float:
    """Seconds of ``work(state)``, with its iterator consumed where it gives one."""
    gc.collect()
    gc.disable()  # a collection would be charged to whoever happens to trigger it
    try:
        start = time.perf_counter()
        outcome = work(state)
        if isinstance(outcome, Iterator):
            for _ in outcome:
                pass
        return time.perf_counter() - start
    finally:
        gc.enable()


def paired_ratios(
    contenders: Sequence[Contender], seconds: dict[str, list[float]], name: str, against: str
) -> list[float]:
    """How many times the speed of ``against``, by item, in each round."""
    items = {one.name: one.items for one in contenders}
    scale = items[name] / items[against]
    return [scale * theirs / ours for ours, theirs in zip(seconds[name], seconds[against], strict=True)]


def _installed(contenders: Sequence[Contender]) -> tuple[list[Contender], list[str]]:
    usable, notes = [], []
    for one in contenders:
        try:
            importlib.import_module(one.needs or "sys")
            usable.append(one)
        except ImportError:
            notes.append(f"not installed: {one.name} (pip install -r tests/bench/requirements.txt)")
    if not usable or usable[0] is not contenders[0]:
        raise BenchError(f"the baseline {contenders[0].name} needs {contenders[0].needs}; install it")
    return usable, notes


def _compare(contenders: Sequence[Contender], states: dict[str, Any]) -> None:
    """Run everyone once: it warms caches, and refuses a contender whose outcome is not the baseline's."""
    baseline = contenders[0]
    expected = Counter(_checks(baseline, states))
    for one in contenders:
        found = expected if one is baseline else Counter(_checks(one, states))
        if one.checks is None:
            continue
        if found.total() != one.items:
            raise BenchError(f"{one.name} gives {found.total()} items, {one.items} are expected")
        wrong = found - expected
        if wrong:
            raise BenchError(
                f"{one.name} differs from {baseline.name} in {wrong.total()} of {one.items} items, such as "
                f"{next(iter(wrong))}; contenders must yield the same before they are timed"
            )


def _checks(one: Contender, states: dict[str, Any]) -> Iterable[Hashable]:
    def run() -> list[Hashable]:
        if one.before:
            one.before(states[one.name])
        if one.checks is None:
            timed(one.work, states[one.name])
            return []
        return list(one.checks(one.work(states[one.name])))

    return _trying(one, run)


def _trying(one: Contender, function: Callable[[], Any]) -> Any:
    try:
        return function()
    except Exception as error:
        raise BenchError(f"{one.name} failed: {type(error).__name__}: {error}") from error
