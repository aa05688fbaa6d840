"""Findings as text: quantities with their units, tables for a terminal or for Markdown.

Used by :mod:`benchmarks.__main__` for the terminal, and by :mod:`benchmarks.publish`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.harness import Spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.harness import Findings
    from benchmarks.targets import Target, Verdict

_SECONDS = ((1.0, "s", 1), (1e-3, "ms", 1e3), (0.0, "µs", 1e6))
_BYTES = ((1e9, "GB", 1e-9), (1e6, "MB", 1e-6), (1e4, "kB", 1e-3), (0.0, "B", 1))
_RATES = ((0.0, "/s", 1),)
_SCALES = {"s": _SECONDS, "B": _BYTES, "1/s": _RATES, "B/s": _BYTES, "": ((0.0, "", 1),)}

Row = tuple[str, ...]


def quantity(value: float, unit: str) -> str:
    """A value to three digits, in the unit that suits its size."""
    for least, name, factor in _SCALES[unit]:
        if abs(value) >= least:
            suffix = f"{name}/s" if unit == "B/s" else name
            return f"{_three_digits(value * factor)} {suffix}".strip().replace(" /s", "/s")
    raise AssertionError(value)


def figures(findings: Findings) -> list[Row]:
    """A row for each quantity of each contender: the median, and where half and all values lie."""
    rows: list[Row] = [("what", "of", "median", "half of the runs", "all")]
    ordered = sorted(findings.series, key=lambda series: series.text)
    for series in ordered:
        spread = Spread.of(series.values)
        median, *rest = (
            quantity(value, series.unit)
            for value in (
                *(spread.median, spread.lower, spread.upper),
                *(spread.least, spread.most),
            )
        )
        rows.append(
            (
                series.text,
                series.contender,
                median,
                f"{rest[0]} to {rest[1]}",
                f"{rest[2]} to {rest[3]}",
            )
        )
    return rows


def judgements(verdicts: Sequence[Verdict]) -> list[Row]:
    """A row for each target: what was measured, what it should be, and whether it is."""
    rows: list[Row] = [("target", "measured", "spread", "wanted", "")]
    for verdict in verdicts:
        target = verdict.target
        if verdict.values:
            spread = Spread.of(verdict.values)
            measured = quantity(verdict.median, target.unit)
            wide = f"{quantity(spread.least, target.unit)} to {quantity(spread.most, target.unit)}"
        else:
            measured, wide = "-", "-"
        mark = {True: "met", False: "missed", None: "not measured"}[verdict.met]
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
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def for_markdown(rows: Sequence[Row]) -> str:
    """The rows as a table of Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|---" * len(rows[0]) + "|")
    return "\n".join(lines)


def _three_digits(value: float) -> str:
    if abs(value) >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:#.3g}".rstrip(".")
