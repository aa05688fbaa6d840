"""Prefetched jobs, with real workers: whatever happens, each job ends once."""

from __future__ import annotations

import itertools
import os
import re
import signal
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, gatherResults

import dangad
from dangad.limits import Limits
from dangad.scheduler.record import Event, Job, JobState
from dangad.wire.commands import STOP_SIGNAL, Cancel
from tests.crashpoints import Echo
from tests.oddjobs import Odd, Wait
from tests.real.test_workers import async_test
from tests.realserver import RealServerCase, alive, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.protocols import amp

IN_FLIGHT = 100
"""Jobs of a burst that a client waits for at the same time."""


class Burst:
    """Very many quick jobs of one client, a new one for each that ends, until it is stopped.

    :ivar ends: how each ended, by its number: with its answer, or an exception.
    :ivar asked: how many there were so far.
    :ivar done: fires when all have.
    :ivar when_ended: called after each end.
    """

    def __init__(self, client: Any, count: int | None = None, in_flight: int = IN_FLIGHT) -> None:
        """Begin; `count` is after how many it stops by itself."""
        self.ends: dict[int, Any] = {}
        self.done: Deferred[None] = Deferred()
        self.when_ended: Callable[[], object] | None = None
        self._client = client
        self._count = count
        self.asked = 0
        for _ in range(in_flight):
            self._ask()

    def stop(self) -> Deferred[None]:
        """Ask for no more; `done`."""
        self._count = self.asked
        return self.done

    def _ask(self) -> None:
        if self.asked != self._count:
            asked = self._client.callRemote(Echo, value=self.asked)
            asked.addBoth(self._ended, self.asked)
            self.asked += 1

    def _ended(self, end: Any, number: int) -> None:
        if number in self.ends:
            raise AssertionError(f"job {number} has ended twice")
        self.ends[number] = getattr(end, "value", end)
        self._ask()
        if self.when_ended is not None:
            self.when_ended()
        if len(self.ends) == self._count:
            self.done.callback(None)

    def goes_on(self, count: int = IN_FLIGHT) -> Deferred[Any]:
        """Fires when so many more have ended."""
        count += len(self.ends)
        return Deferred.fromCoroutine(until(lambda: len(self.ends) >= count))

    @property
    def failures(self) -> list[Any]:
        """All ends but the job's own answer."""
        return [end for number, end in self.ends.items() if end != {"value": number}]


class PrefetchCase(RealServerCase):
    """A server of two workers, of which it is noted what they begin of the prefetched."""

    jobs = ("tests.crashpoints", "tests.oddjobs")
    limits = Limits(min_workers=2, max_workers=2, drain=60.0, quarantine_after=0)

    def setUp(self) -> None:
        """Count what is begun."""
        self.begun_prefetched: list[Job] = []
        live = Job.live

        def noted(job: Job, event: Event) -> JobState:
            if (job.state, event) == (JobState.PREFETCHED, Event.START):
                self.begun_prefetched.append(job)
            return live(job, event)

        self.patch(Job, "live", noted)
        super().setUp()

    def new_path(self) -> str:
        """Where no file is."""
        return os.path.join(self.folder, f"path{next(_numbers)}")

    def assert_sound(self, *bursts: Burst) -> None:
        """All jobs of the bursts were answered, some had been prefetched, and none is left."""
        for burst in bursts:
            self.assertEqual(burst.failures, [])
        self.assert_settled()

    def assert_settled(self) -> None:
        """Each job that was accepted has ended once, and some had been prefetched."""
        dispatcher = self.service.dispatcher
        self.assertGreater(len(self.begun_prefetched), 20)
        self.assertEqual((dispatcher.waiting, dispatcher.running), (0, 0))
        self.assertEqual(sum(dispatcher.counters.ended.values()), dispatcher.counters.accepted)


_numbers = itertools.count(1)


def _touch(path: str) -> None:
    with open(path, "w"):
        pass


class BurstTests(PrefetchCase):
    """Bursts in which nothing goes wrong."""

    @async_test
    async def test_each_once(self) -> None:
        """Thousands of jobs of several clients each end once, with their own answer."""
        bursts = [Burst(await self.connect(), 800) for _ in range(2)]
        await gatherResults([burst.done for burst in bursts])
        self.assert_sound(*bursts)
        self.assertEqual(self.service.dispatcher.counters.ended[JobState.DONE], 1600)

    @async_test
    async def test_blocked(self) -> None:
        """What was behind a job that blocks is answered while it still does.

        So it is if somebody sends the workers the signal by which the parent stops a job.
        """
        client, gate = await self.connect(), self.new_path()
        for signals in (0, 0, 10, 10):
            burst = Burst(client)
            await burst.goes_on()
            blocked = client.callRemote(Echo, value=-1, gate=gate)
            for _ in range(signals):
                await burst.goes_on(20)
                for pid in self.pids():
                    os.kill(pid, STOP_SIGNAL)
            await burst.goes_on()
            await burst.stop()
            self.assertFalse(blocked.called)
            _touch(gate)
            self.assertEqual(await blocked, {"value": -1})
            os.remove(gate)
            self.assert_sound(burst)

    @async_test
    async def test_all_at_once(self) -> None:
        """So it is if all had come before, and nothing comes any more."""
        client, gate = await self.connect(), self.new_path()
        for place in (150, 280, 298):
            warm = Burst(client, 300)
            await warm.done
            jobs = [
                client.callRemote(Echo, value=number, gate=gate if number == place else None)
                for number in range(300)
            ]
            blocked = jobs.pop(place)
            await gatherResults(jobs)
            self.assertFalse(blocked.called)
            _touch(gate)
            self.assertEqual(await blocked, {"value": place})
            os.remove(gate)
            self.assert_sound(warm)

    @async_test
    async def test_output(self) -> None:
        """What jobs print is logged under their own ids, once it is known that their type does."""
        client = await self.connect()
        warm = Burst(client, 300)
        await warm.done
        await client.callRemote(Odd, what="say who")
        burst = Burst(client)
        said = []
        for _ in range(8):
            await burst.goes_on(50)
            said += [client.callRemote(Odd, what="say who") for _ in range(5)]
        await gatherResults(said)
        await burst.stop()
        self.assert_sound(warm, burst)
        lines = [(job, line) for _, job, line in self.lines() if line.startswith("I am job")]
        self.assertEqual(len(lines), 41)
        self.assertEqual([line for job, line in lines if line != f"I am job {job}"], [])

    @async_test
    async def test_reload(self) -> None:
        """To replace all workers in a burst costs no job."""
        burst = Burst(await self.connect())
        await burst.goes_on()
        before = self.pids()
        await self.service.supervisor.reload()
        self.assertFalse([pid for pid in before if alive(pid)])
        await burst.goes_on()
        await burst.stop()
        self.assert_sound(burst)

    @async_test
    async def test_stop(self) -> None:
        """A server that is stopped in a burst answers all that it has accepted."""
        client = await self.connect()
        warm = Burst(client, 300)
        await warm.done
        burst = Burst(client, 600, in_flight=600)
        counters = self.service.dispatcher.counters
        await until(lambda: counters.accepted == 900)
        self.assertFalse(burst.done.called)
        await self.service.stopService()
        await burst.done
        self.assert_sound(warm, burst)


class DeathTests(PrefetchCase):
    """Bursts in which workers die."""

    @async_test
    async def test_kills(self) -> None:
        """A worker that is killed costs the job that it runs at most, and all else is answered."""
        burst = Burst(await self.connect())
        kills = 0
        while kills < 6:
            await burst.goes_on()
            for worker in list(self.service.dispatcher.state.assignments.jobs)[: 1 + kills % 3]:
                os.kill(worker.pid, signal.SIGKILL)
                kills += 1
        await burst.goes_on()
        await burst.stop()
        for failure in burst.failures:
            self.assertIsInstance(failure, dangad.WorkerLost)
            self.assertIn("was killed by SIGKILL", str(failure))
        pids = [re.search(r"worker (\d+)", str(failure)) for failure in burst.failures]
        self.assertEqual(len({pid and pid[1] for pid in pids}), len(pids))
        self.assertLessEqual(len(burst.failures), kills)
        self.assert_settled()

    @async_test
    async def test_own_fault(self) -> None:
        """A job that kills its worker in a burst is the one that is blamed, and the only one."""
        client = await self.connect()
        burst = Burst(client)
        for how in ("kill", "exit 3", "segfault"):
            await burst.goes_on()
            await self.assertFailure(client.callRemote(Odd, what=how), dangad.WorkerLost)
        await burst.stop()
        self.assert_sound(burst)
        self.assertEqual(self.service.dispatcher.counters.ended[JobState.LOST], 3)

    @async_test
    async def test_frozen(self) -> None:
        """The prefetched jobs of a stopped worker are done by the other, but not its own job."""
        burst = Burst(await self.connect())
        await burst.goes_on()
        pid = self.pids()[0]
        os.kill(pid, signal.SIGSTOP)
        await burst.goes_on()
        burst.stop()
        await until(lambda: len(burst.ends) >= burst.asked - 1)
        os.kill(pid, signal.SIGCONT)
        await burst.done
        self.assert_sound(burst)


class ClientTests(PrefetchCase):
    """Bursts in which clients change their mind."""

    @async_test
    async def test_cancel(self) -> None:
        """A job that is cancelled in a burst is CANCELLED, wherever it is, and no other is."""
        client = await self.connect()
        burst = Burst(client)
        never = self.new_path()
        cancelled = []
        for number in range(6):
            await burst.goes_on(50)
            tag, job = self.ask(client, Wait, path=never)
            if number % 3:
                await burst.goes_on(number * 60)
            client.callRemote(Cancel, tag=tag)
            cancelled.append(self.assertFailure(job, dangad.Cancelled))
        await gatherResults(cancelled)
        await burst.stop()
        self.assert_sound(burst)
        ended = self.service.dispatcher.counters.ended
        self.assertEqual(ended[JobState.CANCELLED], len(cancelled))
        self.assertEqual(ended[JobState.LOST], 0)

    @async_test
    async def test_cancel_quick_ones(self) -> None:
        """To cancel what has nearly ended harms no other: those are answered, or CANCELLED."""
        client = await self.connect()
        burst = Burst(client)
        ends: list[Any] = []
        for number in range(30):
            await burst.goes_on(20)
            tag, job = self.ask(client, Echo, value=-number)
            job.addBoth(ends.append)
            burst.when_ended = lambda tag=tag: self.cancel_once(burst, client, tag)
        await until(lambda: len(ends) == 30)
        await burst.stop()
        for end in ends:
            if not isinstance(end, dict):
                self.assertIsInstance(end.value, dangad.Cancelled)
        self.assert_sound(burst)
        self.assertEqual(self.service.dispatcher.counters.ended[JobState.LOST], 0)

    @async_test
    async def test_reserved_words(self) -> None:
        """What one writes under the parent's own word for a job costs nobody anything."""
        attacker, other = await self.connect(), await self.connect()
        burst = Burst(other)
        for value in (b"boom", b"1 1", b"%d 1" % 10**9):
            jobs = [
                attacker.callRemoteString(b"Echo", value=b"%d" % number, _run=value, _done=value)
                for number in range(300)
            ]
            await burst.goes_on()
            urgent = [
                other.callRemoteString(b"Echo", value=b"0", _priority=b"high") for _ in range(20)
            ]
            answers = await gatherResults([*jobs, *urgent])
            expected = [*range(300), *[0] * 20]
            self.assertEqual([int(answer[b"value"]) for answer in answers], expected)
        await burst.stop()
        self.assert_sound(burst)
        self.assertEqual(self.service.dispatcher.counters.ended[JobState.LOST], 0)

    @async_test
    async def test_disconnect(self) -> None:
        """A client that disconnects in its burst leaves the jobs of another alone."""
        stays = Burst(await self.connect())
        for _ in range(2):
            leaver = await self.connect()
            leaves = Burst(leaver)
            await leaves.goes_on(300)
            leaves.stop()
            leaver.transport.abortConnection()
            await leaves.done
        await stays.stop()
        await until(lambda: not self.service.dispatcher.running)
        self.assert_sound(stays)
        self.assertEqual(self.service.dispatcher.counters.ended[JobState.LOST], 0)

    def ask(
        self, client: Any, command: type[amp.Command], **arguments: Any
    ) -> tuple[bytes, Deferred[Any]]:
        """Ask for a job; the tag of the request, and its end."""
        asked = client.callRemote(command, **arguments)
        return b"%x" % client._counter, asked

    def cancel_once(self, burst: Burst, client: Any, tag: bytes) -> None:
        """Cancel that request, and nothing any more."""
        burst.when_ended = None
        client.callRemote(Cancel, tag=tag)


class RecycleTests(PrefetchCase):
    """Bursts in which workers are replaced after a few jobs."""

    limits = Limits(min_workers=2, max_workers=2, drain=60.0, recycle_jobs=10)

    @async_test
    async def test_recycle(self) -> None:
        """No job is lost when workers leave that have prefetched jobs."""
        burst = Burst(await self.connect())
        await until(lambda: sum("exited" in text for text in self.logged("dangad.pool.link")) > 2)
        await burst.stop()
        self.assert_sound(burst)
