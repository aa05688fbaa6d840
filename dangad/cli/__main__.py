"""``python -m dangad.cli`` is the ``dangad`` command, where that is not installed."""

import sys

from dangad.cli import main

sys.exit(main())
