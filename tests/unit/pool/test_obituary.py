"""What a worker died of, as far as its process's end, its job and its words tell."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, cast

from twisted.internet import error
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from dangad.errors import Cancelled
from dangad.pool.containment import LastSteps
from dangad.pool.obituary import Obituary
from dangad.scheduler.record import Cause
from tests.fakes import make_job

if TYPE_CHECKING:
    from dangad.host.memory import KernelKills

EXITED = error.ProcessDone(None)
FAILED = error.ProcessTerminated(exitCode=1)
KILLED = error.ProcessTerminated(signal=signal.SIGKILL)


class FakeKernelKills:
    """Knows whether the kernel has killed a process."""

    def __init__(self, more: bool) -> None:
        self.more = more

    def are_more(self) -> bool:
        """As it was told."""
        return self.more


class CauseTest(SynchronousTestCase):
    def cause(
        self,
        end: Exception,
        *,
        running: bool = True,
        stopped: bool = False,
        starved: bool = False,
        words: str | None = None,
        killed_for: str | None = None,
    ) -> Cause:
        """The cause of the death of a worker that ended so."""
        obituary = Obituary(cast("KernelKills", FakeKernelKills(starved)), 0)
        obituary.last_words = words
        job = make_job(None) if running else None
        if job is not None and stopped:
            job.stopped_for = Cancelled("by an operator")
        death = obituary.write(
            Failure(end),
            None,
            LastSteps(4711, None),
            booted=True,
            killed_for=killed_for,
            job=job,
            printed=(),
            unread=b"",
        )
        return death.cause

    def test_stopped(self) -> None:
        """A worker that ends since its job was stopped does as it should; but not if it crashes."""
        self.assertIs(self.cause(EXITED, stopped=True), Cause.RELEASED)
        self.assertIs(self.cause(FAILED, stopped=True), Cause.EXITED)
        self.assertIs(self.cause(KILLED, stopped=True), Cause.CRASHED)

    def test_unasked(self) -> None:
        """A worker that exits in the middle of a job, or without one, was not asked to."""
        self.assertIs(self.cause(EXITED), Cause.EXITED)
        self.assertIs(self.cause(EXITED, running=False), Cause.EXITED)

    def test_memory(self) -> None:
        """It is the same cause whether the worker met its own limit, or the machine's."""
        self.assertIs(self.cause(EXITED, words="ran out of memory"), Cause.MEMORY)
        self.assertIs(self.cause(KILLED, starved=True), Cause.MEMORY)

    def test_killed(self) -> None:
        """What the server itself has killed, it has killed, whatever else is true."""
        self.assertIs(self.cause(KILLED, killed_for="is stuck", starved=True), Cause.KILLED)
        self.assertIs(self.cause(KILLED), Cause.CRASHED)
