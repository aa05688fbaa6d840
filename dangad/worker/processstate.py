"""The state of the worker's process that a job may change and the next one relies on.

Used by :mod:`dangad.worker.child`, which notes the state once the job modules are imported and puts
it back after each job. So a job may change the working directory, or handle a signal, as in a
program of its own. The next job finds everything as the modules left it.

After nearly every job nothing has changed, so the comparison must cost next to nothing. Parts that
would take more than about a microsecond are not compared: handlers of signals that jobs hardly ever
handle, handlers that were set in C, variables set with `os.putenv`, limits that jobs hardly ever
set, and changes to modules, threads and descriptors. docs/reference/process-state.md has the table
for authors of jobs.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal without enums, which cost 20 µs
import faulthandler
import gc
import locale
import os
import resource
import signal
import socket
import sys
import time
import warnings
from dataclasses import dataclass
from functools import partial, wraps
from operator import call
from typing import TYPE_CHECKING, Any

from dangad.wire.commands import STOP_SIGNAL
from dangad.worker.loops import current_loop, put_loop_back, reactor_state

if TYPE_CHECKING:
    from collections.abc import Callable

_WATCHED = [
    int(number)
    for number in (
        *(signal.SIGHUP, signal.SIGINT, signal.SIGTERM, STOP_SIGNAL),  # dangad's own
        *(signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF),  # which timers send
        *(signal.SIGCHLD, signal.SIGPIPE, signal.SIGUSR1, signal.SIGUSR2),  # which jobs handle
        signal.SIGIO,  # a pipe that a job has changed may send it
    )
]
_LIMITS = (
    *(resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE),
)
"""The limits that jobs set, for themselves or for the processes that they start."""
_ENVIRONMENT = os.environ

_OFF = (0.0, 0.0)
_TIMERS = {signal.SIGVTALRM: signal.ITIMER_VIRTUAL, signal.SIGPROF: signal.ITIMER_PROF}
"""Timers that are of use only with a handler of their signal."""


class NotReusable(Exception):
    """A part of the process's state cannot be put back, so no job may run in the process."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of the state, which can be read, compared, and put back."""

    name: str
    read: Callable[[], Any]
    put_back: Callable[[Any], object]
    is_told: bool = True
    """Whether a change by a job is logged."""


class ProcessState:
    """The state as it was when this was made."""

    def __init__(self) -> None:
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._group = os.getpgrp()
        self._has_timer = signal.getitimer(signal.ITIMER_REAL) != _OFF
        self._reactor_state = reactor_state()
        _watch_limits()
        self._reads = [part.read for part in _PARTS]
        self._noted = [_copy(read()) for read in self._reads]

    def restore(self) -> list[str]:
        """Put back all changed parts. Returns their names, as in "the working directory".

        :raises NotReusable: something cannot be put back, or the reactor cannot run any more.
        """
        changed = []
        faulthandler.cancel_dump_traceback_later()
        if os.umask(self._umask) != self._umask:
            changed.append("the umask")
        if not self._has_timer and signal.getitimer(signal.ITIMER_REAL) != _OFF:
            signal.setitimer(signal.ITIMER_REAL, 0)
            changed.append("the timer")
        if os.getpgrp() != self._group:
            os.setpgid(0, self._group)
            changed.append("the process group")
        if not self._is_as_noted():
            for part, noted in zip(_PARTS, self._noted, strict=True):
                if _put_back(part, noted) and part.is_told:
                    changed.append(part.name)
        if (state := reactor_state()) not in ("", self._reactor_state):
            raise NotReusable(state)
        return changed

    def _is_as_noted(self) -> bool:
        """Whether no part has changed, as after nearly every job."""
        try:
            return list(map(call, self._reads)) == self._noted
        except BaseException:  # noqa: BLE001 - something may be gone, or anything in its place
            return False


def _put_back(part: _Part, noted: Any) -> bool:
    """Put one part back, if it has changed; whether it had changed.

    :raises NotReusable: the part cannot be put back.
    """
    try:
        if part.read() == noted:
            return False
    except BaseException:  # noqa: BLE001 - as above
        pass
    try:
        part.put_back(noted)
    except Exception as problem:
        raise NotReusable(f"{part.name} cannot be put back: {problem}") from problem
    return True


def _copy(value: Any) -> Any:
    return value.copy() if isinstance(value, (dict, list)) else value


def _streams() -> tuple[object, ...]:
    return sys.stdin, sys.stdout, sys.stderr


def _put_streams_back(noted: tuple[Any, ...]) -> None:
    sys.stdin, sys.stdout, sys.stderr = noted


def _environment() -> Any:
    """The variables as bytes, as Python keeps them; None if a job replaced the object."""
    return _ENVIRONMENT._data if os.environ is _ENVIRONMENT else None  # type: ignore[attr-defined] # noqa: SLF001


def _put_environment_back(noted: dict[bytes, bytes]) -> None:
    """Put the variables back, and the time zone that the C library has read from ``TZ``."""
    os.environ = _ENVIRONMENT  # noqa: B003 - it is the object, not the variables, that is put back
    zone = os.environb.get(b"TZ")
    for name in os.environb.keys() - noted.keys():
        del os.environb[name]
    os.environb.update(noted)
    if os.environb.get(b"TZ") != zone:
        time.tzset()


def _zone() -> tuple[object, ...]:
    """The time zone as it was last read from the environment."""
    return time.tzname, time.timezone, time.altzone


def _put_filters_back(noted: list[Any]) -> None:
    warnings.resetwarnings()  # so that warnings can be shown that were not
    warnings.filters[:] = noted  # type: ignore[index]


_limits: list[tuple[int, int]] = []
"""The limits to put back, in the order of `_LIMITS`."""


def _watch_limits() -> None:
    """Note the limits, and note from now on when one is set: reading all takes too long."""
    _limits[:] = map(resource.getrlimit, _LIMITS)
    _sets.clear()
    for name in ("setrlimit", "prlimit"):
        function = getattr(resource, name)
        if not hasattr(function, "__wrapped__"):
            setattr(resource, name, _noting(function))


def _noting(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def noting(*arguments: Any) -> Any:
        _sets.append(function)
        return function(*arguments)

    return noting


_sets: list[object] = []
"""One element for each time that a limit was set since the limits were last put back."""


def _put_limits_back(_noted: object) -> None:
    for number, limits in zip(_LIMITS, _limits, strict=True):
        resource.setrlimit(number, limits)
    _sets.clear()


_priority = partial(os.getpriority, os.PRIO_PROCESS, 0)


def _put_users_back(noted: tuple[int, int]) -> None:
    user, group = noted
    os.seteuid(user)
    os.setegid(group)


def _handlers() -> list[Any]:
    return list(map(_signal.getsignal, _WATCHED))


def _put_handlers_back(noted: list[Any]) -> None:
    """Put back the handlers, and stop timers whose signals would now end the process."""
    for number, before, now in zip(_WATCHED, noted, _handlers(), strict=True):
        if now != before:
            if number in _TIMERS:
                signal.setitimer(_TIMERS[signal.Signals(number)], 0)
            signal.signal(number, before)


_mask = partial(_signal.pthread_sigmask, int(signal.SIG_BLOCK), ())


def _put_mask_back(noted: set[int]) -> None:
    """Put back the mask, after discarding pending signals that would end the process."""
    waiting = {number for number in signal.sigpending() if signal.getsignal(number) == 0}
    while waiting and signal.sigtimedwait(waiting, 0):
        pass
    signal.pthread_sigmask(signal.SIG_SETMASK, noted)


_PARTS = (
    _Part("the trace function", sys.gettrace, sys.settrace),
    _Part("the profile function", sys.getprofile, sys.setprofile),
    _Part("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    _Part("the switch interval", sys.getswitchinterval, sys.setswitchinterval),
    _Part("the garbage collector", gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
    _Part("the standard streams", _streams, _put_streams_back),
    _Part("the default timeout of sockets", socket.getdefaulttimeout, socket.setdefaulttimeout),
    _Part("the environment", _environment, _put_environment_back),
    _Part("the time zone", _zone, lambda _: time.tzset()),
    _Part("the warning filters", lambda: warnings.filters, _put_filters_back),
    _Part("resource limits", lambda: len(_sets), _put_limits_back),
    _Part("the priority", _priority, partial(os.setpriority, os.PRIO_PROCESS, 0)),
    _Part("the user", lambda: (os.geteuid(), os.getegid()), _put_users_back),
    _Part("the working directory", os.getcwdb, os.chdir),
    _Part(
        "the locale",
        partial(locale.setlocale, locale.LC_ALL),
        partial(locale.setlocale, locale.LC_ALL),
    ),
    _Part("asyncio's event loop", current_loop, put_loop_back, is_told=False),  # asyncio.run does
    _Part("signal handlers", _handlers, _put_handlers_back),
    _Part("the signal mask", _mask, _put_mask_back),
)
"""All parts, in the order in which they are put back: handlers before the mask lets signals in."""
