"""What is done with orders and reports of workers to be forked: with a socket, and no process."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from typing import TYPE_CHECKING, Any, ClassVar, cast

from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.process import reapAllProcesses
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from dangad.pool.template import FORK_TIME, READY_TIME, RESTART_DELAY, Template
from dangad.pool.templateprocess import ABANDONED, MOST_LINES, Start
from dangad.pool.witness import Witness, name_senders, receive
from tests.unit.telling import TellingTestCase

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.protocol import ProcessProtocol

    from tests.unit.telling import Deeds


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

    def die(self, why: Exception | None = None, *, shared: bool = False) -> None:
        """Be gone, killed unless said otherwise; `shared` if a fork still holds the socket."""
        self.protocol.processExited(Failure(why or ProcessTerminated(signal=signal.SIGKILL)))
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


ORDERS = {
    "the fork tells of itself, and the template of the fork; either may be first": """
        order a b, t1 ordered 1 2, forking yes, t1 reports ready "2 20" "1 10" "2 20" "1 10"
        a pid 10, b pid 20, forking no, templates 1, watched t1
    """,
    "it may say why it has not forked one; that is no fault of the others": """
        order a b, t1 reports ready "1 0 Cannot allocate memory" "2 20", b pid 20
        a reason "could not be forked: Cannot allocate memory"
    """,
    "what comes from others, or names a process that was not forked, changes nothing": """
        order a, t1 reports ready "1 666" "1 999" "never 666" "x y z", a pid None, unreadable 1
        t1 reports "1 10", a pid 10
    """,
    "one that is not wanted any more, and could not be forked, needs no kill": """
        order a, forget a, t1 reports ready "1 0 no", a reason None, forking no
    """,
}
DEATHS = {
    "what a dead one has not forked, the next one does; what it has, nobody does again": """
        order a b, t1 reports ready "1 10", t1 dies, templates 2, t2 ordered 2
        t2 reports ready "2 20", a pid 10, b pid 20
    """,
    "what it has reported is heard, although it has left an order unread": """
        order a b, t1 says "1 10", t1 dies, a pid 10, t2 ordered 2, t2 reports ready "2 20"
        b pid 20
    """,
    "an exit is told as such": "order a, t1 reports ready, t1 exits, t2 ordered 1",
    "a fork that has not told of itself is waited for, although the template is dead": f"""
        order a, t1 reports ready, t1 dies_before_its_fork, templates 1, t1 says "1 10", turn
        a pid 10, t1 closes, wait {RESTART_DELAY}, t2 ordered
    """,
    "a fork that never tells is given up, and not made a second time": f"""
        order a, t1 reports ready, t1 dies_before_its_fork, wait {FORK_TIME}
        a reason "was not ready within 5 s of its fork", wait {RESTART_DELAY}, t2 ordered, t1 closes
    """,
    "one that does not fork in time is killed": f"""
        order a, t1 reports ready, wait {FORK_TIME - 1}, killed, wait 1, killed t1, t1 dies
        t2 reports ready "1 10", wait {10 * FORK_TIME}, killed t1
    """,
    "an order that it is too late for waits for the next one": """
        order a, t1 reports ready "1 10", t1 is_dead_unnoticed, order b, turn, t2 ordered 2
        t2 reports ready "2 20", b pid 20
    """,
    "one that does not die is abandoned, and the next one forks": f"""
        order a, t1 reports ready, wait {FORK_TIME}, wait {FORK_TIME}, wait {ABANDONED}, killed t1
        t2 reports ready "1 10", a pid 10
    """,
    "so it is with one that is dead, and held by who traces it": f"""
        order a, t1 closes, killed t1, wait {ABANDONED}, t2 reports ready "1 10", a pid 10
    """,
}
GIVEN_UP = {
    "where the system has no such forks there are no more templates": f"""
        order a, t1 reports "never no sibling can be forked here", t1 dies
        a reason "was not forked: no sibling can be forked here", wait {RESTART_DELAY}, templates 1
        given_up "no sibling can be forked here"
    """,
    "nor are there any if none lives to fork": """
        order a, t1 dies, t2 dies, t3 dies, templates 3
        given_up "3 templates have forked nothing; the last was killed by SIGKILL"
        a reason "was not forked: 3 templates have forked nothing; the last was killed by
        SIGKILL"
    """,
    "one that has forked shows that it can be done": f"""
        order a, t1 reports ready "1 10", t1 dies, wait {RESTART_DELAY}
        order b, t2 reports ready "2 20", t2 dies, wait {RESTART_DELAY}
        order c, t3 reports ready "3 30", t3 dies, wait {RESTART_DELAY}, c pid 30
        order d, t4 reports ready "4 40", t4 dies, d pid 40, given_up None
    """,
    "the death of one of which nothing was wanted is no failure, however often it comes": f"""
        order a, t1 reports ready "1 10", t1 dies, wait {RESTART_DELAY}
        t2 reports ready, t2 dies, wait {RESTART_DELAY}, t3 reports ready, t3 dies
        wait {RESTART_DELAY}, t4 reports ready, t4 dies, wait {RESTART_DELAY}, given_up None
    """,
    "one that cannot fork again and again is replaced; in the end there are none any more": f"""
        3x cannot_fork, t1 is_done, wait {RESTART_DELAY}, 3x cannot_fork, t2 is_done
        wait {RESTART_DELAY}, 3x cannot_fork, t3 is_done, wait {RESTART_DELAY}, templates 3
        given_up "3 templates have forked nothing; the last could not fork 3 times in a row"
        renew, given_up None
    """,
}
RENEWED = {
    "the old one forks until the new one is ready, and ends when that is proven": """
        renew, renewed, order b, t1 ordered 1 2, t2 reports ready, renewed yes, t1 goes_on
        order c, t2 ordered 3, t1 reports "2 20", b pid 20, proven, t1 is_done, t1 dies
        t2 reports "3 30", c pid 30, alive t2
    """,
    "if no worker of the new one can begin, the old one goes on": """
        renew, t2 reports ready, order b, unproven, killed t2, t2 dies, t1 ordered 1 2
        t1 reports "2 20", b pid 20, t1 goes_on, order c, t1 ordered 3
    """,
    "an old one that goes on has to fork in time what it has been ordered": f"""
        renew, order b, t2 reports ready, unproven, killed t2, wait {FORK_TIME}, killed t1 t2
    """,
    "of several that are not proven only the oldest is kept": """
        renew, t2 reports ready, renew, t3 reports ready, t2 is_done, unproven, killed t3
        t1 goes_on, order b, t1 ordered 2
    """,
    "one that is kept may die, too": """
        renew, t2 reports ready, t1 dies, unproven, killed t1, order b, t2 ordered 2
    """,
    "if the new code cannot be imported, the old one goes on": """
        renew, t2 reports "broken it is wrong", renewed "it is wrong", killed t2, t2 dies
        order b, t1 ordered 1 2, t1 reports "2 20", b pid 20, t1 goes_on
    """,
    "so it does if the new one dies": """
        renew, t2 dies, renewed "the new template was killed by SIGKILL", t1 goes_on, alive t1
    """,
    "or cannot be started": """
        no_room, renew, renewed "no template can be started: Resource temporarily unavailable"
        t1 goes_on
    """,
    "in the middle of another reload, the one before ends at once, and the last code counts": """
        renew, renew, killed t2, t2 dies, renewed, t3 reports ready, renewed yes, proven, t1 is_done
    """,
    "the old one's death changes nothing for the new one": f"""
        renew, t1 dies, wait {RESTART_DELAY}, order b, t3 ordered 2, t2 reports ready
        renewed yes, proven, t3 is_done, t3 reports "2 20", b pid 20
    """,
    "where there is none, the next one has the present code": """
        t1 dies, renew, renewed yes, proven, templates 1
    """,
    "if there are to be no more templates, what is started without one has the present code": """
        renew, t2 reports "never no sibling can be forked", renewed yes
        given_up "no sibling can be forked"
    """,
    "an old one that does not end in time is killed": f"""
        renew, t2 reports ready, proven, wait {FORK_TIME - 1}, killed, wait 1, killed t1
    """,
}


class TemplateCase(TellingTestCase):
    """A template, whose processes are called ``t1``, ``t2``, and so on."""

    deeds: ClassVar[Deeds] = {
        "order": lambda case, *names: [case.order(name) for name in names],
        "forget": lambda case, name: case.template.forget(case.workers[name]),
        "renew": lambda case: case.template.renew(case.renewals.append),
        "proven": lambda case: case.template.end_renewal(True),
        "unproven": lambda case: case.template.end_renewal(False),
        "no_room": lambda case: setattr(case, "is_full", True),
        "is_dead_unnoticed": lambda _, template: template.die(),
        "wait": lambda case, seconds: case.reactor.advance(float(seconds)),
        "turn": lambda case: case.reactor.turn(),
        "says": lambda _, template, *reports: [template.say(each.encode()) for each in reports],
        "dies": lambda case, template: case.lose(template),
        "dies_before_its_fork": lambda case, template: case.lose(template, shared=True),
        "exits": lambda case, template: case.lose(template, ProcessDone(0)),
    }
    facts: ClassVar[Deeds] = {
        "pid": lambda _, worker: worker.pid,
        "reason": lambda _, worker: worker.reason,  # why it was not forked
        "ordered": lambda _, template: [order.decode() for order in template.orders()],
        "is_done": lambda _, template: [] if template.told_to_finish() else ["goes on"],
        "goes_on": lambda _, template: ["is done"] if template.told_to_finish() else [],
        "templates": lambda case: len(case.processes),  # that were started so far
        "forking": lambda case: "yes" if case.template.is_forking else "no",
        "given_up": lambda case: case.template.given_up,
        "renewed": lambda case: [why or "yes" for why in case.renewals],  # or why not
        "unreadable": lambda case: len(case.flushLoggedErrors(ValueError)),  # as was logged
        "preloading": lambda case: "yes" if case.processes[-1].preloads else "no",
        # Templates, in their order.
        "killed": lambda case: case.those(lambda process: process.killed),
        "watched": lambda case: case.those(lambda process: process.pid in case.guardian.watched),
        "alive": lambda case: case.those(lambda process: process.pid in case.template.pids),
    }
    preload_time: float | None = None

    def setUp(self) -> None:
        """Have an end of a pipe, which every worker is given."""
        self.end = os.open(os.devnull, os.O_RDONLY)
        self.addCleanup(os.close, self.end)
        super().setUp()

    def begin_anew(self) -> None:
        """Order nothing yet."""
        self.reactor = Reactor()
        self.guardian = Guardian()
        self.processes: list[TemplateProcess] = []
        self.workers: dict[str, Any] = {}
        self.renewals: list[str | None] = []
        self.is_full = False
        self.template = self.make(self.start)

    def make(self, start: Start) -> Template:
        """A template that is started like this."""
        guardian = cast("Any", self.guardian)
        witness = cast("Any", Credulous())
        return Template(
            self.reactor, self.reactor, guardian, start, witness, preload_time=self.preload_time
        )

    def see_all_is_over(self) -> None:
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
        if self.is_full:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        pid = 4711 + len(self.processes)
        self.processes.append(TemplateProcess(pid, protocol, orders, preloads))

    def find(self, name: str) -> Worker | TemplateProcess:
        """The worker or template of this name."""
        worker: Worker | None = self.workers.get(name)
        return worker or self.processes[int(name.removeprefix("t")) - 1]

    def those(self, is_so: Callable[[TemplateProcess], bool]) -> list[str]:
        """The names of the templates of which something is true."""
        return [f"t{n}" for n, process in enumerate(self.processes, 1) if is_so(process)]

    def order(self, name: str = "a") -> Worker:
        """Order a worker."""
        worker = self.workers[name] = Worker()
        self.template.fork(cast("Any", worker), [self.end])
        return worker

    def lose(self, template: TemplateProcess, why: Exception | None = None, **how: Any) -> None:
        """A template is gone, and what it said is heard."""
        template.die(why, **how)
        self.reactor.turn()

    def do_reports(self, template: TemplateProcess, *reports: str) -> None:
        """A template reports, and is heard."""
        for report in reports:
            template.say(report.encode())
        self.reactor.turn()

    def do_closes(self, template: TemplateProcess) -> None:
        """A template closes its socket, and that is noticed."""
        template.socket.close()
        self.reactor.turn()

    def do_cannot_fork(self) -> None:
        """The template of now says so of the next order."""
        name = f"w{len(self.workers) + 1}"
        self.order(name)
        number = name.removeprefix("w")
        self.do_reports(self.processes[-1], "ready", f"{number} 0 no descriptor is left")


class TemplateTests(TemplateCase):
    """A worker that was ordered is forked once, or not at all and somebody says why."""

    def test_stories(self) -> None:
        """They are true."""
        self.tell(ORDERS, DEATHS, GIVEN_UP)
        self.tell(RENEWED, prelude='order a, t1 reports ready "1 10"')

    def test_late(self) -> None:
        """A template that is not ready in time is killed, and a new one in vain."""
        time = self.preload_time or READY_TIME
        late = f"order a, wait {time - 1}, killed, wait 1, killed t1"
        new = f"""
            order a, t1 reports ready "1 10", renew, wait {time - 1}, renewed, wait 1, killed t2
            renewed "the new template was not ready within {time:g} s", t1 goes_on
        """
        self.tell({"it has some time to be ready": late, "and so has a new one": new})

    def test_forgotten(self) -> None:
        """One that is not wanted any more is killed as soon as it is there."""
        self.play("order a, forget a, forking yes")
        pid = os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "600")
        self.play(f't1 reports ready "1 {pid}", a pid None, a reason None, forking no')
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        self.assertEqual(ended.si_status if ended else None, signal.SIGKILL)
        reapAllProcesses()
        self.assertRaises(ChildProcessError, os.waitpid, pid, 0)
        self.see_all_is_over()

    def test_no_room(self) -> None:
        """If no process can be started the order fails, and leaves nothing."""
        self.is_full = True
        self.assertRaises(BlockingIOError, self.order)
        self.assertEqual((self.reactor.readers, self.template.is_forking), ([], False))

    def test_output(self) -> None:
        """What it prints is logged, line by line, as far as there is not too much of it."""
        self.order()
        (process,) = self.processes
        with capturedLogs() as events:
            process.protocol.childDataReceived(2, b"one\x1b\ntwo\n" + b"more\n" * 2 * MOST_LINES)
            process.protocol.childDataReceived(1, b"and more\n")
        lines = [event["line"] for event in events if "line" in event]
        self.assertEqual(lines, ["one\\x1b", "two", *["more"] * (MOST_LINES - 2)])
        self.see_all_is_over()


PRELOAD_TIME = 60.0
PRELOADS = {
    "the import may take as long as it may in a worker": f"""
        order a, wait {PRELOAD_TIME / 2}, order b, wait {PRELOAD_TIME / 2 - 1}, killed, wait 1
        killed t1
    """,
    "where forks cannot share what the modules leave, templates import none of them": """
        order a, preloading yes, t1 reports "unshareable m has left a thread", preloading no
        t2 ordered 1, t1 dies, t2 reports ready "1 10", a pid 10, given_up None, renew
        preloading yes
    """,
    "so it is if only the new code is unshareable": """
        order a, t1 reports ready "1 10", renew, order b, t1 ordered 1 2
        t2 reports "unshareable m has left a thread", t2 dies, preloading no, renewed
        t3 reports ready, renewed yes, proven, t1 is_done, order c, t3 ordered 3
    """,
    "if the modules cannot be imported the start fails, and the next one tries again": f"""
        order a, t1 reports "broken no module m", a reason "no module m", t1 dies, templates 1
        order b, t2 reports "broken no module m", b reason "no module m", t2 dies
        order c, t3 reports "broken no module m", c reason "no module m", t3 dies
        order d, t4 reports "broken no module m", d reason "no module m", t4 dies, given_up None
        wait {10 * RESTART_DELAY}, templates 4
    """,
}


class PreloadTests(TemplateTests):
    """A template that imports the job modules; otherwise it is like any."""

    preload_time = PRELOAD_TIME

    def test_preloads(self) -> None:
        """It has other ways to go wrong."""
        self.tell(PRELOADS)


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
