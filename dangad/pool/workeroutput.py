"""All output of one worker: during a job, between two jobs, and its stack on request.

Kept by :mod:`dangad.pool.link`. :mod:`dangad.pool.output` makes lines of it.
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
"""Seconds for which reading rests after each piece of output whose lines are only counted."""
STACK_TIME = 0.5
"""Seconds to wait for a requested stack."""


class WorkerOutput:
    """A worker's output. While it prints more than is logged, reading rests after each piece."""

    transport: Connector

    def __init__(
        self,
        clock: IReactorTime,
        output_log: OutputLog | None,
        fault: Callable[[str], None],
    ) -> None:
        """Begin with nothing.

        :param output_log: where the lines go; shared with other workers.
        :param fault: see :meth:`~dangad.pool.containment.Faulty.fault`.
        """
        self.fault = fault
        #: The output of the running job.
        self.of_job = JobOutput(clock, output_log)
        #: The output of threads and calls that earlier jobs have left behind.
        self.left_over = JobOutput(clock, output_log)
        self._clock = clock
        #: The call that resumes reading; None while the output is read.
        self._rest: IDelayedCall | None = None

    def of_process(self, pid: int) -> None:
        """Note the id of the process that prints."""
        self.of_job.pid = self.left_over.pid = pid

    def connect(self, connector: Connector) -> None:
        """Begin: the process has started."""
        self.transport = connector

    @contained(None)
    def received(self, data: bytes, left_over: bool) -> None:
        """Take output of the worker.

        After too much output the pipe is not read for a moment: the worker waits, not the parent.

        :param left_over: whether threads or calls that an earlier job left behind have printed it.
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
        """Leave no call on the clock: the worker is gone, and its output has been read."""
        if self._rest is not None:
            self._rest.cancel()
