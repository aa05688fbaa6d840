"""A server, two workers and three clients, each in a process of its own, play a short story.

``python -m dangad.examples.demo`` (``make demo``) starts ``twistd dangad`` and three clients.
Client 2 asks for a directory's listing, client 5 for something that takes a while, and client 7 for
something quick while that still runs. Then it prints who asked what, which worker ran it and in
which order the answers came, stops the server, and sees to it that nothing is left behind.

Nothing here sleeps to let something happen: every step waits for what a process says, in lines
on its stdout. With ``--client`` this file is one of the clients, at the end of the page: it needs
Twisted, and of dangad only the commands that it calls.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NoReturn

from twisted.internet.endpoints import clientFromString, connectProtocol, quoteStringArgument
from twisted.internet.task import react
from twisted.internet.threads import deferToThread
from twisted.protocols import amp

from dangad.examples import CountPrimes, Echo, ListDirectory
from dangad.wire.commands import Ping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

TWISTD = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()")
"""twistd of this very Python, wherever its script may be."""

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
"""Signals that end the story early."""
PATIENCE = 60
"""Whole seconds that the story may take."""
GRACE = 10.0
"""Seconds that a process has to end when it is asked to."""
LOG_TAIL = 20
"""Lines of the server's log that are shown when the story fails."""
LISTED = 20
"""Entries of the listing that are shown."""


class StoryFailed(Exception):
    """Something did not happen, or happened otherwise than the story goes; the text says what."""


# --- The parts -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """What one client does: a command, its arguments, over which transport."""

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


def listing(answer: dict[str, Any]) -> list[str]:
    """The entries of a directory as a table."""
    entries = answer["entries"]
    lines = [f"{'name':36}  {'kind':9}  {'size':>12}  modified (UTC)"]
    for entry in entries[:LISTED]:
        name = entry["name"].decode("utf-8", "backslashreplace")
        lines.append(
            f"{name:36.36}  {entry['kind']:9.9}  {entry['size']:12,}  "
            f"{entry['modified']:%Y-%m-%d %H:%M:%S}"
        )
    if len(entries) > LISTED:
        lines.append(f"... and {len(entries) - LISTED:,} more")
    return lines


PARTS = {
    "2": Part("UNIX", ListDirectory, {"path": "docs" if os.path.isdir("docs") else "."}, listing),
    "5": Part("TCP", CountPrimes, {"below": 500_000_000}, lambda a: [f"{a['count']:,} primes"]),
    "7": Part("UNIX", Echo, {"data": b"hello"}, lambda a: [repr(a["data"])]),
}
"""The clients, by name."""


# --- The story -----------------------------------------------------------------------------------


def main() -> int:
    """Play the story and print it; gives the exit status."""
    for number in ENDINGS:
        signal.signal(number, give_up)
    signal.alarm(PATIENCE)
    failure: StoryFailed | None = None
    with ExitStack() as stack:
        with undisturbed():
            directory = Path(stack.enter_context(TemporaryDirectory(prefix="dangad-demo-")))
            server = stack.enter_context(Server(directory))
        try:
            play(server, stack)
            stop(server, directory)
        except StoryFailed as problem:
            failure = problem
        finally:
            for number in ENDINGS:  # what was started is stopped now, which takes little time
                signal.signal(number, signal.SIG_IGN)
    if failure is not None:
        print(f"The demo failed: {failure}", file=sys.stderr)
        print("The end of the server's log:", file=sys.stderr)
        print("".join(f"  {line}" for line in server.said[-LOG_TAIL:]), file=sys.stderr)
    return 0 if failure is None else 1


def play(server: Server, stack: ExitStack) -> None:
    """Have the clients ask in the order of the story, and print what happened.

    The clients are processes that end with `stack`.
    """
    server.wait_until_ready()
    with undisturbed():
        two, five, seven = clients = [
            stack.enter_context(Client(name, part, server.endpoints[part.transport]))
            for name, part in PARTS.items()
        ]
    for client in clients:
        client.wait_for("connected")

    two.cue()
    two.wait_for("asked")
    five.cue()
    five.wait_for("asked")
    five.wait_for("accepted")  # and so started: there was a worker for each of the two
    seven.cue()
    seven.wait_for("asked")
    for client in clients:
        client.wait_for("answered")
        client.finish()
        if client.status:
            raise StoryFailed(f"client {client.name} ended with status {client.status}")

    runs = {client: server.run_of(client) for client in clients}
    tell(clients, runs)
    if seven.times["answered"] > five.times["answered"]:
        raise StoryFailed("client 5's slow job was answered before client 7's quick one")
    if runs[five].worker == runs[seven].worker:
        raise StoryFailed("clients 5 and 7 were served by one worker")
    print("\nClient 7 asked after client 5 and was answered first, by another worker.")


def tell(clients: list[Client], runs: dict[Client, Run]) -> None:
    """Print what the clients saw, and what the server says of their jobs."""
    start = min(client.times["asked"] for client in clients)
    events = []
    for client in clients:
        part = client.part
        events += [
            (client.times["asked"], client, f"asks over {part.transport:4}  {part.request}"),
            (client.times["answered"], client, "has its answer"),
        ]
    print("\nWhat the clients saw, in seconds from the first request:")
    for at, client, event in sorted(events, key=lambda event: event[0]):
        print(f"  {at - start:6.3f}  client {client.name}  {event}")

    print("\nWho did the work, in the order of the answers:")
    print("  client  over  job  command        worker        wait     runtime")
    for client in sorted(clients, key=lambda client: client.times["answered"]):
        run = runs[client]
        print(
            f"  {client.name:6}  {client.part.transport:4}  {run.job:>3}  {run.command:13}  "
            f"{run.worker:>8}  {run.wait:8.3f} s  {run.runtime:8.3f} s"
        )

    for client in clients:
        print(f"\nThe answer to client {client.name}, {client.part.request}:")
        print("\n".join(f"  {line}" for line in client.answer))


def stop(server: Server, directory: Path) -> None:
    """Stop the server by SIGTERM, and see that nothing is left of it."""
    server.end()
    if server.status != -signal.SIGTERM:
        raise StoryFailed(f"the server ended with status {server.status} instead of by SIGTERM")
    left = [f"process {pid}" for pid in server.workers if group_exists(pid)]
    left += [f"file {path}" for path in directory.iterdir()]
    if left:
        raise StoryFailed(f"the server left behind: {', '.join(left)}")
    print(f"\nServer {server.pid} was stopped by SIGTERM.")
    print("No process, no socket and no pid file is left behind.")


def group_exists(pid: int) -> bool:
    """Whether the process `pid`, or one of the process group that it led, is still there."""
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True


def give_up(number: int, _: FrameType | None) -> NoReturn:
    """End the story on a signal; what was started is stopped on the way out."""
    if number == signal.SIGALRM:
        raise StoryFailed(f"it did not come to its end within {PATIENCE} s")
    print(f"The demo was stopped by {signal.Signals(number).name}.", file=sys.stderr)
    sys.exit(128 + number)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let no signal end the story while something starts; one that comes does so afterwards."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)


def unblock_signals() -> None:
    """Undo `undisturbed` in a process that was started in it."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)


# --- The processes -------------------------------------------------------------------------------


class Process:
    """A program that says how far it has come, in lines on its stdout.

    Leads a process group, so that Ctrl-C in a terminal reaches only this program, which ends
    the others. All mutable state: `said`, the lines it has said, and the process itself.
    """

    label: str
    ending = signal.SIGTERM
    """The signal that ends it early."""

    def __init__(self, *command: str, environment: dict[str, str], stderr: int | None) -> None:
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
        with suppress(BrokenPipeError):  # it has ended: whoever waits for its words will see
            self._stdin.write(f"{line}\n")
            self._stdin.flush()

    def end(self) -> None:
        """Ask the process to end, and make it if it does not; listen to its last words."""
        if self.status is None:
            self._process.send_signal(self.ending)
        self.finish()

    def finish(self) -> None:
        """Wait for the process to end by itself, listening; it is killed if it takes long."""
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
    """What the server's log says of a job."""

    job: str
    command: str
    worker: str
    wait: float
    runtime: float


class Server(Process):
    """``twistd dangad`` on a UNIX socket in `directory` and on a TCP port that the system chooses.

    All mutable state, besides the process: `endpoints`, where clients connect, by transport,
    and `workers`, the pids of those that are ready.
    """

    label = "the server"

    def __init__(self, directory: Path) -> None:
        path = quoteStringArgument(str(directory / "dangad.sock"))
        self.endpoints = {"UNIX": f"unix:{path}"}
        self.workers: list[int] = []
        super().__init__(
            *(*TWISTD, "--nodaemon", f"--pidfile={directory / 'twistd.pid'}"),
            *("dangad", "--log-jobs", "--min-workers=2", "--max-workers=2"),
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
        print(f"Server {self.pid} listens on")
        for endpoint in self.endpoints.values():
            print(f"  {endpoint}")
        print(f"Its workers {self.workers[0]} and {self.workers[1]} are ready.")

    def run_of(self, client: Client) -> Run:
        """What it logged of the client's job, by command: no two clients call the same one."""
        pattern = re.compile(
            rf"job (\d+) ({client.part.command.__name__}) done "
            r"worker=(\d+) wait=([\d.]+) runtime=([\d.]+) "
        )
        found = next(filter(None, map(pattern.search, self.said)), None)
        match = found or self.wait_for_line(pattern.pattern)
        job, command, worker, wait, runtime = match.groups()
        return Run(job, command, worker, float(wait), float(runtime))


class Client(Process):
    """One of the clients, which has connected and waits for its cue, or has asked.

    All mutable state, besides the process: `times`, when each thing happened to it.
    """

    ending = signal.SIGKILL  # it has nothing to put in order

    def __init__(self, name: str, part: Part, endpoint: str) -> None:
        self.name = name
        self.part = part
        self.label = f"client {name}"
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


# --- A client's side -----------------------------------------------------------------------------


async def be_client(reactor: Any, name: str, endpoint: str) -> None:
    """Connect, wait for the cue, ask, and print the answer; stock Twisted does it all."""
    part = PARTS[name]
    server = await connectProtocol(clientFromString(reactor, endpoint), amp.AMP())
    happened("connected")
    await deferToThread(sys.stdin.readline)

    happened("asked")
    answer = server.callRemote(part.command, **part.arguments)
    await server.callRemote(Ping)  # requests are read in turn, and this one is answered at once
    happened("accepted")

    response = await answer
    happened("answered")
    print("\n".join(part.read_out(response)))


def happened(event: str) -> None:
    """Tell the story, which reads stdout, what happened and when, by the clock of all processes."""
    print(event, time.monotonic(), flush=True)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    if sys.argv[1:2] == ["--client"]:
        react(be_client, sys.argv[2:])
    sys.exit(main())
