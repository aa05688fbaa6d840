"""The operators' endpoint, on memory transports and a stand-in for the server."""

from __future__ import annotations

import gc
import json
import os
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IFileDescriptorReceiver, IPushProducer
from twisted.internet.task import Clock
from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from dangad.errors import ReloadFailed, ShuttingDown
from dangad.host.quietlog import INTERVAL
from dangad.operators.control import (
    FLUSH_TIME,
    MAX_CONNECTIONS,
    MAX_REQUEST,
    MAX_WAITING,
    ControlFactory,
)
from dangad.operators.interfaces import IOperations
from dangad.scheduler.dispatcher import Dispatcher
from dangad.wire import boxes, commands
from tests.fakeoperations import (
    CANCELLED,
    CLIENTS,
    COMMANDS,
    CONFIG,
    COUNTERS,
    DEATHS,
    EVENTS,
    JOB,
    JOBS,
    PAUSED,
    RECENT,
    STACK,
    STATUS,
    WORKERS,
    FakeOperations,
)
from tests.fakes import client_factory, lines_of, noted_events
from tests.unit.server.test_server import Answer, FakeClient, Line, ok, request

if TYPE_CHECKING:
    from dangad.operators.control import ControlConnection

NAMES = [
    command.commandName
    for command in (
        commands.Status,
        commands.Workers,
        commands.Recent,
        commands.Config,
        commands.Scale,
        commands.Stack,
        commands.Reload,
        commands.Drain,
    )
]


class Operator(FakeClient):
    """An operator, who asks and reads in turns of the reactor."""

    def __init__(self, line: Line, clock: Clock) -> None:
        super().__init__(line)
        self._clock = clock

    def call(self, command: bytes, tag: bytes | None = None, /, **pairs: bytes) -> None:
        """Send a request, and let some turns pass."""
        super().call(command, tag, **pairs)
        self._turn()

    def answers(self) -> list[Answer]:
        """The boxes that come now and in the next turns."""
        came = super().answers()
        self._turn()
        return came + super().answers()

    def _turn(self) -> None:
        for _ in range(3):
            self._clock.advance(0)
            self.line.pump()


class ControlCase(SynchronousTestCase):
    """A control endpoint for operators in memory."""

    def setUp(self) -> None:
        """Make the endpoint, and begin to note log events."""
        super().setUp()
        self.operations = FakeOperations()
        self.clock = Clock()
        self.factory = ControlFactory(self.clock, self.operations)
        self.events = noted_events(self)

    def logged(self) -> list[str]:
        """What the control module logged."""
        return lines_of(self.events, "dangad.operators.control")

    def operator(self) -> Operator:
        """An operator who has connected."""
        line = Line()
        line.protocol = self.factory.buildProtocol(None)
        assert line.protocol is not None
        line.protocol.makeConnection(line)
        return Operator(line, self.clock)

    def assert_document(self, command: type[amp.Command], document: Any) -> None:
        """The command is answered at once, by this document, to all who ask."""
        for operator in (self.operator(), self.operator()):
            operator.call(command.commandName, b"1")
            answer = operator.answer()
            self.assertEqual(answer.pop(boxes.ANSWER), b"1")
            response = command.parseResponse(answer, None)
            self.assertEqual(json.loads(response["document"]), document)

    def assert_error(self, answer: Answer, tag: bytes, code: bytes, text: str) -> None:
        """The answer is the error of this code to the request of this tag, and says that."""
        self.assertEqual(set(answer), {boxes.ERROR, boxes.ERROR_CODE, boxes.ERROR_DESCRIPTION})
        self.assertEqual((answer[boxes.ERROR], answer[boxes.ERROR_CODE]), (tag, code))
        self.assertIn(text, answer[boxes.ERROR_DESCRIPTION].decode())

    def assert_lives(self, operator: FakeClient) -> None:
        """The connection still answers, and had nothing else to say."""
        operator.call(commands.Scale.commandName, b"alive", min=b"1", max=b"1")
        self.assertEqual(operator.answers(), [ok(b"alive")])


class PromiseTest(ControlCase):
    def test_interfaces(self) -> None:
        """The stand-in and the connection have what the interfaces promise."""
        verifyObject(IOperations, self.operations)
        connection: ControlConnection | None = self.factory.buildProtocol(None)
        for interface in (IPushProducer, IFileDescriptorReceiver):
            verifyObject(interface, connection)

    def test_not_for_clients(self) -> None:
        """Where clients connect, the operators' commands are not known."""
        clock = Clock()
        line = Line()
        line.protocol = client_factory(clock, Dispatcher(clock, 10)).buildProtocol(None)
        line.protocol.makeConnection(line)
        client = FakeClient(line)
        for name in NAMES:
            client.call(name, b"1", min=b"1", max=b"1", job=b"120")
            self.assert_error(client.answer(), b"1", b"UNHANDLED", name.decode())


PARDON, SCALE, STACK_OF, JOBS_OF = (
    each.commandName for each in (commands.Pardon, commands.Scale, commands.Stack, commands.Jobs)
)
NOT_AWAY = "BAD_ARGUMENTS: 'Other' is not in quarantine; in quarantine: Thumbnail"
NONSENSE = "BAD_ARGUMENTS: 5 to -2 workers make no sense"
OPERATIONS: tuple[tuple[bytes, dict[str, bytes], str | dict[str, bytes], str], ...] = (
    (PARDON, {"command": b"Thumbnail"}, {}, "Unquarantine command=Thumbnail"),
    (PARDON, {"command": b"Other"}, NOT_AWAY, "Unquarantine command=Other"),
    (SCALE, {"min": b"2", "max": b"5"}, {}, "Scale min=2 max=5"),
    (
        SCALE,
        {"min": b"2", "max": b"900", "force": b"True"},
        {},
        "Scale min=2 max=900 force=True",
    ),
    (SCALE, {"min": b"5", "max": b"-2"}, NONSENSE, "Scale min=5 max=-2"),
    (STACK_OF, {"job": b"%d" % JOB}, {"stack": STACK.encode()}, "Stack job=120"),
    (STACK_OF, {"job": b"7"}, "NOT_RUNNING: no job 7 runs", "Stack job=7"),
    (b"dangad.control.Want", {"min": b"1", "max": b"6"}, {}, "Want min=1 max=6"),  # the old name
)
"""What operators order, what they are answered, and what is logged."""


class CommandTest(ControlCase):
    def test_operations(self) -> None:
        """What operators order is passed on and logged, and so is what comes of it."""
        operator = self.operator()
        for command, pairs, expected, logged in OPERATIONS:
            with self.subTest(logged):
                self.events.clear()
                operator.call(command, b"1", **pairs)
                lines = [f"operator: {logged}"]
                if isinstance(expected, str):
                    code, _, text = expected.partition(": ")
                    self.assert_error(operator.answer(), b"1", code.encode(), text)
                    lines.append(f"operator: {logged}: {expected}")
                else:
                    self.assertEqual(operator.answer(), ok(b"1", **expected))
                self.assertEqual(self.logged(), lines)
        self.assertEqual(self.operations.wanted, [(2, 5), (2, 900), (1, 6)])
        self.assertEqual(self.operations.forced, [(2, 900)])

    def test_reload(self) -> None:
        """A reload is answered when it has ended; meanwhile the connection is of use."""
        for error, code in (
            (None, b""),
            (ReloadFailed("jobs.py is broken"), b"RELOAD_FAILED"),
            (ShuttingDown("the server drains"), b"SHUTTING_DOWN"),
        ):
            operator = self.operator()
            operator.call(commands.Reload.commandName, b"1")
            self.assertEqual(self.logged()[-1], "operator: Reload")
            self.assert_lives(operator)
            if error is None:
                self.operations.reloads.pop().callback(None)
                self.assertEqual(operator.answer(), ok(b"1"))
            else:
                self.operations.reloads.pop().errback(error)
                self.assert_error(operator.answer(), b"1", code, str(error))
                line = f"operator: Reload: {code.decode()}: {error}"
                self.assertEqual(self.logged()[-1], line)

    def test_looking(self) -> None:
        """Status, workers, recent jobs and options are told as they are; nothing is logged."""
        self.assert_document(commands.Status, STATUS)
        self.assert_document(commands.Workers, WORKERS)
        self.assert_document(commands.Recent, RECENT)
        self.assert_document(commands.Config, CONFIG)
        self.assertEqual(self.logged(), [])

    def test_large_documents(self) -> None:
        """A document may be larger than one value of AMP's, and has any characters."""
        self.operations.recent_document = [{**RECENT[0], "command": "Zoë\udcff"}] * 1000
        self.assert_document(commands.Recent, self.operations.recent_document)

    def test_lists(self) -> None:
        """Filters, orders and numbers are passed on; without any, the usual ones hold."""
        self.assert_document(commands.Jobs, JOBS)
        self.assert_document(commands.Clients, CLIENTS)
        self.assert_document(commands.Commands, COMMANDS)
        self.assert_document(commands.Deaths, DEATHS)
        self.operations.asked.clear()
        operator = self.operator()
        operator.call(
            commands.Jobs.commandName,
            b"1",
            state=b"queued",
            command=b"Rotate",
            client=b"127.",
            older_than=b"1.5",
            sort=b"wait",
            limit=b"7",
            offset=b"3",
        )
        operator.call(commands.Recent.commandName, b"2", outcome=b"lost", limit=b"5")
        operator.call(commands.Clients.commandName, b"3", sort=b"bytes")
        operator.call(commands.Job.commandName, b"4", job=b"118")
        self.assertEqual(len(operator.answers()), 4)
        meant = {"state": "queued", "command": "Rotate", "client": "127.", "older_than": 1.5}
        self.assertEqual(
            self.operations.asked,
            [(meant, "wait", 7, 3), ({"outcome": "lost"}, None, 5), ("bytes", 100)],
        )
        self.assertEqual(self.logged(), [])

    def test_cancel(self) -> None:
        """Jobs are named by up to a thousand ids, or by a filter; the log has a part of them."""
        operator = self.operator()
        ids = list(range(10**15, 10**15 + 1000))
        pairs = amp.ListOf(amp.Integer()).toString(ids)
        operator.call(commands.CancelJobs.commandName, b"1", jobs=pairs)
        operator.call(commands.CancelJobs.commandName, b"2", command=b"Ro\x1btate", most=b"9")
        operator.call(commands.CancelJobs.commandName, b"3", jobs=pairs[:17], command=b"Rotate")
        *answers, wrong = operator.answers()
        document = json.dumps(CANCELLED).encode()
        self.assertEqual(answers, [ok(b"1", document=document), ok(b"2", document=document)])
        self.assert_error(wrong, b"3", b"BAD_ARGUMENTS", "by their ids or by a filter, not both")
        self.assertEqual(self.operations.cancelled, [(ids, 1000), ({"command": "Ro\x1btate"}, 9)])
        first, second, *_ = self.logged()
        self.assertRegex(first, r"^operator: Cancel jobs=\[1000000000000000, .*characters\)$")
        self.assertLess(len(first), 300)
        self.assertEqual(second, r"operator: Cancel command=Ro\x1btate most=9")

    def test_pause(self) -> None:
        """Commands are named, or everything is meant; the answer is what is paused now."""
        operator = self.operator()
        names = amp.ListOf(amp.Unicode()).toString(["Rotate"])
        for command in (commands.Pause, commands.Resume):
            operator.call(command.commandName, b"1", commands=names)
            operator.call(command.commandName, b"2")
        self.assertEqual(
            [answer[b"document"] for answer in operator.answers()],
            [json.dumps(PAUSED).encode()] * 4,
        )
        self.assertEqual(
            self.operations.paused,
            [("pause", ["Rotate"]), ("pause", None), ("resume", ["Rotate"]), ("resume", None)],
        )

    def test_shutdown(self) -> None:
        """A stop is answered at once."""
        operator = self.operator()
        operator.call(commands.Shutdown.commandName, b"1")
        operator.call(commands.Shutdown.commandName, b"2", now=b"True")
        self.assertEqual(operator.answers(), [ok(b"1"), ok(b"2")])
        self.assertEqual(self.operations.shutdowns, [False, True])
        self.assertEqual(self.logged(), ["operator: Shutdown", "operator: Shutdown now=True"])

    def test_watch(self) -> None:
        """Who watches waits for events; filters and kinds are passed on."""
        operator = self.operator()
        operator.call(commands.Watch.commandName, b"1")
        operator.call(
            commands.Watch.commandName, b"2", after=b"41", client=b"127.", kinds=b"ended,retried"
        )
        self.assertEqual(operator.answers(), [])
        for watcher in self.operations.watchers:
            watcher.callback(EVENTS)
        document = json.dumps(EVENTS).encode()
        self.assertEqual(
            operator.answers(), [ok(b"1", document=document), ok(b"2", document=document)]
        )
        self.assertEqual(
            self.operations.watched,
            [(None, {}, None), (41, {"client": "127."}, ["ended", "retried"])],
        )
        self.assertEqual(self.logged(), [])

    def test_drain(self) -> None:
        """A drain is answered with the counters, to everybody who asked for it."""
        operators = [self.operator(), self.operator()]
        for operator in operators:
            operator.call(commands.Drain.commandName, b"1")
            self.assertEqual(operator.answers(), [])
        for drain in self.operations.drains:
            drain.callback(COUNTERS)
        for operator in operators:
            self.assertEqual(operator.answer(), ok(b"1", document=json.dumps(COUNTERS).encode()))

    def test_defects(self) -> None:
        """A defect of the server's is logged with its traceback, and the operator is told so."""
        operator = self.operator()
        self.operations.status_document = {"this": object()}
        operator.call(commands.Status.commandName, b"1")
        operator.call(commands.Reload.commandName, b"2")
        self.operations.reloads.pop().errback(ZeroDivisionError())
        for tag, answer in zip((b"1", b"2"), operator.answers(), strict=True):
            self.assert_error(answer, tag, b"UNKNOWN", "see its log")
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assert_lives(operator)

    def test_no_answer_wanted(self) -> None:
        """A request without a tag is performed, and not answered, whatever comes of it."""
        operator = self.operator()
        operator.call(commands.Scale.commandName, min=b"3", max=b"3")
        operator.call(commands.Scale.commandName, min=b"3", max=b"2")
        operator.call(b"Nothing")
        self.assertEqual(self.operations.wanted, [(3, 3)])
        self.assert_lives(operator)


class LeavingTest(ControlCase):
    def test_operators_who_leave(self) -> None:
        """Whoever leaves while a reload or a drain goes on disturbs neither it nor others."""
        gone, operator = self.operator(), self.operator()
        for who in (gone, operator):
            for name in (commands.Reload.commandName, commands.Drain.commandName):
                who.call(name, name)
            who.call(commands.Reload.commandName, b"fails")
        gone.line.drop()
        gone.line.failing = True  # whatever were written now would raise
        self.assert_lives(operator)
        for number, reload in enumerate(self.operations.reloads):
            if number % 2:
                reload.errback(ReloadFailed("broken"))
            else:
                reload.callback(None)
        for drain in self.operations.drains:
            drain.callback(COUNTERS)
        self.assertEqual(len(operator.answers()), 3)
        gc.collect()  # would log what was raised and nobody heard
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_close_of_the_slow(self) -> None:
        """An operator who does not read the last answers is cut off after a while."""
        operator = self.operator()
        operator.call(commands.Status.commandName, b"1")
        closed = self.factory.close()
        self.clock.advance(FLUSH_TIME)
        self.assertTrue(operator.line.cut_off)
        operator.line.settle()
        self.successResultOf(closed)

    def test_close(self) -> None:
        """When the server ends, connections close after their answers, whoever waits for what."""
        self.successResultOf(ControlFactory(self.clock, self.operations).close())  # with none
        operators = [self.operator() for _ in range(3)]
        operators[0].call(commands.Reload.commandName, b"1")
        operators[1].call(commands.Scale.commandName, b"2", min=b"1", max=b"1")
        slow: Any = operators[1].line.producer
        slow.pauseProducing()  # its answers are not read
        closed = self.factory.close()
        self.assertNoResult(closed)
        self.assertEqual(operators[1].answers(), [ok(b"2")])
        self.operations.wanted.clear()
        for operator in operators:
            self.assertTrue(operator.line.disconnecting)
            operator.line.protocol.dataReceived(
                request(commands.Scale.commandName, min=b"9", max=b"9")
            )
            operator.line.settle()
        self.successResultOf(closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.operations.wanted, [])
        operators[0].line.failing = True  # whatever were written now would raise
        self.operations.reloads.pop().callback(None)
        gc.collect()  # would log what was raised and nobody heard
        self.assertEqual(self.flushLoggedErrors(), [])


REFUSED: tuple[tuple[bytes, str], ...] = (
    (request(None, b"1", min=b"1"), "BAD_ARGUMENTS: has no _command"),
    (request(b"Echo", b"1"), "UNHANDLED: operators have no command 'Echo'"),
    (request(b"", b"1"), "UNHANDLED: no command ''"),
    (request(b"StartTLS", b"1"), "UNHANDLED: StartTLS"),
    (request(b"dangad.Ping", b"1"), "UNHANDLED: dangad.Ping"),
    (request(b"\xff" * 200, b"1"), r"UNHANDLED: \xff"),
    (request(SCALE, b"1", min=b"1"), "BAD_ARGUMENTS: argument 'max' is missing"),
    (
        request(SCALE, b"1", min=b"x", max=b"1"),
        "BAD_ARGUMENTS: is 'x', which is not a whole number",
    ),
    (request(SCALE, b"1", min=b"", max=b"1"), "BAD_ARGUMENTS: 'min' is ''"),
    (request(SCALE, b"1", min=b"1", max=b"1.5"), "BAD_ARGUMENTS: is '1.5', which is not a"),
    (request(SCALE, b"1", min=b"1", max=b"2", force=b""), "BAD_ARGUMENTS: 'force' is ''"),
    (request(STACK_OF, b"1", job=b"\xff"), r"BAD_ARGUMENTS: 'job' is '\xff'"),
    (request(STACK_OF, b"1"), "BAD_ARGUMENTS: argument 'job' is missing"),
    (request(STACK_OF, b"1", job=b"9" * MAX_REQUEST), f"TOO_LARGE: at most {MAX_REQUEST}"),
    (request(b"Echo", b"1", data=b"x" * 60_000), "TOO_LARGE: bytes"),
    (request(JOBS_OF, b"1", state=b"done"), "BAD_ARGUMENTS: no state 'done': it must be queued"),
    (request(JOBS_OF, b"1", older_than=b"nan"), "BAD_ARGUMENTS: older_than takes seconds, 0 or"),
    (request(JOBS_OF, b"1", older_than=b"5m"), "BAD_ARGUMENTS: is '5m', which is not a number"),
    (request(JOBS_OF, b"1", limit=b"1001"), "BAD_ARGUMENTS: the limit must be from 1 to 1000"),
    (request(JOBS_OF, b"1", client=b"\xff"), r"BAD_ARGUMENTS: is '\xff', which is not UTF-8 text"),
    (request(b"dangad.control.Job", b"1", job=b"7"), "NOT_FOUND: no job 7"),
    (
        request(b"dangad.control.Cancel", b"1", jobs=b"\0\1x"),
        r"BAD_ARGUMENTS: is '\x00\x01x', which is not a list",
    ),
)
"""Requests that cannot be read, and why."""


class BadInputTest(ControlCase):
    def test_refused(self) -> None:
        """What cannot be read is refused with the reason, in any pieces; nothing else happens."""
        operator = self.operator()
        for box, error in REFUSED:
            code, _, text = error.partition(": ")
            for size in (len(box), 97):
                operator.line.send(*(box[n : n + size] for n in range(0, len(box), size)))
                self.assert_error(operator.answer(), b"1", code.encode(), text)
                self.assert_lives(operator)
        self.assertEqual(set(self.operations.wanted), {(1, 1)})

    def test_garbage(self) -> None:
        """What is no request at all closes the connection, and is logged in one line."""
        for garbage in (
            b"GET / HTTP/1.1\r\n\r\n",
            boxes.END,
            request(None, None, min=b"1"),
            boxes.pack([(boxes.ANSWER, b"1")]),
        ):
            operator, other = self.operator(), self.operator()
            operator.line.send(garbage)
            self.assertTrue(operator.line.cut_off)
            self.assertIn("an operator sent", self.logged().pop())
            self.assert_lives(other)
            self.clock.advance(INTERVAL)
        self.assertEqual(len([line for line in self.logged() if "sent" in line]), 4)

    def test_endless_box(self) -> None:
        """Of a box without an end nothing is kept but its reserved keys."""
        operator = self.operator()
        pairs = boxes.pair(b"x", b"y" * 60_000)
        for _ in range(50):
            operator.line.send(pairs)
        self.assertLess(operator.line.protocol._reader.held, 200_000)
        operator.line.send(boxes.pair(boxes.ASK, b"1") + boxes.END)
        self.assert_error(operator.answer(), b"1", b"BAD_ARGUMENTS", "has no _command")

    def test_descriptors(self) -> None:
        """Whoever passes a descriptor is cut off, at any time, and the log tells of it once."""
        operator = self.operator()
        for _ in range(2):
            operator.line.protocol.fileDescriptorReceived(os.open(os.devnull, os.O_RDONLY))
            operator.line.settle()
        self.assertFalse(operator.line.connected)
        self.assertEqual(self.logged(), ["an operator passed a file descriptor; closing"])


class LimitTest(ControlCase):
    def test_idle_operators_make_room(self) -> None:
        """For one connection too many, the one is closed that has asked for nothing for longest."""
        operators = [self.operator() for _ in range(MAX_CONNECTIONS)]
        operators[0].call(commands.Scale.commandName, b"1", min=b"1", max=b"1")
        drainer = self.operator()
        drainer.call(commands.Drain.commandName, b"1")
        self.assertTrue(operators[1].line.cut_off)
        self.assertFalse(any(each.closed for each in [operators[0], *operators[2:]]))
        self.operations.drains[0].callback(COUNTERS)
        self.assertEqual(drainer.answer()[boxes.ANSWER], b"1")

    def test_operators_who_wait(self) -> None:
        """Whoever waits for an answer keeps the connection; if all do, a new one is closed."""
        operators = [self.operator() for _ in range(MAX_CONNECTIONS)]
        for operator in operators:
            operator.call(commands.Reload.commandName, b"1")
        self.assertIsNone(self.factory.buildProtocol(None))
        self.assertIn("20 operators wait", self.logged()[-1])
        self.operations.reloads[3].callback(None)
        self.assertEqual(operators[3].answer(), ok(b"1"))
        self.assert_lives(self.operator())
        self.assertTrue(operators[3].line.cut_off)

    def test_many_requests_at_once(self) -> None:
        """Of requests that come in one piece, few are answered in one turn, and all in the end."""
        operator = self.operator()
        operator.line.send(request(commands.Status.commandName, b"1") * 50)
        first = len(FakeClient.answers(operator))
        self.assertLess(first, 10)
        for _ in range(50):
            self.clock.advance(0)
            first += len(operator.answers())
        self.assertEqual(first, 50)

    def test_requests_that_wait(self) -> None:
        """So many requests may wait, those of operators who left included; looking goes on."""
        gone, operator = self.operator(), self.operator()
        for _ in range(MAX_WAITING):
            gone.call(commands.Reload.commandName, b"1")
        gone.line.drop()
        operator.call(commands.Reload.commandName, b"1")
        self.assert_error(operator.answer(), b"1", b"QUEUE_FULL", f"{MAX_WAITING} requests")
        self.assertEqual(len(self.operations.reloads), MAX_WAITING)
        operator.call(commands.Status.commandName, b"2")
        self.assertEqual(operator.answer()[boxes.ANSWER], b"2")
        self.operations.reloads[0].callback(None)
        operator.call(commands.Reload.commandName, b"3")
        self.operations.reloads[-1].callback(None)
        self.assertEqual(operator.answers(), [ok(b"3")])

    def test_who_watches(self) -> None:
        """Whoever only watches takes neither a place nor a turn from those who act."""
        watchers = [self.operator() for _ in range(MAX_CONNECTIONS)]
        for watcher in watchers:
            for _ in range(MAX_WAITING // MAX_CONNECTIONS):
                watcher.call(commands.Watch.commandName, b"1")
        watchers[0].call(commands.Watch.commandName, b"2")
        self.assert_error(watchers[0].answer(), b"2", b"QUEUE_FULL", f"{MAX_WAITING} requests")
        operator = self.operator()
        self.assertEqual([each.line.cut_off for each in watchers].count(True), 1)
        operator.call(commands.Reload.commandName, b"1")
        self.operations.reloads.pop().callback(None)
        self.assertEqual(operator.answers(), [ok(b"1")])

    def test_operator_who_does_not_read(self) -> None:
        """Whoever does not read the answers is not read, and gets them all in the end."""
        operator, other = self.operator(), self.operator()
        size = len(request(commands.Status.commandName, b"1"))
        operator.line.send(*[request(commands.Status.commandName, b"1") * 100] * 20)
        self.assertFalse(operator.line.reading)
        self.assertLess(operator.line.peak, operator.line.capacity + 2000)
        self.assertLess(operator.line.protocol._reader.held, 100 * size)
        self.assert_lives(other)
        answers = 0
        while came := operator.answers():
            answers += len(came)
        self.assertEqual(answers, 2000)
