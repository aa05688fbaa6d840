"""Each call that leaves the link and its pipes raises in turn: it costs one worker its life.

One story of two clients and a worker, told again and again, with an exception at another place
each time. Nobody but that worker may notice: all connections stay, each request gets its one end,
and what is to be done at a worker's death is done.
"""

from __future__ import annotations

import gc
import itertools
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase

from dangad.pool import link
from dangad.wire import boxes
from tests.hops import HopClient, Hops
from tests.unit.wire.test_reserved_words import TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    Site = tuple[str, int, str]
    """A place in the code, by file and line, and what it calls."""

PARTS = (
    "containment givenjobs interruption jobpipe jobprobe killing link obituary processes speech "
    "workeroutput"
)
OURS = {str(Path(link.__file__).with_name(f"{name}.py")) for name in PARTS.split()}
NOT_OUT = (
    "/twisted/logger/",
    "/dangad/text.py",
    "/zope/",
    "/contextlib.py",
    "/functools.py",
    "<string>",
)
"""Where calls go that do not leave, or that never raise: Twisted's logger promises it."""
SYSTEM = {"posix", "fcntl"}


class Trouble(Exception):
    """What is raised."""


class Fuse:
    """Notes the places at which the link calls others, and has one of the calls raise.

    To be told of each call takes longer than the calls: for one that is to raise, only the part of
    the story is watched in which it is made.

    :ivar sites: how often each was come by, in each part.
    :ivar blown: whether one has raised.
    """

    def __init__(self, site: Site | None = None, part: int = 0, number: int = 1) -> None:
        """Have the call at `site` raise that is made there as number `number` in this part."""
        self.sites: Counter[tuple[Site, int]] = Counter()
        self.blown = False
        self._site = site
        self._part = part
        self._number = number
        #: The part of now.
        self._now = 0

    def tell(self, story: Story) -> None:
        """Tell the story, part by part."""
        parts = story.tell()
        for self._now in itertools.count():
            if self._site is None or self._now == self._part:
                sys.setprofile(self._profile)
            try:
                if next(parts, None) is None:
                    return
            finally:
                sys.setprofile(None)

    def last(self) -> dict[Site, tuple[int, int]]:
        """The last call at each place: its part, and its number there."""
        return {site: (part, count) for (site, part), count in self.sites.items()}

    def _profile(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            if (caller := frame.f_back) is None or caller.f_code.co_filename not in OURS:
                return
            name, callee = frame.f_code.co_name, frame.f_code.co_filename
            if callee in OURS or any(part in callee for part in NOT_OUT):
                return
        elif event == "c_call" and frame.f_code.co_filename in OURS:
            caller, name = frame, argument.__name__
            if argument.__module__ not in SYSTEM:
                return
        else:
            return
        site = caller.f_code.co_filename.rpartition("/")[2], caller.f_lineno, name
        self.sites[site, self._now] += 1
        if site == self._site and self.sites[site, self._now] == self._number:
            self.blown = True
            sys.setprofile(None)
            raise Trouble(f"{name}, called in {site[0]}, line {site[1]}")


class Story:
    """Two clients and one worker at a time, which does about everything that a link can do."""

    def __init__(self, case: SynchronousTestCase) -> None:
        self.hops = Hops(case, TYPES)
        self.asked: list[tuple[HopClient, bytes]] = []

    def tell(self) -> Iterator[str]:
        """Have it happen, up to the next part; each is told by its name."""
        hops = self.hops
        hops.settle()
        one, other = self.clients = [hops.connect(), hops.connect()]
        for number in range(16):
            self.ask(one, b"%d" % number)
        self.steps(8)
        yield "some are prefetched"
        self.ask(other, b"urgent", (boxes.PRIORITY, b"high"))  # reclaims what is prefetched
        self.steps(2)
        self.cancel(one, b"15")
        self.steps(3)
        yield "they are reclaimed"
        self.talk(one)
        yield "one talks"
        self.ask(other, b"large", *[(b"more.%d" % n, bytes(50_000)) for n in range(4)])
        hops.settle()
        yield "one is large"
        self.stop_one(other)
        yield "one is stopped"
        self.die(one)
        yield "workers die"
        self.ask(one, b"left")
        self.watch()
        yield "nothing happens"
        worker = hops.workers[-1]
        worker.link.ping()
        hops.step()
        hops.settle()
        worker = hops.workers[-1]
        hops.supervisor.stop()
        worker.link.stop()
        worker.die(None)
        hops.clock.advance(2)
        hops.settle()

    def steps(self, count: int) -> None:
        """Have the workers take so many steps."""
        for _ in range(count):
            self.hops.step()

    def ask(self, client: HopClient, tag: bytes, *more: tuple[bytes, bytes]) -> None:
        """A client asks for a job."""
        self.asked.append((client, tag))
        client.send([(boxes.ASK, tag), (boxes.COMMAND, b"Relay"), (b"data", tag), *more])

    def cancel(self, client: HopClient, tag: bytes) -> None:
        """A client cancels a job."""
        name = b"c" + tag
        self.asked.append((client, name))
        client.send([(boxes.ASK, name), (boxes.COMMAND, b"dangad.Cancel"), (b"tag", tag)])

    def talk(self, client: HopClient) -> None:
        """A job prints, tells its progress, and sends a part, which its client does not read."""
        self.hops.settle()
        self.ask(client, b"talks", (boxes.PROGRESS, b"1"), (boxes.CHUNKS, b"1"))
        worker = self.hops.workers[-1]
        for job in list(self.hops.dispatcher.state.assignments.running()):
            worker.connector.childDataReceived(2, b"a line\n")
            worker.connector.childDataReceived(1, b"another\n")
            worker.pipe.send_report(job.id, 1, 2, "")
            worker.pipe.send_part(job.id, b"part")
        worker.tell()
        self.hops.dispatcher.hold(client.connection)
        self.hops.dispatcher.release(client.connection)
        self.hops.settle()

    def stop_one(self, client: HopClient) -> None:
        """A job is looked at, and cancelled while it runs, and heeds it after a time."""
        self.ask(client, b"stopped")
        worker = self.hops.workers[-1]
        for one in list(self.hops.dispatcher.state.assignments.jobs):
            self.hops.supervisor.records[one].show_stack()
        self.cancel(client, b"stopped")
        self.hops.clock.advance(0.05)
        worker.die(None)
        self.hops.settle()

    def die(self, client: HopClient) -> None:
        """A worker dies that has prefetched jobs, and one that has not read its job."""
        for number in range(10):
            self.ask(client, b"d%d" % number)
        self.steps(4)
        self.hops.workers[-1].die()
        self.hops.step()
        self.hops.workers[-1].die()
        self.hops.settle()

    def watch(self) -> None:
        """The supervisor looks at its workers for a time."""
        for _ in range(4):
            self.hops.clock.advance(1)
            self.steps(1)


class FaultTests(SynchronousTestCase):
    def test_each_call(self) -> None:
        """Whichever call raises, only one worker pays for it."""
        story, fuse = Story(self), Fuse()
        fuse.tell(story)
        self.check(story, [])
        self.assertGreater(len(fuse.last()), 60)
        for site, (part, count) in fuse.last().items():
            story, each = Story(self), Fuse(site, part, count)
            each.tell(story)
            self.assertTrue(each.blown, site)
            self.check(story, [site, part, count])

    def check(self, story: Story, where: list[Any]) -> None:
        """Everything is as the module says."""
        hops = story.hops
        answers: Counter[tuple[HopClient, bytes]] = Counter()
        for client in story.clients:
            self.assertTrue(client.is_open, where)
            for box in client.boxes():
                if box[0][0] != boxes.COMMAND:
                    answers[client, box[0][1]] += 1
        self.assertEqual(answers, Counter(story.asked), where)
        self.assertEqual((hops.dispatcher.running, hops.dispatcher.waiting), (0, 0), where)
        if where and not hops.faults():
            for worker in hops.workers:
                del worker.connector.finished  # a failure that nobody took is logged now
            gc.collect()
        faults = [fault["log_failure"].getErrorMessage() for fault in hops.faults()]
        self.assertEqual(len(faults), 1 if where else 0, (where, faults))
        self.assertEqual(hops.supervisor.records, {}, where)
        for worker in hops.workers:
            self.assertTrue(worker.dead, where)
        hops.close()
        self.flushLoggedErrors(Trouble)
