"""The processes of the demo: a server and its clients. Each says on stdout how far it has come.

Started by :mod:`dangad.examples.demo`, which tells the story. Every wait is for a line of a
process's stdout.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted.internet.endpoints import quoteStringArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from twisted.protocols import amp

TWISTD = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()")
"""twistd in this Python, wherever its script may be."""

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
"""Signals that end the story early."""
GRACE = 10.0
"""Seconds in which a process must end when it is asked to."""


class StoryFailed(Exception):
    """Something did not happen as in the story; the text says what."""


class StoryStopped(BaseException):
    """A signal stops the story.

    :ivar number: the number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass(frozen=True)
class Part:
    """The part of one client: a command, its arguments, and the transport."""

    transport: str
    command: type[amp.Command]
    arguments: dict[str, Any]
    read_out: Callable[[dict[str, Any]], list[str]]
    """Turns the answer into lines for people."""

    @property
    def request(self) -> str:
        """The request in words."""
        arguments = (f"{name}={value}" for name, value in self.arguments.items())
        return " ".join((self.command.__name__, *arguments))


@contextmanager
def undisturbed() -> Iterator[None]:
    """A context in which no signal ends the story; a signal that comes ends it afterwards."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)


def unblock_signals() -> None:
    """Undo `undisturbed` in a process that was started in it."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)


class Process:
    """A program that says how far it has come, in lines on its stdout.

    It leads a process group. So Ctrl-C in a terminal reaches only the demo, which ends the others.
    """

    label: str
    ending = signal.SIGTERM
    """The signal that ends it early."""

    def __init__(self, *command: str, environment: dict[str, str], stderr: int | None) -> None:
        #: The lines of its stdout so far.
        self.said: list[str] = []
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, **environment},
            text=True,
            errors="backslashreplace",
            process_group=0,
            preexec_fn=unblock_signals,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self.pid = self._process.pid

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def status(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._process.returncode

    def wait_for_line(self, pattern: str) -> re.Match[str]:
        """The next line that matches `pattern`."""
        for line in self._stdout:
            self.said.append(line)
            if match := re.search(pattern, line):
                return match
        raise StoryFailed(f"{self.label} ended before it said {pattern!r}")

    def say(self, line: str) -> None:
        """Write a line to its stdin."""
        with suppress(BrokenPipeError):  # it has ended; the next wait for a line notices
            self._stdin.write(f"{line}\n")
            self._stdin.flush()

    def end(self) -> None:
        """Ask the process to end, and kill it if it does not; read its last lines."""
        if self.status is None:
            self._process.send_signal(self.ending)
        self.finish()

    def finish(self) -> None:
        """Read lines until the process ends by itself; kill it if this takes long."""
        alarm = threading.Timer(GRACE, self._process.kill)
        alarm.start()
        with suppress(BrokenPipeError):
            self._stdin.close()
        if not self._stdout.closed:
            self.said += self._stdout.readlines()
            self._stdout.close()
        self._process.wait()
        alarm.cancel()


@dataclass(frozen=True)
class Run:
    """A job as the server's log describes it."""

    job: str
    command: str
    worker: str
    wait: float
    runtime: float


class Server(Process):
    """``twistd dangad`` on a UNIX socket in `directory` and on a TCP port that is free."""

    label = "the server"

    def __init__(self, directory: Path) -> None:
        path = quoteStringArgument(str(directory / "dangad.sock"))
        #: The endpoints for clients, by transport.
        self.endpoints = {"UNIX": f"unix:{path}"}
        #: The pids of the workers that are ready.
        self.workers: list[int] = []
        super().__init__(
            *(*TWISTD, "--nodaemon", f"--pidfile={directory / 'twistd.pid'}"),
            *("dangad", "--log-jobs=all", "--min-workers=2", "--max-workers=2"),
            *(f"--listen=unix:{path}", "--listen=tcp:0:interface=127.0.0.1"),
            environment={"DANGAD_EXAMPLES_ROOT": os.getcwd()},
            stderr=subprocess.STDOUT,
        )

    def wait_until_ready(self) -> None:
        """Wait until it listens on both endpoints and both workers are ready."""
        port = self.wait_for_line(r"starting on (\d+)$")[1]
        self.endpoints["TCP"] = f"tcp:127.0.0.1:{port}"
        for _ in range(2):
            self.workers.append(int(self.wait_for_line(r"worker (\d+) is ready$")[1]))

    def run_of(self, client: Client) -> Run:
        """The log's description of the client's job: no two clients call the same command."""
        pattern = re.compile(
            rf"job (\d+) ({client.part.command.__name__}) done "
            r"worker=(\d+) wait=([\d.]+) runtime=([\d.]+) "
        )
        found = next(filter(None, map(pattern.search, self.said)), None)
        match = found or self.wait_for_line(pattern.pattern)
        job, command, worker, wait, runtime = match.groups()
        return Run(job, command, worker, float(wait), float(runtime))


class Client(Process):
    """One of the clients: it connects, waits for its cue, and asks."""

    ending = signal.SIGKILL  # it has nothing to clean up

    def __init__(self, name: str, part: Part, endpoint: str) -> None:
        self.name = name
        self.part = part
        self.label = f"client {name}"
        #: The time of each of its events, by name.
        self.times: dict[str, float] = {}
        super().__init__(
            *(sys.executable, "-m", "dangad.examples.demo", "--client", name, endpoint),
            environment={},
            stderr=None,
        )

    def cue(self) -> None:
        """Let the client ask."""
        self.say("ask")

    def wait_for(self, event: str) -> None:
        """Wait until it says that `event` has happened, and note the time."""
        self.times[event] = float(self.wait_for_line(rf"^{event} ([\d.]+)$")[1])

    @property
    def answer(self) -> list[str]:
        """The answer in lines, once it has finished."""
        answered = next(i for i, line in enumerate(self.said) if line.startswith("answered "))
        return [line.rstrip("\n") for line in self.said[answered + 1 :]]
