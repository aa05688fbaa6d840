"""How Sphinx builds these pages: Markdown by MyST, looks by furo, API pages by pydoctor."""

from importlib.metadata import metadata

_dangad = metadata("dangad")

project = _dangad["Name"]
author = _dangad["Author"]
project_copyright = author
version = release = _dangad["Version"]

extensions = ["myst_parser", "sphinx.ext.intersphinx"]
exclude_patterns = ["_build", "changes/*"]  # the fragments become CHANGELOG.md

# The API pages are built beside these ones, and first: see `tools/check docs`. Thus
# {py:class}`dangad.pool.Pool` is a link, and one that leads nowhere is a warning.
intersphinx_mapping = {"dangad": ("../api", "_build/api/objects.inv")}
nitpicky = True

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3  # links to #a-heading

html_theme = "furo"
html_title = f"{project} {release}"
html_copy_source = False
