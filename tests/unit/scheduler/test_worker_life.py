"""The picture of a worker's life in the glossary is that of the code."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from dangad.scheduler.workerrecord import TRANSITIONS, WorkerState

GLOSSARY = (Path(__file__).parent.parent.parent.parent / "docs" / "glossary.md").read_text()
WIDTH = 76
"""Columns that a page of the site shows of a picture."""


class LifeOfAWorkerTests(SynchronousTestCase):
    def test_picture(self) -> None:
        """Each arrow of the picture is a transition, and each transition an arrow."""
        [entry] = re.findall(r"^## worker\n(.*)", GLOSSARY, re.MULTILINE | re.DOTALL)
        [picture] = re.findall(r"^```\{diagram\}\n(.*?)^```$", entry, re.MULTILINE | re.DOTALL)
        drawn = set()
        state = below = back_to = ""
        for line in picture.splitlines():
            if box := re.search(r"(▶?)│ (\w+) +│$", line):
                if below:  # the arrow downwards leads here
                    drawn.add((state, below, box[2]))
                    below = ""
                state = box[2]
                back_to = state if box[1] else back_to
            elif arrow := re.search(r"├── (.+?) ─+▶ (\w+)$", line):
                drawn.add((state, arrow[1], arrow[2]))
            elif downwards := re.search(r"│ (\w.+)$", line):
                below = downwards[1]
            elif re.search(r"└─+┘$", line) and below:  # the arrow leads back
                drawn.add((state, below, back_to))
                below = ""
        code = {
            (before.value, event.value, after.value)
            for (before, event), after in TRANSITIONS.items()
        }
        self.assertEqual(drawn, code)
        self.assertLessEqual(max(map(len, picture.splitlines())), WIDTH)

    def test_ends(self) -> None:
        """Each state can be reached, and only from death no other can."""
        self.assertEqual({WorkerState.STARTING, *TRANSITIONS.values()}, set(WorkerState))
        left = {before for before, _ in TRANSITIONS}
        self.assertEqual(set(WorkerState) - left, {WorkerState.DEAD})
