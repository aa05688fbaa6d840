"""The samples behind the curves."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dangad.web.history import LENGTH, SERIES, History
from tests.unit.web.busyoperations import BusyOperations


class HistoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Begin to sample a server."""
        self.clock = Clock()
        self.operations = BusyOperations(self.clock)
        self.history = History(self.clock, self.operations, self.clock.seconds)
        self.history.start()
        self.addCleanup(self.history.stop)

    def end_jobs(self, **ends: int) -> None:
        """Let jobs end within a second."""
        jobs = self.operations.status_document["jobs"]
        self.operations.status_document["jobs"] = {
            **jobs,
            **{end: jobs[end] + number for end, number in ends.items()},
        }
        self.clock.advance(1)

    def test_rates(self) -> None:
        """Jobs that ended are told for each second, and the rest as it was."""
        self.end_jobs(done=7, failed=2, lost=1)
        self.end_jobs(done=3)
        series = self.history.series()
        self.assertEqual(series["done"], [None, 7.0, 3.0])
        self.assertEqual(series["failed"], [None, 3.0, 0.0])
        self.assertEqual(series["waiting"], [214] * 3)
        self.assertEqual(series["time"], [0.0, 1.0, 2.0])

    def test_late(self) -> None:
        """A sample that comes late tells jobs a second, too."""
        jobs = self.operations.status_document["jobs"]
        self.operations.status_document["jobs"] = {**jobs, "done": jobs["done"] + 12}
        self.clock.advance(4)
        self.assertEqual(self.history.series()["done"], [None, 3.0])

    def test_bounded(self) -> None:
        """Fifteen minutes are kept."""
        for _ in range(LENGTH + 100):
            self.clock.advance(1)
        series = self.history.series()
        self.assertEqual([len(series[name]) for name in SERIES], [LENGTH] * len(SERIES))
        self.assertEqual(series["time"][-1], LENGTH + 100)

    def test_last(self) -> None:
        """The latest sample has all fields, and none while there is no sample."""
        self.assertEqual(self.history.last()["p50"], 0.03)
        empty = History(self.clock, self.operations)
        self.assertEqual(empty.last(), dict.fromkeys(SERIES))

    def test_stop(self) -> None:
        """Nothing is left to do after the end."""
        self.history.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
