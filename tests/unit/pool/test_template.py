"""What is done with orders and reports of workers to be forked: with a socket, and no process."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.process import reapAllProcesses
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from dangad.pool.template import FORK_TIME, MOST_FAILURES, READY_TIME, RESTART_DELAY, Template
from dangad.pool.templateprocess import ABANDONED, MOST_LINES, Start
from dangad.pool.witness import Witness, name_senders, receive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.internet.protocol import ProcessProtocol


class Reactor(Clock):
    """A clock that notes who wants to read."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        """Note it."""
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        """Forget it."""
        self.readers.remove(reader)

    def turn(self) -> None:
        """Everybody reads."""
        for reader in list(self.readers):
            reader.doRead()


class Guardian:
    """Notes whom it watches."""

    def __init__(self) -> None:
        self.watched: set[int] = set()

    def watch(self, pid: int) -> None:
        """Note it."""
        self.watched.add(pid)

    def forget(self, pid: int) -> None:
        """Forget it."""
        self.watched.remove(pid)


class Credulous:
    """Believes each report, for here they all come from this process, but one of process 666."""

    def is_genuine(self, template: int, report: bytes, sender: int) -> bool:
        """Whether it is true."""
        return sender == os.getpid() and not report.endswith(b" 666")

    def is_fork(self, pid: int) -> bool:
        """Whether it is."""
        return pid != 999


class TemplateProcess:
    """A template that is not there: the test reads its orders, and reports in its name."""

    pipes: Sequence[int] = ()

    def __init__(self, pid: int, protocol: ProcessProtocol, orders: int, preloads: bool) -> None:
        self.pid = pid
        self.preloads = preloads
        self.protocol = protocol
        self.socket = socket.socket(fileno=os.dup(orders))
        self.socket.setblocking(False)
        self.killed = False
        protocol.makeConnection(cast("Any", self))

    def signalProcess(self, name: str) -> None:
        """Note that it is killed."""
        self.killed = True

    def orders(self) -> list[bytes]:
        """The orders that it has not read before."""
        orders: list[bytes] = []
        while True:
            try:
                order, given, _, _ = socket.recv_fds(self.socket, 100, 5)
            except BlockingIOError:
                return orders
            for fd in given:
                os.close(fd)
            if not order:
                return orders
            orders.append(order)

    def say(self, report: bytes) -> None:
        """Report."""
        self.socket.send(report)

    def told_to_finish(self) -> bool:
        """Whether nothing more is ordered of it."""
        with contextlib.suppress(BlockingIOError):
            while self.socket.recv(100):
                pass
            return True
        return False

    def die(self, *, shared: bool = False) -> None:
        """Be gone; `shared` if a fork still holds the socket."""
        self.protocol.processExited(Failure(ProcessTerminated(signal=signal.SIGKILL)))
        if not shared:
            self.socket.close()


class Worker:
    """A process that is to be forked."""

    def __init__(self) -> None:
        self.pid: int | None = None
        self.reason: str | None = None

    def forked(self, pid: int) -> None:
        """Note it."""
        assert self.pid is None
        self.pid = pid

    def not_forked(self, reason: str) -> None:
        """Note it."""
        assert self.reason is None
        self.reason = reason


class TemplateTests(SynchronousTestCase):
    """A worker that was ordered is forked once, or not at all and somebody says why."""

    def setUp(self) -> None:
        """Order nothing yet."""
        self.reactor = Reactor()
        self.guardian = Guardian()
        self.processes: list[TemplateProcess] = []
        self.template = self.make(self.start)
        self.end = os.open(os.devnull, os.O_RDONLY)
        self.addCleanup(os.close, self.end)

    def make(self, start: Start, *, preload_time: float | None = None) -> Template:
        """A template that is started like this."""
        guardian = cast("Any", self.guardian)
        witness = cast("Any", Credulous())
        return Template(
            self.reactor, self.reactor, guardian, start, witness, preload_time=preload_time
        )

    def tearDown(self) -> None:
        """End it, and see that nothing is left."""
        stopped = self.template.stop()
        for process in self.processes:
            process.socket.close()
        self.reactor.turn()
        for process in self.processes:
            if process.pid in self.guardian.watched:
                process.die()
        self.assertIsNone(self.successResultOf(stopped))
        self.assertEqual((self.reactor.readers, self.guardian.watched), ([], set()))
        self.reactor.advance(READY_TIME)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def start(self, protocol: ProcessProtocol, orders: int, *, preloads: bool) -> None:
        """In place of a process's start."""
        pid = 4711 + len(self.processes)
        self.processes.append(TemplateProcess(pid, protocol, orders, preloads))

    def order(self) -> Worker:
        """Order a worker."""
        worker = Worker()
        self.template.fork(cast("Any", worker), [self.end])
        return worker

    @property
    def process(self) -> TemplateProcess:
        """The template of now."""
        return self.processes[-1]

    def report(self, *reports: bytes) -> None:
        """The template of now reports, and is heard."""
        for report in reports:
            self.process.say(report)
        self.reactor.turn()

    def lose(self, **how: Any) -> None:
        """The template of now is gone."""
        self.process.die(**how)
        self.reactor.turn()

    def test_told_twice(self) -> None:
        """The fork tells of itself, and the template of the fork; either may be first."""
        first, second = self.order(), self.order()
        self.assertEqual(self.process.orders(), [b"1", b"2"])
        self.assertTrue(self.template.is_forking)
        self.report(b"ready", b"2 20", b"1 10", b"2 20", b"1 10")
        self.assertEqual((first.pid, second.pid), (10, 20))
        self.assertFalse(self.template.is_forking)
        self.assertEqual((len(self.processes), self.guardian.watched), (1, {4711}))

    def test_not_forked(self) -> None:
        """It may say why not; that is no fault of the others."""
        first, second = self.order(), self.order()
        self.report(b"ready", b"1 0 Cannot allocate memory", b"2 20")
        self.assertEqual(first.reason, "could not be forked: Cannot allocate memory")
        self.assertEqual(second.pid, 20)

    def test_death(self) -> None:
        """What it has not forked, the next one does; what it has, nobody does again."""
        first, second = self.order(), self.order()
        self.report(b"ready", b"1 10")
        self.lose()
        self.assertEqual(len(self.processes), 2)
        self.assertEqual(self.process.orders(), [b"2"])
        self.report(b"ready", b"2 20")
        self.assertEqual((first.pid, second.pid), (10, 20))

    def test_death_after_a_report(self) -> None:
        """What it has reported is heard, although it has left an order unread."""
        first, second = self.order(), self.order()
        old = self.process
        old.say(b"1 10")
        old.die()
        self.reactor.turn()
        self.assertEqual(first.pid, 10)
        self.assertEqual(self.process.orders(), [b"2"])
        self.report(b"ready", b"2 20")
        self.assertEqual(second.pid, 20)

    def test_death_between_fork_and_report(self) -> None:
        """A fork that has not told of itself is waited for, although the template is dead."""
        worker = self.order()
        old = self.process
        self.report(b"ready")
        self.lose(shared=True)
        self.assertEqual(len(self.processes), 1)
        old.say(b"1 10")
        self.reactor.turn()
        self.assertEqual(worker.pid, 10)
        old.socket.close()
        self.reactor.turn()
        self.reactor.advance(RESTART_DELAY)
        self.assertEqual(self.process.orders(), [])

    def test_frozen_fork(self) -> None:
        """One that never tells is given up, and not made a second time."""
        worker = self.order()
        old = self.process
        self.report(b"ready")
        self.lose(shared=True)
        self.reactor.advance(FORK_TIME)
        self.assertEqual(worker.reason, "was not ready within 5 s of its fork")
        self.reactor.advance(RESTART_DELAY)
        self.assertEqual(self.process.orders(), [])
        old.socket.close()

    def test_late(self) -> None:
        """A template that does nothing in time is killed: to be ready, and then to fork."""
        self.order()
        self.reactor.advance(READY_TIME - 1)
        self.assertFalse(self.process.killed)
        self.report(b"ready")
        self.reactor.advance(FORK_TIME - 1)
        self.assertFalse(self.process.killed)
        self.reactor.advance(1)
        self.assertTrue(self.process.killed)
        self.lose()
        self.report(b"ready", b"1 10")
        self.reactor.advance(10 * FORK_TIME)
        self.assertFalse(self.process.killed)

    def test_forgotten(self) -> None:
        """One that is not wanted any more is killed as soon as it is there."""
        worker = self.order()
        self.template.forget(cast("Any", worker))
        self.assertTrue(self.template.is_forking)
        pid = os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "600")
        self.report(b"ready", b"1 %d" % pid)
        self.assertEqual((worker.pid, worker.reason), (None, None))
        self.assertFalse(self.template.is_forking)
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        self.assertEqual(ended.si_status if ended else None, signal.SIGKILL)
        reapAllProcesses()
        self.assertRaises(ChildProcessError, os.waitpid, pid, 0)

    def test_forgotten_and_failed(self) -> None:
        """If it could not be forked, there is nothing to kill."""
        worker = self.order()
        self.template.forget(cast("Any", worker))
        self.report(b"ready", b"1 0 no")
        self.assertEqual((worker.reason, self.template.is_forking), (None, False))

    def test_never(self) -> None:
        """Where the system has no such forks there are no more templates."""
        worker = self.order()
        self.report(b"never no sibling can be forked here")
        self.lose()
        self.assertEqual(worker.reason, "was not forked: no sibling can be forked here")
        self.assertEqual(self.template.given_up, "no sibling can be forked here")
        self.reactor.advance(RESTART_DELAY)
        self.assertEqual(len(self.processes), 1)

    def test_all_die(self) -> None:
        """Nor are there any if none lives to fork."""
        worker = self.order()
        for _ in range(MOST_FAILURES):
            self.lose()
        self.assertEqual(len(self.processes), MOST_FAILURES)
        self.assertEqual(
            worker.reason,
            "was not forked: 3 templates have forked nothing; the last was killed by SIGKILL",
        )
        self.assertIsNotNone(self.template.given_up)

    def test_some_die(self) -> None:
        """One that has forked shows that it can be done."""
        for number in range(1, 2 * MOST_FAILURES):
            worker = self.order()
            self.report(b"ready", b"%d %d" % (number, number))
            self.lose()
            self.reactor.advance(RESTART_DELAY)
            self.assertEqual(worker.pid, number)
        self.assertIsNone(self.template.given_up)

    def test_some_die_idle(self) -> None:
        """The death of one of which nothing was wanted is no failure, however often it comes."""
        self.order()
        self.report(b"ready", b"1 10")
        for _ in range(2 * MOST_FAILURES):
            self.lose()
            self.reactor.advance(RESTART_DELAY)
            self.report(b"ready")
        self.assertIsNone(self.template.given_up)

    def test_cannot_fork(self) -> None:
        """One that cannot fork again and again is replaced; in the end there are none any more."""
        numbers = iter(range(1, 100))

        def fail() -> None:
            self.order()
            self.report(b"ready", b"%d 0 no descriptor is left" % next(numbers))

        for _ in range(MOST_FAILURES):
            for _ in range(MOST_FAILURES - 1):
                fail()
            failing = self.process
            fail()
            self.assertTrue(failing.told_to_finish())
            self.reactor.advance(RESTART_DELAY)
        self.assertEqual(len(self.processes), MOST_FAILURES)
        self.assertIsNotNone(self.template.given_up)
        self.template.renew()
        self.assertIsNone(self.template.given_up)

    def test_cannot_be_killed(self) -> None:
        """One that does not die is abandoned, and the next one forks."""
        worker = self.order()
        self.report(b"ready")
        held = self.process
        for seconds in (FORK_TIME, FORK_TIME, ABANDONED):
            self.reactor.advance(seconds)
        self.assertTrue(held.killed)
        self.assertIsNot(self.process, held)
        self.report(b"ready", b"1 10")
        self.assertEqual(worker.pid, 10)

    def test_closes_its_socket(self) -> None:
        """So it is with one that is dead, and held by who traces it."""
        worker = self.order()
        held = self.process
        held.socket.close()
        self.reactor.turn()
        self.assertTrue(held.killed)
        self.reactor.advance(ABANDONED)
        self.assertIsNot(self.process, held)
        self.report(b"ready", b"1 10")
        self.assertEqual(worker.pid, 10)

    def test_lies(self) -> None:
        """What comes from others, or names a process that was not forked, changes nothing."""
        worker = self.order()
        self.report(b"ready", b"1 666", b"1 999", b"never 666", b"x y z")
        self.assertIsNone(worker.pid)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.report(b"1 10")
        self.assertEqual(worker.pid, 10)

    def test_no_room(self) -> None:
        """If no process can be started the order fails, and leaves nothing."""
        self.template = self.make(_no_room)
        self.assertRaises(BlockingIOError, self.order)
        self.assertEqual((self.reactor.readers, self.template.is_forking), ([], False))

    def test_output(self) -> None:
        """What it prints is logged, line by line, as far as there is not too much of it."""
        events: list[LogEvent] = []
        observer = cast("Any", events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.order()
        self.process.protocol.childDataReceived(2, b"one\x1b\ntwo\n" + b"more\n" * 2 * MOST_LINES)
        self.process.protocol.childDataReceived(1, b"and more\n")
        lines = [event["line"] for event in events if "line" in event]
        self.assertEqual(lines, ["one\\x1b", "two", *["more"] * (MOST_LINES - 2)])

    def test_orderly_exit(self) -> None:
        """An exit is told as such."""
        self.order()
        self.report(b"ready")
        process = self.process
        process.protocol.processExited(Failure(ProcessDone(0)))
        process.socket.close()
        self.reactor.turn()
        self.assertEqual(self.process.orders(), [b"1"])

    def begin(self) -> TemplateProcess:
        """Have a template that forks."""
        self.order()
        self.report(b"ready", b"1 10")
        return self.process

    def test_renewed(self) -> None:
        """What is ordered after a reload is the new one's; the old one ends when it is ready."""
        old = self.begin()
        self.template.renew()
        worker = self.order()
        new = self.process
        self.assertEqual((old.orders(), new.orders()), ([b"1"], [b"2"]))
        self.assertEqual(self.template.pids, {old.pid, new.pid})
        self.report(b"ready")
        self.assertTrue(old.told_to_finish())
        old.die()
        self.report(b"2 20")
        self.assertEqual((worker.pid, self.template.pids), (20, {new.pid}))

    def test_renewed_in_vain(self) -> None:
        """If the new code cannot be imported, the old template goes on."""
        old = self.begin()
        for report, reason in ((b"broken it is wrong", "it is wrong"), (None, None)):  # or it dies
            with self.subTest(report=report):
                self.template.renew()
                worker = self.order()
                if report is not None:
                    self.report(report)
                self.lose()
                reason = reason or "was not forked: the new template was killed by SIGKILL"
                self.assertEqual(worker.reason, reason)
                after = self.order()
                number = old.orders()[-1]
                old.say(number + b" 30")
                self.reactor.turn()
                self.assertEqual(after.pid, 30)
                self.assertFalse(old.told_to_finish())

    def test_renewed_twice_and_broken(self) -> None:
        """That the code in the middle is broken matters no more, and the old one ends in time."""
        old = self.begin()
        self.template.renew()
        middle, lost = self.process, self.order()
        self.template.renew()
        middle.say(b"broken it is wrong")
        self.reactor.turn()
        self.assertEqual(lost.reason, "it is wrong")
        self.assertEqual(self.template.pids, {old.pid, middle.pid, self.process.pid})
        self.report(b"ready")
        self.assertTrue(old.told_to_finish())

    def test_renewed_twice(self) -> None:
        """A reload in the middle of another: the code that is there last counts."""
        old = self.begin()
        self.template.renew()
        middle, lost = self.process, self.order()
        self.template.renew()
        worker = self.order()
        self.assertTrue(middle.told_to_finish())
        self.report(b"ready", b"3 30")
        self.assertEqual(worker.pid, 30)
        self.assertTrue(old.told_to_finish())
        middle.die()
        self.reactor.turn()
        self.report(b"2 20")
        self.assertEqual(lost.pid, 20)

    def test_does_not_end(self) -> None:
        """An old template that does not end in time is killed."""
        old = self.begin()
        self.template.renew()
        self.report(b"ready")
        self.reactor.advance(FORK_TIME - 1)
        self.assertFalse(old.killed)
        self.reactor.advance(1)
        self.assertTrue(old.killed)
        self.assertFalse(self.process.killed)


PRELOAD_TIME = 60.0


class PreloadTests(TemplateTests):
    """A template that imports the job modules; otherwise it is like any."""

    def make(self, start: Start, *, preload_time: float | None = PRELOAD_TIME) -> Template:
        """A template that is started like this, and preloads."""
        return super().make(start, preload_time=preload_time)

    def test_late(self) -> None:
        """The import may take as long as it may in a worker."""
        self.order()
        self.reactor.advance(PRELOAD_TIME / 2)
        self.order()
        self.reactor.advance(PRELOAD_TIME / 2 - 1)
        self.assertFalse(self.process.killed)
        self.reactor.advance(1)
        self.assertTrue(self.process.killed)

    def test_unshareable(self) -> None:
        """Where forks cannot share what the modules leave, templates import none of them."""
        worker = self.order()
        self.assertTrue(self.process.preloads)
        self.report(b"unshareable m has left a thread")
        self.assertFalse(self.process.preloads)
        self.assertEqual(self.process.orders(), [b"1"])
        self.processes[0].die()
        self.report(b"ready", b"1 10")
        self.assertEqual(worker.pid, 10)
        self.assertIsNone(self.template.given_up)
        self.template.renew()
        self.assertTrue(self.process.preloads)

    def test_unshareable_after_reload(self) -> None:
        """So it is if only the new code is unshareable: the old one makes no more workers."""
        old = self.begin()
        self.template.renew()
        worker = self.order()
        self.report(b"unshareable m has left a thread")
        self.processes[1].die()
        self.report(b"ready", b"2 20")
        self.assertEqual(worker.pid, 20)
        self.assertTrue(old.told_to_finish())

    def test_broken(self) -> None:
        """If the modules cannot be imported the start fails, and the next one tries again."""
        for number in range(1, 2 * MOST_FAILURES):
            worker = self.order()
            self.report(b"broken no module m")
            self.assertEqual(worker.reason, "no module m")
            self.lose()
            self.assertEqual(len(self.processes), number)
        self.assertIsNone(self.template.given_up)
        self.reactor.advance(10 * RESTART_DELAY)
        self.assertEqual(len(self.processes), number)


class WitnessTests(SynchronousTestCase):
    """What the kernel knows of processes."""

    def test_senders(self) -> None:
        """Who has sent something is told by the kernel, and not by the message."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        name_senders(ours)
        pid = os.fork()
        if pid == 0:
            theirs.send(b"1 1")
            os._exit(0)
        os.waitpid(pid, 0)
        report, sender = receive(ours, 100)
        self.assertEqual((report, sender), (b"1 1", pid))
        is_genuine = Witness(set).is_genuine
        self.assertFalse(is_genuine(pid + 1, report, sender))
        self.assertTrue(is_genuine(pid, report, sender))
        self.assertTrue(is_genuine(pid + 1, b"1 %d" % pid, sender))
        self.assertFalse(is_genuine(pid + 1, b"never", sender))
        self.assertFalse(is_genuine(0, b"1 0 no", 0))

    def test_children(self) -> None:
        """Only a new child can be a fork: alive or dead, but not reaped."""
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        self.assertTrue(Witness(set).is_fork(pid))
        self.assertFalse(Witness({pid}.copy).is_fork(pid))
        os.waitpid(pid, 0)
        for other in (pid, -1, 0, 1, os.getpid(), os.getppid()):
            self.assertFalse(Witness(set).is_fork(other))


def _no_room(protocol: ProcessProtocol, orders: int, *, preloads: bool) -> None:
    raise BlockingIOError(11, "Resource temporarily unavailable")
