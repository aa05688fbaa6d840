"""The ``dangad`` command without the time of its start: each run is a fork of a warm process.

The warm process imports once what every run would import. Each fork of it gets the words, the
folder, the environment and the standard streams of one run, and ends as the command does. Tests of
what only a start, a signal or a terminal can show use real processes instead.
"""

import gc
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
PATIENCE = 60.0
"""Seconds after which a run is taken for hung."""


def wrote(done: subprocess.CompletedProcess[bytes]) -> bytes:
    """What a command wrote, successfully and without complaint."""
    assert (done.returncode, done.stderr) == (0, b""), done
    return done.stdout


def complained(status: int, done: subprocess.CompletedProcess[bytes]) -> str:
    """The one line that a command complained in, which ended with this status."""
    text = done.stderr.decode()
    assert (done.returncode, done.stdout) == (status, b""), text
    assert text.startswith("dangad: ")
    assert text.count("\n") == 1
    assert text.rstrip("\n").isprintable()
    return text.removeprefix("dangad: ").rstrip("\n")


class WarmCommand:
    """A process that runs ``dangad`` as often as it is asked, one run at a time."""

    def __init__(self) -> None:
        """Start it."""
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._requests.settimeout(PATIENCE)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.warmcommand"], cwd=ROOT, stdin=theirs.fileno()
            )

    def run(
        self,
        *words: str,
        folder: str | os.PathLike[str],
        environment: Mapping[str, str],
        stdin: bytes = b"",
    ) -> subprocess.CompletedProcess[bytes]:
        """What the command did, run in this folder with this environment."""
        request = json.dumps([os.fspath(folder), dict(environment), words]).encode()
        with (
            tempfile.TemporaryFile() as given,
            tempfile.TemporaryFile() as output,
            tempfile.TemporaryFile() as complaint,
        ):
            given.write(stdin)
            given.seek(0)
            streams = [file.fileno() for file in (given, output, complaint)]
            socket.send_fds(self._requests, [request], streams)
            status = int(self._requests.recv(100))
            output.seek(0)
            complaint.seek(0)
            return subprocess.CompletedProcess(words, status, output.read(), complaint.read())

    def close(self) -> None:
        """End it."""
        self._requests.close()
        self._process.wait()


def _await_run(requests: socket.socket) -> list[str]:
    """The words of a run, in a process of its own; others go on in the warm one.

    :raises SystemExit: nobody asks any more.
    """
    while True:
        request, streams, _, _ = socket.recv_fds(requests, 2**20, 3)
        if not request:
            sys.exit()
        child = os.fork()
        if not child:
            requests.close()
            folder, environment, words = json.loads(request)
            _become(streams, folder, environment)
            return list(words)
        for stream in streams:
            os.close(stream)
        _, status = os.waitpid(child, 0)
        requests.send(b"%d" % os.waitstatus_to_exitcode(status))


def _become(streams: Sequence[int], folder: str, environment: Mapping[str, str]) -> None:
    """Have what the shell gives to a command."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()


if __name__ == "__main__":
    from dangad.host.lean import import_without_tls

    import_without_tls("twisted.protocols.amp", "twisted.internet.endpoints")
    import_without_tls("twisted.internet.default")  # and no reactor, of which each has its own
    from dangad import client  # noqa: F401 - each run would import it
    from dangad.cli import arguments, documents, main, output  # noqa: F401 - as above

    gc.freeze()  # what is imported stays shared with the forks
    status = main(_await_run(socket.socket(fileno=os.dup(0))))
    sys.stderr.flush()  # all else is written already
    os._exit(status)
