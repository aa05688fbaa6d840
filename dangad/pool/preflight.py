"""Checks that the job modules can be served, in a process of its own before the server starts.

Used by :mod:`dangad.tap`, which imports its own modules at the same time. The process runs
:mod:`dangad.worker.child`: it imports the modules as a worker does, reports the outcome on a pipe,
and exits. While a module is imported it may do anything: never return, end the process, start
threads and programs, print without end. None of this can block the start of the server.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from dangad.limits import PRELOADED
from dangad.pool.launch import BOOTSTRAP, BrokenJobs

if TYPE_CHECKING:
    from typing import Any, Self

    from dangad.pool.launch import WorkerSettings

STACK_TIME = 1.0
"""Seconds to wait for the stack of a process that takes too long."""
MAX_OUTPUT = 2**16
"""How many of the last bytes of the modules' output are kept."""
_GLANCE = 0.05
"""Seconds between two checks that the process lives: its children may hold its pipes open."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that end this program: each ends the check, too."""


class JobsCheck:
    """A process that only imports the job modules.

    A context manager: at its end the process and its group are gone.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        timeout: float,
        uid: int | None = None,
        gid: int | None = None,
    ) -> None:
        """Remember what to check.

        :param timeout: the seconds that the import may take.
        :param uid: the user as whom the server will run; None for this process's.
        :param gid: the group as which the server will run; None for this process's.
        """
        self._settings = settings
        self._timeout = timeout
        self._uid = settings.uid if settings.uid is not None else uid
        self._gid = settings.gid if settings.gid is not None else gid
        #: The part of the outcome that has arrived: a line of JSON.
        self._said = b""
        #: The last bytes that the modules printed.
        self._printed = b""
        #: The signal handlers to restore afterwards.
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Start the process.

        :raises BrokenJobs: the process cannot be started.
        """
        #: When the time for the import is over, by the monotonic clock.
        self._ends_at = time.monotonic() + self._timeout
        reading, writing = os.pipe()
        #: The settings that the process has not been sent yet.
        preloads = self._settings.start == PRELOADED
        self._unsent = self._settings.process_input(check=writing, preloads=preloads)
        try:
            #: The process, which leads its own group.
            self._process = subprocess.Popen(
                [sys.executable, "-c", BOOTSTRAP],
                env=self._settings.process_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                user=self._uid,
                group=self._gid,
                process_group=0,
                pass_fds=[writing],
            )
        except OSError as error:
            os.close(reading)
            raise BrokenJobs(self._why_not(error), "") from None
        finally:
            os.close(writing)
        #: The pipe on which the process reports the outcome.
        self._outcome = open(reading, "rb", buffering=0)
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._handlers[number] = signal.signal(number, self._ended)
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the process, and all processes that the modules have started."""
        self._kill()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        for stream in (self._outcome, self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # not all settings were sent
                    stream.close()

    def wait(self) -> str:
        """Wait for the outcome, and return the catalogue of the job types.

        This blocks: call it before the reactor runs.

        :raises BrokenJobs: the modules cannot be imported in time, define no job types, or define
            job types that are not valid.
        """
        with selectors.DefaultSelector() as selector:
            self._register(selector)
            while b"\n" not in self._said and self._process.poll() is None:
                left = self._ends_at - time.monotonic()
                if left <= 0:
                    raise BrokenJobs(self._too_slow(selector), self._output())
                self._exchange(selector, min(left, _GLANCE))
            self._exchange(selector, 0)
        if b"\n" not in self._said:
            raise BrokenJobs(f"{self._subject} could not be checked: {self._end}", self._output())
        outcome = json.loads(self._said)
        if outcome["reason"] is not None:
            raise BrokenJobs(outcome["reason"], self._output())
        return str(outcome["catalogue"])

    # Input and output.

    def _register(self, selector: selectors.BaseSelector) -> None:
        process = self._process
        for stream, event in (
            (process.stdin, selectors.EVENT_WRITE),
            (process.stdout, selectors.EVENT_READ),
            (self._outcome, selectors.EVENT_READ),
        ):
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
                selector.register(stream, event)

    def _exchange(self, selector: selectors.BaseSelector, seconds: float) -> None:
        """Wait at most `seconds` for a pipe to be ready; send and receive without blocking."""
        for key, event in selector.select(seconds):
            if event == selectors.EVENT_WRITE:
                self._send(selector, key)
                continue
            data = b""
            with contextlib.suppress(BlockingIOError):
                data = os.read(key.fd, MAX_OUTPUT)
            if not data:
                selector.unregister(key.fileobj)
            elif key.fileobj is self._outcome:
                self._said += data
            else:
                self._printed = (self._printed + data)[-MAX_OUTPUT:]

    def _send(self, selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
        try:
            self._unsent = self._unsent[os.write(key.fd, self._unsent) :]
        except OSError:
            self._unsent = b""  # the process is gone
        if not self._unsent and self._process.stdin is not None:
            selector.unregister(key.fileobj)
            self._process.stdin.close()

    def _output(self) -> str:
        return self._printed.decode("utf-8", "backslashreplace").rstrip()

    # Its end.

    def _kill(self) -> None:
        """Kill the process and its group, and wait for it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()

    def _ended(self, number: int, _frame: object) -> None:
        """Handle a signal that ends this program: kill the process, then end by the signal."""
        self._kill()
        name = signal.Signals(number).name
        text = f"twistd dangad: ended by {name} while {self._subject} were imported\n"
        with contextlib.suppress(OSError):
            os.write(2, text.encode())
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _too_slow(self, selector: selectors.BaseSelector) -> str:
        """Say why the check was given up; the process prints its stack first."""
        from dangad.wire.commands import (
            STACK_SIGNAL,  # imported late, because AMP comes with it
        )

        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(STACK_SIGNAL)
        ends_at = time.monotonic() + STACK_TIME
        while (left := ends_at - time.monotonic()) > 0 and b"in <module>" not in self._printed:
            self._exchange(selector, min(left, _GLANCE))
        self._exchange(selector, 0)
        return (
            f"{self._subject} were not imported within {self._timeout:g} s; "
            "make them do less at import, or raise --start-timeout"
        )

    # The text of errors.

    @property
    def _subject(self) -> str:
        return f"the job modules ({', '.join(self._settings.jobs)})"

    @property
    def _end(self) -> str:
        """How the process ended before it reported an outcome."""
        status = self._process.returncode
        if status < 0:
            return f"their import ended in {signal.Signals(-status).name}"
        return f"their import ended the process with status {status}"

    def _why_not(self, error: OSError) -> str:
        """Say why the process cannot be started, and what to change."""
        problem = f"{sys.executable}: {error.strerror or error}"
        if self._uid is None and self._gid is None:
            return f"no worker can be started: {problem}"
        user = f"user {self._uid}" if self._uid is not None else f"group {self._gid}"
        return (
            f"no worker can be started as {user}: {problem}; choose another by --uid, --gid, "
            "--worker-uid or --worker-gid, or let this one run that program"
        )
