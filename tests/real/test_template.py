"""Workers that a template forks, whatever becomes of the template, and workers without one."""

import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from dangad.host.descent import children
from dangad.host.memory import memory_of
from dangad.limits import FRESH, LEAN, PRELOADED
from dangad.pool import template
from dangad.pool.launch import default_path
from tests.oddjobs import Facts, Odd
from tests.realserver import RealServer, alive, is_frozen, reactor, until

FORKS = int(os.environ.get("DANGAD_FORKS") or 100)
"""How many are made to see that nothing is left; ``make soak`` makes 5,000 of each kind."""
ROOM = 2**20, 8 * 2**20
"""Bytes that a template, and the tests' process, may grow by meanwhile."""
THREAD = """
import threading
thread = threading.Timer(600, print)
thread.daemon = True
thread.start()
"""


def template_of(server: RealServer) -> int:
    """The template's process; 0 while there is none."""
    return server.service.pool.starter.template.pid or 0


@pytest.fixture(params=[LEAN, PRELOADED])
def start(request: pytest.FixtureRequest) -> str:
    """What the template imports before it forks: with job modules, too, all is the same.

    What only the parent does about a template is tried with one of them; the tests of memory tell
    all their stories of both.
    """
    how: str = request.param
    return how


async def begin(server: RealServer, start: str = LEAN, **limits: Any) -> Any:
    """Have a server with one worker that is ready, and room for a second; a client."""
    server.start(worker={"start": start}, **limits)
    await until(lambda: server.service.dispatcher.idle == 1)
    return await server.connect()


async def freeze(server: RealServer) -> int:
    """Have the template stand still; its pid."""
    pid: int = await until(lambda: template_of(server))
    os.kill(pid, signal.SIGSTOP)
    await until(lambda: is_frozen(pid))
    return pid


async def second_worker(server: RealServer, client: Any, failed_starts: int = 0) -> None:
    """There is one more, which works, after so many starts that failed."""
    await until(lambda: server.service.dispatcher.idle == 2)
    await until(lambda: 0 not in server.pids())  # a report may come after the worker's Hello
    assert len(set(server.pids())) == 2
    assert (await client.callRemote(Odd, what="nothing"))["pid"] in server.pids()
    assert len(failures(server)) == failed_starts


def failures(server: RealServer) -> list[str]:
    """What the log says of starts that have failed."""
    return server.logged("dangad.scheduler.failingstarts").splitlines()


async def test_dies_idle(own_server: RealServer, start: str) -> None:
    """It dies while nothing is ordered: workers live on, and the next is forked by another."""
    client = await begin(own_server, start)
    [worker], old = own_server.pids(), template_of(own_server)
    os.kill(old, signal.SIGKILL)
    await until(lambda: template_of(own_server) not in (old, 0))
    assert own_server.pids() == [worker]
    own_server.service.supervisor.scale(2, 2)
    await second_worker(own_server, client)
    assert worker in own_server.pids()


async def test_dies_with_an_order(own_server: RealServer) -> None:
    """It dies while it has an order that it has not read: that is for the next one."""
    client = await begin(own_server)
    old = await freeze(own_server)
    own_server.service.supervisor.scale(2, 2)
    assert 0 in own_server.pids()
    os.kill(old, signal.SIGKILL)
    await second_worker(own_server, client)
    assert template_of(own_server) != old


async def test_frozen(own_server: RealServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not fork in time is killed and replaced."""
    client = await begin(own_server)
    old = await freeze(own_server)
    with monkeypatch.context() as patch:
        patch.setattr(template, "FORK_TIME", 0.2)
        own_server.service.supervisor.scale(2, 2)
        await until(lambda: not alive(old))
    await second_worker(own_server, client)


async def test_not_wanted_any_more(own_server: RealServer) -> None:
    """A worker that is given up before it was forked is gone at once, and for ever."""
    others = children()
    await begin(own_server)
    frozen = await freeze(own_server)
    own_server.service.supervisor.scale(2, 2)
    own_server.service.supervisor.scale(1, 1)
    await until(lambda: len(own_server.pids()) == 1)
    os.kill(frozen, signal.SIGCONT)
    await until(lambda: not own_server.service.pool.is_forking)
    own = {*own_server.service.pool.pids, own_server.service.guardian.pid}
    await until(lambda: children() - others <= own)
    assert len(own_server.pids()) == 1


async def test_dead_before_it_is_known(own_server: RealServer) -> None:
    """A worker that dies before its fork was reported is one that failed to start."""
    client = await begin(own_server)
    reading = own_server.service.pool.starter.template._process
    reactor.removeReader(reading)
    before = children()
    own_server.service.supervisor.scale(2, 2)
    [pid] = await until(lambda: children() - before)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not alive(pid))
    reactor.addReader(reading)
    await second_worker(own_server, client, failed_starts=1)
    assert f"worker {pid} was killed by SIGKILL" in failures(own_server)[0]


async def test_no_descriptor_is_left(own_server: RealServer, start: str) -> None:
    """What the template cannot do is a start that fails, with the reason, and tried again."""
    client = await begin(own_server, start)
    pid = template_of(own_server)
    few = len(os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, few + 1000))
    own_server.service.supervisor.scale(2, 2)
    await until(lambda: failures(own_server))
    assert "could not be forked: no descriptor is left" in failures(own_server)[0]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (few + 1000, few + 1000))
    await until(lambda: own_server.service.dispatcher.idle == 2)
    await second_worker(own_server, client, len(failures(own_server)))
    assert template_of(own_server) == pid


async def test_second_thread(own_server: RealServer) -> None:
    """Where each Python process has a second thread, workers are started without a template."""
    Path(own_server.folder, "sitecustomize.py").write_text(THREAD)
    environment = {**os.environ, "PYTHONPATH": own_server.folder}
    own_server.start(worker={"environment": environment})
    client = await own_server.connect()
    assert (await client.callRemote(Odd, what="nothing"))["pid"] in own_server.pids()
    says = "something starts threads in each Python process"
    assert says in own_server.logged("dangad.pool.template")


async def test_nothing_is_left(own_server: RealServer, start: str) -> None:
    """With a worker for each job, often: no process, no descriptor, no memory is left."""
    client = await begin(own_server, start, recycle_jobs=1)
    pids = (template_of(own_server), os.getpid())

    async def fork(number: int) -> tuple[int, ...]:
        workers: set[int] = set()
        while len(workers) < number:
            workers.add((await client.callRemote(Odd, what="nothing"))["pid"])
        await until(lambda: own_server.service.dispatcher.idle == 1 and len(own_server.pids()) == 1)
        assert failures(own_server) == []
        own_server.events.clear()
        return (*(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids), len(children()))

    before = await fork(50)
    memory = [memory_of(pid).resident for pid in pids]
    for _ in range(FORKS // 50):
        assert await fork(50) == before
    for pid, size, room in zip(pids, memory, ROOM, strict=True):
        assert memory_of(pid).resident - size < room
    assert template_of(own_server) == pids[0]


async def test_same_facts(own_server: RealServer, start: str) -> None:
    """A forked worker is to its jobs what a fresh one is: what they were given reaches both.

    Environment, working directory and path arrive; stdin is empty, the group is its own. Neither
    has loaded OpenSSL.
    """
    given = {
        "environment": {**os.environ, "ODD_VARIABLE": "odd value"},
        "path": ("/odd/path", *default_path()),
    }
    found = []
    for how in (FRESH, start):
        own_server.start(worker={**given, "start": how})
        client = await own_server.connect()
        found.append(await client.callRemote(Facts))
        loaded = Path(f"/proc/{own_server.pids()[0]}/maps").read_text()
        assert "libc.so" in loaded
        assert "cryptography" not in loaded
        await own_server.service.stopService()
    fresh, forked = found
    assert fresh == forked
    assert (forked["cwd"], forked["path"][0]) == (os.getcwd(), "/odd/path")
    assert {entry for entry in sys.path if entry} <= set(forked["path"])
    assert (forked["variable"], forked["stdin"], forked["own_group"]) == ("odd value", "", True)
    assert forked["pythonpath"] == os.environ.get("PYTHONPATH", "unset")
    assert [fd for fd in forked["descriptors"] if fd < 3] == [0, 1, 2]
