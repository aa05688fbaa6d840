"""The state of the worker's process that a job may change and the next one relies on.

Used by :mod:`dangad.worker.child`, which notes the state once the job modules are imported and
puts it back after each job. So a job may change the working directory, or handle a signal, as
it would in a program of its own, and the next finds everything as the modules left it.

After nearly every job nothing has changed, so to look must cost next to nothing. What cannot be
looked at for a microsecond or less is not looked at: the handlers of signals that jobs hardly
ever handle, those that were set in C, variables set with `os.putenv`, limits, priority, and what
a job did to modules, threads and descriptors.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal without enums, which cost 20 µs
import faulthandler
import gc
import locale
import os
import signal
import socket
import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from dangad.commands import STOP_SIGNAL

if TYPE_CHECKING:
    from collections.abc import Callable

_WATCHED = [
    int(number)
    for number in (
        *(signal.SIGHUP, signal.SIGINT, signal.SIGTERM, STOP_SIGNAL),  # dangad's own
        *(signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF),  # which timers send
        *(signal.SIGCHLD, signal.SIGPIPE, signal.SIGUSR1, signal.SIGUSR2),  # which jobs handle
    )
]
_ENVIRONMENT = os.environ

_OFF = (0.0, 0.0)
_TIMERS = {signal.SIGVTALRM: signal.ITIMER_VIRTUAL, signal.SIGPROF: signal.ITIMER_PROF}
"""The timers that are only of use to those who handle their signals."""


class Unfit(Exception):
    """Part of the process's state cannot be put back, so no job should run in it; says which."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Something that can be read, compared, and put back."""

    name: str
    read: Callable[[], Any]
    put_back: Callable[[Any], object]


class Surroundings:
    """The state as it was when this was made.

    All mutable state is the process's.
    """

    def __init__(self) -> None:
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._has_timer = signal.getitimer(signal.ITIMER_REAL) != _OFF
        self._noted = [(part, part.read, _copy(part.read())) for part in _PARTS]

    def restore(self) -> list[str]:
        """Put back what has changed, and name it, as in "the working directory".

        :raises Unfit: something cannot be put back.
        """
        changed = []
        faulthandler.cancel_dump_traceback_later()
        if os.umask(self._umask) != self._umask:
            changed.append("the umask")
        if not self._has_timer and signal.getitimer(signal.ITIMER_REAL) != _OFF:
            signal.setitimer(signal.ITIMER_REAL, 0)
            changed.append("the timer")
        for part, read, noted in self._noted:
            try:
                if read() == noted:
                    continue
            except BaseException:  # noqa: BLE001 - it may be gone, or anything in its place
                pass
            try:
                part.put_back(noted)
            except Exception as problem:
                raise Unfit(f"{part.name} cannot be put back: {problem}") from problem
            changed.append(part.name)
        return changed


def _copy(value: Any) -> Any:
    return value.copy() if isinstance(value, dict) else value


def _streams() -> tuple[object, ...]:
    return sys.stdin, sys.stdout, sys.stderr


def _put_streams_back(noted: tuple[Any, ...]) -> None:
    sys.stdin, sys.stdout, sys.stderr = noted


def _environment() -> Any:
    """The variables as bytes, which is how they are kept; None if a job replaced the object."""
    return _ENVIRONMENT._data if os.environ is _ENVIRONMENT else None  # type: ignore[attr-defined] # noqa: SLF001


def _put_environment_back(noted: dict[bytes, bytes]) -> None:
    os.environ = _ENVIRONMENT  # noqa: B003 - it is the object, not the variables, that is put back
    for name in os.environb.keys() - noted.keys():
        del os.environb[name]
    os.environb.update(noted)


def _handlers() -> list[Any]:
    return list(map(_signal.getsignal, _WATCHED))


def _put_handlers_back(noted: list[Any]) -> None:
    """Put back the handlers, and stop the timers whose signals would then end the process."""
    for number, before, now in zip(_WATCHED, noted, _handlers(), strict=True):
        if now != before:
            if number in _TIMERS:
                signal.setitimer(_TIMERS[signal.Signals(number)], 0)
            signal.signal(number, before)


_mask = partial(_signal.pthread_sigmask, int(signal.SIG_BLOCK), ())


def _put_mask_back(noted: set[int]) -> None:
    """Put back the mask, after throwing away what would end the process once let through."""
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
    _Part("the working directory", os.getcwd, os.chdir),
    _Part(
        "the locale",
        partial(locale.setlocale, locale.LC_ALL),
        partial(locale.setlocale, locale.LC_ALL),
    ),
    _Part("signal handlers", _handlers, _put_handlers_back),
    _Part("the signal mask", _mask, _put_mask_back),
)
"""In the order in which they are put back: handlers before the mask lets signals through."""
