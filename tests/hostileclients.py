"""Clients that mean harm to a server and to its other clients: a program beside honest ones.

``python -m tests.hostileclients`` connects to a server that serves `tests.hostilejobs`, does
harm of all kinds until a moment of the system's monotonic clock, and prints how often it did which,
as a JSON object. It is a process of its own, with plain sockets and threads, so that it does not
get in the way of the honest clients in theirs.

With ``--calm`` it leaves out what costs a worker's start, or a job that waits on its client: that
is a job's stop (its deadline passes, its client goes), and its worker's end. A start takes a
quarter of a second of processor time, and whoever causes more of them than the machine has room
for makes everybody wait. And then the program gives way to all others, since it is what the server
does that is measured beside it.
"""

import argparse
import array
import contextlib
import json
import os
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable

from dangad.wire import boxes, commands, workerboxes
from tests import hostilejobs

_TIMEOUT = 1.0
"""Seconds that a client waits for the server before it does something else."""
_WORDS = (
    *(workerboxes.RUN, workerboxes.STOP, workerboxes.PING, workerboxes.PONG),
    *(workerboxes.DONE, workerboxes.FAILED, workerboxes.REPORT, workerboxes.PART),
    *(boxes.ANSWER, boxes.ERROR, boxes.ERROR_CODE, boxes.ERROR_DESCRIPTION),
    *(boxes.PROGRESS, boxes.CHUNKS, boxes.PRIORITY),
    *(b"_", b"__", b"_unknown", b"tag", b"pid", b"data"),
)
"""All of dangad's own words, and some more; a deadline is apart, since it may cost a worker."""
_VALUES = (
    *(b"", b"boom", b"0", b"1", b"1 1", b"2 1 1.000000", b"3 0 0 0 0", b"4 cancelled", b"high"),
    *(b"dangad.Hello", b"dangad.LastWords", b"\xff\xfe", boxes.END * 9, workerboxes.PING_BOX),
)
_OTHERS = [b"%d" % number for number in range(1, 150)]
"""Tags under which honest clients ask, on connections of their own."""

FEW = 3
"""How many things a hand does at least."""


class Hostility:
    """Where the server is, how long it is harmed, and how often it was.

    All mutable state: `counts`, by kind of deed.
    """

    def __init__(self, path: str, port: int, until: float) -> None:
        self.counts: Counter[str] = Counter()
        self._path = path
        self._port = port
        self._until = until

    def connect(self, chance: random.Random, *, unix: bool = False) -> socket.socket:
        """A new connection, over one socket or the other."""
        if unix or chance.random() < 0.5:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(_TIMEOUT)
            connection.connect(self._path)
            return connection
        return socket.create_connection(("127.0.0.1", self._port), _TIMEOUT)

    def goes_on(self) -> bool:
        """Whether there is time left."""
        return time.monotonic() < self._until

    def rest(self, seconds: float) -> None:
        """Wait, but not beyond the end."""
        time.sleep(max(0.0, min(seconds, self._until - time.monotonic())))

    def hand(self, seed: str, deeds: dict[str, "Deed"], pause: float) -> None:
        """Do one deed after the other, with pauses of at most so many seconds between.

        However slow the machine is, it is a few.
        """
        chance = random.Random(seed)
        names = list(deeds)
        left = FEW
        while left > 0 or self.goes_on():
            left -= 1
            name = chance.choice(names)
            self.counts[name] += 1
            with contextlib.suppress(OSError):
                deeds[name](self, chance)
            self.rest(chance.random() * pause)


Deed = Callable[[Hostility, random.Random], None]


def request(tag: bytes, command: bytes, *pairs: tuple[bytes, bytes]) -> bytes:
    """A request with these pairs besides."""
    return boxes.pack([(boxes.ASK, tag), (boxes.COMMAND, command), *pairs])


def harm(kind: type[hostilejobs.Mischief], deed: str, tag: bytes = b"1") -> bytes:
    """A request for a job that does the deed."""
    return request(tag, kind.commandName, (b"deed", deed.encode()))


def read(connection: socket.socket, seconds: float = _TIMEOUT, answers: int = 1) -> int:
    """Read until so many answers have come, or nothing does for so long; how many came."""
    reader = boxes.BoxReader(2**20, (boxes.ANSWER, boxes.ERROR))
    connection.settimeout(seconds)
    count = 0
    with contextlib.suppress(TimeoutError):
        while count < answers and (data := connection.recv(2**16)):
            reader.feed(data)
            while (box := reader.next()) is not None:
                count += bool(box.keys)
    return count


def reset(connection: socket.socket) -> None:
    """Close it so that the other end hears of an error; what is underway is thrown away."""
    if connection.family != socket.AF_UNIX:
        linger = struct.pack("ii", 1, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    connection.close()


def _nothings(count: int, *pairs: tuple[bytes, bytes]) -> bytes:
    name = hostilejobs.Nothing.commandName
    return b"".join(request(b"n%d" % number, name, *pairs) for number in range(count))


# Words, tags and frames.


def own_words(hostility: Hostility, chance: random.Random) -> None:
    """Requests with dangad's own words before, between and after those of AMP."""
    with hostility.connect(chance) as connection:
        for _ in range(3):
            packed = []
            for number in range(15):
                usual = [(boxes.ASK, b"w%d" % number), (boxes.COMMAND, b"Nothing")]
                words = chance.choices(_WORDS, k=chance.randrange(1, 5))
                pairs = [*usual, *((word, chance.choice(_VALUES)) for word in words)]
                chance.shuffle(pairs)
                packed.append(boxes.pack(pairs))
            connection.sendall(b"".join(packed))
            read(connection, answers=15)


def foreign_tags(hostility: Hostility, chance: random.Random) -> None:
    """Cancels of others' jobs, requests under others' tags, and answers to nothing."""
    name = commands.Cancel.commandName
    with hostility.connect(chance) as connection:
        for tag in chance.sample(_OTHERS, 30):
            connection.sendall(request(b"c" + tag, name, (b"tag", tag)))
        for tag in chance.sample(_OTHERS, 10):
            connection.sendall(request(tag, b"Nothing"))
        read(connection, answers=40)
        for tag in chance.sample(_OTHERS, 10):
            frame = chance.choice((boxes.ANSWER, boxes.ERROR))
            connection.sendall(boxes.pack([(frame, tag), (b"token", b"666")]))
            word = chance.choice((b"Progress", b"Chunk", b"Hello", b"LastWords"))
            box = [(boxes.COMMAND, b"dangad." + word), (b"tag", tag), (b"data", b"666")]
            connection.sendall(boxes.pack(box))
        read(connection)


def twins(hostility: Hostility, chance: random.Random) -> None:
    """One tag for many requests at once."""
    with hostility.connect(chance) as connection:
        connection.sendall(request(b"twin", b"Nothing") * 30)
        read(connection, answers=30)


def half_boxes(hostility: Hostility, chance: random.Random) -> None:
    """Requests that stop in the middle, on several connections, and are left so for a while."""
    whole = request(b"half", b"Nothing", (b"data", bytes(30_000)))
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            connection = stack.enter_context(hostility.connect(chance))
            connection.sendall(whole[: chance.randrange(1, len(whole))])
            if chance.random() < 0.5:
                stack.callback(reset, connection)
        hostility.rest(chance.random() * 0.5)


def byte_by_byte(hostility: Hostility, chance: random.Random) -> None:
    """A request that comes in pieces of one byte."""
    with hostility.connect(chance) as connection:
        for byte in _nothings(2):
            connection.sendall(bytes([byte]))
        read(connection, answers=2)


def garbage(hostility: Hostility, chance: random.Random) -> None:
    """What is no AMP, or was until a byte was changed."""
    with hostility.connect(chance) as connection:
        stream = bytearray(_nothings(20))
        place = chance.randrange(len(stream))
        stream[place : place + chance.randrange(3)] = chance.randbytes(chance.randrange(1, 3))
        other = (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", bytes(9), chance.randbytes(3000))
        connection.sendall(chance.choice((stream, *other)))
        read(connection, 0.1)


# Floods and connections.


def flood(hostility: Hostility, chance: random.Random) -> None:
    """Many small requests of the server's own commands, and of commands that nobody has."""
    names = (b"dangad.Ping", b"dangad.Describe", b"dangad.Nope", b"Nope%d" % chance.getrandbits(64))
    name = chance.choice(names)
    count = 50 if name == b"dangad.Describe" else 1000
    with hostility.connect(chance) as connection:
        connection.sendall(b"".join(request(b"%d" % n, name) for n in range(count)))
        if chance.random() < 0.5:
            read(connection, answers=count)
        else:
            reset(connection)


def flood_of_jobs(hostility: Hostility, chance: random.Random) -> None:
    """Many tiny jobs at once, with or without tags, urgent or not; the answers may go unread."""
    with hostility.connect(chance) as connection:
        pairs = chance.choice(([], [(boxes.PRIORITY, b"high")], [(boxes.PROGRESS, b"1")]))
        if chance.random() < 0.2:
            connection.sendall(boxes.pack([(boxes.COMMAND, b"Nothing")]) * 60)
            connection.sendall(request(b"p", commands.Ping.commandName))
            read(connection)
            return
        connection.sendall(_nothings(60, *pairs))
        if chance.random() < 0.7:
            read(connection, answers=60)
        else:
            hostility.rest(chance.random() * 0.2)
            reset(connection)


def urgent(hostility: Hostility, chance: random.Random) -> None:
    """Urgent jobs, without a pause."""
    with hostility.connect(chance) as connection:
        for _ in range(5):
            connection.sendall(_nothings(40, (boxes.PRIORITY, b"high")))
            if read(connection, answers=40) < 40:
                break


def no_time(hostility: Hostility, chance: random.Random) -> None:
    """Jobs that have no time at all, or whose time is none."""
    with hostility.connect(chance) as connection:
        deadline = chance.choice((b"0", b"0.0", b"-1", b"nan", b"1e999", b"0e0", b"9" * 300))
        connection.sendall(_nothings(40, (boxes.DEADLINE, deadline)))
        read(connection, answers=40)


def resets(hostility: Hostility, chance: random.Random) -> None:
    """The end of the connection in the middle of requests and of answers."""
    stream = _nothings(40)
    with hostility.connect(chance) as connection:
        connection.sendall(stream[: chance.randrange(len(stream))])
        if chance.random() < 0.5:
            connection.recv(chance.randrange(1, 2000))
        reset(connection)


def coming_and_going(hostility: Hostility, chance: random.Random) -> None:
    """Connections that end as soon as they have begun."""
    for _ in range(20):
        with hostility.connect(chance) as connection:
            if chance.random() < 0.5:
                connection.sendall(request(b"1", commands.Ping.commandName))
            if chance.random() < 0.5:
                reset(connection)


def passed_descriptors(hostility: Hostility, chance: random.Random) -> None:
    """Descriptors along with a request, of a socket whose close takes a minute among others."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        slow = stack.enter_context(socket.create_connection(listening.getsockname()))
        peer = stack.enter_context(listening.accept()[0])
        slow.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                slow.send(bytes(2**16))
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 60))
        connection = stack.enter_context(hostility.connect(chance, unix=True))
        rights = array.array("i", [slow.fileno(), peer.fileno(), connection.fileno()])
        with contextlib.suppress(PermissionError):
            data = request(b"1", b"Nothing")
            connection.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            read(connection)
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


# Jobs that do harm.


def _ask_for(kind: type[hostilejobs.Mischief], deeds: list[str], count: int = 3) -> Deed:
    def ask(hostility: Hostility, chance: random.Random) -> None:
        """Some such jobs at once; wait for their end."""
        chosen = chance.choices(deeds, k=count)
        with hostility.connect(chance) as connection:
            for number, deed in enumerate(chosen):
                pairs = [(b"deed", deed.encode()), (boxes.PROGRESS, b"1"), (boxes.CHUNKS, b"1")]
                pairs = pairs[: chance.randrange(1, 4)]
                connection.sendall(request(b"%d" % number, kind.commandName, *pairs))
            read(connection, 30.0, count)

    return ask


def mischief_cut_off(hostility: Hostility, chance: random.Random) -> None:
    """Such jobs whose client goes, cancels, or has no time for them."""
    deed = chance.choice([*hostilejobs.MISCHIEF, *["sleep"] * 10])
    deadline = (boxes.DEADLINE, chance.choice((b"1e-9", b"0.001", b"0.01", b"0.05")))
    pairs = [(b"deed", deed.encode()), *chance.choice(([], [deadline]))]
    with hostility.connect(chance) as connection:
        connection.sendall(request(b"1", b"Mischief", *pairs))
        hostility.rest(chance.random() * 0.05)
        if chance.random() < 0.5:
            connection.sendall(request(b"2", commands.Cancel.commandName, (b"tag", b"1")))
            read(connection, answers=2)
        else:
            reset(connection)


def unread_parts(hostility: Hostility, chance: random.Random) -> None:
    """A stream that is asked for and not read, and then cut off, or read after all."""
    pairs = [(b"count", b"40"), (b"size", b"50000"), (boxes.CHUNKS, b"1"), (boxes.PROGRESS, b"1")]
    with hostility.connect(chance) as connection:
        connection.sendall(request(b"1", b"Pour", *pairs))
        hostility.rest(chance.random() * 0.7)
        if chance.random() < 0.5:
            read(connection, answers=1)
        else:
            reset(connection)


def wreck(hostility: Hostility, chance: random.Random) -> None:
    """A job that costs its worker's life; then one that does not, so that it may be done again."""
    deed = chance.choice(list(hostilejobs.WRECKS))
    with hostility.connect(chance) as connection:
        box = harm(hostilejobs.Wreck, deed)[:-2] + boxes.pack([(boxes.DEADLINE, b"0.7")])
        connection.sendall(box)
        if chance.random() < 0.8:
            read(connection, 10.0)
        else:
            hostility.rest(chance.random() * 0.2)
            reset(connection)
            return
        connection.sendall(harm(hostilejobs.Wreck, "nothing"))
        read(connection, 10.0)


CALM: dict[str, Deed] = {
    "own words": own_words,
    "foreign tags": foreign_tags,
    "twins": twins,
    "half boxes": half_boxes,
    "byte by byte": byte_by_byte,
    "garbage": garbage,
    "floods": flood,
    "floods of jobs": flood_of_jobs,
    "urgent": urgent,
    "no time": no_time,
    "resets": resets,
    "coming and going": coming_and_going,
    "passed descriptors": passed_descriptors,
    "harmful jobs": _ask_for(hostilejobs.Mischief, list(hostilejobs.HARMLESS)),
    "asynchronous jobs": _ask_for(hostilejobs.AsyncMischief, ["leave", "fail"]),
}
"""What costs no worker's start."""
COSTLY: dict[str, Deed] = {
    "unread parts": unread_parts,
    "more harmful jobs": _ask_for(hostilejobs.Mischief, list(hostilejobs.MISCHIEF), 2),
    "jobs cut off": mischief_cut_off,
    "wrecks": wreck,
}
"""What may."""


def acquaint(hostility: Hostility) -> None:
    """Ask for each kind of job in each priority once: the server remembers that it exists."""
    pour = [(b"count", b"1"), (b"size", b"1")]
    deed = [(b"deed", b"nothing")]
    kinds = {
        b"Nothing": [],
        b"Mischief": deed,
        b"AsyncMischief": deed,
        b"Wreck": deed,
        b"Pour": pour,
    }
    with hostility.connect(random.Random(0)) as connection:
        for name, arguments in kinds.items():
            for priority in (b"high", b"normal", b"low"):
                pairs = [*arguments, (boxes.PRIORITY, priority), (boxes.DEADLINE, b"60")]
                connection.sendall(request(name + priority, name, *pairs))
        read(connection, 10.0, 3 * len(kinds))


def main() -> None:
    """Run, and end the program."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostileclients", description=__doc__)
    parser.add_argument("--unix", required=True, help="the server's UNIX socket")
    parser.add_argument("--port", required=True, type=int, help="its port on 127.0.0.1")
    parser.add_argument("--until", required=True, type=float, help="seconds of the clock")
    parser.add_argument("--seed", required=True, help="what chance begins with")
    parser.add_argument("--hands", type=int, default=4, help="how many (%(default)s)")
    parser.add_argument("--acquaint", action="store_true", help="first ask for each job once")
    parser.add_argument("--only", choices=(*CALM, *COSTLY), help="do nothing else")
    parser.add_argument("--calm", action="store_true", help="cost no worker's start")
    options = parser.parse_args()
    hostility = Hostility(options.unix, options.port, options.until)
    if options.acquaint:
        acquaint(hostility)
    if options.calm:
        os.nice(10)
    deeds = {options.only: (CALM | COSTLY)[options.only]} if options.only else CALM
    calls = [(f"{options.seed}/{number}", deeds, 0.1) for number in range(options.hands)]
    if not options.calm and not options.only:
        calls += [(f"{options.seed}/costly {number}", COSTLY, 0.6) for number in range(2)]
    hands = [threading.Thread(target=hostility.hand, args=call) for call in calls]
    for hand in hands:
        hand.start()
    for hand in hands:
        hand.join()
    print(json.dumps(hostility.counts))


if __name__ == "__main__":
    main()
