"""The picture and the table of a job's life are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from dangad.errors import ERRORS, UnhandledCommand
from dangad.scheduler.record import END_STATES, TRANSITIONS, JobState

EXPLANATION = Path(__file__).parent.parent.parent / "docs" / "explanation"
PAGE = (EXPLANATION / "life-of-a-job.md").read_text()
WIDTH = 76
"""Columns that a page of the site shows of a picture."""
CODE = {
    (state.value, event.value, following.value) for (state, event), following in TRANSITIONS.items()
}


class LifeOfAJobTest(SynchronousTestCase):
    def test_picture(self) -> None:
        """Each arrow of the picture is a transition, and each transition an arrow."""
        [picture] = re.findall(r"^```\{diagram\}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
        drawn = set()
        states: list[str] = []
        below = ""
        for line in picture.splitlines():
            if box := re.search(r"│ (\w+) +│$", line):
                states.append(box[1])
                if len(states) > 1:  # the arrow downwards leads here
                    drawn.add((states[-2], below, states[-1]))
            elif arrow := re.search(r"├── (.+?) ─+▶ ([\w ]+)$", line):
                drawn.add((states[-1], arrow[1], arrow[2]))
            elif downwards := re.search(r"│ (\w.+)$", line):
                below = downwards[1]
        drawn.add((states[-1], below, states[0]))  # and the last one back to the top
        self.assertEqual(drawn, CODE)

    def test_table(self) -> None:
        """The rows of the table are the transitions, in the order of the picture's states."""
        rows = re.findall(r"^\| (\w+) \| ([^|]+) \| ([\w ]+) \| (.*)\|$", PAGE, re.MULTILINE)
        self.assertEqual({row[:3] for row in rows}, CODE)
        self.assertEqual(len(rows), len(CODE))
        codes = {code.decode() for code in (*ERRORS.values(), UnhandledCommand.code)}
        ends = {state.value for state in END_STATES}
        for _, _, following, told in rows:
            self.assertLessEqual(set(re.findall(r"`(\w+)`", told)), codes)
            self.assertEqual(bool(told.strip()), following in ends, told)
        named = {code for *_, told in rows for code in re.findall(r"`(\w+)`", told)}
        self.assertEqual(codes - named, {"FORBIDDEN", "QUEUE_FULL"})

    def test_width(self) -> None:
        """No picture on the pages of explanation is wider than the page."""
        for page in EXPLANATION.glob("*.md"):
            for picture in re.findall(
                r"^```\{diagram\}\n:alt: [^\n]*\n(.*?)^```$",
                page.read_text(),
                re.MULTILINE | re.DOTALL,
            ):
                self.assertLessEqual(max(map(len, picture.splitlines())), WIDTH, page.name)

    def test_one_end(self) -> None:
        """As the page says, nothing leads out of an end, and each state can be reached."""
        self.assertFalse({state for state, _ in TRANSITIONS} & set(END_STATES))
        self.assertEqual({JobState.QUEUED, *TRANSITIONS.values()}, set(JobState))
