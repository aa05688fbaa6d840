"""The worker processes and their pipes, kept by ampoule.

On a job's way this comes between :mod:`dangad.pool.link`, which is the worker as the dispatcher
knows it, and :mod:`dangad.worker.child`, which performs jobs. :class:`WorkerPool` starts processes
when :mod:`dangad.scheduler.supervisor` asks. No other file of the parent knows ampoule. The
docstring of each override says how it differs from ampoule, and why:

- ampoule's own job queue and its ``doWork`` are not used, so their faults cannot occur here.
- A worker dies when its process exits, not when its last descriptor is closed: a process that a
  job left behind may hold this descriptor.
- Workers are reaped here, and not by Twisted, to learn what resources they used.
- ampoule's child program serves AMP from a reactor; dangad's blocks.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ampoule import iampoule
from ampoule.main import AMPConnector, ProcessStarter
from ampoule.pool import ProcessPool
from twisted.internet import defer, error
from twisted.internet.process import reapProcessHandlers, unregisterReapProcessHandler
from twisted.logger import Logger
from zope.interface import implementer

from dangad.host.memory import KernelKills
from dangad.host.reaping import Taken, reap
from dangad.limits import FRESH, PRELOADED
from dangad.pool.forkedprocess import ForkedProcess
from dangad.pool.jobpipe import JobPipe, Scratch, waiting
from dangad.pool.launch import BOOTSTRAP, working_directory
from dangad.pool.link import WorkerLink
from dangad.pool.orphans import kill_group, kill_tracers
from dangad.pool.outputlog import OutputLog
from dangad.pool.template import Template
from dangad.pool.templateprocess import start_template
from dangad.pool.witness import Witness
from dangad.scheduler.interfaces import ISpawner

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from twisted.internet.interfaces import IReactorTime
    from twisted.python.failure import Failure

    from dangad.pool.guardian import Guardian
    from dangad.pool.launch import WorkerSettings
    from dangad.scheduler.interfaces import IJobEvents
    from dangad.scheduler.supervisor import Supervisor

log = Logger()

STDIN, STDOUT, STDERR = 0, 1, 2
TO_WORKER, FROM_WORKER = 3, 4
"""The descriptors of a worker's pipes for jobs and for answers, as ampoule numbers them."""


class WorkerConnector(AMPConnector):
    """ampoule's process protocol, for workers that lead a process group and may die at any time.

    For ampoule a worker is dead when the last descriptor that it held is closed. A process that a
    job left behind can put this off for ever. Here a worker is dead when its process exits. Then
    the rest in its pipes is read, its group is killed, and the pipes are closed.
    """

    amp: WorkerLink
    finished: defer.Deferred[str]
    #: The pipe through which the worker gets its jobs; there is none before the process starts.
    jobs: JobPipe

    def __init__(self, link: WorkerLink, scratch: Scratch, settings: bytes, mark: str = "") -> None:
        """Begin without a process.

        :param settings: the line of settings for the process's stdin.
        :param mark: the server's mark, which its workers and their descendants carry.
        """
        super().__init__(link)
        self._mark = mark
        #: The ids of spared tracers that were logged.
        self._told_of: set[int] = set()
        self._settings = settings
        self._scratch = scratch
        #: What the process used, once it is reaped; None before, or if this is not known.
        self._taken: Taken | None = None

    @property
    def pid(self) -> int:
        """The process's id; 0 before the process exists, and after its end."""
        return self.transport.pid or 0

    def connectionMade(self) -> None:
        """Begin: send the worker its settings on stdin. Later `say` writes there, too."""
        self.transport.reapProcess = self._reap
        if self._settings:
            self.transport.pipes[STDIN].write(self._settings)
        self.jobs = JobPipe(self.transport.pipes[TO_WORKER], self._scratch)
        self._see_to(self.jobs.open)
        self.amp.makeConnection(self)
        if self.pid:
            self.forked(self.pid)

    def forked(self, pid: int) -> None:
        """Note that the process exists now: it was started, or forked by the template."""
        self._see_to(self.amp.has_process, pid)

    def _reap(self) -> None:
        """Reap the process if it is dead.

        This replaces Twisted's method, which does not ask for resource usage. Twisted calls it at
        each SIGCHLD, and when the process's pipes are closed.
        """
        process = self.transport
        if process.pid is None:
            return
        try:
            reaped = reap(process.pid, forked=isinstance(process, ForkedProcess))
        except ChildProcessError:
            return
        if reaped is not None:
            status, self._taken = reaped
            if process.pid in reapProcessHandlers:  # not so if the fork was dead at once
                unregisterReapProcessHandler(process.pid, process)
            process.processEnded(status)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Pass on the worker's boxes, and its output."""
        if childFD == FROM_WORKER:
            self.amp.dataReceived(data)
        else:
            self.amp.printed.received(data, left_over=childFD == STDOUT)

    def childConnectionLost(self, childFD: int) -> None:
        """Tell the link that the worker closed its pipe; other descriptors may be closed freely."""
        if childFD in (TO_WORKER, FROM_WORKER):
            self._see_to(self.amp.pipe_closed)

    def processExited(self, reason: Failure) -> None:
        """Deal with the worker's death: see the class. Each step is taken, even if others fail."""
        for fd in (FROM_WORKER, STDERR, STDOUT):
            self._see_to(self._drain, fd)
        if self.amp.pid:
            self._see_to(kill_group, self.amp.pid)
        self.amp.exited(reason, self._taken)
        self._see_to(self.jobs.close)
        for fd in list(self.transport.pipes):
            self._see_to(self.transport.closeChildFD, fd)

    def processEnded(self, status: Failure) -> None:
        """Tell ampoule to forget the process, whatever its status.

        ampoule's own version fails `finished` for any status but 0, which is logged as fatal.
        """
        self.finished.callback(f"worker {self.amp.pid}")

    def signal(self, number: int) -> None:
        """Send the worker's process a signal, if it has not exited."""
        with contextlib.suppress(error.ProcessExitedAlready):
            self.transport.signalProcess(number)

    def pause(self) -> None:
        """Stop reading the worker's pipe; a worker that writes on will block."""
        self._stop_reading(FROM_WORKER)

    def resume(self) -> None:
        """Read the worker's pipe again."""
        self._start_reading(FROM_WORKER)

    def pause_output(self) -> None:
        """Stop reading the worker's output."""
        self._stop_reading(STDOUT)
        self._stop_reading(STDERR)

    def resume_output(self) -> None:
        """Read the worker's output again."""
        self._start_reading(STDOUT)
        self._start_reading(STDERR)

    def _stop_reading(self, fd: int) -> None:
        if fd in self.transport.pipes:
            self.transport.pipes[fd].stopReading()

    def _start_reading(self, fd: int) -> None:
        if fd in self.transport.pipes:
            self.transport.pipes[fd].startReading()

    def kill(self) -> None:
        """Kill the process, if it has not exited; its group is killed when it has."""
        with contextlib.suppress(error.ProcessExitedAlready):
            self.transport.signalProcess("KILL")

    def kill_group(self) -> None:
        """Kill the process group now, without waiting for the process to exit."""
        if self.amp.pid:
            self._see_to(kill_group, self.amp.pid)

    def kill_tracers(self) -> None:
        """Kill processes of jobs that trace the process; log other tracers once."""
        if self.amp.pid:
            self._see_to(self._kill_tracers)

    def _kill_tracers(self) -> None:
        killed, others = kill_tracers(self.amp.pid, self._mark)
        if killed:
            text = "worker {worker} was killed, and now {pids}, which traced it, too"
            log.warn(text, worker=self.amp.pid, pids=sorted(killed))
        if others - self._told_of:
            self._told_of |= others
            log.warn(
                "worker {worker} was killed, but {pids}, which trace it and are none of a job's, "
                "keep it from being gone, and its job from its end: have them let it go",
                worker=self.amp.pid,
                pids=sorted(others),
            )

    def say(self, box: bytes) -> None:
        """Write a small box to the worker's stdin; the worker reads it when a signal says so.

        There is room for it, or the worker has closed its end.
        """
        if STDIN in self.transport.pipes:
            with contextlib.suppress(OSError):
                os.write(self.transport.pipes[STDIN].fileno(), box)

    def close_input(self) -> None:
        """Close the pipe of jobs: the worker exits when it is idle."""
        self.transport.closeChildFD(TO_WORKER)

    def drain_output(self) -> None:
        """Read what the worker has printed so far, so that it counts as the last job's output."""
        self._drain(STDERR)

    def _see_to(self, act: Callable[..., object], *args: object) -> None:
        """Take a step that must not prevent the next one: log it if it fails."""
        try:
            act(*args)
        except Exception:  # noqa: BLE001 - any failure concerns this worker alone
            log.failure("worker {worker}: {act} failed", worker=self.amp.pid, act=act.__name__)

    def _drain(self, fd: int) -> None:
        """Read the bytes that are in the worker's pipe `fd` now, and none that come later."""
        pipe = self.transport.pipes.get(fd)
        if pipe is None:
            return
        try:
            left = waiting(pipe.fileno())
            while left > 0:
                data = os.read(pipe.fileno(), left)
                left -= len(data) or left
                self.childDataReceived(fd, data)
        except OSError as problem:
            if problem.errno not in (errno.EAGAIN, errno.EBADF):
                raise


@implementer(iampoule.IStarter)
class WorkerStarter(ProcessStarter):
    """ampoule's starter, for dangad's own child program, which runs no reactor."""

    def __init__(
        self,
        clock: IReactorTime,
        settings: WorkerSettings,
        scratch: Scratch,
        guardian: Guardian,
        known: Callable[[], Collection[int]],
    ) -> None:
        super().__init__(bootstrap=BOOTSTRAP, uid=settings.uid, gid=settings.gid)
        from twisted.internet import reactor  # which is ampoule's, too

        self._reactor: Any = reactor
        self._settings = settings
        self._scratch = scratch
        #: Forks the workers; not used with ``--start fresh``.
        self.template = Template(
            clock,
            reactor,
            guardian,
            lambda *args, **how: start_template(reactor, self._settings, *args, **how),
            Witness(known),
            preload_time=settings.start_timeout if settings.start == PRELOADED else None,
        )

    def startAMPProcess(
        self, ampChild: object, ampParent: Any = None, ampChildArgs: tuple[str, ...] = ()
    ) -> tuple[WorkerLink, defer.Deferred[str]]:
        """Start a worker. ampoule calls this; `ampChild` and `ampChildArgs` are not used."""
        settings = self._settings
        forks = settings.start != FRESH and self.template.given_up is None
        told = b"" if forks else settings.process_input()
        connector = WorkerConnector(ampParent(), self._scratch, told, settings.mark)
        if forks:
            ForkedProcess(self._reactor, connector, self.template)
            return connector.amp, connector.finished
        self.env = settings.process_environment()
        started: tuple[WorkerLink, defer.Deferred[str]]
        started = self.startPythonProcess(connector, "dangad-worker")
        return started

    def settle(self) -> None:
        """See :meth:`WorkerPool.settle`."""
        directory = self._settings.directory or working_directory()
        self._settings = replace(self._settings, directory=directory)


@implementer(ISpawner)
class WorkerPool(ProcessPool):
    """ampoule's pool: it starts the worker processes, counts them, and stops them.

    The supervisor decides how many workers there are, and the dispatcher gives them jobs. So
    ampoule's ``doWork`` is never called and its queue is always empty. Its pruning of idle
    workers, which the constructor starts on the global reactor, is stopped at once.
    """

    def __init__(
        self,
        clock: IReactorTime,
        supervisor: Supervisor,
        events: IJobEvents,
        guardian: Guardian,
        settings: WorkerSettings,
    ) -> None:
        kernel_kills = KernelKills()
        output_log = self.output_log = OutputLog(clock)
        self._scratch = Scratch()
        self._guardian = guardian
        super().__init__(
            ampParent=lambda: WorkerLink(
                clock, supervisor, events, guardian, kernel_kills, settings.max_payload, output_log
            ),
            min=0,
            max=supervisor.max_workers,
            recycleAfter=0,
            starter=WorkerStarter(clock, settings, self._scratch, guardian, lambda: self.pids),
        )
        self.looping.stop()
        self.started = True

    def _addProcess(self, child: WorkerLink, finished: defer.Deferred[Any]) -> None:  # noqa: N802
        """Count a worker until its end. ampoule would log the end, too, but the link does so."""
        super()._addProcess(child, defer.Deferred())
        self._finishCallbacks[child] = finished.addCallback(lambda _: self._pruneProcess(child))

    def settle(self) -> None:
        """Let all workers run in the present working directory, unless the settings name one.

        The path counts: a deployment may remove the directory and make it again.
        """
        self.starter.settle()

    def spawn(self) -> None:
        """See :meth:`ISpawner.spawn`."""
        try:
            self._scratch.open()
            self.startAWorker()
        except OSError:
            raise
        except Exception as problem:
            log.failure("cannot start a worker")
            raise OSError(str(problem)) from problem

    def renew(self, done: Callable[[str | None], object]) -> None:
        """See :meth:`ISpawner.renew`."""
        self.starter.template.renew(done)

    def end_renewal(self, proven: bool) -> None:
        """See :meth:`ISpawner.end_renewal`."""
        self.starter.template.end_renewal(proven)

    @property
    def is_forking(self) -> bool:
        """Whether there may be workers whose process ids are not known yet."""
        template: Template = self.starter.template
        return template.is_forking

    @property
    def pids(self) -> set[int]:
        """The children of the server: its workers, templates, and the guardian."""
        others: set[int] = self.starter.template.pids | {self._guardian.pid or 0}
        return ({link.pid for link in self.processes} | others) - {0}

    def stop(self) -> defer.Deferred[Any]:
        """Stop each worker when it is idle; fires when all are gone."""

        def close(result: object) -> object:
            self._scratch.close()
            self.output_log.flush()
            return self.starter.template.stop().addCallback(lambda _: result)

        stopped: defer.Deferred[Any] = super().stop()
        return stopped.addBoth(close)

    def kill_all(self, reason: str) -> None:
        """Kill every worker and its process group now."""
        for link in list(self.processes):
            link.kill(reason)
