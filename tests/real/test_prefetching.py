"""Prefetched jobs, with real workers: whatever happens, each job ends once."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from twisted.internet.defer import Deferred, gatherResults

import dangad
from dangad.scheduler.record import Event, Job, JobState
from dangad.wire.commands import STOP_SIGNAL, Cancel
from tests.crashpoints import Echo
from tests.oddjobs import Odd, Wait
from tests.realserver import RealServer, shared_server, until

if TYPE_CHECKING:
    from pathlib import Path

IN_FLIGHT = 100
"""Jobs of a burst that a client waits for at the same time."""

MODULES = ("tests.crashpoints", "tests.oddjobs")
shared = shared_server(*MODULES, min_workers=2, drain=60.0, quarantine_after=0)


class Burst:
    """Very many quick jobs of one client, a new one for each that ends, until it is stopped.

    :ivar ends: how each ended, by its number: with its answer, or an exception.
    :ivar asked: how many there were so far.
    :ivar done: fires when all have.
    """

    def __init__(self, client: Any, count: int | None = None, in_flight: int = IN_FLIGHT) -> None:
        """Begin; `count` is after how many it stops by itself."""
        self.ends: dict[int, Any] = {}
        self.done: Deferred[None] = Deferred()
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


@pytest.fixture(autouse=True)
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The prefetched jobs that were begun."""
    begun: list[Job] = []
    live = Job.live

    def noted(job: Job, event: Event) -> JobState:
        if (job.state, event) == (JobState.PREFETCHED, Event.START):
            begun.append(job)
        return live(job, event)

    monkeypatch.setattr(Job, "live", noted)
    return begun


def assert_sound(server: RealServer, begun: list[Job], *bursts: Burst) -> None:
    """All jobs of the bursts were answered, some had been prefetched, and none is left."""
    for burst in bursts:
        assert burst.failures == []
    dispatcher = server.service.dispatcher
    assert len(begun) > 20
    assert (dispatcher.waiting, dispatcher.running) == (0, 0)
    assert sum(dispatcher.counters.ended.values()) == dispatcher.counters.accepted


@pytest.mark.parametrize("signals", [0, 10])
async def test_blocked(server: RealServer, begun: list[Job], tmp_path: Path, signals: int) -> None:
    """What was behind a job that blocks is answered while it still does.

    So it is if somebody sends the workers the signal by which the parent stops a job.
    """
    client, gate = await server.connect(), tmp_path / "gate"
    for _ in range(2):
        burst = Burst(client)
        await burst.goes_on()
        blocked = client.callRemote(Echo, value=-1, gate=str(gate))
        for _ in range(signals):
            await burst.goes_on(20)
            for pid in server.pids():
                os.kill(pid, STOP_SIGNAL)
        await burst.goes_on()
        await burst.stop()
        assert not blocked.called
        gate.touch()
        assert await blocked == {"value": -1}
        gate.unlink()
        assert_sound(server, begun, burst)


@pytest.mark.parametrize("place", [150, 298])
async def test_all_at_once(
    server: RealServer, begun: list[Job], tmp_path: Path, place: int
) -> None:
    """So it is if all had come before, and nothing comes any more."""
    client, gate = await server.connect(), tmp_path / "gate"
    warm = Burst(client, 300)
    await warm.done
    gates = {place: str(gate)}
    jobs = [client.callRemote(Echo, value=n, gate=gates.get(n)) for n in range(300)]
    blocked = jobs.pop(place)
    await gatherResults(jobs)
    assert not blocked.called
    gate.touch()
    assert await blocked == {"value": place}
    assert_sound(server, begun, warm)


async def test_output(server: RealServer, begun: list[Job]) -> None:
    """What jobs print is logged under their own ids, once it is known that their type does."""
    client = await server.connect()
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
    assert_sound(server, begun, warm, burst)
    lines = [(job, line) for _, job, line in server.lines() if line.startswith("I am job")]
    assert len(lines) == 41
    assert [line for job, line in lines if line != f"I am job {job}"] == []


async def test_stop(own_server: RealServer, begun: list[Job]) -> None:
    """A server that is stopped in a burst answers all that it has accepted."""
    own_server.start(*MODULES, min_workers=2, drain=60.0)
    client = await own_server.connect()
    warm = Burst(client, 300)
    await warm.done
    burst = Burst(client, 600, in_flight=600)
    await until(lambda: own_server.service.dispatcher.counters.accepted == 900)
    assert not burst.done.called
    await own_server.service.stopService()
    await burst.done
    assert_sound(own_server, begun, warm, burst)


async def test_frozen(server: RealServer, begun: list[Job]) -> None:
    """The prefetched jobs of a stopped worker are done by the other, but not its own job."""
    burst = Burst(await server.connect())
    await burst.goes_on()
    pid = server.pids()[0]
    os.kill(pid, signal.SIGSTOP)
    await burst.goes_on()
    burst.stop()
    await until(lambda: len(burst.ends) >= burst.asked - 1)
    os.kill(pid, signal.SIGCONT)
    await burst.done
    assert_sound(server, begun, burst)


async def test_cancel(server: RealServer, begun: list[Job]) -> None:
    """A job that is cancelled in a burst is CANCELLED, wherever it is, and no other is."""
    client = await server.connect()
    burst = Burst(client)
    for number in range(6):
        await burst.goes_on(50)
        job = client.callRemote(Wait, path=server.path("never"))
        tag = b"%x" % client._counter
        if number % 3:
            await burst.goes_on(number * 60)
        client.callRemote(Cancel, tag=tag)
        with pytest.raises(dangad.Cancelled):
            await job
    await burst.stop()
    assert_sound(server, begun, burst)
