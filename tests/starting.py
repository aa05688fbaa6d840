"""How the servers of tests start their workers."""

import os

from dangad.limits import LEAN

START = os.environ.get("DANGAD_TEST_START", LEAN)
"""The ``--start`` of servers whose test does not name one: ``make starts`` tries the others."""
