"""The table of situations, on a real server: one worker, and after each odd job an innocent one."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dangad.scheduler import endings
from tests.blockingpeer import PATIENCE, BlockingPeer, code_of, text_of
from tests.situations import SITUATIONS, Situation

ROOT = Path(__file__).parent.parent.parent
TWISTD = """
from dangad.scheduler import endings
endings.GRACE = {grace}
from twisted.scripts.twistd import run
run()
"""


class Server:
    """``twistd dangad`` with so many workers, in a folder of its own."""

    def __init__(
        self,
        folder: str,
        jobs: str = "tests.textjobs",
        workers: int = 1,
        grace: float = endings.GRACE,
    ) -> None:
        """Start it, and wait until it serves.

        :param grace: seconds that jobs which are stopped have to clean up.
        """
        self.socket = f"{folder}/socket"
        self._log = Path(folder, "log")
        options = (
            f"--listen=unix:{self.socket}:mode=600",
            f"--control=unix:{folder}/control:mode=600",
            f"--worker-path={ROOT}",
            *(f"--jobs={jobs}", "--drain=2", "--quarantine-after=0"),
            *(f"--min-workers={workers}", f"--max-workers={workers}"),
        )
        with (
            open(self._log, "wb") as log,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices,
        ):
            notices.bind(f"{folder}/notices")
            notices.settimeout(PATIENCE)
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    TWISTD.format(grace=grace),
                    "-n",
                    "--pidfile=",
                    "dangad",
                    *options,
                ],
                cwd=folder,
                env={**os.environ, "NOTIFY_SOCKET": f"{folder}/notices"},
                stdout=log,
                stderr=subprocess.STDOUT,
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
        """End it in good order, and see that it has done so."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise
        assert "Traceback" not in self.log().rpartition("SIGTERM")[2]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server for all situations."""
    with tempfile.TemporaryDirectory() as folder:
        running = Server(folder)
        yield running
        running.stop()


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda each: each.name.replace(" ", "-"))
def test_situation(server: Server, situation: Situation) -> None:
    """The job ends as its row says, and the next one notices nothing."""
    before = len(server.log())
    odd = server.connect()
    answer = odd.call(situation.command, code=situation.code.encode(), **dict(situation.options))
    assert code_of(answer) == situation.code_says, text_of(answer)
    if situation.code_says != "ok":
        assert re.search(situation.says, text_of(answer))
    elif situation.says:
        assert re.fullmatch(situation.says, answer[b"out"].decode())
    next_client = server.connect()
    answer = next_client.call(b"Python", code=situation.then.encode(), _progress=b"1", _chunks=b"1")
    assert code_of(answer) == "ok", text_of(answer)
    assert re.fullmatch(situation.then_says, answer[b"out"].decode())
    assert not next_client.news
    if situation.logs:
        assert re.search(situation.logs, server.log()[before:])
    odd.close()
    next_client.close()
