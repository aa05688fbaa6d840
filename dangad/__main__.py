"""``python -m dangad`` is the ``dangad`` command, where its program is not on the path."""

import sys

from dangad.cli import main

sys.exit(main())
