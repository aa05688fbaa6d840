"""The stream for the server's log if the log goes to a pipe or a terminal, whose reader may stop.

:mod:`dangad.tap` puts it in place of ``sys.stdout`` before twistd begins to log. Twisted writes its
log in the reactor's thread: a pager that waits for a key, a full pipe or a terminal stopped by
Ctrl-S would stop the whole server. Here a thread writes the lines that cannot be written at once.
Lines beyond a bound are dropped and counted.
"""

from __future__ import annotations

import atexit
import io
import os
import select
import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_WAITING = 2**20
"""Bytes of the log that may wait for a reader."""
LAST_PATIENCE = 1.0
"""Seconds for which the process, at its end, waits for the last lines to be read."""


def note_of_dropped(number: int) -> str:
    """The line of a log that says how many events are missing in this place."""
    return f"({number} log events were dropped: nobody read the log)\n"


class LogStream(io.TextIOBase):
    """A text stream to a descriptor, whose `write` never waits and never raises.

    A write of at most PIPE_BUF bytes does not block on a pipe that poll(2) calls writable, see
    pipe(7). For terminals there is no such promise, so they are always left to the thread.
    """

    def __init__(self, fd: int, note: Callable[[int], str] | None = None) -> None:
        """Write to `fd`, which the caller still owns.

        :param note: makes the line that says how many events were dropped.
        """
        self._fd = fd
        self._note = note or note_of_dropped
        self._is_terminal = os.isatty(fd)
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        #: Taken by each thread that writes. The handler of a signal has it already if it runs in
        #: the middle of its own thread's write.
        self._lock = threading.RLock()
        #: Whether the thread that has the lock is in the middle of a write.
        self._is_writing = False
        #: What is to be written. Only the handler of a signal may find anything here.
        self._given: deque[bytes] = deque()
        #: The writes that wait for the thread, in their order.
        self._waiting: deque[bytes] = deque()
        #: The bytes in `_waiting` and in the thread's hands.
        self._held = 0
        #: How many writes were dropped since the last one that was kept.
        self._dropped = 0
        #: The thread; None while it has nothing to write.
        self._thread: threading.Thread | None = None
        #: Whether the process is about to end, so that each write waits a moment for the thread.
        self._ends = False
        atexit.register(self._wait)

    def writable(self) -> bool:
        """True."""
        return True

    def isatty(self) -> bool:
        """Whether the descriptor is a terminal."""
        return self._is_terminal

    def write(self, text: str) -> int:
        """Write `text` now, or leave it to the thread, or drop it. Returns its length.

        Handlers of signals may call this at any moment: Twisted logs in its own.
        """
        with self._lock:
            self._given.append(text.encode("utf-8", "backslashreplace"))
            while self._given and not self._is_writing:
                self._is_writing = True
                try:
                    if self._given:  # now no handler takes it
                        self._take(self._given.popleft())
                finally:
                    self._is_writing = False
        if self._ends and not self._is_writing:
            self._wait()
        return len(text)

    def _take(self, data: bytes) -> None:
        if self._thread is None and not self._is_terminal:
            data = self._write_at_once(data)
        if data:
            self._keep(data)

    def end(self) -> None:
        """From now on, write each line before the program goes on: the process ends soon.

        The process may end by a signal; then Python calls no exit handler. If the reader does not
        read, it is waited for only once.
        """
        self._ends = True
        self._wait()

    def _write_at_once(self, data: bytes) -> bytes:
        """Write as much as the descriptor takes without waiting. Returns the rest."""
        try:
            while data and self._poll.poll(0):
                data = data[os.write(self._fd, data[: select.PIPE_BUF]) :]
        except OSError:
            return b""  # the reader is gone, or the disk is full: the server goes on
        return data

    def _keep(self, data: bytes) -> None:
        if self._held + len(data) > MAX_WAITING:
            self._dropped += 1
            return
        self._note_dropped()
        self._held += len(data)
        self._waiting.append(data)
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_waiting, daemon=True)
            self._thread.start()

    def _note_dropped(self) -> None:
        """Say in the log itself that lines are missing here."""
        if self._dropped:
            note = self._note(self._dropped).encode()
            self._dropped = 0
            self._held += len(note)
            self._waiting.append(note)

    def _write_waiting(self) -> None:
        """Write everything that waits, however long it takes; runs in the thread."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._note_dropped()
                if not self._waiting:
                    self._thread = None
                    return
                data = self._waiting.popleft()
            self._write_whole(data)
            with self._lock:
                self._held -= len(data)

    def _write_whole(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:
            pass  # the reader is gone, and there is nowhere to say it

    def _wait(self) -> None:
        """Wait a moment for the last lines to be written."""
        thread = self._thread
        if thread is not None:
            thread.join(LAST_PATIENCE)
            self._ends = self._ends and not thread.is_alive()
