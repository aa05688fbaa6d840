"""How Sphinx builds these pages: Markdown by MyST, looks by furo, API pages by pydoctor."""

import sys
from importlib.metadata import metadata
from pathlib import Path

_dangad = metadata("dangad")

project = _dangad["Name"]
author = _dangad["Author"]
project_copyright = author
version = release = _dangad["Version"]

sys.path.insert(0, str(Path(__file__).parent))  # for the directives `diagram` and `metrics`
extensions = [
    "diagrams",
    "metricstable",
    "myst_parser",
    "sphinx.ext.intersphinx",
    "sphinxcontrib.towncrier.ext",
]
exclude_patterns = ["_build", "changes/*"]  # the fragments are on the page `changes`

towncrier_draft_autoversion_mode = "draft"
towncrier_draft_include_empty = False
towncrier_draft_working_directory = Path(__file__).parent.parent

# The API pages are built into the folder `api` of the site, and first: see `tools/check docs`. Thus
# {py:class}`dangad.pool.processes.Pool` is a link, and one that leads nowhere is a warning.
intersphinx_mapping = {"dangad": ("api", "_build/html/api/objects.inv")}
nitpicky = True

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3  # links to #a-heading

html_theme = "furo"
html_title = f"{project} {release}"
html_copy_source = False
