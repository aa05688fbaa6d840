"""Charts of findings, as SVG that can be read on white and on black.

Used by :mod:`tests.benchmarks.publish`. Backgrounds are transparent; text and axes are of a grey,
and the series of colours, that have contrast with both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot
from matplotlib.ticker import FuncFormatter, NullFormatter

from tests.benchmarks.harness import DANGAD, Spread
from tests.benchmarks.table import quantity

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.benchmarks.harness import Findings, Series

INK = "#808080"
ACCENT = "#2f88d8"
"""dangad's colour."""
PEER = "#9a9a9a"
"""Everybody else's, where the names stand beside the bars."""
LINES = (ACCENT, "#d9822b", "#3f9c5f", "#b05fc0", "#c0564f")
"""Of lines, which are told apart by their colour and their mark."""
NAMES_IN_A_ROW = 3
"""Of lines, above them."""
MARKS = ("o", "s", "^", "D", "v")

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


def dots(path: Path, title: str, series: list[Series]) -> None:
    """A dot for each contender's median, in the order given, on a logarithmic scale.

    A line through it reaches from the least to the largest value.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = pyplot.subplots(figsize=(7, 0.7 + 0.32 * len(series)))
        places = range(len(series), 0, -1)
        for place, each in zip(places, series, strict=True):
            spread = Spread.of(each.values)
            color = ACCENT if each.contender == DANGAD else PEER
            axes.plot([spread.least, spread.most], [place, place], color=color, linewidth=1.5)
            axes.plot([spread.median], [place], color=color, marker="o", markersize=8)
            axes.annotate(
                quantity(spread.median, each.unit),
                (spread.most, place),
                xytext=(9, 0),
                textcoords="offset points",
                va="center",
                fontsize="small",
            )
        axes.set_xscale("log")
        axes.margins(x=0.12)
        axes.grid(visible=True, axis="x")
        axes.set_yticks(places, [each.contender for each in series])
        axes.tick_params(axis="y", length=0)
        _unit_on(axes.xaxis, series[0].unit)
        axes.set_title(title, loc="left")
        _save(figure, path)


def lines(
    path: Path,
    title: str,
    along: str,
    curves: Mapping[str, Mapping[int, float]],
    unit: str,
    *,
    logarithmic: bool = False,
) -> None:
    """A line for each contender over a number of clients, on a logarithmic scale.

    :param logarithmic: whether what is measured is on such a scale, too; else it begins at 0.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = pyplot.subplots(figsize=(7, 3.2))
        for (name, points), color, mark in zip(curves.items(), LINES, MARKS, strict=False):
            axes.plot(points.keys(), points.values(), color=color, marker=mark, label=name)
        axes.set_xscale("log")
        if logarithmic:
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.grid(visible=True, axis="y")
        axes.set_xticks(sorted({place for points in curves.values() for place in points}))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda place, _: f"{place:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        _unit_on(axes.yaxis, unit)
        axes.set_xlabel(along)
        rows = -(-len(curves) // NAMES_IN_A_ROW)
        axes.set_title(title, loc="left", pad=6 + 18 * rows)
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            borderaxespad=0,
            columnspacing=1.0,
            fontsize="small",
            ncols=NAMES_IN_A_ROW,
        )
        _save(figure, path)


def ordered(findings: Findings, measure: str, *, descending: bool) -> list[Series]:
    """One quantity of all contenders, by their medians."""
    found = [each for each in findings.series if each.measure == measure]
    return sorted(found, key=lambda each: Spread.of(each.values).median, reverse=descending)


def _unit_on(axis: Any, unit: str) -> None:
    def text(value: float, _place: int) -> str:
        return quantity(value, unit, digits=2) if value else "0"

    axis.set_major_formatter(FuncFormatter(text))
    axis.set_minor_formatter(NullFormatter())


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, transparent=True, bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)
