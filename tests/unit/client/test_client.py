"""dangad's Twisted client: against the real server over memory, and against hostile peers."""

from __future__ import annotations

import datetime
import json
import os
import sys
import types
from typing import TYPE_CHECKING, Any
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.application.internet import ClientService
from twisted.internet import defer, error
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.protocols import amp
from twisted.python.failure import Failure
from twisted.python.filepath import FilePath
from twisted.trial.unittest import SynchronousTestCase

import dangad
from dangad import Blob, Large, errors
from dangad.client import Client, ClientFactory, Disconnected, NotSent, connect
from dangad.client.connection import ENVELOPE
from dangad.scheduler.dispatcher import Dispatcher
from dangad.wire import boxes
from dangad.wire.catalogue import Policy, describe_command, write_catalogue
from dangad.wire.values import Priority
from tests.fakes import FakeWorker, client_factory

if TYPE_CHECKING:
    from dangad.scheduler.record import Job


class Refused(Exception):
    """An error that Greet declares."""


class Uncommon(Exception):
    """A declared error that is not made of a text alone."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text, number)


class Greet(amp.Command):
    """Greet somebody."""

    arguments = [(b"name", amp.Unicode()), (b"times", amp.Integer(optional=True))]
    response = [(b"greeting", amp.Unicode()), (b"note", amp.Unicode(optional=True))]
    errors = {Refused: b"REFUSED", Uncommon: b"UNCOMMON"}


class Everything(amp.Command):
    """Take one of each."""

    arguments = [
        (b"small", amp.String()),
        (b"large", Blob()),
        (b"numbers", amp.ListOf(amp.Integer())),
        (b"many", Large(amp.ListOf(amp.Integer()), optional=True)),
        (b"rows", amp.AmpList([(b"at", amp.DateTime()), (b"path", amp.Path())])),
        (b"is-it", amp.Boolean()),
    ]
    response = arguments


class Paint(amp.Command):
    """Have arguments that are named like the client's options."""

    arguments = [
        (b"priority", amp.Integer()),
        (b"deadline", amp.Float(optional=True)),
        (b"self", amp.Unicode(optional=True)),
        (b"command", amp.Unicode(optional=True)),
    ]


class Notify(amp.Command):
    """Want no answer."""

    arguments = [(b"text", amp.Unicode())]
    requiresAnswer = False


class Unserved(amp.Command):
    """Be performed by nobody."""


SERVED = (Greet, Everything, Paint, Notify)
WHEN = datetime.datetime(2026, 11, 23, 14, 30, tzinfo=amp.utc)


def as_pairs(response: dict[bytes, bytes]) -> bytes:
    """An answer's part after the tag, as a worker writes it."""
    return boxes.pack(response.items())


class Link:
    """A client and its peer, joined by two transports whose bytes the test moves."""

    def __init__(self, client: Client, peer: Any = None) -> None:
        self.client = client
        self.peer = peer
        self.to_server = StringTransport()
        self.to_client = StringTransport(lenient=True)
        client.makeConnection(self.to_server)
        if peer is not None:
            peer.makeConnection(self.to_client)

    def pump(self, piece: int = 2**20) -> None:
        """Move bytes, in pieces, until nobody has anything to say, and closings."""
        while self._carry(self.to_server, self.peer, piece) or self._carry(
            self.to_client, self.client, piece
        ):
            pass
        if self.to_server.disconnecting or self.to_client.disconnecting:
            self.lose(error.ConnectionDone())

    def lose(self, reason: Exception) -> None:
        """Close the connection, as far as it is open."""
        if self.to_server.connected:
            self.to_server.connected = self.to_client.connected = False
            self.client.connectionLost(Failure(reason))
            if self.peer is not None:
                self.peer.connectionLost(Failure(reason))

    def sent(self) -> list[dict[bytes, bytes]]:
        """The boxes that the client has sent and nobody took."""
        data = self.to_server.value()
        self.to_server.clear()
        return [dict(box) for box in amp.parseString(data)]

    def _carry(self, transport: StringTransport, receiver: Any, piece: int) -> bool:
        data = transport.value()
        transport.clear()
        for start in range(0, len(data), piece):
            receiver.dataReceived(data[start : start + piece])
        return bool(data)


class AgainstTheServer(SynchronousTestCase):
    """The client and dangad's own server and dispatcher; only the workers are stand-ins."""

    def setUp(self) -> None:
        """Connect a client to a server with three idle workers."""
        self.clock = clock = Clock()
        self.dispatcher = Dispatcher(clock, max_queued=5)
        site = client_factory(clock, self.dispatcher, max_payload=200_000)
        self.link = Link(ClientFactory().buildProtocol(None), site.buildProtocol(None))
        self.client = self.link.client
        #: The bytes that come at once with an answer.
        self.piece = 2**20
        self.workers = [FakeWorker() for _ in range(3)]
        entries = [describe_command(command, Policy(), "") for command in SERVED]
        for worker in self.workers:
            worker.say_hello()
            self.dispatcher.worker_ready(worker, write_catalogue(entries))

    def run_job(self, command: type[amp.Command], /, *args: Any, **arguments: Any) -> Deferred[Any]:
        """The client's Deferred, after the request has come to the server."""
        answer = self.client.run(command, *args, **arguments)
        self.link.pump()
        return answer

    def job(self, number: int) -> Job:
        """The job that the dispatcher accepted as the `number`th."""
        (job,) = [job for worker in self.workers for job in worker.given if job.id == number]
        return job

    def box(self, number: int) -> bytes:
        """The request that a worker was given as the `number`th job."""
        (box,) = [
            box
            for worker in self.workers
            for job, box in zip(worker.given, worker.boxes, strict=True)
            if job.id == number
        ]
        return box

    def answer(self, number: int, failed: bool = False, /, **strings: Any) -> None:
        """Have the worker of the `number`th job answer."""
        (worker,) = [each for each in self.workers if each.job and each.job.id == number]
        worker.finish()
        body = as_pairs({key.encode(): value for key, value in strings.items()})
        self.dispatcher.answers.job_finished(worker, failed, body)
        self.link.pump(self.piece)

    def answer_error(self, number: int, code: bytes, text: str = "so it is") -> None:
        """Have the worker of the `number`th job answer with an error."""
        self.answer(number, True, _error_code=code, _error_description=text.encode())

    def test_answers(self) -> None:
        """An answer is a dict of the response, with None for what is left out, or is wrong."""
        for number, (strings, response) in enumerate(
            (
                ({"greeting": "Hello, Zoë".encode()}, {"greeting": "Hello, Zoë", "note": None}),
                ({}, "has no 'greeting'"),
                (
                    {"greeting": b"\xff"},
                    "'greeting' in the answer to Greet is not UTF-8 text: Unicode",
                ),
            ),
            1,
        ):
            answer = self.run_job(Greet, name="Zoë")
            self.assertNoResult(answer)
            self.answer(number, **strings)
            if isinstance(response, dict):
                self.assertEqual(self.successResultOf(answer), response)
            else:
                text = str(self.failureResultOf(answer, dangad.BadResponse).value)
                self.assertIn(response, text)

    def test_errors(self) -> None:
        """A code of dangad's, or one that is declared, comes as its class; others as they are."""
        kinds = {code: kind for kind, code in dangad.ERRORS.items()}
        unknown = {b"UNCOMMON": amp.RemoteAmpError, b"F\xfcR": amp.RemoteAmpError}
        for number, (code, kind) in enumerate({**kinds, b"REFUSED": Refused, **unknown}.items(), 1):
            answer = self.run_job(Greet, name="A")
            self.answer_error(number, code, f"text {number}: ü")
            raised: Any = self.failureResultOf(answer, kind).value
            self.assertIn(f"text {number}: ü", str(raised))
            if code in unknown:
                description = (raised.errorCode, raised.description)
                self.assertEqual(description, (code, f"text {number}: ü"))

    def test_options(self) -> None:
        """A priority is a word or a Priority, a deadline seconds, of which none may be left."""
        for options, sent in (
            ({"priority": "low"}, {b"_priority": b"low"}),
            ({"priority": Priority.LOW}, {b"_priority": b"low"}),
            ({"deadline": 2}, {b"_deadline": b"2.000000"}),
            ({"deadline": 0.25}, {b"_deadline": b"0.250000"}),
            ({"deadline": -1}, {b"_deadline": b"0.000000"}),
            ({}, {}),
        ):
            self.client.run(Greet, {"name": "A"}, **options)
            (box,) = self.link.sent()
            self.assertEqual(
                {key: value for key, value in box.items() if key.startswith((b"_p", b"_d"))}, sent
            )

    def test_traces(self) -> None:
        """A trace goes with the request, the present one of OpenTelemetry if none is given."""
        ours, present = (f"00-{number * 32}-{number * 16}-01" for number in "12")

        class Span:
            trace_id, span_id, trace_flags = int("2" * 32, 16), int("2" * 16, 16), 1
            is_valid = True

            def get_span_context(self) -> Span:
                return self

        span = Span()
        opentelemetry = types.SimpleNamespace(get_current_span=lambda: span)
        for trace, known, valid, sent in (
            (None, {}, True, None),
            (ours, {}, True, ours),
            (None, {"opentelemetry.trace": opentelemetry}, True, present),
            (None, {"opentelemetry.trace": opentelemetry}, False, None),
            (ours, {"opentelemetry.trace": opentelemetry}, True, ours),
        ):
            span.is_valid = valid
            with mock.patch.dict(sys.modules, known):
                self.client.run(Greet, {"name": "A"}, traceparent=trace)
                self.client.stream(Greet, {"name": "A"}, traceparent=trace)
            expected = None if sent is None else sent.encode()
            boxes_of_jobs = [box for box in self.link.sent() if box[b"_command"] == b"Greet"]
            traces = [box.get(b"_traceparent") for box in boxes_of_jobs]
            self.assertEqual(traces, [expected, expected])
        for wrong in ("", "x", ours.replace("1", "A")):
            failed = self.failureResultOf(
                self.client.run(Greet, {"name": "A"}, traceparent=wrong), errors.BadArguments
            )
            self.assertIn("not one of W3C Trace Context", str(failed.value))

    def test_cancel(self) -> None:
        """Cancelling ends the Deferred at once, and a job that waits or runs."""
        answers = [self.run_job(Greet, name="A") for _ in range(4)]
        stopped: list[list[int]] = []
        for number in (3, 0):
            answers[number].cancel()
            self.failureResultOf(answers[number], CancelledError)
            self.link.pump()
            self.assertEqual(self.dispatcher.waiting, 0)
            stopped.append([w.given[0].id for w in self.workers if w.interrupts])
        self.assertEqual(stopped, [[], [1]])
        answers[2].cancel()
        self.failureResultOf(answers[2], CancelledError)
        self.answer(3, greeting=b"too late")  # it crosses with the cancel, and is dropped
        self.answer(2, greeting=b"hi")
        self.assertEqual(self.successResultOf(answers[1])["greeting"], "hi")

    def test_any_order(self) -> None:
        """Answers find their requests, whichever comes first, and in whatever pieces of bytes."""
        answers = [self.client.run(Greet, name=name) for name in "AB"]
        self.piece = 1
        self.link.pump(1)
        for number in (2, 1):
            self.answer(number, greeting=b"to %d" % number)
            self.assertEqual(self.successResultOf(answers[number - 1])["greeting"], f"to {number}")

    def test_arguments_of_all_types(self) -> None:
        """What a job gets is what was given, a value over 65,535 bytes among it."""
        given_ = {
            "small": b"\0\xff",
            "large": os.urandom(150_000),
            "numbers": [1, -2],
            "many": None,
            "rows": [{"at": WHEN, "path": FilePath("/srv")}],
            "is_it": True,
        }
        answer = self.run_job(Everything, **given_)
        strings = boxes.unpack(self.box(1))
        self.assertEqual(Everything.parseArguments(amp.AmpBox(strings), None), given_)
        self.answer(1, **{k.decode(): v for k, v in strings.items() if not k.startswith(b"_")})
        self.assertEqual(self.successResultOf(answer), given_)

    def test_bytes_like(self) -> None:
        """Where bytes are declared, a bytearray and a memoryview will do."""
        for value in (bytearray(b"ab"), memoryview(b"ab")):
            self.client.run(Everything, RIGHT | {"small": value, "large": value})
            (sent,) = self.link.sent()
            self.assertEqual((sent[b"small"], sent[b"large"]), (b"ab", b"ab"))

    def test_arguments_in_a_dict(self) -> None:
        """Arguments may be given in a dict, in part or all, and then options are options."""
        self.run_job(Paint, {"priority": 3, "self": "me"}, priority="high", command="c")
        strings = boxes.unpack(self.box(1))
        self.assertEqual(
            [strings[key] for key in (b"priority", b"self", b"command", b"_priority")],
            [b"3", b"me", b"c", b"high"],
        )

    def test_refused(self) -> None:
        """What the server refuses fails with the server's reason, and the connection lives on."""
        large = RIGHT | {"large": bytes(200_000)}
        self.failureResultOf(self.run_job(Everything, large), dangad.TooLarge)
        unserved = self.run_job(Unserved)
        self.clock.advance(0)  # the large request has used up its turn
        self.failureResultOf(self.pumped(unserved), dangad.UnhandledCommand)
        answers = [self.run_job(Greet, name="A") for _ in range(3 + 5 + 1)]
        self.assertIn("5", str(self.failureResultOf(answers[-1], dangad.QueueFull).value))
        for answer in answers[:-1]:
            self.assertNoResult(answer)
        self.successResultOf(self.pumped(self.client.ping()))

    def test_no_answer_wanted(self) -> None:
        """A command that wants no answer fires with None at once, and its job runs."""
        self.assertIsNone(self.successResultOf(self.run_job(Notify, text="x")))
        self.assertIsNone(self.job(1).tag)
        self.answer(1)
        self.successResultOf(self.pumped(self.client.ping()))

    def test_describe(self) -> None:
        """The catalogue is the server's document, parsed."""
        catalogue = self.successResultOf(self.pumped(self.client.describe()))
        self.assertEqual(
            [entry["name"] for entry in catalogue["commands"]],
            sorted(command.__name__ for command in SERVED),
        )

    def test_server_closes(self) -> None:
        """When the connection is lost, everything under way fails, and watchers are told."""
        watched = self.client.when_disconnected()
        answers = [self.run_job(Greet, name="A"), self.client.describe(), self.client.ping()]
        self.link.lose(error.ConnectionLost("cable cut"))
        for answer in answers:
            text = str(self.failureResultOf(answer, Disconnected).value)
            self.assertIn("unknown", text)
            self.assertIn("cable cut", text)
        self.assertIn("cable cut", str(self.successResultOf(watched)))
        self.assertIn("cable cut", str(self.successResultOf(self.client.when_disconnected())))
        for late in (self.client.run(Greet, name="A"), self.client.ping(), self.client.describe()):
            self.failureResultOf(late, NotSent)
        self.failureResultOf(self.client.run(Notify, text=""), NotSent)
        self.successResultOf(self.client.close())

    def test_close_in_peace(self) -> None:
        """Closing with nothing under way sends what was written, and fires when it is closed."""
        self.client.run(Notify, text="last words")
        closed = self.client.close()
        self.assertNoResult(closed)
        self.failureResultOf(self.client.run(Greet, name="A"), NotSent)
        self.link.pump()
        self.assertIsNone(self.successResultOf(closed))
        self.assertEqual(self.job(1).command, b"Notify")

    def test_close_with_jobs_under_way(self) -> None:
        """Closing gives up the jobs under way, and the server stops them."""
        answer = self.run_job(Greet, name="A")
        closed = [self.client.close(), self.client.close()]
        self.assertTrue(self.link.to_server.disconnected)
        self.link.pump()
        for each in closed:
            self.successResultOf(each)
        self.assertIn("by the client", str(self.failureResultOf(answer, Disconnected).value))
        self.assertEqual(sum(bool(worker.interrupts) for worker in self.workers), 1)

    def test_callbacks_meddle(self) -> None:
        """A callback may cancel what else is under way, run more, and close: all ends once."""
        answers = [self.run_job(Greet, name="A") for _ in range(3)]
        more: list[Deferred[Any]] = []

        def meddle(result: Any) -> None:
            answers[1].cancel()
            answers[2].cancel()
            more.extend([self.client.run(Greet, name="B"), self.client.close()])

        answers[0].addBoth(meddle)
        self.link.lose(error.ConnectionDone())
        for answer in answers[1:]:
            self.failureResultOf(answer, CancelledError)
        self.failureResultOf(more[0], NotSent)
        self.successResultOf(more[1])

    def test_close_while_answers_come(self) -> None:
        """Answers that come in one piece with the one whose callback closes are not delivered."""
        first, second = self.run_job(Greet, name="A"), self.run_job(Greet, name="B")
        closed: Deferred[None] = first.addCallback(lambda _: self.client.close())
        body = as_pairs({b"greeting": b"hi"})
        for number in (1, 2):
            (worker,) = [each for each in self.workers if each.job and each.job.id == number]
            worker.finish()
            self.dispatcher.answers.job_finished(worker, False, body)
        self.assertEqual(self.link.to_client.value().count(b"_answer"), 2)
        self.link.pump()
        self.failureResultOf(second, Disconnected)
        self.successResultOf(closed)

    def test_watchers_may_leave(self) -> None:
        """Waiting for the end of the connection can be given up."""
        watched = [self.client.when_disconnected(), self.client.when_disconnected()]
        watched[0].addCallback(lambda _: watched[1].cancel())
        left = self.client.when_disconnected()
        left.cancel()
        self.failureResultOf(left, CancelledError)
        self.link.lose(error.ConnectionDone())
        self.successResultOf(watched[0])
        self.failureResultOf(watched[1], CancelledError)

    def pumped(self, answer: Deferred[Any]) -> Deferred[Any]:
        """The Deferred, after all bytes were moved."""
        self.link.pump()
        return answer


class Sly(amp.Command):
    """Have an argument of a reserved name."""

    arguments = [(b"_ask", amp.Integer())]


class Pass(amp.Command):
    """Have an argument that no worker could take."""

    arguments = [(b"fd", amp.Descriptor())]


LONG_NAME = "n" * 254
Long = type("Long", (amp.Command,), {"arguments": [(LONG_NAME.encode(), Blob())]})
RIGHT = {"small": b"", "large": b"", "numbers": [], "rows": [], "is_it": True}
WRONG: tuple[tuple[type[amp.Command], dict[str, Any], str], ...] = (
    (Greet, {}, "'name' of Greet is missing"),
    (Greet, {"name": None}, "'name' of Greet is missing"),
    (Greet, {"name": "A", "nmae": "B"}, "no argument 'nmae'"),
    (Greet, {"name": "A", "nmae": "B"}, "name, times"),
    (Greet, {"name": 1}, "'name' of Greet is a int, where Unicode"),
    (Greet, {"name": "A", "times": 2.7}, "'times' of Greet is a float, where Integer"),
    (Everything, RIGHT | {"small": "x"}, "'small' of Everything is a str, where String"),
    (Everything, RIGHT | {"large": "x"}, "'large' of Everything is a str, where String"),
    (Everything, RIGHT | {"numbers": ["x"]}, "'numbers' of Everything, at [0], is a str"),
    (Everything, RIGHT | {"rows": [{"at": WHEN}]}, "'rows' of Everything, at [0], has no 'path'"),
    (Everything, RIGHT | {"is_it": 1}, "'is_it' of Everything is a int, where Boolean"),
    # A value over AMP's limit is named, with the type that would take it.
    (Everything, RIGHT | {"small": bytes(65_536)}, "'small' of Everything is 65536 bytes"),
    (Everything, RIGHT | {"small": bytes(65_536)}, "dangad.Blob()"),
    (Everything, RIGHT | {"numbers": [1] * 30_000}, "dangad.Large(ListOf(...))"),
    (Greet, {"name": "ü" * 40_000}, "dangad.Large(Unicode(...))"),
    (Long, {LONG_NAME: bytes(65_536)}, "Long needs a key of 256 bytes"),
    (Long, {LONG_NAME: bytes(65_536)}, "choose a shorter name"),
    (Sly, {"_ask": 1}, "reserved"),
    (Pass, {"fd": 1}, "Descriptor"),
)
"""What cannot be sent, and what is said of it."""


class WhatCannotBeSent(SynchronousTestCase):
    """Wrong uses of `run` fail its Deferred, send nothing, and name what is wrong."""

    def setUp(self) -> None:
        """Connect a client to nobody."""
        self.link = Link(Client())

    def wrong(self, command: Any, *args: Any, **arguments: Any) -> str:
        """What is wrong with the call."""
        answer = self.link.client.run(command, *args, **arguments)
        text = str(self.failureResultOf(answer, dangad.BadArguments).value)
        self.assertEqual(self.link.to_server.value(), b"")
        return text

    def test_arguments(self) -> None:
        """Arguments that are missing, unknown, of wrong types or too long are named."""
        for command, arguments, text in WRONG:
            with self.subTest(text):
                self.assertIn(text, self.wrong(command, **arguments))

    def test_options(self) -> None:
        """A priority that is none, and a deadline that is no number of seconds."""
        for priority in ("urgent", ["high"]):
            self.assertIn(repr(priority), self.wrong(Greet, name="A", priority=priority))
        for deadline in (float("nan"), float("inf"), "5", [5]):
            says = f"deadline is {deadline!r}, not a number of seconds"
            self.assertIn(says, self.wrong(Greet, name="A", deadline=deadline))

    def test_arguments_named_like_options(self) -> None:
        """What may be meant as an argument is never taken for an option unnoticed."""
        self.assertIn("pass arguments in a dict", self.wrong(Paint, priority="high"))
        self.assertIn("pass arguments in a dict", self.wrong(Paint, {"self": ""}, priority="high"))
        self.link.client.run(Paint, {"priority": 1}, deadline=2)
        (sent,) = self.link.sent()
        self.assertNotIn(b"deadline", sent)

    def test_no_command(self) -> None:
        """What is no command is not sent, and nothing without a connection."""
        nonsense: tuple[Any, ...] = (None, "Greet", object, 5)
        for thing in nonsense:
            self.assertIn(f"{thing!r}, not a subclass of amp.Command", self.wrong(thing))
        arguments: Any = "A"
        self.assertIn("the arguments are 'A', not a dict", self.wrong(Greet, arguments))
        client = Client()
        self.failureResultOf(client.run(Greet, name="A"), NotSent)
        self.successResultOf(client.close())
        self.successResultOf(client.when_disconnected())


class AgainstAHostileServer(SynchronousTestCase):
    """What a server sends can close the connection, but neither raise, nor fill the memory."""

    MAX = 1000

    def setUp(self) -> None:
        """Connect a client with a job under way."""
        self.link = Link(Client(self.MAX))
        self.client = self.link.client
        self.answer = self.client.run(Greet, name="A")
        ((self.tag),) = [box[b"_ask"] for box in self.link.sent()]

    def assert_closed(self, text: str) -> None:
        """The connection was closed for a reason that this text is part of."""
        self.assertTrue(self.link.to_server.disconnected)
        self.assertNoResult(self.answer)
        self.link.lose(error.ConnectionAborted())
        self.assertIn(text, str(self.failureResultOf(self.answer, Disconnected).value))

    def test_nonsense(self) -> None:
        """Bytes that are no AMP, aimless boxes, and answers to nothing close the connection."""
        for data, text in (
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak AMP"),
            (boxes.pack([(b"x", b"y")]), "neither an answer nor a request"),
            (boxes.pack([(b"_answer", b"nobody's")]), "nobody's"),
        ):
            with self.subTest(text):
                self.setUp()
                self.client.dataReceived(data)
                self.assert_closed(text)
                self.client.dataReceived(b"more of it" * 10_000)

    def test_two_answers(self) -> None:
        """Of two answers to one request the first counts, though it is an error without a word."""
        good = boxes.pack([(b"_answer", self.tag), (b"greeting", b"hi")])
        self.client.dataReceived(boxes.pack([(b"_error", self.tag)]) + good)
        self.failureResultOf(self.answer, amp.RemoteAmpError)
        self.assertTrue(self.link.to_server.disconnected)

    def test_answer_too_large(self) -> None:
        """An answer over the limit fails its request alone, and was never held whole."""
        start = boxes.pair(b"_answer", self.tag)
        piece = boxes.pair(b"x", bytes(500))
        self.client.dataReceived(start)
        for _ in range(10_000):
            self.client.dataReceived(piece)
            self.assertLess(self.client._reader.held, self.MAX + ENVELOPE + 2000)
        self.client.dataReceived(boxes.END)
        text = str(self.failureResultOf(self.answer, dangad.TooLarge).value)
        self.assertIn("1000 (max_payload)", text)
        ping = self.client.ping()
        self.client.dataReceived(boxes.pack([(b"_answer", b"2")]))
        self.successResultOf(ping)

    def test_as_large_as_may_be(self) -> None:
        """An answer of just the limit's size is taken, whatever the tag adds to it."""
        body = boxes.pack([(b"greeting", b"x" * (self.MAX - 2 - 2 - 8 - 2))])
        self.assertEqual(len(body), self.MAX)
        self.client.dataReceived(boxes.pair(b"_answer", self.tag) + body)
        self.successResultOf(self.answer)

    def test_requests(self) -> None:
        """A server's request is declined, and one that wants no answer ignored."""
        self.client.dataReceived(boxes.pack([(b"_command", b"dangad.Later"), (b"tag", b"1")]))
        self.assertEqual(self.link.sent(), [])
        self.client.dataReceived(boxes.pack([(b"_ask", b"7"), (b"_command", b"Greet")]))
        (sent,) = self.link.sent()
        self.assertEqual((sent[b"_error"], sent[b"_error_code"]), (b"7", b"UNHANDLED"))
        self.assertNoResult(self.answer)

    def test_descriptors(self) -> None:
        """A descriptor that comes over a UNIX socket is closed."""
        descriptor = os.open(os.devnull, os.O_RDONLY)
        self.client.fileDescriptorReceived(descriptor)
        self.assertRaises(OSError, os.fstat, descriptor)

    @given(st.lists(st.binary(max_size=40), max_size=20))
    def test_any_bytes(self, pieces: list[bytes]) -> None:
        """No bytes raise in the transport's face, and the job ends once."""
        link = Link(Client(self.MAX))
        answer = link.client.run(Greet, name="A")
        ends: list[Any] = []
        answer.addBoth(ends.append)
        for piece in [*pieces, boxes.pack([(b"_answer", b"1"), (b"greeting", b"hi")]), *pieces]:
            link.client.dataReceived(piece)
        link.lose(error.ConnectionDone())
        self.assertEqual(len(ends), 1)


class Connecting(SynchronousTestCase):
    """`connect`, and clients that come back."""

    def test_connect(self) -> None:
        """An endpoint's description is enough, and none is the server's default."""
        for description, path in (
            (["unix:/run/dangad.sock"], "/run/dangad.sock"),
            (["./jobs:2.sock"], "./jobs:2.sock"),
            ([], "dangad.sock"),
        ):
            reactor = MemoryReactorClock()
            connecting = dangad.connect(reactor, *description)
            self.assertEqual(reactor.unixClients[0][0], path)
            client = self.connected(reactor.unixClients[0][1])
            self.assertIs(self.successResultOf(connecting), client._wrappedProtocol)
            self.assertIsInstance(client._wrappedProtocol, dangad.Client)

    def test_connect_in_vain(self) -> None:
        """A failing endpoint, a description that cannot be read, and cancelling fail it."""

        class Closed:
            def connect(self, factory: object) -> Deferred[Any]:
                return defer.fail(error.ConnectionRefusedError())

        endpoint: Any = Closed()
        self.failureResultOf(connect(None, endpoint), error.ConnectionRefusedError)
        for text, says in (
            ("nosuch:thing", "Unknown endpoint type: 'nosuch'; .* write ./nosuch:thing"),
            ("tcp:localhost", "it has no port; write tcp:HOST:PORT"),
            ("tcp:localhost:http", "'http' is not a number; write tcp:HOST:PORT"),
            ("tcp:localhost:1:prt=2", "prt= is not understood; write tcp:HOST:PORT"),
            ("", "it is empty"),
        ):
            failure = self.failureResultOf(connect(MemoryReactorClock(), text), ValueError)
            self.assertRegex(failure.getErrorMessage(), f"^{says}$")
        reactor = MemoryReactorClock()
        connecting = connect(reactor, "tcp:127.0.0.1:7003")
        connecting.cancel()
        self.failureResultOf(connecting, error.ConnectingCancelledError)
        self.assertTrue(reactor.connectors[0].stoppedConnecting)

    def test_client_service(self) -> None:
        """With Twisted's ClientService and the factory there is a new client after a loss."""
        reactor = MemoryReactorClock()
        service = ClientService(
            TCP4ClientEndpoint(reactor, "127.0.0.1", 7003),
            ClientFactory(),
            retryPolicy=lambda attempts: 1.0,
            clock=reactor,
        )
        service.startService()
        transport = self.connected(reactor.tcpClients[0][2])
        first: Any = self.successResultOf(service.whenConnected())
        transport.connectionLost(Failure(error.ConnectionDone()))
        self.failureResultOf(first.run(Greet, name="A"), NotSent)
        reactor.advance(1.0)
        self.connected(reactor.tcpClients[1][2])
        second: Any = self.successResultOf(service.whenConnected())
        self.assertIsNot(second, first)
        self.assertNoResult(second.run(Greet, name="A"))

    def connected(self, factory: Any) -> Any:
        """The protocol of a connection that the factory's connector made."""
        protocol = factory.buildProtocol(None)
        protocol.makeConnection(StringTransport())
        return protocol


class Names(SynchronousTestCase):
    """What the package says of itself."""

    def test_not_sent_is_disconnected(self) -> None:
        """Who catches a lost connection catches one lost before, too, as Python's own kind."""
        self.assertTrue(issubclass(NotSent, Disconnected))
        self.assertTrue(issubclass(Disconnected, ConnectionError))
        self.assertFalse(issubclass(Disconnected, errors.DangadError))

    def test_catalogue_is_json(self) -> None:
        """A server's catalogue that is no JSON fails describe, and nothing else."""
        link = Link(Client())
        catalogue = link.client.describe()
        link.client.dataReceived(boxes.pack([(b"_answer", b"1"), (b"catalogue", b"{")]))
        self.failureResultOf(catalogue, json.JSONDecodeError)
