"""Charts of findings, as SVG that can be read on white and on black.

Used by :mod:`benchmarks.publish`. Backgrounds are transparent; text and axes are of a grey, and the
series of colours, that have contrast with both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks.harness import DANGAD, Spread
from benchmarks.table import quantity

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from benchmarks.harness import Findings, Series

INK = "#808080"
ACCENT = "#2f88d8"
"""dangad's colour."""
PEER = "#9a9a9a"
"""Everybody else's, where the names stand beside the bars."""
LINES = (ACCENT, "#d9822b", "#3f9c5f")
"""Of lines, which are told apart by their colour and their mark."""
MARKS = ("o", "s", "^")

_STYLE = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlesize": "medium",
    "font.family": "sans-serif",
    "grid.alpha": 0.3,
    "grid.color": INK,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "dangad",  # the same figures make the same file
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def bars(path: Path, title: str, series: list[Series]) -> None:
    """A bar for each contender, the best first as they are given, on a logarithmic scale.

    A thin line over each bar's end reaches from the least to the largest value.
    """
    spreads = [Spread.of(each.values) for each in series]
    with mpl.rc_context(_STYLE):
        figure, axes = pyplot.subplots(figsize=(7, 0.7 + 0.36 * len(series)))
        places = range(len(series), 0, -1)
        medians = [spread.median for spread in spreads]
        axes.barh(
            places,
            medians,
            height=0.62,
            color=[ACCENT if each.contender == DANGAD else PEER for each in series],
            xerr=[
                [spread.median - spread.least for spread in spreads],
                [spread.most - spread.median for spread in spreads],
            ],
            error_kw={"ecolor": INK, "elinewidth": 1},
        )
        for place, each, spread in zip(places, series, spreads, strict=True):
            text = quantity(spread.median, each.unit)
            axes.annotate(
                text,
                (spread.most, place),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                fontsize="small",
            )
        axes.set_xscale("log")
        axes.set_xlim(min(medians) / 3, max(spread.most for spread in spreads) * 2.5)
        axes.set_yticks(places, [each.contender for each in series])
        axes.tick_params(axis="y", length=0)
        _unit_on(axes.xaxis, series[0].unit)
        axes.set_title(title, loc="left")
        _save(figure, path)


def lines(
    path: Path, title: str, along: str, curves: Mapping[str, Mapping[int, float]], unit: str
) -> None:
    """A line for each contender over a number of clients, both on logarithmic scales."""
    with mpl.rc_context(_STYLE):
        figure, axes = pyplot.subplots(figsize=(7, 3.4))
        for (name, points), color, mark in zip(curves.items(), LINES, MARKS, strict=False):
            axes.plot(points.keys(), points.values(), color=color, marker=mark, label=name)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.grid(visible=True, axis="y")
        axes.set_xticks(sorted({place for points in curves.values() for place in points}))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda place, _: f"{place:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        _unit_on(axes.yaxis, unit)
        axes.set_xlabel(along)
        axes.set_title(title, loc="left")
        axes.legend()
        _save(figure, path)


def ordered(findings: Findings, measure: str, *, descending: bool) -> list[Series]:
    """One quantity of all contenders, by their medians."""
    found = [each for each in findings.series if each.measure == measure]
    return sorted(found, key=lambda each: Spread.of(each.values).median, reverse=descending)


def _unit_on(axis: Any, unit: str) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _: quantity(value, unit, digits=1)))
    axis.set_minor_formatter(NullFormatter())


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, transparent=True, bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)
