"""``python -m dangad`` is the ``dangad`` command, for users without ``dangad`` on their path."""

import sys

from dangad.cli import main

sys.exit(main())
