"""What the parts promise each other; each interface is what one room may ask of the next.

The way of a job crosses them in this order: a client's connection submits to the dispatcher,
which calls :class:`IWorker`; the answer comes back and goes out through :class:`IClient`.
How many workers there are is a conversation of its own: the dispatcher tells
:class:`ISupervisor` that jobs wait, and the supervisor asks :class:`ISpawner` for processes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from dangad.errors import DangadError
    from dangad.scheduler.record import Job


class IClient(Interface):
    """Somebody who submitted jobs and is told the outcome of each, exactly once."""

    name: str = Attribute("Who that is, in a few words for people.")
    outranks: bool = Attribute(
        "Whether its high jobs go before all of others, and its low ones after; never changes."
    )

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

    def abort() -> None:
        """Close the connection: it could not be told of a job, and must not wait for that.

        The dispatcher takes the client for gone, and tells it nothing more.
        """


class IWorker(Interface):
    """A worker process that has said Hello, as the dispatcher sees it."""

    pid: int = Attribute("The process id, for people.")

    def perform(job: Job) -> None:
        """Give the worker `job`; legal only while it is idle.

        Afterwards the dispatcher hears either ``job_finished`` or ``worker_gone``, once.
        Never raises: a worker that cannot take the job is a worker that is about to be gone.
        """

    can_prefetch: bool = Attribute("Whether it can be given jobs ahead.")

    def prefetch(job: Job) -> bool:
        """Give the worker, which is busy, `job` ahead: to begin once it has answered the last.

        It begins such jobs in the order given, of which the dispatcher hears by the answer to
        the one before; it then says `begin`. False if the worker cannot be given this job
        now; then nothing has happened.
        """

    def begin(job: Job) -> None:
        """Hear that `job`, the next of those that it was given ahead, is the one that it runs."""

    def recall() -> list[int]:
        """Take back the jobs given ahead that the worker has not begun; their ids, in order.

        What is not taken back has been begun; the answers to those before it are written.
        """

    def show_stack() -> Deferred[str]:
        """Have the stack of the worker's main thread written to the log, under its job's id.

        Fires soon with what it wrote, as text; with nothing if it could not. Never fails.
        """

    def interrupt(job: Job, why: bytes) -> None:
        """Raise an exception in `job`, the last that the worker has begun: it is to end by itself.

        What the worker had ahead was taken back before.

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
    """A worker from its birth to its death, as the supervisor sees it."""

    performed: int = Attribute("How many jobs it was given.")

    def stop() -> None:
        """Let an idle worker exit by itself, and kill it if it does not; no job may follow."""

    def ping() -> None:
        """Ask for a sign of life, which the supervisor is told as ``worker_answered``.

        A worker gives it when it comes to it: before a job that it is given afterwards, and
        after one that it was given before.
        """

    def has_read() -> bool:
        """Whether the process has read all that it was sent; True if that cannot be told."""

    def verify() -> None:
        """See, now and then, whether the worker, which is busy, has the job that it was given.

        If it has not, because something else has read that, it is killed.
        """

    def memory() -> int:
        """The bytes that the process has in RAM now; 0 if that cannot be told."""


class ISupervisor(Interface):
    """Whoever decides how many workers there are, as the dispatcher sees it."""

    def demand(waiting: int) -> None:
        """Hear that `waiting` jobs wait and no worker is idle, or that few are."""

    def worker_released(worker: IWorker) -> None:
        """Have back a `worker` that has done its last job, and answered it.

        Either it was asked for (``Dispatcher.take_back``), or it is not reusable.
        """


class ISpawner(Interface):
    """Whoever can start worker processes, as the supervisor sees it."""

    def spawn() -> None:
        """Start one worker process.

        Its life is then told to the supervisor: ``worker_started`` before this returns, later
        ``worker_booted`` if it says Hello, and ``worker_exited`` when it is gone. Raises
        OSError if the system has no room for another process; nothing else is told then.
        """


class IOperations(Interface):
    """What operators may see and do, as :mod:`dangad.operators.control` asks for it.

    All documents can be written as JSON; ``docs/reference/control.md`` gives their shapes. Any
    method may be called at any time while the server runs, in the middle of another's wait too.
    Whoever is given a Deferred does not cancel it, and may have lost interest when it fires.
    """

    def status() -> dict[str, Any]:
        """How the server is: its state, its settings, and its counts of workers and jobs."""

    def workers() -> list[dict[str, Any]]:
        """The worker processes that live, each with the job that it runs."""

    def recent() -> list[dict[str, Any]]:
        """The jobs that ended last, the latest last; a thousand at most."""

    def pardon(command: str) -> bool:
        """End the quarantine of a command at once; whether there was any."""

    def want(min_workers: int, max_workers: int, force: bool = False) -> None:
        """Have at least and at most so many workers from now on.

        Returns at once; the workers come and go later. Raises ValueError if the numbers make no
        sense, or the machine has no room for so many and `force` is not set; the text says why,
        in one line.
        """

    def stack(job_id: int) -> Deferred[str]:
        """The Python stack of the job's worker, which is written to the log, too.

        Fires with text of many lines. Fails with NotRunning if no job of this id runs.
        """

    def reload() -> Deferred[None]:
        """Replace the workers, one by one, by ones that have imported the job modules anew.

        Fires when no older worker is left. Fails with ReloadFailed if the new code does not
        start; its text is the reason.
        """

    def drain() -> Deferred[dict[str, int]]:
        """Take no new jobs, finish the accepted ones, and then stop the server.

        Fires when all accepted jobs have ended, with how many ended how, and early enough that
        this can still be told to whoever asked. Asked for twice, it fires for both.
        """
