"""The interface through which a worker's link reaches the worker's process and its pipes.

Called by :mod:`dangad.pool.link`; provided in :mod:`dangad.pool.processes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from dangad.pool.jobpipe import JobPipe


class Connector(Protocol):
    """A worker's process and pipes; :class:`dangad.pool.processes.WorkerConnector` is one."""

    #: The process's id.
    pid: int
    #: Fires when the process is gone and its pipes are closed.
    finished: Deferred[str]

    @property
    def jobs(self) -> JobPipe:
        """The pipe through which the worker gets its jobs."""

    def signal(self, number: int) -> None:
        """Send the process a signal, if it has not exited."""

    def say(self, box: bytes) -> None:
        """Write a box that the worker reads when it gets `commands.STOP_SIGNAL`."""

    def pause(self) -> None:
        """Stop reading what the worker writes to its pipe."""

    def resume(self) -> None:
        """Read the worker's pipe again."""

    def kill(self) -> None:
        """Kill the process, if it has not exited; its group is killed when it has."""

    def kill_group(self) -> None:
        """Kill the process group, whether the process is gone or not."""

    def kill_tracers(self) -> None:
        """Kill processes of the worker's jobs that trace it, and so keep it from being gone."""

    def close_input(self) -> None:
        """Close the pipe of jobs: the worker exits when it is idle."""

    def pause_output(self) -> None:
        """Stop reading the worker's output; a worker that prints on will block."""

    def resume_output(self) -> None:
        """Read the worker's output again."""

    def drain_output(self) -> None:
        """Read what the worker has printed so far."""
