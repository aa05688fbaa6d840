"""What is remembered of the lines that jobs have printed."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dangad.pool.output import TAIL, JobOutput
from dangad.pool.outputlog import OutputLog
from dangad.pool.outputmemory import LONGEST_KEPT, MOST_KEPT, REMEMBERED
from dangad.scheduler.record import Job


def a_job(number: int) -> Job:
    """A job with this id."""
    return Job(number, None, None, b"Echo", b"")


class OutputMemoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Make a worker's output."""
        super().setUp()
        clock = Clock()
        self.log = OutputLog(clock)
        self.lines_of = self.log.memory.lines_of
        self.output = JobOutput(clock, self.log)

    def test_while_and_after(self) -> None:
        """The last lines of a job are there while it runs, after its end, and during the next."""
        self.output.received(b"importing\n")
        self.output.begin_job(a_job(7))
        self.assertEqual(self.lines_of(7), [])
        self.output.received(b"one\ntwo\nthr")
        self.assertEqual(self.lines_of(7), ["one", "two"])
        self.output.received(b"ee\n")
        self.output.end_job()
        self.assertEqual(self.lines_of(7), ["one", "two", "three"])
        self.output.begin_job(a_job(8))
        self.output.received(b"four\n")
        self.assertEqual(self.lines_of(7), ["one", "two", "three"])
        self.assertEqual(self.lines_of(8), ["four"])

    def test_death(self) -> None:
        """What the job of a dead worker has printed is there; so is that of its next attempt."""
        for line in (b"first\n", b"second\n"):
            output = JobOutput(Clock(), self.log)
            output.begin_job(a_job(7))
            output.received(line)
            output.close()
            self.assertEqual(self.lines_of(7), [line.decode().strip()])

    def test_silent(self) -> None:
        """Of jobs that print nothing, nothing is remembered."""
        for number in range(1, 4):
            self.output.begin_job(a_job(number))
            self.output.end_job()
        self.output.close()
        self.assertEqual((self.log.memory._present, len(self.log.memory._kept)), ({}, 0))

    def test_bounds(self) -> None:
        """However much jobs print, little is kept of each, and nothing of those of long ago."""
        for number in range(1, REMEMBERED + 3):
            self.output.begin_job(a_job(number))
            self.output.received(b"x" * 3000 + b"\n")
            self.output.received(b"%d\n" % number * (TAIL + 10))
            self.output.end_job()
        self.output.begin_job(a_job(REMEMBERED + 3))
        self.output.received((b"y" * 4000 + b"\n") * 50)
        self.output.close()
        self.assertEqual([self.lines_of(number) for number in (1, 2, 3)], [[]] * 3)
        self.assertEqual(self.lines_of(4), ["4"] * TAIL)
        kept = self.lines_of(REMEMBERED + 3)
        self.assertEqual({len(line) for line in kept}, {LONGEST_KEPT})
        self.assertLess(len("".join(kept)), MOST_KEPT + LONGEST_KEPT)
