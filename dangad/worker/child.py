"""The worker process: boots, says Hello, and performs one job after the other.

Started by :mod:`dangad.pool` through the bootstrap of :mod:`dangad.launch`. It has one thread
and no running reactor: it blocks on its pipe until a job comes, and in the job until that
ends. A job function that returns a Deferred has the reactor run until the Deferred fires.

A box for a worker is a client's request with one pair put before it (``_run``: the job's id
and attempt); an answer is one pair (``_done`` or ``_failed``: the id) and the answer's own.
The worker ends when its pipe does.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import importlib
import logging
import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

from twisted.logger import ILogObserver, LogLevel, eventAsText, globalLogBeginner
from twisted.python.failure import Failure
from zope.interface import implementer

from dangad.commands import DONE, FAILED, RUN, BootFailed, Hello
from dangad.wire import COMMAND, BoxReader, pack, pair, unpack
from dangad.worker.context import RunningJob
from dangad.worker.jobtypes import BadJobType, catalogue_of, find_job_types
from dangad.worker.perform import Performer

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.logger import LogEvent

    from dangad.worker.perform import Answer

FROM_PARENT = 3
TO_PARENT = 4
"""The descriptors on which ampoule hands a child its pipe."""

_OUT_OF_REACH = 200
"""Where the pipe is moved to, so that a job that writes to a small number does not hit it."""

_NOT_THEIRS = (
    "<frozen",
    os.path.dirname(importlib.__file__),
    os.path.dirname(__file__),
)
"""How the names of files begin that are not at fault when a job module does not import."""

_READ_SIZE = 2**18
_BOX_OVERHEAD = 2**16
_PR_SET_PDEATHSIG = 1
_REACTOR = "twisted.internet.base"
"""Who says "Main loop terminated" each time that an asynchronous job ends."""


def main(settings: dict[str, Any]) -> None:
    """Run the worker that :class:`dangad.launch.WorkerSettings` describes, until its pipe ends."""
    os.chdir(settings["directory"])
    if settings["pythonpath"] is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = settings["pythonpath"]
    if settings["check"]:
        _check(settings)
    _die_with_parent(settings["parent"])
    pipe = _Pipe(FROM_PARENT, TO_PARENT, settings["max_payload"] + _BOX_OVERHEAD)
    _own_stdio()
    _leave_signals_to_parent()
    _log_to_stderr()
    try:
        job_types = find_job_types(settings["jobs"])
        catalogue = catalogue_of(job_types.values())
    except BaseException as error:  # noqa: BLE001 - a module that exits on import has failed too
        traceback.print_exc()
        sys.stderr.flush()
        pipe.send_command(BootFailed, reason=_reason(error))
        sys.exit(1)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    performer = Performer(job_types, settings["max_payload"], run_until_fired)
    pipe.send_command(Hello, catalogue=catalogue)
    while (raw := pipe.next_box()) is not None:
        _serve(pipe, performer, raw)


def _serve(pipe: _Pipe, performer: Performer, raw: bytes) -> None:
    """Perform the job in the box `raw`, and send the answer."""
    length = raw[1]
    start = 4 + length + int.from_bytes(raw[2 + length : 4 + length], "big")
    if raw[2 : 2 + length] != RUN:
        raise RuntimeError(f"a box that is no job: {raw[:80]!r}")
    job_id, attempt = raw[4 + length : start].split()
    strings = unpack(raw, start)
    running = RunningJob(int(job_id), strings[COMMAND].decode("ascii"), int(attempt))
    answer = performer.perform(strings, running)
    _flush_stdio()
    pipe.send_answer(job_id, answer)


def _check(settings: dict[str, Any]) -> NoReturn:
    """Exit with status 0 if the job modules can be served, or say why not, and exit with 1."""
    try:
        catalogue_of(find_job_types(settings["jobs"]).values())
    except BaseException as error:  # noqa: BLE001 - a module that exits on import has failed too
        traceback.print_exc()
        sys.exit(_reason(error))
    sys.exit(0)


def _reason(error: BaseException) -> str:
    """One line that says what went wrong with the job modules, and where in them."""
    if isinstance(error, BadJobType):
        return str(error)
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(_NOT_THEIRS)
    ]
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return " ".join(f"the job modules cannot be served: {text}{where}".split())[:1000]


def run_until_fired(deferred: Deferred[Any]) -> Any:
    """The result of `deferred`, or its exception raised, after running the reactor until then."""
    outcome: list[Any] = []
    deferred.addBoth(outcome.append)
    if not outcome:
        from twisted.internet import reactor  # the job's own choice of reactor, if it made one

        deferred.addBoth(lambda _: reactor.crash())
        reactor.callWhenRunning(_leave_signals_to_parent)
        reactor.run()
        _leave_signals_to_parent()
    if not outcome:
        raise RuntimeError("the job stopped the reactor before its Deferred fired")
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    return outcome[0]


class _Pipe:
    """The worker's end of the pipe, read and written in the blocking way.

    All mutable state: the descriptors, `_reader` with what was read but not yet served, and
    `_owner`, the process that may use the pipe: a fork of it may not.
    """

    def __init__(self, read_fd: int, write_fd: int, max_size: int) -> None:
        self._read_fd = _move(read_fd)
        self._write_fd = _move(write_fd)
        self._reader = BoxReader(max_size, ())
        self._owner = os.getpid()

    def next_box(self) -> bytes | None:
        """The next box, waited for; None once the parent has closed the pipe."""
        while (box := self._reader.next()) is None:
            data = os.read(self._read_fd, _READ_SIZE)
            if not data:
                return None
            self._reader.feed(data)
        return box.raw

    def send_command(self, command: Any, **arguments: object) -> None:
        """Send one of dangad's commands to the parent."""
        strings = command.makeArguments(arguments, None)
        strings[COMMAND] = command.commandName
        self._write(pack(strings.items()))

    def send_answer(self, job_id: bytes, answer: Answer) -> None:
        """Send the answer to the job `job_id`."""
        self._write(pair(FAILED if answer.failed else DONE, job_id) + answer.body)

    def _write(self, data: bytes) -> None:
        if os.getpid() != self._owner:
            os._exit(1)  # a fork that came back from the job function has no say here
        view = memoryview(data)
        while view:
            view = view[os.write(self._write_fd, view) :]


def _move(fd: int) -> int:
    """The same open pipe at a number out of reach, closed on exec, and no more at `fd`."""
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_REACH)
    os.close(fd)
    return moved


def _die_with_parent(parent: int) -> None:
    """Lead a process group, and be killed by the kernel when the parent dies.

    Linux's PR_SET_PDEATHSIG, see prctl(2); elsewhere an idle worker ends with its pipe.
    """
    os.setpgid(0, 0)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # it died before the kernel was told


def _own_stdio() -> None:
    """Read nothing from stdin, and write both outputs to one pipe, line by line."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]


def _flush_stdio() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # the job closed or replaced it
            stream.flush()


def _leave_signals_to_parent() -> None:
    """Do nothing on the signals that a terminal or a service manager sends to all processes.

    A handler, not SIG_IGN, because programs that a job starts would inherit the latter.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: None)


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
