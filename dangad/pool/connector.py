"""What a worker's link asks of whoever holds the worker's process and its pipes.

Between :mod:`dangad.pool.link`, which asks, and :mod:`dangad.pool.processes`, where it is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from dangad.pool.jobpipe import JobPipe


class Connector(Protocol):
    """As the module says; provided by :class:`dangad.pool.processes.WorkerConnector`."""

    #: The process's id.
    pid: int
    #: Fires when the process is gone and its pipes are closed.
    finished: Deferred[str]

    @property
    def jobs(self) -> JobPipe:
        """The pipe through which it gets its jobs."""

    def signal(self, number: int) -> None:
        """Send the process a signal, if it has not exited."""

    def say(self, box: bytes) -> None:
        """Write a box that the worker reads when it is told to look by a signal."""

    def pause(self) -> None:
        """Do not read what the worker writes to its pipe."""

    def resume(self) -> None:
        """Read it again."""

    def kill(self) -> None:
        """Kill the process, if it is not gone yet; its group goes once it has exited."""

    def kill_group(self) -> None:
        """Kill its process group, whether it is gone or not."""

    def kill_tracers(self) -> None:
        """Kill those of its jobs' processes that trace it, and keep it from being gone."""

    def close_input(self) -> None:
        """Close the pipe towards the worker, which ends it once it is idle."""

    def pause_output(self) -> None:
        """Do not read what it prints, so that in the end it blocks."""

    def resume_output(self) -> None:
        """Read it again."""

    def drain_output(self) -> None:
        """Read what the worker has printed so far."""
