"""A server, two workers and three clients, each in a process of its own, play a short story.

``python -m dangad.examples.demo`` (``make demo``) starts ``twistd dangad`` and three clients.
Client 2 asks for a directory's listing, and client 5 for something that takes a while. While this
job still runs, client 7 asks for something quick. Then the demo prints who asked what, which worker
ran it, and in which order the answers came. It stops the server, and checks that nothing is left.

Nothing here sleeps to let something happen: every step waits for a line of one of the processes,
see :mod:`dangad.examples.demoprocesses`. With ``--client`` this file is one of the clients. This
part of it needs only Twisted and the commands that it calls.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NoReturn

from twisted.internet.endpoints import clientFromString, connectProtocol
from twisted.internet.task import react
from twisted.internet.threads import deferToThread
from twisted.protocols import amp

from dangad.examples import CountPrimes, Echo, ListDirectory
from dangad.examples.demoprocesses import (
    ENDINGS,
    Client,
    Part,
    Server,
    StoryFailed,
    StoryStopped,
    undisturbed,
)
from dangad.host.processcontrol import die_by
from dangad.wire.commands import Ping

if TYPE_CHECKING:
    from types import FrameType

    from dangad.examples.demoprocesses import Run

PATIENCE = 60
"""The most seconds that the story may take; a whole number."""
LOG_TAIL = 20
"""Lines of the server's log that are shown when the story fails."""
LISTED = 20
"""Entries of the listing that are shown."""


# --- The parts -----------------------------------------------------------------------------------


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
    "5": Part("TCP", CountPrimes, {"below": 200_000_000}, lambda a: [f"{a['count']:,} primes"]),
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
            for number in ENDINGS:  # only what was started is left to stop, which is quick
                signal.signal(number, signal.SIG_IGN)
    if failure is not None:
        print(f"The demo failed: {failure}", file=sys.stderr)
        print("The end of the server's log:", file=sys.stderr)
        print("".join(f"  {line}" for line in server.said[-LOG_TAIL:]), file=sys.stderr)
    return 0 if failure is None else 1


def play(server: Server, stack: ExitStack) -> None:
    """Let the clients ask in the order of the story, and print what happened.

    The clients are processes that end with `stack`.
    """
    server.wait_until_ready()
    print(f"Server {server.pid} listens on")
    for endpoint in server.endpoints.values():
        print(f"  {endpoint}")
    print(f"Its workers {server.workers[0]} and {server.workers[1]} are ready.")
    print("Of many clients, three play a part: client 2 wants to know what is in a directory,")
    print("client 5 wants something that takes a while, and client 7 something quick.")
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
    five.wait_for("accepted")  # and started: each of the two jobs has a worker
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
    """Print what the clients saw, and what the server logged of their jobs."""
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
    """Stop the server by SIGTERM, and check that nothing is left of it."""
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
    """End the story on a signal; the processes are stopped on the way out."""
    if number == signal.SIGALRM:
        raise StoryFailed(f"it did not come to its end within {PATIENCE} s")
    print(f"The demo was stopped by {signal.Signals(number).name}.", file=sys.stderr)
    raise StoryStopped(number)


# --- A client's side -----------------------------------------------------------------------------


async def be_client(reactor: Any, name: str, endpoint: str) -> None:
    """Connect, wait for the cue, ask, and print the answer, with nothing but stock Twisted."""
    part = PARTS[name]
    server = await connectProtocol(clientFromString(reactor, endpoint), amp.AMP())
    happened("connected")
    await deferToThread(sys.stdin.readline)

    happened("asked")
    answer = server.callRemote(part.command, **part.arguments)
    await server.callRemote(Ping)  # requests are read in order; this one is answered at once
    happened("accepted")

    response = await answer
    happened("answered")
    print("\n".join(part.read_out(response)))


def happened(event: str) -> None:
    """Print for the story what happened and when, by a clock that all processes share."""
    print(event, time.monotonic(), flush=True)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    if sys.argv[1:2] == ["--client"]:
        react(be_client, sys.argv[2:])
    try:
        sys.exit(main())
    except StoryStopped as stopped:
        number = stopped.number
    except BrokenPipeError:  # the reader of the story has gone
        number = signal.SIGPIPE
    die_by(number)
