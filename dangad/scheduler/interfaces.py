"""What the parts promise each other; each interface is what one part may ask of another.

A job crosses them in this order. A client's connection submits it to the dispatcher. The dispatcher
gives it to an :class:`IWorker`. The answer comes back through :class:`IJobEvents`, and goes out
through :class:`IClient`. The number of workers is another conversation: the dispatcher tells the
:class:`ISupervisor` that jobs wait, and the supervisor asks the :class:`ISpawner` for processes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from twisted.internet.defer import Deferred

    from dangad.errors import DangadError
    from dangad.scheduler.record import Death, Job
    from dangad.scheduler.workerhistory import Gone
    from dangad.scheduler.workerrecord import RecycleLimits, WorkerState


class IClient(Interface):
    """The sender of jobs. It is told the outcome of each job, exactly once."""

    name: str = Attribute("Who it is, in a few words for people.")
    outranks: bool = Attribute(
        "Whether its high jobs go before all jobs of others, and its low ones after; never changes."
    )

    peer: Hashable = Attribute(
        "Who is behind it, as far as the system can tell; several clients may have the same peer."
    )
    was_served: bool = Attribute(
        "Whether a worker has ever answered one of its jobs. False at first; the dispatcher "
        "sets it."
    )

    def deliver(job: Job, failed: bool, body: bytes | memoryview) -> None:
        """Take a worker's answer to `job`: a result, or an error if `failed`.

        `body` is the part of the AMP answer box that follows its tag, as the worker wrote it, with
        the end of the box; a view of the bytes if it is large. Like the request in ``job.box``, it
        is AMP whatever protocol the client speaks: a front door for another protocol translates it.
        May submit more jobs before it returns. Never called for a job twice, nor after `fail`.
        """

    def report(job: Job, body: bytes | memoryview, parts: bool) -> None:
        """Take a worker's news of `job`, which runs: a part of its result, or its progress.

        Called only if the request asked for such news. `body` is what the worker wrote: the
        arguments of the AMP command that carries the news to the client, without the tag. May put
        the client on hold before it returns.
        """

    def fail(job: Job, error: DangadError) -> None:
        """Learn that `job` was refused, or ended without an answer from a worker."""

    def abort() -> None:
        """Close the connection: telling it of a job failed, and it must not wait for the outcome.

        The dispatcher treats the client as gone, and tells it nothing more.
        """


class IWorker(Interface):
    """A worker process that has said Hello, as the dispatcher sees it.

    It runs the jobs that it was given in that order, one at a time.
    """

    pid: int = Attribute("The process id, for people.")
    room: int = Attribute("How many jobs it takes now, besides the one that it runs.")

    def give(job: Job) -> bool:
        """Give the worker `job`, to be begun at once, or after the jobs that it already has.

        For each job that it has begun, the dispatcher hears either ``job_finished`` or
        ``worker_gone``, once, in the order of the jobs. False if a busy worker cannot be given this
        job now; then nothing has happened.
        """

    def reclaim() -> list[int]:
        """Reclaim the jobs that the worker has not begun; returns their ids, in order.

        A job that is not reclaimed has been begun, and the answers to the jobs before it are
        written.
        """

    def interrupt(job: Job, why: bytes) -> None:
        """Raise an exception in `job`, so that it ends by itself.

        `job` is the last job that the worker has begun; all jobs that it has not begun must have
        been reclaimed before. `why` is "cancelled" or "time"; with "time" the job's stack is
        logged, too. Does nothing if the job has already ended in the worker. The end is reported as
        always. If the job does not end, kill the worker.
        """

    def pause() -> None:
        """Read nothing more of what the job writes, so that the job waits, until `resume`.

        News that was already read may still be reported. So may the job's end, which resumes.
        """

    def resume() -> None:
        """Read again what the job writes."""

    def kill(reason: str) -> None:
        """End the process and its process group now; ``worker_gone`` follows, and nothing else."""


class IJobEvents(Interface):
    """Hears what becomes of the jobs that workers have."""

    def job_reported(worker: IWorker, body: bytes | memoryview, parts: bool) -> None:
        """The job that `worker` runs has news for its client: see :meth:`IClient.report`."""

    def job_finished(
        worker: IWorker,
        failed: bool,
        body: bytes | memoryview,
        usage: bytes = b"",
        *,
        reusable: bool = True,
        printed: bool = False,
    ) -> None:
        """`worker` has answered the job that it ran, with an error if `failed`.

        The worker is idle now, or has begun its next job.

        :param body: the answer.
        :param usage: what the job used, in the form of ``Job.usage``.
        :param reusable: whether the worker may be given another job; if not, it begins no other.
        :param printed: whether the job has printed something.
        """


class IJournal(Interface):
    """Watches the lives of jobs. It is told of each event once the scheduler's state is whole.

    It changes nothing. An exception of it is logged, and concerns nobody else.
    """

    def job_accepted(job: Job) -> None:
        """`job` was accepted."""

    def job_started(job: Job) -> None:
        """A worker has begun `job`; it may have ended since."""

    def job_retried(job: Job, error: DangadError) -> None:
        """`job` has lost its worker, and is to be tried again."""

    def job_ended(job: Job) -> None:
        """`job` has ended."""

    def job_refused(job: Job, error: DangadError) -> None:
        """`job` was not accepted."""


class IWorkerJournal(Interface):
    """Watches the lives of workers, as :class:`IJournal` does those of jobs."""

    def worker_started(process: IProcess) -> None:
        """`process` was started, and has not said Hello yet."""

    def worker_ready(process: IProcess) -> None:
        """`process` has said Hello."""

    def worker_gone(gone: Gone) -> None:
        """A worker has died."""


class IWorkerEvents(Interface):
    """Hears of the lives of worker processes, from their starts to their deaths."""

    recycle_limits: RecycleLimits = Attribute("When a worker is to be recycled.")

    def worker_started(process: IProcess) -> None:
        """`process` was started, and has not said Hello yet."""

    def worker_booted(worker: IWorker, catalogue: str) -> None:
        """`worker` has said Hello, with the catalogue of the job types that it performs."""

    def worker_answered(worker: IWorker) -> None:
        """`worker` has given a sign of life."""

    def recycle_worker(worker: IWorker, why: str) -> None:
        """`worker` has done enough and is to be replaced; until then it may go on."""

    def worker_exited(worker: IWorker, death: Death, performed: int) -> None:
        """`worker` is gone, and its process group with it. A second report does no harm.

        :param death: what ended the worker.
        :param performed: how many jobs the worker has begun.
        """


class IProcess(IWorker):
    """A worker from its birth to its death, as the supervisor sees it."""

    state: WorkerState = Attribute("Where it is in its life.")
    performed: int = Attribute("How many jobs it has begun.")

    def show_stack() -> Deferred[str]:
        """Write the stacks of the worker's threads to the log, under its job's id.

        Fires soon with the text, or with an empty text if the worker could not write it. Never
        fails.
        """

    def stop() -> None:
        """Let an idle worker exit by itself, and kill it if it does not. It gets no more jobs."""

    def ping() -> None:
        """Ask for a sign of life; the supervisor hears of it through ``worker_answered``.

        A worker answers in turn: after the jobs that it was given before the question, and before
        the jobs that it is given afterwards.
        """

    def has_read() -> bool:
        """Whether the process has read all that it was sent; True if this is not known."""

    def verify() -> None:
        """Check that the worker, which is busy, has the job that it was given; call now and then.

        If another process has read the job, the worker is killed.
        """

    def memory() -> int:
        """The bytes that the process has in RAM now; 0 if this is not known."""


class ISupervisor(Interface):
    """Decides how many workers there are; as the dispatcher sees it."""

    def demand(waiting: int) -> None:
        """Hear that `waiting` jobs wait and no idle worker can start one, or that few are idle."""

    def worker_doomed(worker: IWorker) -> None:
        """Hear that `worker`, whose job is being stopped, exits soon: a replacement may start."""

    def worker_released(worker: IWorker) -> None:
        """Receive a `worker` that has answered its last job.

        Either the supervisor asked for it (``Dispatcher.call_back``), or it is not reusable.
        """


class ISpawner(Interface):
    """Starts worker processes; as the supervisor sees it."""

    def spawn() -> None:
        """Start one worker process.

        The supervisor hears of its life: ``worker_started`` before this returns, later
        ``worker_booted`` if it says Hello, and ``worker_exited`` when it is gone. Raises OSError if
        the system has no room for another process; then the supervisor hears nothing.
        """

    def renew(done: Callable[[str | None], object]) -> None:
        """Prepare to start workers with the present code of the jobs, which has changed.

        Workers start with the old code until `done` is called.

        :param done: called once, perhaps before this returns. With None: from now on workers start
            with the present code. With a reason: they cannot, and the old code stays. If this
            method is called again before that, the earlier `done` is never called.
        """

    def end_renewal(proven: bool) -> None:
        """Hear whether a worker has booted with the present code since `done` was called with None.

        If not, workers start with the old code again.
        """
