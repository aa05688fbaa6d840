"""The worker process: boots, says Hello, and performs one job after the other.

Started by :mod:`dangad.pool.processes` through the bootstrap of :mod:`dangad.pool.launch`. It has
one thread and no running reactor: it blocks on its pipe until a job comes, and in the job until the
job ends. If a job function returns a Deferred, the reactor runs until the Deferred fires.

A worker receives a client's request after one pair that identifies the job. It sends the answer
after one pair with the job's id and resource usage: see :mod:`dangad.wire.workerboxes`. The worker
exits when its pipe ends, when its job was stopped, or when its job has used up its memory.
"""

from __future__ import annotations

import atexit
import importlib
import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from twisted.python.failure import Failure

from dangad.host.memory import memory_of
from dangad.host.processcontrol import adopt_orphans, signal_at_parents_death
from dangad.text import show_bytes
from dangad.wire.boxes import CHUNKS, COMMAND, END, PROGRESS, unpack
from dangad.wire.commands import TEMPLATE_BROKEN, TEMPLATE_UNSHAREABLE, Hello, LastWords
from dangad.wire.workerboxes import NOT_REUSABLE, PRINTED, read_job
from dangad.worker.context import JobStopped, RunningJob
from dangad.worker.forks import LEFT_TO_PARENT, free_forks, ordinary_handlers
from dangad.worker.hooks import Hooks
from dangad.worker.jobtypes import BadJobType, catalogue_of, find_job_types
from dangad.worker.offspring import Offspring, end_all
from dangad.worker.perform import Answer, OutOfMemory, Performer, prepare
from dangad.worker.pipe import WorkerPipe, ignore_signal, put_out_of_reach
from dangad.worker.preload import Unshareable, preload, reseed
from dangad.worker.processstate import NotReusable, ProcessState
from dangad.worker.settings import CannotStart, check_size, limit_memory, take_on
from dangad.worker.stdio import flush_stdio, has_printed, log_to_stderr, own_stdio, show_stacks
from dangad.worker.template import wait_for_orders
from dangad.worker.usage import Meter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.defer import Deferred

    from dangad.worker.jobtypes import JobType


_log = logging.getLogger(__name__)

STOPPED = Answer(False, END)
"""Tells the parent that a stopped job has ended, and the worker goes on."""

FROM_PARENT = 3
TO_PARENT = 4
"""The descriptors of the pipes for jobs and for answers, as ampoule passes them to a child."""
WISHES = 0
"""The descriptor for orders to stop a job: stdin, after the line of settings."""

_NOT_THEIRS = (
    "<frozen",
    os.path.dirname(importlib.__file__),
    os.path.dirname(__file__),
)
"""Beginnings of the names of files that a traceback of a failed import leaves out."""


def main(settings: dict[str, Any]) -> None:
    """Run the worker that these settings describe, until its pipe ends.

    :param settings: as in :class:`dangad.pool.launch.WorkerSettings`.
    """
    sys.argv[1:] = ["dangad-worker"]  # the process may have another name, as a template has
    _die_with_parent(settings["parent"])
    if settings["check"] is not None:
        _check(settings)
    atexit.register(end_all)
    served = Served()
    shared = 0
    if settings["template"]:
        preloads = settings["preloads"]
        wait_for_orders(LEFT_TO_PARENT, partial(_preload, served, settings) if preloads else None)
        _die_with_parent(settings["parent"])
    ordinary = ordinary_handlers()
    pipe = WorkerPipe(FROM_PARENT, TO_PARENT, WISHES, settings["max_payload"])
    own_stdio()
    stacks = show_stacks()
    _leave_signals_to_parent()
    free_forks(pipe, ordinary, stacks)
    log_to_stderr()
    try:
        if served.job_types:
            reseed()
            memory = memory_of(os.getpid())
            shared = memory.resident
            limit_memory(settings["max_memory"], memory.data)
        else:
            take_on(settings)
            limit_memory(settings["max_memory"])
            served.find(settings["jobs"])
        served.hooks.start()
        check_size(settings, shared)
    except BaseException as error:  # noqa: BLE001 - a module that exits on import has failed, too
        _print_traceback(error)
        flush_stdio()
        why = _reason(error, settings, served.hooks.starting)
        pipe.send_command(LastWords, reason=f"could not start: {why}")
        os._exit(1)  # without waiting for threads
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    performer = Performer(
        served.job_types,
        settings["max_payload"],
        partial(run_until_fired, pipe),
        max_memory=settings["max_memory"],
        is_stopped=lambda: pipe.stopped,
    )
    meter, process_state = Meter(shared), ProcessState()
    offspring = Offspring(put_out_of_reach)
    pipe.send_command(Hello, catalogue=served.catalogue, cpu=meter.cpu, shared=shared)
    while (raw := pipe.next_job()) is not None:
        if not _serve(pipe, performer, meter, process_state, offspring, raw):
            pipe.wait_for_end()
            break
    served.hooks.stop()
    _leave()


class Served:
    """What the job modules offer to the worker; nothing until they are imported."""

    def __init__(self) -> None:
        #: The job types by command name.
        self.job_types: dict[bytes, JobType] = {}
        #: Their description for the parent.
        self.catalogue = ""
        #: The functions to call when the worker begins and ends.
        self.hooks = Hooks(())

    def find(self, modules: Iterable[str]) -> None:
        """Import the modules. Raises any exception of theirs, and BadJobType."""
        self.job_types = find_job_types(modules)
        self.catalogue = catalogue_of(self.job_types.values())
        self.hooks = Hooks(modules)
        prepare(self.job_types.values())


def _leave() -> NoReturn:
    """End the process in order, but without the interpreter's own cleanup.

    This cleanup takes longer than everything else in a worker's life, above all in a fork, which
    has to copy each page of memory that it touches.
    """
    _end_threads_of_reactor()
    threading._shutdown()  # type: ignore[attr-defined] # noqa: SLF001 - as multiprocessing does
    atexit._run_exitfuncs()  # noqa: SLF001 - there is no public name for it
    flush_stdio()
    os._exit(0)


def _preload(served: Served, settings: dict[str, Any]) -> tuple[bytes, str] | None:
    """Import the job modules in the template; returns the report if they forbid forks."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    try:
        take_on(settings)
        preload(settings["jobs"])
        served.find(settings["jobs"])
    except Unshareable as error:
        report = TEMPLATE_UNSHAREABLE, str(error)
    except BaseException as error:  # noqa: BLE001 - a module that exits on import has failed, too
        _print_traceback(error)
        report = TEMPLATE_BROKEN, f"could not start: {_reason(error, settings)}"
    else:
        return None
    flush_stdio()
    end_all()
    return report


def _serve(
    pipe: WorkerPipe,
    performer: Performer,
    meter: Meter,
    process_state: ProcessState,
    offspring: Offspring,
    raw: bytes,
) -> bool:
    """Perform the job in the box `raw`, and send the answer; whether the worker is reusable.

    A stopped job is not answered. Nobody knows the state in which it has left modules and locks, so
    the worker exits, unless the job's type says that it leaves them in order. The worker also exits
    after a job that has used up its memory. Other changes of the process are put back for the next
    job.
    """
    job_id, attempt, seconds, start = read_job(raw)
    strings = unpack(raw, start)
    running = RunningJob(
        job_id,
        strings[COMMAND].decode("ascii"),
        attempt,
        ends_at=None if seconds is None else time.monotonic() + seconds,
        report=partial(pipe.send_report, job_id) if strings.get(PROGRESS) == b"1" else None,
        part=partial(pipe.send_part, job_id) if strings.get(CHUNKS) == b"1" else None,
    )
    answer = None
    try:
        pipe.begin_job(job_id)
        answer = performer.perform(strings, running)
        running.end()
        pipe.end_job()
    except JobStopped:
        pass
    except OutOfMemory as error:
        pipe.send_command(LastWords, reason=str(error))
    policy = performer.policy_of(strings)
    if pipe.stopped and policy.stoppable and pipe.go_on():
        running.end()
        answer = STOPPED
    if pipe.stopped or answer is None:
        flush_stdio()
        end_all()
        os._exit(0)
    reusable = _end_offspring(offspring) and _restore(process_state) and not policy.isolate
    flush_stdio()
    marks = (PRINTED if has_printed() else 0) + (0 if reusable else NOT_REUSABLE)
    pipe.send_answer(job_id, answer, meter.usage(), marks)
    return reusable


def _end_offspring(offspring: Offspring) -> bool:
    """Kill the processes that the job has left; whether the worker is reusable."""
    left = offspring.end()
    if left:
        _log.warning(
            "the job has left processes running, which were killed: %s; the worker is replaced, "
            "because its modules may depend on them",
            ", ".join(left),
        )
    return not left


def _restore(process_state: ProcessState) -> bool:
    """Put back the job's changes of the process; whether the worker is reusable."""
    try:
        changed = process_state.restore()
    except NotReusable as error:
        _log.warning("the worker is not reusable: %s", error)
        return False
    if changed:
        _log.warning("the job has changed %s; put back", ", ".join(changed))
    return True


def _check(settings: dict[str, Any]) -> NoReturn:
    """Report whether the job modules can be served, kill the processes that they started, and exit.

    The report goes to the descriptor `check` of the settings, as a line of JSON: an object with the
    `catalogue`, or with the `reason` why not.
    """
    outcome = put_out_of_reach(settings["check"])
    os.close(settings["check"])
    own_stdio()
    show_stacks()
    catalogue = reason = None
    try:
        take_on(settings)
        if not settings["preloads"]:  # otherwise the workers share the memory of the import
            limit_memory(settings["max_memory"])
        catalogue = catalogue_of(find_job_types(settings["jobs"]).values())
        if not settings["preloads"]:
            check_size(settings)
    except BaseException as error:  # noqa: BLE001 - a module that exits on import has failed too
        _print_traceback(error)
        reason = _reason(error, settings)
    flush_stdio()
    end_all()
    report = json.dumps({"reason": reason, "catalogue": catalogue}).encode() + b"\n"
    while report:
        report = report[os.write(outcome, report) :]
    os._exit(0)  # without waiting for threads, and without calling atexit functions


def _print_traceback(error: BaseException) -> None:
    """Print the part of a failed import's traceback that lies in the job modules."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_NOT_THEIRS):
        trace = trace.tb_next
    shown = trace is not None or isinstance(error, SyntaxError)  # this one has a line of its own
    if shown and not isinstance(error, (BadJobType, CannotStart)):
        traceback.print_exception(error.with_traceback(trace))


def _reason(error: BaseException, settings: dict[str, Any], starting: str = "") -> str:
    """One line that says why the job modules cannot be served, and where in them the error is.

    :param starting: the worker_start function that was called, in words; empty if none was.
    """
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(_NOT_THEIRS)
    ]
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, (BadJobType, CannotStart)):
        return _line(f"{error}{where}")
    if isinstance(error, MemoryError) and settings["max_memory"]:
        limit = show_bytes(settings["max_memory"])
        text += f", where --max-memory is {limit}: raise it"
    if starting:
        return _line(f"{starting} raised {text}{where}")
    if isinstance(error, SyntaxError) and error.filename:  # str() has only its base name
        text = f"{type(error).__name__}: {error.msg}"
        where = f" ({error.filename}, line {error.lineno})"
    if isinstance(error, ModuleNotFoundError) and not frames:
        where = "; start the server in the directory where it is, or name that by --worker-path"
    return _line(f"the job modules cannot be served: {text}{where}")


def _line(text: str) -> str:
    """The text as one line, bounded."""
    return " ".join(text.split())[:1000]


def run_until_fired(pipe: WorkerPipe, deferred: Deferred[Any]) -> Any:
    """Run the reactor until `deferred` has fired; return its result, or raise its exception.

    An order to stop the job cancels the Deferred.
    """
    outcome: list[Any] = []
    deferred.addBoth(outcome.append)
    if not outcome:
        from twisted.internet import reactor as running  # the one that the job has chosen, if any

        reactor: Any = running

        pipe.instead_of_raising(lambda _: reactor.callFromThread(deferred.cancel))
        deferred.addBoth(lambda _: reactor.crash())
        reactor.callWhenRunning(_leave_signals_to_parent)
        reactor.run()
        _leave_signals_to_parent()
        pipe.instead_of_raising(None)
    if not outcome:
        raise RuntimeError("the job stopped the reactor before its Deferred fired")
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    return outcome[0]


def _end_threads_of_reactor() -> None:
    """Stop the threads of the reactor's pool; otherwise Python would wait for them at the exit."""
    running: Any = sys.modules.get("twisted.internet.reactor")
    threads = getattr(running, "threadpool", None)
    if threads is not None:
        threads.stop()


def _die_with_parent(parent: int) -> None:
    """Lead a process group, and let the kernel kill this process when the parent dies.

    Where the kernel cannot do this, an idle worker exits when its pipe ends. Processes that jobs
    detach become children of this process, and after its death
    :class:`dangad.pool.orphans.Orphans`.

    :param parent: the parent's process id.
    """
    os.setpgid(0, 0)
    signal_at_parents_death(signal.SIGKILL)
    adopt_orphans()
    if os.getppid() != parent:
        os._exit(1)  # the parent died before the kernel was told


def _leave_signals_to_parent() -> None:
    """Ignore the signals that a terminal or a service manager sends to all processes.

    This takes a handler: programs that a job starts would inherit SIG_IGN.
    """
    for number in LEFT_TO_PARENT:
        signal.signal(number, ignore_signal)
