"""``twistd dangad`` in a process of its own, for tests that block: no reactor turns in them."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dangad.limits import LEAN
from dangad.scheduler import endings
from tests.blockingpeer import BlockingPeer
from tests.starting import START

ROOT = Path(__file__).parent.parent
PATIENCE = 60.0
"""Seconds after which something that should have happened is taken for hung."""
TWISTD = """
from dangad.scheduler import endings
endings.GRACE = {grace}
from twisted.scripts.twistd import run
run()
"""


def wait_for(condition: Any, what: str = "") -> Any:
    """The condition's value, once it is true; looks often, and gives up in the end."""
    end = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < end, f"{what or condition} did not come true"
        time.sleep(0.01)
    return value


class TwistdServer:
    """A server whose sockets, in its folder, have their usual names."""

    def __init__(
        self,
        folder: str,
        *options: str,
        environment: Mapping[str, str] = os.environ,
        grace: float = endings.GRACE,
    ) -> None:
        """Start it, and wait until it serves.

        :param grace: seconds that jobs which are stopped have to clean up.
        """
        self.folder = folder
        self.socket = f"{folder}/dangad.sock"
        self._log = Path(folder, "log")
        sockets = (
            f"--listen=unix:{self.socket}:mode=600",
            f"--control=unix:{folder}/dangad.control",
        )
        with (
            open(self._log, "wb") as log,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices,
        ):
            notices.bind(f"{folder}/notices")
            notices.settimeout(PATIENCE)
            how = [] if START == LEAN else [f"--start={START}"]
            program = [sys.executable, "-c", TWISTD.format(grace=grace)]
            self.process = subprocess.Popen(
                [*program, "-n", "--pidfile=", "dangad", *how, *sockets, *options],
                cwd=folder,
                env={
                    "PYTHONPATH": str(ROOT),
                    **environment,
                    "NOTIFY_SOCKET": f"{folder}/notices",
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                while b"READY=1" not in notices.recv(4096):
                    pass
            except TimeoutError:
                self.process.kill()
                raise AssertionError(f"the server did not start: {self.log()}") from None

    def connect(self) -> BlockingPeer:
        """A new connection."""
        return BlockingPeer(self.socket)

    def log(self) -> str:
        """What it has logged."""
        return self._log.read_text(errors="replace")

    def stop(self) -> None:
        """End it in good order, if it has not ended, and see that it has done so."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise
        assert "Traceback" not in self.log().rpartition("SIGTERM")[2]


class TextServer(TwistdServer):
    """One that runs Python given as text, see :mod:`tests.textjobs`, or jobs of another module."""

    def __init__(
        self,
        folder: str,
        jobs: str = "tests.textjobs",
        workers: int = 1,
        grace: float = endings.GRACE,
    ) -> None:
        """See :class:`TwistdServer`."""
        numbers = (f"--min-workers={workers}", f"--max-workers={workers}")
        options = (f"--worker-path={ROOT}", f"--jobs={jobs}", "--drain=2", "--quarantine-after=0")
        super().__init__(folder, *options, *numbers, grace=grace)


def text_server(scope: Any = "module", **options: Any) -> Any:
    """A fixture that is a :class:`TextServer`."""

    def server() -> Iterator[TextServer]:
        with tempfile.TemporaryDirectory() as folder:
            running = TextServer(folder, **options)
            yield running
            running.stop()

    return pytest.fixture(scope=scope)(server)
