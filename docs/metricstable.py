"""The directive ``metrics``: a table of all metrics, made from the code that tells them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from docutils import nodes
from docutils.parsers.rst import Directive

from dangad.web.metrics import HISTOGRAMS, METRICS, STALLS

if TYPE_CHECKING:
    from sphinx.application import Sphinx

COLUMNS = ("metric", "kind", "labels", "meaning")
_ENDS = {"counter": "_total", "info": "_info"}


class Metrics(Directive):
    """``{metrics}``, without options or content."""

    def run(self) -> list[nodes.Node]:
        """The table."""
        body = nodes.tbody()
        for each in (*METRICS, *HISTOGRAMS, STALLS):
            name = each.name + _ENDS.get(each.kind, "")
            labels = [nodes.literal(text=label) for label in each.labels]
            spaced = [node for label in labels for node in (label, nodes.Text(" "))]
            cells = ([nodes.literal(text=name)], [nodes.Text(each.kind)], spaced)
            body += _row(*cells, [nodes.Text(each.help)])
        head = nodes.thead("", _row(*([nodes.Text(name)] for name in COLUMNS)))
        widths = [nodes.colspec(colwidth=width) for width in (35, 12, 15, 38)]
        return [nodes.table("", nodes.tgroup("", *widths, head, body, cols=len(COLUMNS)))]


def _row(*cells: list[nodes.Node]) -> nodes.row:
    """A row of these cells."""
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", *cell)) for cell in cells))


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive to Sphinx."""
    app.add_directive("metrics", Metrics)
    return {"parallel_read_safe": True}
