"""Keeps a server that must not outlive the program that has started it, for ``dangad dev``.

Run as ``python -m dangad.host.keeper DIRECTORY WORD...``. It runs ``twistd`` with these words. When
its standard input ends, its own parent is gone or wants the end: then it stops the server, and
removes the directory with its sockets. If the keeper itself is killed, the kernel stops the server.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys

GRACE = 3.0
"""Seconds in which the server must end after the first signal, and after the second."""
PROGRAM = """\
import os, signal, sys
from dangad.host.processcontrol import signal_at_parents_death
signal_at_parents_death(signal.SIGTERM)
if os.getppid() != int(sys.argv.pop(1)):
    sys.exit(1)
sys.argv[0] = "twistd"
from twisted.scripts.twistd import run
run()
"""
"""twistd as a process that ends with its parent, whose id is the first word."""


class _Keeper:
    """The server's parent process."""

    def __init__(self, words: list[str]) -> None:
        """Start the server, with these words for twistd."""
        #: The two ends of a pipe in which each signal leaves a byte.
        self._woken, waking = os.pipe()
        os.set_blocking(waking, False)
        signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._hurry)
        signal.signal(signal.SIGINT, lambda *_: None)  # ignored, it would be for jobs, too
        program = [sys.executable, "-P", "-c", PROGRAM, str(os.getpid()), *words]
        self._server = subprocess.Popen(
            program, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT, restore_signals=True
        )

    def run(self) -> int:
        """Wait for the server's end, or bring it about; return the server's status."""
        wanted = True
        while self._server.poll() is None and wanted:
            ready, _, _ = select.select([0, self._woken], [], [])
            wanted = 0 not in ready or bool(os.read(0, 1))
            if self._woken in ready:
                os.read(self._woken, 512)
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._server.wait(0)
            self._server.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._server.wait(GRACE)
        return self._server.wait()

    def _hurry(self, *_: object) -> None:
        """Pass the wish to end at once on to the server."""
        self._server.send_signal(signal.SIGTERM)


def main() -> None:
    """Keep the server that the command line describes."""
    directory, *words = sys.argv[1:]
    try:
        status = _Keeper(words).run()
    finally:
        if directory:
            shutil.rmtree(directory, ignore_errors=True)
    sys.exit(status if status >= 0 else 128 - status)


if __name__ == "__main__":
    main()
