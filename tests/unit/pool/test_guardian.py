"""When a guardian that has died is replaced."""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.error import ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from dangad.pool.guardian import LONGEST_DELAY, RESTART_DELAY, Guardian


class Starter(Clock):
    """A clock that starts processes, which write nothing and never exit by themselves.

    :ivar written: what each process was told.
    :ivar refusal: set it to have starts fail with it.
    """

    pid = 4711

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.refusal: OSError | None = None
        self.pipes: dict[int, object] = {}

    def spawnProcess(self, protocol: Any, *_args: object, **_options: object) -> None:
        """See :meth:`IReactorProcess.spawnProcess`."""
        if self.refusal is not None:
            raise self.refusal
        self.written.append(b"")
        protocol.makeConnection(self)

    def write(self, data: bytes) -> None:
        """Tell the last process."""
        self.written[-1] += data


class RestartTests(SynchronousTestCase):
    def test_no_room(self) -> None:
        """While no process can be started this is tried again and again, and told."""
        system = Starter()
        guardian = Guardian(system)
        guardian.start()
        guardian.watch(17)
        system.refusal = OSError(errno.EMFILE, "Too many open files")
        guardian.processExited(Failure(ProcessTerminated(signal=9)))
        system.pump([RESTART_DELAY, *[LONGEST_DELAY] * 10])
        self.assertIsNone(guardian.pid)
        self.assertEqual(len(system.written), 1)
        system.refusal = None
        system.advance(LONGEST_DELAY)
        self.assertEqual(system.written[1:], [b"+17\n"])
        self.assertEqual(guardian.pid, system.pid)
        self.assertEqual(system.getDelayedCalls(), [])
