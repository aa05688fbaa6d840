"""All that one worker prints: while a job runs, between two jobs, and its stack when that is asked.

Kept by :mod:`dangad.pool.link`. What is printed becomes lines in :mod:`dangad.pool.output`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet import defer

from dangad.pool.containment import contained
from dangad.pool.output import JobOutput
from dangad.wire import commands

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from dangad.pool.connector import Connector
    from dangad.pool.outputlog import OutputLog

FLOOD_REST = 0.002
"""Seconds for which output that is only counted any more is not read, after each piece of it."""
STACK_TIME = 0.5
"""Seconds for which a stack that was asked for is waited for."""


class WorkerOutput:
    """What a worker prints. While it is more than is logged, it is read with rests."""

    transport: Connector

    def __init__(
        self,
        clock: IReactorTime,
        output_log: OutputLog | None,
        fault: Callable[[str], None],
    ) -> None:
        """Begin with nothing.

        :param output_log: where the lines go, with those of other workers.
        :param fault: see :meth:`~dangad.pool.containment.Faulty.fault`.
        """
        self.fault = fault
        #: What the worker prints: it is the running job's.
        self.of_job = JobOutput(clock, output_log)
        #: What is printed by what earlier jobs have left behind.
        self.left_over = JobOutput(clock, output_log)
        self._clock = clock
        #: The call that has the output read again; None if it is being read.
        self._rest: IDelayedCall | None = None

    def connect(self, connector: Connector) -> None:
        """Begin: the process has been started."""
        self.transport = connector
        self.of_job.pid = self.left_over.pid = connector.pid

    @contained(None)
    def received(self, data: bytes, left_over: bool) -> None:
        """Take what was printed; `left_over` if it comes of what an earlier job has left behind.

        Where that is too much, the worker is not read for a moment, so that it waits, and not the
        parent.
        """
        output = self.left_over if left_over else self.of_job
        output.received(data)
        if output.floods and self._rest is None:
            self.transport.pause_output()
            self._rest = self._clock.callLater(FLOOD_REST, self._read_on)

    @contained(None)
    def _read_on(self) -> None:
        self._rest = None
        self.transport.resume_output()

    def show_stack(self) -> defer.Deferred[str]:
        """See :meth:`IProcess.show_stack`."""
        lines: list[str] = []
        shown: defer.Deferred[str] = defer.Deferred()

        def end() -> None:
            self.of_job.end_listening(lines)
            shown.callback("".join(f"{line}\n" for line in lines))

        def end_now(result: object) -> object:
            if alarm.active():
                alarm.cancel()
                end()
            return result

        self.transport.drain_output()
        self.of_job.listen(lines)
        self.transport.signal(commands.STACK_SIGNAL)
        alarm = self._clock.callLater(STACK_TIME, end)
        self.transport.finished.addBoth(end_now)
        return shown

    def stop_resting(self) -> None:
        """Have nothing left on the clock: the worker is gone, and what it printed has been read."""
        if self._rest is not None:
            self._rest.cancel()
