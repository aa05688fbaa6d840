"""The worker process: boots, says Hello, and performs one job after the other.

Started by :mod:`dangad.pool.processes` through the bootstrap of :mod:`dangad.pool.launch`. It has
one thread and no running reactor: it blocks on its pipe until a job comes, and in the job until
that ends. A job function that returns a Deferred has the reactor run until the Deferred fires.

A box for a worker is a client's request with one pair put before it, which says which job it is; an
answer is one pair, with the id and what the job took, and the answer's own: see
:mod:`dangad.wire.workerboxes`. The worker ends when its pipe does, or with a job that was stopped,
or that has used up its memory.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import fcntl
import importlib
import json
import logging
import os
import resource
import signal
import sys
import termios
import time
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from twisted.logger import ILogObserver, LogLevel, eventAsText, globalLogBeginner
from twisted.python.failure import Failure
from zope.interface import implementer

from dangad.host.descent import WORKER_OOM_SCORE
from dangad.host.processcontrol import adopt_orphans, signal_at_parents_death
from dangad.wire.boxes import CHUNKS, COMMAND, PROGRESS, unpack
from dangad.wire.commands import STACK_SIGNAL, Hello, LastWords
from dangad.wire.workerboxes import NOT_REUSABLE, PRINTED, read_job
from dangad.worker.context import JobStopped, RunningJob, is_left_over
from dangad.worker.forks import LEFT_TO_PARENT, free_forks, ordinary_handlers
from dangad.worker.jobtypes import BadJobType, catalogue_of, find_job_types
from dangad.worker.offspring import Offspring, end_all
from dangad.worker.perform import OutOfMemory, Performer
from dangad.worker.pipe import WorkerPipe, put_out_of_reach
from dangad.worker.processstate import ProcessState, Unfit
from dangad.worker.usage import Meter

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred
    from twisted.logger import LogEvent


_log = logging.getLogger(__name__)

FROM_PARENT = 3
TO_PARENT = 4
"""The descriptors on which ampoule hands a child its pipe."""
WISHES = 0
"""The one on which the parent says that a job is to stop: stdin, after the settings."""

_NOT_THEIRS = (
    "<frozen",
    os.path.dirname(importlib.__file__),
    os.path.dirname(__file__),
)
"""How the names of files begin that are not at fault when a job module does not import."""

_unread = bytearray(4)
"""Where the kernel puts how many bytes wait in a pipe: `fcntl` takes thrice as long for others."""
_REACTOR = "twisted.internet.base"
"""Who says "Main loop terminated" each time that an asynchronous job ends."""


class CannotStart(Exception):
    """The process cannot be as its settings want it; the text names what to change."""


def main(settings: dict[str, Any]) -> None:
    """Run the worker that these settings describe, until its pipe ends.

    :param settings: as in :class:`dangad.pool.launch.WorkerSettings`.
    """
    _die_with_parent(settings["parent"])
    if settings["check"] is not None:
        _check(settings)
    ordinary = ordinary_handlers()
    pipe = WorkerPipe(FROM_PARENT, TO_PARENT, WISHES, settings["max_payload"])
    _own_stdio()
    stacks = _show_stacks()
    _leave_signals_to_parent()
    free_forks(pipe, ordinary, stacks)
    atexit.register(end_all)
    _log_to_stderr()
    try:
        take_on(settings)
        job_types = find_job_types(settings["jobs"])
        catalogue = catalogue_of(job_types.values())
    except BaseException as error:  # noqa: BLE001 - a module that exits on import has failed too
        if not isinstance(error, CannotStart):
            traceback.print_exc()
        _flush_stdio()
        pipe.send_command(LastWords, reason=f"could not start: {_reason(error, settings)}")
        os._exit(1)  # whatever threads there are by now
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    performer = Performer(
        job_types,
        settings["max_payload"],
        partial(run_until_fired, pipe),
        max_memory=settings["max_memory"],
        is_stopped=lambda: pipe.stopped,
    )
    meter, process_state, offspring = Meter(), ProcessState(), Offspring(put_out_of_reach)
    pipe.send_command(Hello, catalogue=catalogue, cpu=meter.cpu)
    while (raw := pipe.next_job()) is not None:
        if not _serve(pipe, performer, meter, process_state, offspring, raw):
            pipe.wait_for_end()
            break
    _end_threads_of_reactor()


def _serve(
    pipe: WorkerPipe,
    performer: Performer,
    meter: Meter,
    process_state: ProcessState,
    offspring: Offspring,
    raw: bytes,
) -> bool:
    """Perform the job in the box `raw`, and send the answer; whether it is reusable.

    A job that was stopped is not answered: its worker, in whose modules and locks nobody knows
    what it left, ends with it. So does one that found no memory any more. What else a job has
    changed of the process is put back for the next.
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
    if pipe.stopped or answer is None:
        _flush_stdio()
        end_all()
        os._exit(0)
    reusable = _end_offspring(offspring) and _restore(process_state)
    _flush_stdio()
    marks = (PRINTED if _has_printed() else 0) + (0 if reusable else NOT_REUSABLE)
    pipe.send_answer(job_id, answer, meter.usage(), marks)
    return reusable


def _has_printed() -> bool:
    """Whether something lies in the pipe for output; if that cannot be told, it may."""
    try:
        fcntl.ioctl(2, termios.FIONREAD, _unread)
    except OSError:
        return True  # the job has closed or replaced it
    return any(_unread)


def _end_offspring(offspring: Offspring) -> bool:
    """See that no process of the job is left; whether the worker is reusable."""
    left = offspring.end()
    if left:
        _log.warning(
            "the job has left processes running, which were killed: %s; the worker is replaced, "
            "for its modules may count on them",
            ", ".join(map(str, left)),
        )
    return not left


def _restore(process_state: ProcessState) -> bool:
    """Put back what the job has changed of the process; whether that could be done."""
    try:
        changed = process_state.restore()
    except Unfit as error:
        _log.warning("the worker is not reusable: %s", error)
        return False
    if changed:
        _log.warning("the job has changed %s; put back", ", ".join(changed))
    return True


def take_on(settings: dict[str, Any]) -> None:
    """Take on the process_state that the settings describe, for jobs and for what they start.

    :raises CannotStart: one of them cannot be had.
    """
    directory = settings["directory"]
    try:
        os.chdir(directory)
    except OSError as error:
        raise CannotStart(
            f"the working directory {directory} cannot be used: {error.strerror}"
        ) from None
    if settings["pythonpath"] is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = settings["pythonpath"]
    apply_limits(settings)


def apply_limits(settings: dict[str, Any]) -> None:
    """Take on what the settings say of the process as the system sees it.

    The memory limit is RLIMIT_DATA, see getrlimit(2): on Linux it counts all private writable
    memory, so that a request for more fails, in this process and in those that a job starts.
    And should the machine itself run out of memory, the kernel is to choose a worker, and not
    the parent: see proc_pid_oom_score_adj(5).
    """
    if settings["nice"]:
        os.nice(settings["nice"])
    if settings["umask"] is not None:
        os.umask(settings["umask"])
    if settings["open_files"]:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (settings["open_files"], hard))
    if settings["max_memory"]:
        resource.setrlimit(resource.RLIMIT_DATA, (settings["max_memory"],) * 2)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(WORKER_OOM_SCORE))


def _show_stacks() -> int:
    """Print the stack of all threads on a crash, and when the parent asks by ``STACK_SIGNAL``.

    Onto a descriptor of their own, which is returned and which a job does not close by accident;
    the signal is handled in C, so that it needs no turn of the interpreter.
    """
    fd = put_out_of_reach(2)
    faulthandler.enable(fd)
    faulthandler.register(STACK_SIGNAL, fd)
    return fd


def _check(settings: dict[str, Any]) -> NoReturn:
    """Say whether the job modules can be served, and be gone, with what they have started.

    On the descriptor `check` of the settings, as a line of JSON: null, or the reason why not.
    """
    verdict = put_out_of_reach(settings["check"])
    os.close(settings["check"])
    _own_stdio()
    _show_stacks()
    reason = None
    try:
        take_on(settings)
        catalogue_of(find_job_types(settings["jobs"]).values())
    except BaseException as error:  # noqa: BLE001 - a module that exits on import has failed too
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_NOT_THEIRS):
            trace = trace.tb_next
        shown = trace is not None or isinstance(error, SyntaxError)  # which has its own place
        if shown and not isinstance(error, (BadJobType, CannotStart)):
            traceback.print_exception(error.with_traceback(trace))
        reason = _reason(error, settings)
    _flush_stdio()
    end_all()
    os.write(verdict, json.dumps(reason).encode() + b"\n")
    os._exit(0)  # whatever threads there are, and functions that are to be called at the end


def _reason(error: BaseException, settings: dict[str, Any]) -> str:
    """One line that says what went wrong with the job modules, and where in them."""
    if isinstance(error, (BadJobType, CannotStart)):
        return " ".join(str(error).split())[:1000]
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:  # of which its text has only the end
        text = f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
        return f"the job modules cannot be served: {' '.join(text.split())}"[:1000]
    if isinstance(error, MemoryError) and settings["max_memory"]:
        text += f", with --max-memory {settings['max_memory']}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(_NOT_THEIRS)
    ]
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    if isinstance(error, ModuleNotFoundError) and not frames:
        where = "; start the server in the directory where it is, or name that by --worker-path"
    return " ".join(f"the job modules cannot be served: {text}{where}".split())[:1000]


def run_until_fired(pipe: WorkerPipe, deferred: Deferred[Any]) -> Any:
    """The result of `deferred`, or its exception raised, after running the reactor until then.

    A stop cancels it.
    """
    outcome: list[Any] = []
    deferred.addBoth(outcome.append)
    if not outcome:
        from twisted.internet import reactor as running  # the job's own choice, if it made one

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
    """Let go the threads of the reactor that jobs have used: else Python waits for them at exit."""
    running: Any = sys.modules.get("twisted.internet.reactor")
    threads = getattr(running, "threadpool", None)
    if threads is not None:
        threads.stop()


def _die_with_parent(parent: int) -> None:
    """Lead a process group, and be killed by the kernel when the parent dies.

    Where the kernel cannot do that, an idle worker ends with its pipe. What jobs detach is this
    process's child as long as it lives, and only then one of :class:`dangad.pool.orphans.Orphans`.
    """
    os.setpgid(0, 0)
    signal_at_parents_death(signal.SIGKILL)
    adopt_orphans()
    if os.getppid() != parent:
        os._exit(1)  # it died before the kernel was told


def _own_stdio() -> None:
    """Read nothing from stdin, and write both outputs to one pipe, line by line.

    What is left of an earlier job prints to the other pipe, since it says nothing of the job that
    runs: so it is neither logged under that one's name, nor told to that one's client.
    """
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    if null:
        os.close(null)
    else:
        os.set_inheritable(0, True)
    other = os.fdopen(put_out_of_reach(1), "w")
    os.dup2(2, 1)
    for stream in (other, sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    for stream in (sys.stdout, sys.stderr):
        stream.write = partial(_print, stream.write, other.write)  # type: ignore[method-assign]


def _print(write: Callable[[str], int], write_apart: Callable[[str], int], text: str) -> int:
    return write_apart(text) if is_left_over() else write(text)


def _flush_stdio() -> None:
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 - the job has closed or replaced one: flush what there is
        for name in ("stdout", "stderr"):
            with contextlib.suppress(BaseException):
                getattr(sys, name).flush()


def _leave_signals_to_parent() -> None:
    """Do nothing on the signals that a terminal or a service manager sends to all processes.

    A handler, not SIG_IGN, because programs that a job starts would inherit the latter.
    """
    for number in LEFT_TO_PARENT:
        signal.signal(number, _ignore)


def _ignore(_number: int, _frame: object) -> None:
    """Do nothing on a signal."""


@implementer(ILogObserver)
class _StderrObserver:
    """Twisted's log events of level info and above, one line each, on stderr."""

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level", LogLevel.info)
        chatter = event.get("log_namespace") == _REACTOR and level == LogLevel.info
        if level >= LogLevel.info and not chatter:
            text = eventAsText(event, includeTimestamp=False, includeSystem=False)
            sys.stderr.write(text + "\n")


def _log_to_stderr() -> None:
    globalLogBeginner.beginLoggingTo([_StderrObserver()], redirectStandardIO=False)
