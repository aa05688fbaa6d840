"""What the parts promise each other; each interface is what one room may ask of the next.

The way of a job crosses them in this order: a client's connection submits to the dispatcher,
which calls :class:`IWorker`; the answer comes back and goes out through :class:`IClient`.
How many workers there are is a conversation of its own: the dispatcher tells
:class:`IWorkforce` that jobs wait, and the workforce asks :class:`IHatchery` for processes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from dangad.errors import DangadError
    from dangad.jobrecord import Job


class IClient(Interface):
    """Somebody who submitted jobs and is told the outcome of each, exactly once."""

    def deliver(job: Job, failed: bool, body: bytes) -> None:
        """Take a worker's answer to `job`: a result, or an error if `failed`.

        `body` is the part of the AMP answer box that follows its tag, as the worker wrote it.
        May submit more jobs before it returns. Never called for a job twice, nor after `fail`.
        """

    def report(job: Job, command: bytes, body: bytes) -> None:
        """Take a worker's news of `job`, which runs: how far it is, or a part of its result.

        `command` is the name of the AMP command that carries it, `body` its arguments but for
        the tag. Only for jobs that asked. May put the client on hold before it returns.
        """

    def fail(job: Job, error: DangadError) -> None:
        """Take the news that `job` ended, or was refused, without an answer of a worker's."""


class IWorker(Interface):
    """A worker process that has said Hello, as the dispatcher sees it."""

    pid: int = Attribute("The process id, for people.")

    def perform(job: Job) -> None:
        """Give the worker `job`; legal only while it is idle.

        Afterwards the dispatcher hears either ``job_finished`` or ``worker_gone``, once.
        Never raises: a worker that cannot take the job is a worker that is about to be gone.
        """

    def show_stack() -> Deferred[str]:
        """Have the stack of the worker's main thread written to the log, under its job's id.

        Fires soon with what it wrote, as text; with nothing if it could not. Never fails.
        """

    def interrupt(job: Job, why: bytes) -> None:
        """Raise an exception in `job`, which the worker was given last: it is to end by itself.

        `why` is "cancelled" or "time". It does nothing if the job has ended in the worker
        already. Whether and how the job ends is then told as always; kill what does not.
        """

    def pause() -> None:
        """Take nothing more of what the job writes, so that it waits; until `resume`.

        What was read already may still be told, the end of the job included, which resumes.
        """

    def resume() -> None:
        """Take again what the job writes."""

    def kill(reason: str) -> None:
        """End the process and its process group now; ``worker_gone`` follows, and nothing else."""


class IProcess(IWorker):
    """A worker from its birth to its death, as the workforce sees it."""

    performed: int = Attribute("How many jobs it was given.")

    def stop() -> None:
        """Let an idle worker exit by itself, and kill it if it does not; no job may follow."""

    def ping() -> None:
        """Ask for a sign of life, which the workforce is told as ``worker_answered``.

        A worker gives it when it comes to it: before a job that it is given afterwards, and
        after one that it was given before.
        """

    def memory() -> int:
        """The bytes that the process has in RAM now; 0 if that cannot be told."""


class IWorkforce(Interface):
    """Whoever decides how many workers there are, as the dispatcher sees it."""

    def demand(waiting: int) -> None:
        """Hear that `waiting` jobs wait and no worker is idle, or that few are."""

    def worker_released(worker: IWorker) -> None:
        """Have back a `worker` that has done its last job, and answered it.

        Either it was asked for (``Dispatcher.take_back``), or it is not fit for another.
        """


class IHatchery(Interface):
    """Whoever can start worker processes, as the workforce sees it."""

    def spawn() -> None:
        """Start one worker process.

        Its life is then told to the workforce: ``worker_started`` before this returns, later
        ``worker_booted`` if it says Hello, and ``worker_exited`` when it is gone. Raises
        OSError if the system has no room for another process; nothing else is told then.
        """
