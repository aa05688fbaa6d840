"""Which jobs an operator means, and what is said to one whose words are not valid."""

from __future__ import annotations

import math
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from dangad.operators import filters
from dangad.operators.events import Event
from dangad.operators.filters import read_ended, read_live, read_sort, read_watched
from dangad.scheduler.concurrency import NOTHING, Paused
from dangad.scheduler.record import END_STATES, Job, JobState
from dangad.wire.controlwords import ENDED_STATES, EVENTS, FARTHEST, JOB_ORDERS, MOST
from tests.fakes import FakeClient

NOW = 100.0
WRONG: tuple[tuple[Any, str], ...] = (
    (
        {"comand": "Echo"},
        "must be state, command, client or older_than; did you mean command?",
    ),
    ({"outcome": "lost"}, "no filter 'outcome'"),
    (
        {"state": "runing"},
        "no state 'runing': it must be queued, running or paused; did you mean running?",
    ),
    ({"state": 3}, "the filter state takes a text"),
    ({"command": "x" * 201}, "the filter command takes a text of at most 200 characters"),
    ({"client": None}, "the filter client takes a text"),
    *(
        ({"older_than": value}, "the filter older_than takes seconds, 0 or more, not")
        for value in (-1, "5m", True, None, math.nan, math.inf)
    ),
)
"""Filters for jobs that have not ended, and what is wrong with them."""
LIVE: tuple[tuple[dict[str, Any], bool], ...] = (
    ({}, True),
    ({"state": "running"}, True),
    ({"state": "queued"}, False),
    ({"command": "Thumb"}, True),
    ({"command": "Thum"}, False),
    ({"client": "7.0.0.1"}, True),
    ({"client": "10."}, False),
    ({"older_than": 10}, True),
    ({"older_than": 10.5}, False),
    ({"command": "Thumb", "client": "127", "state": "running", "older_than": 1}, True),
    ({"command": "Thumb", "client": "127", "state": "queued", "older_than": 1}, False),
)
"""Filters, and whether they mean a job that runs, of Thumb, of 127.0.0.1, for 10 s here."""
ENDED: tuple[tuple[dict[str, Any], bool], ...] = (
    ({}, True),
    ({"state": "failed"}, True),
    ({"state": "done"}, False),
    ({"outcome": "failed"}, True),
    ({"outcome": "NOT_FOUND"}, True),
    ({"outcome": "LOST"}, False),
    ({"command": "Thumb"}, True),
    ({"client": "127"}, True),
    ({"client": "x"}, False),
    ({"older_than": 5}, True),
    ({"older_than": 6}, False),
)
"""Filters, and whether they mean the job when it has failed, 5 s ago."""


class FilterTests(SynchronousTestCase):
    def job(self, state: JobState) -> Job:
        """A job of Thumb that was accepted 10 s ago, and is in this state."""
        job = Job(7, FakeClient("127.0.0.1:99"), b"1", b"Thumb", b"")
        job.accepted_at, job.state = NOW - 10, state
        return job

    def test_paused(self) -> None:
        """A job that waits is chosen as paused too while its command is; one that runs is not."""
        paused = Paused(commands=frozenset({b"Thumb"}))
        chosen = read_live({"state": "paused"})
        for state, now, expected in (
            (JobState.QUEUED, paused, True),
            (JobState.PREFETCHED, Paused(all=True), True),
            (JobState.QUEUED, NOTHING, False),
            (JobState.RUNNING, paused, False),
        ):
            self.assertEqual(chosen.takes_live(self.job(state), NOW, now), expected)
        self.assertTrue(
            read_live({"state": "queued"}).takes_live(self.job(JobState.QUEUED), NOW, paused)
        )

    def test_wrong(self) -> None:
        """A filter that is not valid is answered by what is allowed, in one line."""
        for given, text in WRONG:
            with self.subTest(given), self.assertRaises(ValueError) as caught:
                read_live(given)
            self.assertIn(text, str(caught.exception))
            self.assertNotIn("\n", str(caught.exception))

    def test_live(self) -> None:
        """A job is meant if all is true of it that the filter says; prefetched is queued."""
        job = self.job(JobState.RUNNING)
        for given, meant in LIVE:
            self.assertEqual(read_live(given).takes_live(job, NOW, NOTHING), meant, given)
        prefetched = self.job(JobState.PREFETCHED)
        self.assertTrue(read_live({"state": "queued"}).takes_live(prefetched, NOW, NOTHING))
        self.assertTrue(read_live(None).takes_live(prefetched, NOW, NOTHING))

    def test_ended(self) -> None:
        """The same of jobs that have ended; these have an outcome, and their age is from then."""
        job = self.job(JobState.FAILED)
        job.client, job.asker, job.ended_at = None, "127.0.0.1:99", NOW - 5
        job.ended_for = "NOT_FOUND", "it is not there"
        for given, meant in ENDED:
            self.assertEqual(read_ended(given).takes_ended(job, NOW), meant, given)
        job.ended_for = None
        self.assertFalse(read_ended({"outcome": "NOT_FOUND"}).takes_ended(job, NOW))

    def test_watched(self) -> None:
        """Events are wanted by the command and the client of their jobs, and by their kinds."""
        ended = Event("ended", 1.0, 7, "Thumb", "127.0.0.1:99")
        scaled = Event("scaled", 1.0, text="1 to 2 workers")
        for given, kinds, wanted in (
            ({}, None, (True, True)),
            (None, ["ended"], (True, False)),
            ({}, ["started", "scaled"], (False, True)),
            ({}, ["ended"] * len(EVENTS), (True, False)),
            ({}, [], (False, False)),
            ({"command": "Thumb", "client": "127."}, None, (True, False)),
            ({"command": "Other"}, None, (False, False)),
        ):
            matches = read_watched(given, kinds)
            self.assertEqual((matches(ended), matches(scaled)), wanted)
        for given, kinds, text in (
            ({"state": "running"}, None, "no filter 'state': it must be command or client"),
            ({}, ["ended"] * (len(EVENTS) + 1), f"at most {len(EVENTS)} kinds"),
            ({}, ["end"], "no kind of event 'end': it must be accepted, started"),
        ):
            with self.assertRaisesRegex(ValueError, text):
                read_watched(given, kinds)

    def test_states(self) -> None:
        """Operators know the states in which jobs end by the names that these have."""
        self.assertEqual(ENDED_STATES, tuple(state.value for state in END_STATES))

    def test_order(self) -> None:
        """An order is a key, with a sign before it if the largest comes first."""
        self.assertEqual(read_sort("age", JOB_ORDERS), ("age", False))
        self.assertEqual(read_sort("-runtime", JOB_ORDERS), ("runtime", True))
        for wrong in ("--age", "", "-", "Age"):
            with self.assertRaisesRegex(ValueError, "it must be state, age, wait"):
                read_sort(wrong, JOB_ORDERS)

    def test_numbers(self) -> None:
        """There is no list without bounds."""
        filters.check_page(1)
        filters.check_page(MOST, FARTHEST)
        for limit, offset in ((0, 0), (-1, 0), (MOST + 1, 0), (1, -1), (1, FARTHEST + 1)):
            with self.assertRaisesRegex(ValueError, "must be from"):
                filters.check_page(limit, offset)
