"""What the start has come to, shown where its operator looks: on the terminal or in the log.

Used by :mod:`dangad.tap`. A start may take long before there is a log, and it may fail. An
exception that ends the start is raised in the middle of twistd's own work, and only twistd can
clean up after itself. So the exception goes on to the end of the program, and is shown there. At
that point a daemon has no terminal. twistd's launcher still has one, but would show only the first
hundred bytes.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.logger import Logger
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

log = Logger()

PATIENCE = 5.0
"""Seconds for which the launcher waits for a failing daemon's message."""
MAX_SAID = 2**16
"""The most bytes of the daemon's message; a pipe takes this many at once."""


class NotStarted(Exception):
    """The server cannot be made; the text says why in one line."""


class FailedStart(Service):
    """Takes the place of a server that cannot be made, until twistd has opened the log."""

    def __init__(self, reason: NotStarted) -> None:
        self._reason = reason

    def privilegedStartService(self) -> None:
        """Raise the reason, now that it gets into the log.

        :raises NotStarted: always.
        """
        raise self._reason


class StartFailure:
    """Shows an exception that ends the program before the reactor runs."""

    def __init__(self, daemon: bool, logs: bool, said: bool, trace: bool) -> None:
        """Remember how to show an exception.

        :param daemon: whether twistd is about to make this process a daemon.
        :param logs: whether the log goes elsewhere than to stdout.
        :param said: whether announcements wait for the log, too.
        :param trace: whether to show the traceback on the terminal.
        """
        #: Exceptions whose text alone says all that an operator needs.
        self.expected: tuple[type[Exception], ...] = (NotStarted,)
        self._daemon = daemon
        self.logs = logs
        self._said = said
        self._trace = trace
        #: The id of the process that has the terminal.
        self._launcher = os.getpid()
        #: The ends of the pipe on which a daemon tells its launcher; None once it has started.
        self._pipe: tuple[int, int] | None = None
        #: Writes what was logged so far, so that the reason is the last that is shown.
        self.settle: Callable[[], object] = sys.stdout.flush
        #: The values of :mod:`sys` that this object replaces.
        self._usual: Any = (sys.excepthook, sys.__stderr__)

    def announce(self, text: str) -> None:
        """Show a line while there is no log yet, or keep it for the log."""
        if self._said:
            log.info("{_what}", _what=text)
        else:
            with contextlib.suppress(OSError):
                os.write(1, f"twistd dangad: {text}\n".encode(errors="backslashreplace"))

    def watch(self) -> None:
        """Show exceptions that are raised from now on."""
        sys.excepthook = self._tell
        if self._daemon:
            self._pipe = os.pipe()
            vars(sys)["__stderr__"] = self

    def end(self) -> None:
        """Show no more exceptions: the server has started."""
        sys.excepthook, vars(sys)["__stderr__"] = self._usual
        if self._pipe is not None:
            for descriptor in self._pipe:
                os.close(descriptor)
            self._pipe = None

    # In the process that could not start.

    def _tell(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if not issubclass(kind, Exception):
            self._usual[0](kind, error, trace)
            return
        failure = Failure(error, kind, trace)
        if issubclass(kind, self.expected):
            text = str(error)
            if self.logs:
                log.critical("the server does not start: {reason}", reason=text)
        else:
            reason = " ".join(f"{kind.__name__}: {error}".split())
            text = f"cannot start: {reason}" + ("" if self._trace else "; see --traceback")
            if self.logs:
                log.failure("the server does not start", failure)
        shown = failure.getTraceback() if self._trace else ""
        self.settle()
        terminal = 2
        if self._pipe is not None and os.getpid() != self._launcher:
            terminal = self._pipe[1]
        told = f"{shown}twistd dangad: {text}\n".encode(errors="backslashreplace")
        os.write(terminal, told[-MAX_SAID:])

    # In a daemon's launcher: this object is its standard error.

    def write(self, text: str) -> None:
        """Show the daemon's message; if there is none, show `text`, which is twistd's own."""
        said = self._hear()
        os.write(2, said or text.encode(errors="backslashreplace"))

    def flush(self) -> None:
        """Do nothing: everything is written already."""

    def _hear(self) -> bytes:
        """The message that the daemon sent before its end, in one piece."""
        if self._pipe is None:
            return b""
        reading, writing = self._pipe
        os.close(writing)
        ready, _, _ = select.select([reading], [], [], PATIENCE)
        return os.read(reading, MAX_SAID) if ready else b""
