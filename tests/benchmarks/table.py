"""Findings as text: quantities with their units, tables for a terminal or for Markdown.

Used by :mod:`tests.benchmarks.__main__` for the terminal, and by :mod:`tests.benchmarks.publish`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.benchmarks.harness import Spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.benchmarks.harness import Findings
    from tests.benchmarks.targets import Judgement, Target

_SECONDS = ((1.0, "s", 1), (1e-3, "ms", 1e3), (0.0, "µs", 1e6))
_BYTES = ((1e9, "GB", 1e-9), (1e6, "MB", 1e-6), (1e4, "kB", 1e-3), (0.0, "B", 1))
_RATES = ((0.0, "/s", 1),)
_SCALES = {"s": _SECONDS, "B": _BYTES, "1/s": _RATES, "B/s": _BYTES, "": ((0.0, "", 1),)}

MISSING = "-"
"""What stands where nothing was measured."""

Row = tuple[str, ...]


def quantity(value: float, unit: str, digits: int = 3) -> str:
    """A value to so many significant digits, in the unit that suits its size."""
    for least, name, factor in _SCALES[unit]:
        if abs(value) >= least:
            suffix = f"{name}/s" if unit == "B/s" else name
            return f"{_rounded(value * factor, digits)} {suffix}".strip().replace(" /s", "/s")
    raise AssertionError(value)


def figures(findings: Findings, measures: Sequence[str] | None = None) -> list[Row]:
    """A row for each contender, a column for each quantity: the median, and the spread.

    :param measures: the quantities' keys, if not all of them.
    """
    columns = {
        series.measure: series.text
        for series in findings.series
        if measures is None or series.measure in measures
    }
    names = dict.fromkeys(series.contender for series in findings.series)
    rows: list[Row] = [("", *columns.values())]
    for name in names:
        cells = [_cell(findings, name, measure) for measure in columns]
        if any(cell != MISSING for cell in cells):
            rows.append((name, *cells))
    return rows


def _cell(findings: Findings, contender: str, measure: str) -> str:
    """A median, and how far apart the least and the largest value are, if there are several."""
    for series in findings.series:
        if (series.contender, series.measure) == (contender, measure):
            spread = Spread.of(series.values)
            median = quantity(spread.median, series.unit)
            if len(series.values) == 1:
                return median
            return f"{median} ± {_percent((spread.most - spread.least) / 2, spread.median)}"
    return MISSING


def judgements(judged: Sequence[Judgement]) -> list[Row]:
    """A row for each target: what was measured, what it should be, and whether it is."""
    rows: list[Row] = [("target", "measured", "spread", "wanted", "")]
    for judgement in judged:
        target = judgement.target
        if judgement.values:
            spread = Spread.of(judgement.values)
            measured = quantity(judgement.median, target.unit)
            wide = f"{quantity(spread.least, target.unit)} to {quantity(spread.most, target.unit)}"
        else:
            measured, wide = MISSING, MISSING
        mark = {True: "met", False: "missed", None: "not measured"}[judgement.met]
        rows.append((target.text, measured, wide, wanted(target), mark))
    return rows


def wanted(target: Target) -> str:
    """A target's bound."""
    if target.at_least is not None:
        return f"≥ {quantity(target.at_least, target.unit)}"
    assert target.at_most is not None
    return f"≤ {quantity(target.at_most, target.unit)}"


def for_terminal(rows: Sequence[Row]) -> str:
    """The rows in columns, the first row being the head."""
    widths = _widths(rows)
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def narrower(rows: Sequence[Row]) -> Sequence[Row]:
    """The same table, with its rows as columns if that takes less width."""
    turned = list(zip(*rows, strict=True))
    return min(rows, turned, key=lambda each: sum(_widths(each)))


def for_markdown(rows: Sequence[Row]) -> str:
    """The rows as a table of Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|---" * len(rows[0]) + "|")
    return "\n".join(lines)


def _widths(rows: Sequence[Row]) -> list[int]:
    return [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %" if whole else MISSING


def _rounded(value: float, digits: int) -> str:
    """All significant digits, but no exponent."""
    if abs(value) >= 10 ** (digits - 1):
        return f"{float(f'{value:.{digits}g}'):,.0f}"
    return f"{value:#.{digits}g}".rstrip(".")
