"""The directive ``diagram``: boxes and arrows drawn in text, shown as a picture.

The source stays readable where nothing renders it; in the built pages it is an SVG, drawn anew in
each build, with the text as it stands for those who cannot see it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import ascii2svg
from docutils import nodes
from docutils.parsers.rst import Directive, directives

if TYPE_CHECKING:
    from sphinx.application import Sphinx


class Diagram(Directive):
    """``{diagram}``, with the option ``alt``: what the picture shows, in a sentence."""

    has_content = True
    option_spec: ClassVar = {"alt": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        """The picture."""
        if "alt" not in self.options:
            raise self.error("a diagram needs :alt:, which says what it shows")
        picture, report = ascii2svg.render(
            "\n".join(self.content), style="flat", theme="auto", title=self.options["alt"]
        )
        if report["status"] != "ok":
            raise self.error(f"the diagram cannot be drawn: {report}")
        return [nodes.raw("", f'<div class="diagram">{picture}</div>', format="html")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive to Sphinx."""
    app.add_directive("diagram", Diagram)
    return {"parallel_read_safe": True}
