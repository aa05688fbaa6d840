"""The rules between a client's bytes and the dispatcher, on memory transports and a clock."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import weakref
from typing import TYPE_CHECKING, Any, ClassVar

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IFileDescriptorReceiver, IPushProducer, ITCPTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols import amp
from twisted.python.failure import Failure
from zope.interface import directlyProvides
from zope.interface.verify import verifyObject

from dangad import errors
from dangad.host.quietlog import INTERVAL
from dangad.host.turns import QUOTA, UNIT
from dangad.scheduler.dispatcher import Dispatcher
from dangad.scheduler.interfaces import IClient, IWorker
from dangad.scheduler.record import Death, Job, JobState
from dangad.server.boxwatch import BOX_TIME, IBoxSender
from dangad.server.boxwatch import LOOK_INTERVAL as BOX_LOOK
from dangad.server.eagerwriter import IUnreadWatcher
from dangad.server.factory import CLOSED_AT_ONCE, IDLE_TIME, MAX_REFUSALS
from dangad.server.flowcontrol import INSTANT_REST, MAX_INSTANT
from dangad.server.memorybudget import LOOK_INTERVAL as MEMORY_LOOK
from dangad.server.memorybudget import IHolder
from dangad.server.owncommands import MAX_OWN_COMMAND
from dangad.server.refusal import REFUSAL_TIME, RefusedConnection
from dangad.server.stallwatch import LOOK_INTERVAL as STALL_LOOK
from dangad.server.stallwatch import STALL_TIME
from dangad.wire import boxes, commands
from dangad.wire.catalogue import Policy
from dangad.wire.values import Priority
from tests import fakes
from tests.unit.host.test_turns import TurnClock
from tests.unit.telling import TellingTestCase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from dangad.server.factory import ClientFactory
    from tests.unit.telling import Deeds

Answer = dict[bytes, bytes]
STEP = 1.0
"""A second, in which nothing that looks at clients now and then misses a look."""

CATALOGUE = json.dumps(
    {
        "commands": [
            {
                "name": name,
                "doc": "",
                "arguments": [],
                "response": [],
                "errors": [],
                "policy": dataclasses.asdict(policy),
            }
            for name, policy in (("Echo", Policy()), ("Finish", Policy(on_disconnect="finish")))
        ]
    }
)


class FakeWorker(fakes.FakeWorker):
    """A worker that answers when the test says so, or at once, in the middle of `give`."""

    def __init__(self, dispatcher: Dispatcher, pid: int, at_once: bool) -> None:
        super().__init__()
        self.pid = pid
        self.can_prefetch = False
        self.say_hello()
        self._dispatcher = dispatcher
        self._at_once = at_once

    def give(self, job: Job) -> bool:
        """Note the job, or answer it."""
        taken = super().give(job)
        if self._at_once:
            self.answer()
        return taken

    def answer(self, failed: bool = False, **pairs: bytes) -> None:
        """Answer the job, by default with its own tag as the data."""
        job = self.finish()
        if not (failed or pairs):
            pairs = {"data": job.tag or b""}
        body = boxes.pack((key.encode(), value) for key, value in pairs.items())
        self._dispatcher.answers.job_finished(self, failed, body)

    def die(self, how: str = "was killed by SIGKILL") -> None:
        """Be dead."""
        super().die()
        self._dispatcher.worker_gone(self, Death(how))


class Line(StringTransport):
    """A connection to a client in memory, with TCP's manners.

    What is written waits until the client reads it; when too much waits, the producer is
    paused, again at each further write. What the client sends waits while reading is paused.
    Closing waits until all is read, and for the producer to go.
    """

    capacity = 2**16
    failing = False
    cut_off = False

    def __init__(self) -> None:
        super().__init__(lenient=True)
        self.protocol: Any = None
        self.inbox: list[bytes] = []
        self.outbox = b""
        self.peak = 0
        self.producer_paused = False

    def write(self, data: bytes) -> None:
        """As of a socket."""
        if self.failing:
            raise OSError("this transport is broken")
        if not self.connected:
            return
        self.outbox += data
        self.peak = max(self.peak, len(self.outbox))
        if len(self.outbox) > self.capacity and self.producer is not None:
            self.producer_paused = True
            self.producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """As of a socket."""
        self.write(b"".join(data))

    def send(self, *pieces: bytes) -> None:
        """The client sends these pieces."""
        self.inbox += pieces
        self.pump()

    def pump(self) -> None:
        """Let arrive what the client has sent, while it is read."""
        while self.inbox and self.reading:
            self.protocol.dataReceived(self.inbox.pop(0))

    @property
    def reading(self) -> bool:
        """Whether the server reads from the client."""
        return self.connected and not self.disconnecting and self.producerState == "producing"

    def take(self) -> bytes:
        """The client reads all that there is."""
        data, self.outbox = self.outbox, b""
        if self.producer is not None and self.producer_paused:
            self.producer_paused = False
            self.producer.resumeProducing()
            self.pump()
        self.settle()
        return data

    def settle(self) -> None:
        """Close the connection if the server wanted that and nothing is in its way."""
        if self.cut_off or (self.disconnecting and not self.outbox and self.producer is None):
            self.drop(error.ConnectionDone())

    def abortConnection(self) -> None:
        """As of a socket: closed soon, but not before this returns."""
        self.cut_off = self.disconnecting = True
        self.outbox = b""

    def drop(self, why: Exception | None = None) -> None:
        """The connection is gone, by the client's wish unless said otherwise."""
        if not self.connected:
            return
        self.connected = False
        if self.producer is not None:
            self.producer.stopProducing()
            self.producer = None
        self.protocol.connectionLost(Failure(why or error.ConnectionLost()))


class FakeClient:
    """A client at the other end of a :class:`Line`."""

    def __init__(self, line: Line) -> None:
        self.line = line

    def call(self, command: bytes, tag: bytes | None = None, /, **pairs: bytes) -> None:
        """Send a request; keywords are further pairs."""
        self.line.send(request(command, tag, **pairs))

    def answers(self) -> list[Answer]:
        """The boxes that the client can read now, the last of them to its end."""
        reader = boxes.BoxReader(2**30, ())
        answers = []
        while data := self.line.take():
            reader.feed(data)
            while (box := reader.next()) is not None:
                assert box.raw is not None
                answers.append(boxes.unpack(bytes(box.raw)))
            if not reader.held:
                break
        return answers

    def answer(self) -> Answer:
        """The only box that the client can read now."""
        [answer] = self.answers()
        return answer

    @property
    def closed(self) -> bool:
        """Whether the server has closed the connection, or is about to."""
        return self.line.disconnecting or not self.line.connected


def request(command: bytes | None, tag: bytes | None = None, /, **pairs: bytes) -> bytes:
    """A request box."""
    reserved = [(boxes.ASK, tag), (boxes.COMMAND, command)]
    return boxes.pack(
        [
            *((key, value) for key, value in reserved if value is not None),
            *((key.encode(), value) for key, value in pairs.items()),
        ]
    )


def ok(tag: bytes, **pairs: bytes) -> Answer:
    """A good answer as its client reads it."""
    return {b"_answer": tag, **{key.encode(): value for key, value in pairs.items()}}


def echo(tag: bytes) -> Answer:
    """What a fake worker answers."""
    return ok(tag, data=tag)


class ServerCase(TellingTestCase):
    """A server for fake workers and fake clients, with small limits."""

    deeds: ClassVar[Deeds] = {
        "ready": lambda case, *names: case.add_workers(names, at_once=False),
        "quick": lambda case, *names: case.add_workers(names, at_once=True),  # who answer at once
        "fails": lambda _, worker, code, text: worker.answer(
            True, _error_code=code.encode(), _error_description=text.encode()
        ),
        "dies": lambda _, worker: worker.die(),
        "connect": lambda case, *names: [case.named(name) for name in names],
        "begins": lambda case, client, word: client.line.send(case.request_of(word)[:-1]),
        "ends": lambda case, client, word: client.line.send(case.request_of(word)[-1:]),
        "receives": lambda case, client, word: client.line.protocol.dataReceived(  # unasked
            case.request_of(word)
        ),
        "narrow": lambda case, name: setattr(case.named(name).line, "capacity", 10),
        "leaves": lambda _, client: client.line.drop(),
        "breaks": lambda _, client: setattr(client.line, "failing", True),
        "pump": lambda case: [client.line.pump() for client in case.clients.values()],
        "settle": lambda case: [client.line.settle() for client in case.clients.values()],
        "at_most": lambda case, limit, number: setattr(case.factory, limit, int(number)),
        "no_workers": lambda case: case.dispatcher.no_workers("there is no memory"),
        "drain": lambda case: setattr(case, "waited", case.dispatcher.drain(30.0)),
        "close": lambda case: setattr(case, "waited", case.factory.close(5.0)),
    }
    facts: ClassVar[Deeds] = {
        "heard": lambda _, client: [answer[b"_answer"].decode() for answer in client.answers()],
        "got": lambda _, worker: [(job.tag or b"-").decode() for job in worker.given],
        "interrupted": lambda _, worker: [] if worker.interrupts == [b"cancelled"] else ["not"],
        "undisturbed": lambda _, worker: [*worker.interrupts, *filter(None, [worker.killed])],
        "asking": lambda case: case.dispatcher.state.registry.waiting,  # for the catalogue
        "jobs": lambda case: [case.dispatcher.running, case.dispatcher.waiting],
        "cancelled": lambda case: case.dispatcher.counters.ended[JobState.CANCELLED],
        "connections": lambda case: case.factory.connections,
        "failed": lambda case: len(case.flushLoggedErrors(OSError)),  # as was logged
        "over": lambda case: case.successResultOf(case.waited) or [],
        "not_over": lambda case: case.assertNoResult(case.waited) or [],
        "quiet": lambda case: case.dispatcher.state.quiet.flush() or case.clock.getDelayedCalls(),
        # The clients of whom this is true, in the order of their coming.
        "read": lambda case: case.those(lambda client: client.line.reading),
        "cut_off": lambda case: case.those(lambda client: client.line.cut_off),
        "open": lambda case: case.those(lambda client: not client.closed),
        "held": lambda case: case.those(
            lambda client: case.dispatcher.state.queue.is_on_hold(client.line.protocol)
        ),
    }

    max_payload = 10_000
    max_in_flight = 1000
    max_connections = 100
    max_buffered = 2**30
    max_queued = 500

    def setUp(self) -> None:
        """Make the server, and begin to note log events."""
        self.events = fakes.noted_events(self)
        super().setUp()

    def begin_anew(self) -> None:
        """Make another server."""
        self.clock = Clock()
        self.dispatcher = Dispatcher(self.clock, self.max_queued)
        self.factory = self.front_door()
        self.events.clear()
        self.workers: dict[str, FakeWorker] = {}
        self.clients: dict[str, FakeClient] = {}
        self.waited: Deferred[Any] = Deferred()

    def front_door(self) -> ClientFactory:
        """Another way in to the same dispatcher."""
        return fakes.client_factory(
            self.clock,
            self.dispatcher,
            max_payload=self.max_payload,
            max_in_flight=self.max_in_flight,
            max_connections=self.max_connections,
            max_buffered=self.max_buffered,
        )

    def logged(self) -> list[str]:
        """What the server module logged."""
        return fakes.lines_of(self.events, "dangad.server.factory", "dangad.server.connection")

    def worker(self, at_once: bool = False) -> FakeWorker:
        """A new worker, idle."""
        worker = FakeWorker(self.dispatcher, 4711, at_once)
        self.dispatcher.worker_ready(worker, CATALOGUE)
        return worker

    def client(self) -> FakeClient:
        """A new client, connected or refused."""
        line = Line()
        line.protocol = self.factory.buildProtocol(None)
        assert line.protocol is not None
        line.protocol.makeConnection(line)
        return FakeClient(line)

    def read_all(self, client: FakeClient) -> list[Answer]:
        """The boxes that the client is sent, which it reads as time passes, until none comes."""
        answers: list[Answer] = []
        silent = 0
        while silent < 2:
            more = client.answers()
            answers += more
            silent = 0 if more else silent + 1
            self.clock.advance(INSTANT_REST)
            client.line.pump()
        return answers

    def assert_error(self, answer: Answer, tag: bytes, code: bytes, *texts: str) -> None:
        """The answer is the error of this code to the request of this tag, and says all that."""
        self.assertEqual(set(answer), {b"_error", b"_error_code", b"_error_description"})
        self.assertEqual((answer[b"_error"], answer[b"_error_code"]), (tag, code))
        for text in texts:
            self.assertIn(text, answer[b"_error_description"].decode())

    # What happens in stories.

    def find(self, name: str) -> FakeWorker | FakeClient:
        """The worker or client of this name."""
        return self.workers.get(name) or self.named(name)

    def named(self, name: str) -> FakeClient:
        """The client of this name, who connects when first heard of."""
        if name not in self.clients:
            self.clients[name] = self.client()
        return self.clients[name]

    def those(self, is_so: Callable[[FakeClient], bool]) -> list[str]:
        """The names of the clients of whom something is true."""
        return [name for name, client in self.clients.items() if is_so(client)]

    def add_workers(self, names: Iterable[str], *, at_once: bool) -> None:
        """Have workers that are ready."""
        self.workers |= {name: self.worker(at_once) for name in names}

    def request_of(self, word: str) -> bytes:
        """The request that a word stands for: its tag, or "-", its command and its pairs."""
        tag, *rest = word.split("/")
        command: bytes | None = b"Echo"
        pairs: dict[str, bytes] = {}
        for about in rest:
            key, equals, value = about.partition("=")
            if about.endswith("B") and about[0].isdigit():
                pairs["data"] = bytes(int(about[:-1]))
            elif equals:
                pairs[key] = value.encode()
            else:
                command = None if about == "nothing" else about.encode()
        return request(command, None if tag == "-" else tag.encode(), **pairs)

    def ask(self, name: str, word: str) -> None:
        """A client sends a request."""
        self.named(name).line.send(self.request_of(word))

    def do_pours(self, client: FakeClient, *words: str) -> None:
        """A client sends requests in one piece; "garbage" is none."""
        pieces = [b"\xff\xff" if word == "garbage" else self.request_of(word) for word in words]
        client.line.send(b"".join(pieces))

    def do_answers(self, worker: FakeWorker, *pairs: str) -> None:
        """A worker answers its last job, with its tag as the data, or these pairs, or 60 kB."""
        if pairs == ("much",):
            worker.answer(a=bytes(60_000), b=bytes(60_000))
        else:
            split = (each.partition("=") for each in pairs)
            worker.answer(False, **{key: value.encode() for key, _, value in split})

    def do_wait(self, seconds: str) -> None:
        """Time passes, in steps in which it is looked at who reads and who writes."""
        for _ in range(int(float(seconds) / STEP)):
            self.clock.advance(STEP)
        self.clock.advance(float(seconds) % STEP)

    # What is true then.

    def see_hears(self, client: FakeClient, *words: str) -> None:
        """Which answers a client can read: echoes, such with other pairs, or ``7/!CODE``."""
        self.assert_answers(client.answers(), words)

    def see_hears_all(self, client: FakeClient, *words: str) -> None:
        """Which answers a client is sent as time passes, until none comes."""
        self.assert_answers(self.read_all(client), words)

    def assert_answers(self, answers: list[Answer], words: Sequence[str]) -> None:
        """The answers are what the words say."""
        self.assertEqual(len(answers), len(words))
        expected = []
        for number, word in enumerate(words):
            tag, *pairs = word.split("/")
            if pairs and pairs[0].startswith("!"):
                self.assert_error(answers[number], tag.encode(), pairs[0][1:].encode())
                expected.append(answers[number])
                continue
            split = (each.partition("=") for each in pairs if each)
            own = ok(tag.encode(), **{key: value.encode() for key, _, value in split})
            expected.append(own if pairs else echo(tag.encode()))
        self.assertEqual(answers, expected)

    def see_told(self, client: FakeClient, tag: str, code: str, *texts: str) -> None:
        """The one error that a client can read."""
        self.assert_error(client.answer(), tag.encode(), code.encode(), *texts)

    def see_logged(self, text: str) -> None:
        """What was logged last."""
        self.assertIn(text, self.logged()[-1])


class PromiseTest(ServerCase):
    def test_interfaces(self) -> None:
        """A connection is the dispatcher's client, and its writer the transport's producer."""
        line = self.client().line
        for interface in (IClient, IFileDescriptorReceiver, IUnreadWatcher):
            verifyObject(interface, line.protocol)
        for watched in (IHolder, IBoxSender):
            verifyObject(watched, line.protocol.holdings)
        verifyObject(IPushProducer, line.producer)
        verifyObject(IWorker, self.worker())
        verifyObject(
            IFileDescriptorReceiver,
            RefusedConnection(self.clock, errors.QueueFull(""), lambda _: None),
        )


ANSWERS = {
    "a worker's error goes back as an AMP error, as the worker wrote it": """
        ready w, c: 7, w fails MINE no, c told 7 MINE no
    """,
    "whichever job ends first is answered first, under its own tag": """
        ready x y, c: a b, x answers, y answers, c hears b a
    """,
    "tags are each connection's own": """
        ready x y, c: 1, d: 1, x answers of=d, y answers of=c, c hears 1/of=c, d hears 1/of=d
    """,
    "a box that asks for nothing is told so; the connection lives": """
        c: 7/nothing/data=x, c told 7 BAD_ARGUMENTS _command, open c
    """,
    "a request without _ask runs, and nothing about it is told": """
        ready w, c: -, w answers, w got -, c: -/Nope -/_priority=odd, c hears, open c
    """,
    "the death of the worker is the answer": """
        ready w, c: 7, w dies, c told 7 WORKER_LOST 4711 SIGKILL Echo
    """,
    "once a request is answered, its tag is free": """
        ready w, c: 7, w answers, c hears 7, c: 7, w answers, c hears 7
    """,
    "a second request under the tag of an unanswered one is refused; the first goes on": """
        ready w, c: 7 7, c told 7 BAD_ARGUMENTS "'7'" "in use", w got 7, w answers, c hears 7
    """,
    "a tag of 255 bytes serves; a longer one gets an error under its name": f"""
        ready w, c: {"t" * 255}, w answers, c hears {"t" * 255}, c: {"t" * 256}
        c told {"t" * 256} BAD_ARGUMENTS 256 255
    """,
    "until a worker has told what is performed, requests wait; then they are refused": """
        c: 1/Nope 2, c hears, ready w, c told 1 UNHANDLED Nope, w answers, c hears 2
    """,
    "garbage cancels the client's jobs, and touches nobody else's": """
        ready w, c pours 1 2 garbage, d: 3, settle, w interrupted, w dies, quick x, d hears 3
        cancelled 2
    """,
    "what follows garbage is no request, even if it comes before the connection is gone": """
        ready w, c pours garbage, c receives 7, w got, settle
    """,
}
OWN_COMMANDS = {
    "Describe is answered when the first worker has told, and at once from then on": """
        c: 1/dangad.Describe 2/dangad.Ping, c hears 2/, ready w, c: 3/dangad.Describe, c heard 1 3
    """,
    "a client that does not wait for the catalogue is forgotten": """
        c: 1/dangad.Describe, asking 1, c leaves, asking 0, ready w, c hears
    """,
    "Ping is answered at once, with no worker and with none idle": """
        c: 1/dangad.Ping, c hears 1/, c: -/dangad.Ping, c hears
    """,
    "a server that stops before it knows its catalogue says so": """
        c: 1/dangad.Describe, drain, c told 1 SHUTTING_DOWN, c: 2/dangad.Describe
        c told 2 SHUTTING_DOWN
    """,
    "a job that waits is over at once when it is cancelled, and its own request is answered": """
        ready w, c: 1 2, c: 3/dangad.Cancel/tag=2, c hears 2/!CANCELLED 3/
        w answers, c hears 1, w got 1
    """,
    "a job that runs is over when its worker is dead; cancelling it again changes nothing": """
        ready w, c: 1 2/dangad.Cancel/tag=1, c hears 2/, c: 3/dangad.Cancel/tag=1, c hears 3/
        w interrupted, w dies, c told 1 CANCELLED "into its run", c: 4/dangad.Cancel/tag=1
        c hears 4/
    """,
    "cancelling what has ended, never was, or is somebody else's changes nothing": """
        ready w, c: 1, w answers, c hears 1, d: 5, c: 2/dangad.Cancel/tag=1 3/dangad.Cancel/tag=5
        c: 4/dangad.Cancel/tag=6 5/dangad.Cancel/tag=, c hears 2/ 3/ 4/ 5/, w undisturbed
    """,
    "Cancel does its work also if nobody wants to hear of it": """
        ready w, c: 1 -/dangad.Cancel/tag=1, w interrupted, c hears
    """,
    "Cancel without its argument is a bad request": """
        c: 1/dangad.Cancel, c told 1 BAD_ARGUMENTS "'tag'"
    """,
}
DISCONNECTS = {
    "the jobs of a client that is gone never start, or are killed; others' go on": """
        ready w, c: 1 2 3, d: 4, c leaves, w interrupted, w dies, quick x, d hears 4, cancelled 3
        jobs 0 0, connections 1
    """,
    "a running job whose type says so ends by itself, and its answer goes nowhere": """
        ready w, c: 1/Finish 2/Finish, c leaves, w undisturbed, w answers, w got 1, c hears
        cancelled 1
    """,
    "jobs that nobody wanted an answer to end with their client like any others": """
        ready w, c: - -, c leaves, w interrupted, jobs 1 0
    """,
    "a client that goes without having read its answers leaves nothing behind": """
        ready w, c: 1, w answers much, c leaves, held, connections 0
    """,
    "half a request is no request": "ready w, c begins 1, c leaves, w got",
    "a client that leaves while it is not read leaves nothing behind": f"""
        ready w, c pours t1-{MAX_INSTANT}/Nope, read, c leaves, quiet
    """,
}
PACES = {
    "with as many requests unanswered as may be, a client is not read; nothing is lost": """
        at_most max_in_flight 3, ready w, c pours t1-5, c: t6, jobs 1 2, read, w answers
        c hears t1, jobs 1 2, read, w answers, c hears t2, w answers, c hears t3, w answers
        c hears t4, w answers, c hears t5, pump, w answers, c hears t6, read c
    """,
    "requests for a catalogue that nobody has told yet are in flight, too": """
        at_most max_in_flight 10, c pours d1-12/dangad.Describe, read, asking 10, ready w, asking 0
        c heard d11-12 d1-10, read c
    """,
    "any number of requests that are refused at once are answered in turn": """
        at_most max_in_flight 10, ready w, c: t1-9, c pours n1-3000/Nope
        c hears_all n1-3000/!UNHANDLED, read c
    """,
    "answers that come from within submit neither recurse nor change the order": """
        at_most max_in_flight 1, quick w, c pours t1-3000, c hears_all t1-3000
    """,
    "who sends nothing but what is refused is read at a bounded pace": f"""
        ready w, c pours n1-{2 * MAX_INSTANT}/Nope, c hears n1-{MAX_INSTANT}/!UNHANDLED, read
        wait {INSTANT_REST}, c hears n{MAX_INSTANT + 1}-{2 * MAX_INSTANT}/!UNHANDLED, read
        wait {INSTANT_REST}, read c
    """,
    "so is a flood of pings": f"""
        c pours p1-{3 * MAX_INSTANT}/dangad.Ping, c hears p1-{MAX_INSTANT}/, c hears
        c hears_all p{MAX_INSTANT + 1}-{3 * MAX_INSTANT}/
    """,
    "answers that come during the release may fill the buffer again at once": """
        narrow c, quick w, c pours t1-5, c hears t1, c hears t2, c hears t3, c hears t4, c hears t5
    """,
    "with a payload's worth of requests unanswered, a client is not read": """
        ready w, c pours t1-9/4000B, jobs 1 2, read, 3x w answers, c hears t1-3
        3x w answers, c hears t4-6, 3x w answers, c hears t7-9, read c
    """,
    "the cap is each connection's own": "at_most max_in_flight 2, c: 1 2, d: 3, read d",
    "garbage that is found when reading goes on, in the middle of an answer, closes too": """
        at_most max_in_flight 1, ready w, c pours 1 garbage, cut_off, w answers, cut_off c, settle
        jobs 0 0
    """,
    "a client that does not read is not read, and its jobs do not start until it has read": """
        ready w, c: big, connect d, w answers much, read d, c: 1, d: 2, w answers, d hears 2
        w got big 2, c heard big, read c d, w answers, c hears 1
    """,
    "jobs submitted before the congestion wait it out; other clients' overtake them": """
        ready w, c: big t1-5, ready x, w answers much, x answers, x got t1, jobs 1 3
        d: 6, x answers, d hears 6, jobs 1 3, c heard big, c heard t1, jobs 2 2
    """,
    "a client that has read but still has too much in flight is not read yet": """
        at_most max_in_flight 2, ready w x, c pours 1 2 3, x answers much, read, c heard 1, read
        jobs 2 0
    """,
    "one that leaves its answers unread for minutes is cut off, and its jobs end": f"""
        ready w, c: 1 2, w answers much, wait {STALL_TIME - STALL_LOOK}, cut_off, wait {STALL_LOOK}
        cut_off c, logged "has read 0 bytes in 300 s, of answers of which 120", settle
        w interrupted
    """,
    "one that has to wait with a request, because its other requests do, is in no hurry": f"""
        at_most max_in_flight 1, ready w, c pours 1 2, wait {BOX_TIME + BOX_LOOK}, w answers
        w answers, c hears 1 2
    """,
    "one whose request does not get on is told if it can be, and disconnected": f"""
        c begins 1/data=x, wait {BOX_TIME + BOX_LOOK}
        c told 1 BAD_ARGUMENTS "did not get on for 60 s", open
        logged "does not get on with a request", quiet
    """,
}
FAILING = {
    "a write that fails closes that connection; all others go on": """
        ready w, c: 1 2, d: 3, c breaks, w answers, failed 1, cut_off c, 2x w answers, d hears 3
        settle, jobs 0 0, connections 1
    """,
    "when no worker can be had, a broken client does not keep others from being told": """
        c: 1, d: 1, e: 1, f: 1, c breaks, e breaks, no_workers, failed 2
        d told 1 NO_WORKERS "there is no memory", f told 1 NO_WORKERS "there is no memory"
    """,
}
IDLE = {
    "of those that had nothing to do for long, the longest idle is closed for a new one": f"""
        at_most max_connections 2, quick w, connect c d, wait 1, c: 1, c hears 1, wait {IDLE_TIME}
        e: 1, open c e, e hears 1, w got 1 1, connections 2, logged "nothing to do for 31 s"
    """,
    "not one that waits for a job, or has just been answered, or sends a request": f"""
        at_most max_connections 2, ready w, c: 1, d begins 2, wait {IDLE_TIME + 1}, e: 3, open c d
        w answers, wait {IDLE_TIME - 1}, connect f, open c f, c hears 1
    """,
    "while there is room, a connection may be idle for ever": f"""
        at_most max_connections 2, connect c, wait {10 * IDLE_TIME}, connect d, open c d
    """,
}
LIMITS = {
    "a job that finds no room is refused with the limit's name; the others are done": """
        c: 1 2 3, c told 3 QUEUE_FULL "--max-queued", quick w, c hears 2 1
    """,
    "a server that stops refuses new jobs, and finishes those that it has": """
        ready w, c: 1, drain, c: 2, c told 2 SHUTTING_DOWN, not_over, w answers, c hears 1, over
    """,
    "the first request of one connection too many is refused, and it is closed": """
        connect c d e f, connections 3, f begins -, open c d e f, f ends -, f: 7
        f told 7 QUEUE_FULL "3 connections" "--max-connections", settle, open c d e, quiet
        c leaves, g: 1/dangad.Ping, g hears 1/
    """,
    "a large request, or one without a command, is refused like any other": """
        connect c d e, f: 7/60000B, f told 7 QUEUE_FULL, settle, g: 7/nothing, g told 7 QUEUE_FULL
    """,
    "who is refused and says nothing is cut off after some seconds": f"""
        connect c d e f g, g pours garbage, cut_off g, wait {REFUSAL_TIME}, cut_off f g
    """,
}
CLOSES = {
    "with nobody connected, nothing is waited for": "close, over, quiet",
    "a connection is closed when its client has read what was written, paused or not": """
        ready w, connect d, c: 1, w answers much, close, settle, not_over, c heard 1, over, quiet
        connections 0
    """,
    "nobody who does not read can keep the server from stopping": """
        ready w, c: 1, w answers, close, wait 4.9, settle, not_over, wait 0.2, settle, over
    """,
    "what a client sends after that is not performed": """
        at_most max_in_flight 1, ready w, c pours 1/Finish 2, close, c receives 3, w answers
        w got 1, settle, connections 0
    """,
    "no connection and no alarm is left of those that were being refused": """
        connect c d e f, close, settle, over, quiet
    """,
}


class StoryTest(ServerCase):
    """What is told in stories."""

    def test_stories(self) -> None:
        """They are true."""
        self.tell(ANSWERS, OWN_COMMANDS, DISCONNECTS, PACES, FAILING, IDLE)
        self.tell(CLOSES, prelude="at_most max_connections 3")


class AnswerTest(ServerCase):
    def test_a_job_and_its_answer(self) -> None:
        """The worker gets the box byte for byte, and its answer goes back under the tag."""
        worker, client = self.worker(), self.client()
        for tag in (b"7", b"", b"\x00\xff"):
            box = request(b"Echo", tag, data=b"hello", _unknown=b"kept")
            client.line.send(box)
            job = worker.given[-1]
            self.assertEqual((worker.boxes[-1], job.command, job.tag), (box, b"Echo", tag))
            worker.answer(data=b"hello")
            self.assertEqual(
                client.line.take(), boxes.pack([(b"_answer", tag), (b"data", b"hello")])
            )

    def test_two_front_doors(self) -> None:
        """No two jobs have the same id, whichever way they came in."""
        workers = [self.worker(), self.worker()]
        for _ in workers:
            self.client().call(b"Echo", b"1")
            self.factory = self.front_door()
        self.assertEqual({worker.given[0].id for worker in workers}, {1, 2})

    def test_large_answers(self) -> None:
        """An answer of any size goes out whole."""
        worker, client = self.worker(), self.client()
        for size in (0, 65535):
            client.call(b"Echo", b"%d" % size)
            worker.answer(a=bytes(size), b=bytes(size))
            self.assertEqual(client.answer(), ok(b"%d" % size, a=bytes(size), b=bytes(size)))

    @settings(deadline=None)
    @given(st.lists(st.integers(1, 200), max_size=60))
    def test_any_pieces(self, lengths: list[int]) -> None:
        """Requests are the same however their bytes come."""
        self.setUp()
        self.worker(at_once=True)
        client = self.client()
        stream = b"".join(request(b"Echo", b"%d" % tag, data=bytes(tag)) for tag in range(20))
        for length in lengths:
            client.line.send(stream[:length])
            stream = stream[length:]
        client.line.send(stream)
        self.assertEqual(client.answers(), [echo(b"%d" % tag) for tag in range(20)])


class BadRequestTest(ServerCase):
    def test_unreadable_options(self) -> None:
        """A reserved key that cannot be read refuses the request by name, and nothing runs."""
        worker, client = self.worker(), self.client()
        for key, expected, found in (
            ("_priority", "high, normal or low", ["", "High", "urgent", "1"]),
            ("_deadline", "seconds", ["", "abc", "-1", "nan", "inf", "1e999", "5 s", "٣"]),
            ("_progress", "0 or 1", ["", "2", "yes", "true", "01"]),
            ("_chunks", "0 or 1", ["", "2", "yes", "true", "01"]),
        ):
            for value in found:
                client.call(b"Echo", b"7", **{key: value.encode()})
                self.assert_error(client.answer(), b"7", b"BAD_ARGUMENTS", key, expected)
        client.call(b"Echo", b"7", _priority=b"x" * 60_000)
        self.assertLess(len(client.answer()[b"_error_description"]), 200)
        self.assertEqual(worker.given, [])
        self.assertEqual(client.closed, False)

    def test_readable_options(self) -> None:
        """Priority and deadline reach the job; flags may be set or not."""
        worker, client = self.worker(), self.client()
        for options, priority, deadline in (
            ({}, Priority.NORMAL, None),
            ({"_priority": b"high"}, Priority.HIGH, None),
            ({"_priority": b"normal", "_deadline": b"1"}, Priority.NORMAL, 1.0),
            ({"_priority": b"low", "_deadline": b"2.5"}, Priority.LOW, 2.5),
            ({"_progress": b"1", "_chunks": b"1"}, Priority.NORMAL, None),
            ({"_progress": b"0", "_chunks": b"0"}, Priority.NORMAL, None),
        ):
            client.call(b"Echo", b"7", **options)
            job = worker.given[-1]
            self.assertEqual((job.priority, job.deadline), (priority, deadline))
            worker.answer()
            self.assertEqual(client.answers(), [echo(b"7")])

    def test_traces(self) -> None:
        """A trace reaches the job, byte for byte the worker, too; one not valid is ignored."""
        worker, client = self.worker(), self.client()
        good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        for value, expected in (
            (good, good),
            ("cc" + good[2:], "cc" + good[2:]),
            ("ff" + good[2:], None),
            (good.upper(), None),
            (good + "\n", None),
            (good + "-more", None),
            (f"00-{'0' * 32}-b7ad6b7169203331-01", None),
            (f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01", None),
            ("", None),
            ("x" * 300, None),
        ):
            client.call(b"Echo", b"7", _traceparent=value.encode())
            self.assertEqual(worker.given[-1].traceparent, expected)
            worker.answer()
            self.assertEqual(client.answers(), [echo(b"7")])

    def test_unknown_commands(self) -> None:
        """A command that nobody performs is AMP's own error, and the connection lives."""
        worker, client = self.worker(), self.client()
        for command in (
            b"Nope",
            b"StartTLS",
            b"",
            b"\xff\xfe",
            b"dangad.Nope",
            b"dangad.",
            b"echo",
            b"x" * 9000,
        ):
            client.call(command, b"7")
            answer = client.answer()
            self.assert_error(answer, b"7", b"UNHANDLED")
            self.assertLess(len(answer[b"_error_description"]), 200)
        client.call(b"Echo", b"8")
        worker.answer()
        self.assertEqual(client.answers(), [echo(b"8")])

    def test_answers_to_nothing(self) -> None:
        """Answer and error boxes, which a server may be sent, are passed over."""
        client = self.client()
        client.line.send(boxes.pack([(b"_answer", b"1")]))
        client.line.send(boxes.pack([(b"_error", b"1"), (b"_error_code", b"X")]))
        self.assertEqual(client.answers(), [])
        self.assertEqual(client.closed, False)

    def test_too_large(self) -> None:
        """A request over the limit is refused with both numbers, and the connection lives."""
        worker, client = self.worker(), self.client()
        empty = len(request(b"Echo", b"7", data=b""))
        client.call(b"Echo", b"7", data=bytes(self.max_payload - empty))
        worker.answer()
        self.assertEqual(client.answers(), [echo(b"7")])
        client.call(b"Echo", b"8", data=bytes(self.max_payload - empty + 1))
        self.assert_error(client.answer(), b"8", b"TOO_LARGE", "10001 bytes", "--max-payload")
        client.call(b"Echo", None, data=bytes(20_000))
        client.call(b"Echo", b"9")
        worker.answer()
        self.assertEqual(client.answers(), [echo(b"9")])
        filler = [(b"data", bytes(60_000))] * 5  # the tag is found wherever it stands
        client.line.send(boxes.pack([*filler, (b"_command", b"Echo"), (b"_ask", b"10")]))
        self.assert_error(client.answer(), b"10", b"TOO_LARGE")
        self.assertEqual(len(worker.given), 2)

    def test_too_large_for_the_server_itself(self) -> None:
        """A command of the server's own is bounded at 64 KiB, whatever --max-payload says."""
        self.factory.max_payload = 10 * MAX_OWN_COMMAND
        client = self.client()
        filler = boxes.pack([(b"a", b""), (b"tag", b"1")])[:-2] * (MAX_OWN_COMMAND // 13)
        client.line.send(request(b"dangad.Cancel", b"7")[:-2] + filler + boxes.END)
        self.assert_error(client.answer(), b"7", b"TOO_LARGE", "65536")
        self.assertEqual(client.closed, False)


class GarbageTest(ServerCase):
    def test_garbage(self) -> None:
        """Bytes that are no AMP close the connection at once, with a reason in the log."""
        for garbage, reason in (
            (b"GET / HTTP/1.1\r\n", "AMP, but what looks like HTTP; closing"),
            (b"EHLO you\r\n", "a key of 17736 bytes where AMP allows 255: the peer does not speak"),
            (bytes(2), "an empty box"),
            (boxes.pack([(b"data", b"x")]), "neither a request nor an answer"),
        ):
            client = self.client()
            client.line.send(garbage)
            self.assertTrue(client.line.cut_off)
            self.assertIn(reason, self.logged()[-1])
            client.line.settle()
            self.clock.advance(INTERVAL)
        self.assertEqual(len(self.logged()), 4)
        self.assertEqual(self.factory.connections, 0)

    def test_a_flood_of_garbage(self) -> None:
        """Of one peer that comes again and again with garbage, few lines are in the log."""
        for _ in range(1000):
            client = self.client()
            client.line.send(b"GET / HTTP/1.1\r\n")
            client.line.settle()
        self.assertEqual(len(self.logged()), 1)
        self.clock.advance(INTERVAL)
        self.assertEqual(len(self.logged()), 2)
        self.assertIn("and 998 more", self.logged()[-1])


class OwnCommandTest(ServerCase):
    def test_describe_a_large_catalogue(self) -> None:
        """A catalogue of more than one value's length is laid over several keys."""
        catalogue = json.loads(CATALOGUE)
        catalogue["commands"][0]["doc"] = "x" * 200_000
        self.dispatcher.worker_ready(FakeWorker(self.dispatcher, 1, False), json.dumps(catalogue))
        client = self.client()
        client.call(b"dangad.Describe", b"1")
        answer = client.answer()
        self.assertEqual(answer.pop(b"_answer"), b"1")
        told = commands.Describe.parseResponse(amp.AmpBox(answer), None)
        self.assertEqual(told, {"catalogue": json.dumps(catalogue)})


class DisconnectTest(ServerCase):
    def test_disconnect_after_all_answers(self) -> None:
        """Of a client that has gone when all its jobs had ended, nothing is kept."""
        worker = self.worker()
        client = self.client()
        for tag in (b"1", b"2"):
            client.call(b"Echo", tag)
        worker.answer()
        worker.answer()
        self.assertEqual(client.answers(), [echo(b"1"), echo(b"2")])
        connection = weakref.ref(client.line.protocol)
        client.line.drop()
        del client
        worker.given.clear()
        gc.collect()
        self.assertIsNone(connection())


class CongestionTest(ServerCase):
    def test_a_flood_that_is_never_read(self) -> None:
        """Whatever is asked, no more is written than a buffer and the answers under way."""
        self.worker(at_once=True)
        client = self.client()
        for command in (b"Echo", b"Nope", b"dangad.Ping", b"dangad.Describe", b"dangad.Cancel"):
            client.line.send(b"".join(request(command, b"%d" % tag) for tag in range(3000)))
        self.assertFalse(client.line.reading)
        self.assertLess(client.line.peak, Line.capacity + 2000)
        answers = self.read_all(client)
        self.assertEqual(
            [answer.get(b"_answer") or answer[b"_error"] for answer in answers],
            [b"%d" % tag for _ in range(5) for tag in range(3000)],
        )
        self.assertTrue(client.line.reading)

    def test_progress_while_unread(self) -> None:
        """Of the progress that a client does not read only the last is kept, for each job."""
        worker, other, client = self.worker(), self.worker(), self.client()
        client.call(b"Echo", b"1")
        client.call(b"Echo", b"2")
        [running] = [each for each in (worker, other) if each.given[-1].tag == b"1"]
        done = other if running is worker else worker
        done.answer(a=bytes(60_000), b=bytes(60_000))
        for number in range(1000):
            self.dispatcher.answers.job_reported(
                running, boxes.pack([(b"done", b"%d" % number)]), parts=False
            )
        told: list[Answer] = []
        while more := client.answers():
            told += more
        self.assertEqual([box[b"_answer"] for box in told if b"_answer" in box], [b"2"])
        self.assertEqual(
            [box for box in told if b"_command" in box],
            [{b"_command": b"dangad.Progress", b"tag": b"1", b"done": b"999"}],
        )

    def test_slow_but_reading(self) -> None:
        """One that reads little by little is not cut off, however long it takes."""
        self.play("ready w, c: 1")
        line = self.clients["c"].line
        self.workers["w"].answer(False, **{f"a{number}": bytes(60_000) for number in range(100)})
        came = 0
        while came < 6_000_000:
            self.do_wait(str(STALL_TIME - STALL_LOOK))
            came += len(line.take())
            self.assertFalse(line.cut_off)
        self.play("quiet")


class MemoryTest(ServerCase):
    """Little may be held for all clients together."""

    max_payload = 2**20
    max_buffered = 2 * max_payload

    def half(self, client: FakeClient, tag: bytes, size: int) -> None:
        """Send a part of a request, of about so many bytes."""
        pairs = [(boxes.ASK, tag), (boxes.COMMAND, b"Echo")]
        pairs += [(b"data%d" % number, bytes(50_000)) for number in range(size // 50_000)]
        client.line.send(boxes.pack(pairs)[: -len(boxes.END)])

    def test_half_requests(self) -> None:
        """The largest half request is thrown away, and its client told when it ends, and served."""
        self.worker(at_once=True)
        clients = [self.client() for _ in range(3)]
        for client, size in zip(clients, (600_000, 900_000, 700_000), strict=True):
            self.half(client, b"1", size)
        self.clock.advance(0)
        for client in clients:
            client.line.send(boxes.END)
        self.clock.advance(1)
        for client in clients:
            client.line.pump()
        self.clock.advance(0)
        answers = [client.answer() for client in clients]
        self.assertEqual([answers[0], answers[2]], [echo(b"1"), echo(b"1")])
        self.assert_error(answers[1], b"1", b"QUEUE_FULL", "--max-buffered is 2097152", "later")
        clients[1].call(b"Echo", b"2")
        self.clock.advance(0)
        self.assertEqual(clients[1].answers(), [echo(b"2")])
        self.assertEqual(self.factory.budget.total, 0)

    def test_answers_that_are_not_read(self) -> None:
        """The client that leaves most unread is cut off, with a line in the log."""
        clients = [self.client() for _ in range(3)]
        worker = self.worker()
        for client, size in zip(clients, (12, 17, 14), strict=True):
            client.call(b"Echo", b"1")
            worker.answer(False, **{f"a{number}": bytes(50_000) for number in range(size)})
        self.clock.advance(0)
        self.assertEqual([client.line.cut_off for client in clients], [False, True, False])
        self.assertIn("of answers unread; the server holds", self.logged()[-1])
        clients[1].line.settle()
        for client in clients:
            client.answers()
        self.assertEqual(self.factory.budget.total, 0)

    def test_requests_that_wait(self) -> None:
        """Requests that wait count: whose are most is not read until there is room."""
        worker = self.worker()
        few, many = self.client(), self.client()
        for client, count in ((few, 10), (many, 20)):
            for number in range(count):
                client.call(b"Echo", b"%d" % number, data=bytes(45_000))
                self.clock.advance(0)  # the next turn, for requests of this size
                client.line.pump()
        self.clock.advance(MEMORY_LOOK)
        self.assertEqual((few.line.reading, many.line.reading), (True, False))
        while self.dispatcher.running:
            worker.answer()
        self.clock.advance(1)
        self.assertTrue(many.line.reading)
        while many.line.inbox or self.dispatcher.running:
            many.line.pump()
            self.clock.advance(0)
            if self.dispatcher.running:
                worker.answer()
        self.assertEqual([len(self.read_all(each)) for each in (few, many)], [10, 20])
        self.assertEqual(self.factory.budget.total, 0)

    def test_who_leaves(self) -> None:
        """Nothing is counted of a client that is gone, whatever was held for it."""
        worker, client = self.worker(), self.client()
        client.call(b"Echo", b"1")
        worker.answer(False, a=bytes(60_000), b=bytes(60_000), c=bytes(60_000))
        other = self.client()
        other.call(b"Echo", b"2", data=bytes(40_000))
        other.call(b"Echo", b"3", data=bytes(40_000))
        self.half(other, b"4", 100_000)
        self.assertGreater(self.factory.budget.total, 300_000)
        for gone in (client, other):
            gone.line.drop()
        self.assertEqual(self.factory.budget.total, 0)


class OwnCommandFloodTest(ServerCase):
    def test_a_flood_for_the_catalogue(self) -> None:
        """Who asks for a large catalogue again and again gets no more of it than is read."""
        worker, client = self.worker(), self.client()
        entries = json.loads(CATALOGUE)["commands"]
        entries[0]["doc"] = "x" * 60_000
        self.dispatcher.worker_ready(
            FakeWorker(self.dispatcher, 4712, False), json.dumps({"commands": entries})
        )
        flood = b"".join(request(b"dangad.Describe", b"%d" % tag) for tag in range(300))
        client.line.send(flood)
        self.assertLess(client.line.protocol._writer.held, 200_000)
        self.assertLess(client.line.peak, 200_000)
        self.assertEqual(len(self.read_all(client)), 300)
        self.assertEqual(worker.given, [])


class ManyTest(ServerCase):
    max_connections = 1000

    def begin_anew(self) -> None:
        """Have a clock with turns."""
        super().begin_anew()
        self.clock = self.turns_clock = TurnClock()
        self.factory = self.front_door()

    def test_one_turn(self) -> None:
        """However many requests come at once, few are taken in a turn; nobody is passed over."""
        worker = self.worker(at_once=True)
        clients = [self.client() for _ in range(50)]
        for client in clients:
            client.line.send(b"".join(request(b"Echo", b"%d" % tag) for tag in range(100)))
        self.assertLessEqual(len(worker.given), QUOTA)
        late = self.client()
        late.call(b"Echo", b"late")
        before = len(worker.given)
        turns = 0
        while not any(job.tag == b"late" for job in worker.given):
            turns += 1
            self.turns_clock.turn()
            self.assertLessEqual(len(worker.given) - before, QUOTA)
            before = len(worker.given)
        self.assertLess(turns, 5)
        for _ in range(100):
            self.turns_clock.turn()
        self.assertEqual(len(worker.given), 50 * 100 + 1)
        for client in clients:
            self.assertEqual(len(client.answers()), 100)

    def test_crumbs(self) -> None:
        """Of requests of many clients that are full of tiny keys few are looked at in a turn.

        So it is if they are whole, and if they are parts of larger ones.
        """
        crumbs = (b"\0\1x\0\0") * 1000
        whole = (
            boxes.pair(boxes.ASK, b"1") + boxes.pair(boxes.COMMAND, b"Echo") + crumbs + boxes.END
        )
        for data in (whole, crumbs):
            clients = [self.client() for _ in range(2 * QUOTA)]
            for client in clients:
                client.line.send(data)
            turns = 1
            while any(not client.line.reading for client in clients):
                self.turns_clock.turn()
                turns += 1
            self.assertGreaterEqual(turns, len(clients) * len(crumbs) // (QUOTA * UNIT))

    def test_closing(self) -> None:
        """Many connections are closed a few in a turn, and cut off likewise."""
        clients = [self.client() for _ in range(CLOSED_AT_ONCE + 10)]
        for act in (lambda: self.factory.close(5), self.factory.abort):
            act()
            self.assertEqual(sum(each.closed for each in clients), CLOSED_AT_ONCE)
            self.turns_clock.turn()
            self.assertEqual(sum(each.closed for each in clients), len(clients))
            for client in clients:
                client.line.settle()
            clients = [self.client() for _ in range(CLOSED_AT_ONCE + 10)]


class LimitTest(ServerCase):
    max_connections = 3
    max_queued = 2

    def test_stories(self) -> None:
        """Jobs and connections for which there is no room are told so."""
        self.tell(LIMITS)

    def test_refusals_are_bounded(self) -> None:
        """So many at once are told why; one more is closed without a word."""
        for _ in range(3):
            self.client()
        refused = [self.client() for _ in range(MAX_REFUSALS)]
        self.assertIsNone(self.factory.buildProtocol(None))
        refused[0].line.drop()
        self.client()
        self.assertIsNone(self.factory.buildProtocol(None))

    def test_refused_clients_cost_no_memory(self) -> None:
        """A refused client may send what it likes; no more is kept than a pair."""
        for _ in range(3):
            self.client()
        late = self.client()
        for _ in range(100):
            late.line.send(boxes.pair(b"data", bytes(65535)))
            self.assertEqual(late.line.protocol._reader.held, 0)


class TCPLine(Line):
    """A line that can be told how to behave on a network."""

    def __init__(self) -> None:
        super().__init__()
        self.settings: dict[str, bool] = {}

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Note it."""
        self.settings["no delay"] = enabled

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Note it."""
        self.settings["keep alive"] = enabled


class NetworkTest(ServerCase):
    def test_tcp(self) -> None:
        """Answers over TCP are not held back, and a peer that vanished is found out."""
        line = TCPLine()
        directlyProvides(line, ITCPTransport)
        line.protocol = self.factory.buildProtocol(None)
        line.protocol.makeConnection(line)
        self.assertEqual(line.settings, {"no delay": True, "keep alive": True})


class DescriptorTest(ServerCase):
    def test_who_passes_a_descriptor_is_cut_off(self) -> None:
        """Whoever passes a descriptor is cut off, refused or not, and the log tells of it."""
        self.factory.max_connections = 1
        for _ in range(2):
            client = self.client()
            client.line.protocol.fileDescriptorReceived(os.open(os.devnull, os.O_RDONLY))
            self.assertTrue(client.line.cut_off)
            client.line.settle()
            client.line.protocol.fileDescriptorReceived(os.open(os.devnull, os.O_RDONLY))
        self.assertEqual(len(self.logged()), 1)
        self.assertIn("passed a file descriptor", self.logged()[0])

    def test_requests_with_a_descriptor(self) -> None:
        """What comes along with it is not performed."""
        worker, client = self.worker(at_once=True), self.client()
        client.line.protocol.fileDescriptorReceived(os.open(os.devnull, os.O_RDONLY))
        client.line.protocol.dataReceived(request(b"Echo", b"1"))
        self.assertEqual(worker.given, [])
