"""What the server does so that no job can hurt it, another job or the machine: real processes."""

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, gatherResults
from twisted.protocols import amp

import dangad
from dangad.errors import NoAnswer, NotRunning, ReloadFailed
from dangad.limits import LEAN
from dangad.pool.launch import default_path
from dangad.scheduler import failingstarts, supervisor
from dangad.scheduler.joblog import JobLog
from tests import fakeoperations
from tests.heavyjobs import MIB, Heavy
from tests.oddjobs import Odd, Wait
from tests.realserver import RealServer, alive, shared_server, touch, until
from tests.starting import START

INTERPRETER = 60 * MIB
"""Bytes that a worker with the job modules of the tests has at most by itself."""

SEEN = r"had \d+ MiB of memory, where --max-memory is 200 MiB, and was killed"
"""What is said of a worker that was seen to be too large, before the system refused it more."""

MODULES = ("tests.heavyjobs", "tests.oddjobs")

shared = shared_server(*MODULES)


def take(server: RealServer, what: str, amount: int = 0, **arguments: Any) -> Deferred[int]:
    """Have a job take something, on a connection of its own; the pid of its worker."""

    async def ask() -> int:
        client = await server.connect()
        answer = await client.callRemote(Heavy, what=what, amount=amount, **arguments)
        pid: int = answer["pid"]
        return pid

    return Deferred.fromCoroutine(ask())


# What is told of jobs and workers.


async def test_last_words(server: RealServer) -> None:
    """The exit status, how long the job ran, and what it printed last are told.

    Of a crash, the signal is, and where in the job's code it happened.
    """
    words = r"it printed last: looking for the config \| there is none$"
    exited = r"^worker \d+ exited \(status 3\) \d+\.\d s into Heavy\b.*; "
    with pytest.raises(dangad.WorkerLost, match=exited + words):
        await take(server, "print and exit", 3)
    with pytest.raises(dangad.WorkerLost, match=r"was killed by SIGSEGV \d+\.\d s into") as lost:
        await take(server, "segfault")
    assert "printed last: Fatal Python error: Segmentation fault | " in str(lost.value)
    assert any("heavyjobs.py" in line for _, job, line in server.lines() if job)


async def test_memory_of_the_lost(server: RealServer) -> None:
    """Of a worker that grew, it is told how large it was."""
    job = take(server, "keep", 200, until=server.path("never"))

    def large_workers() -> list[int]:
        found = server.service.operations.workers()
        return [worker["pid"] for worker in found if worker["memory"] > 200 * MIB]

    [pid] = await until(large_workers)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(dangad.WorkerLost, match=r"SIGKILL .* used up to 2\d\d MiB of memory"):
        await job


async def test_resource_usage(server: RealServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What jobs took, done or lost, is told to operators, and logged.

    That is CPU time, also of programs that the job waits for, and memory.
    """
    monkeypatch.setattr(server.service.dispatcher.counters, "journals", (JobLog(),))
    await take(server, "sleep", 300)
    await take(server, "burn", 300)
    await take(server, "burn elsewhere", 300)
    await take(server, "hold", 100)
    with pytest.raises(dangad.WorkerLost):
        await take(server, "print and exit", 3)
    asleep, busy, elsewhere, large, lost = jobs = server.service.operations.recent()[-5:]
    assert asleep["cpu"] < 0.2 < asleep["runtime"]
    assert busy["cpu"] > 0.2
    assert elsewhere["cpu"] > 0.2
    assert asleep["peak_memory"] < INTERPRETER
    assert large["peak_memory"] > 100 * MIB
    assert (lost["state"], lost["worker"] is None) == ("lost", False)
    log = server.logged("dangad.scheduler.joblog")
    for job in jobs:
        assert f"job {job['id']} Heavy {job['state']} worker={job['worker']} " in log
        assert f" cpu={job['cpu']:.6f} peak_memory={job['peak_memory']}" in log


async def test_stack(server: RealServer) -> None:
    """An operator gets the stack of a running job, which goes on, and the log has it.

    There is none of a job that has ended or never was, or whose worker is stopped.
    """
    client = await server.connect()
    job = client.callRemote(Wait, path=server.path("end"), mark=server.path("mark"))
    await until(lambda: os.path.exists(server.path("mark")))
    [number] = [each["job"]["id"] for each in server.service.operations.workers() if each["job"]]
    stack = await server.service.operations.stack(number)
    assert re.search(r'File ".*oddjobs\.py", line \d+ in wait\n', stack)
    assert "".join(f"{line}\n" for _, job_id, line in server.lines() if job_id == number) == stack
    (worker,) = server.workers("busy")
    os.kill(worker, signal.SIGSTOP)
    stopped = rf"worker {worker} did not answer .*: it is stopped, .* \(state T\)"
    with pytest.raises(NoAnswer, match=stopped):
        await server.service.operations.stack(number)
    os.kill(worker, signal.SIGCONT)
    touch(server.path("end"))
    await job
    for job_id in (number, number + 1):
        with pytest.raises(NotRunning):
            await server.service.operations.stack(job_id)


NAMES = ("failed_by_code", "refused_by_code", "errors")
"""The objects in documents whose keys are not fixed."""


def check(told: Any, shown: Any, where: str) -> None:
    """Both have the same keys, and values of the same types; None may stand for any."""
    if where.endswith(NAMES):
        assert all(isinstance(number, int) for number in told.values()), where
    elif isinstance(shown, dict) and told is not None:
        assert list(told) == list(shown), where
        for key, value in shown.items():
            check(told[key], value, f"{where}.{key}")
    elif shown is not None and told is not None:
        assert type(told) is type(shown), where


async def test_documents(server: RealServer) -> None:
    """The documents have the shapes that the reference gives."""
    await take(server, "nothing")
    with pytest.raises(dangad.WorkerLost):
        await take(server, "segfault")
    take(server, "nothing", until=server.path("no end")).addErrback(lambda _: None)
    await until(lambda: server.workers("busy"))
    operations = server.service.operations
    check(operations.status(), fakeoperations.STATUS, "status")
    for worker in operations.workers():
        check(worker, fakeoperations.WORKERS[0], "worker")
    assert any(worker["job"] for worker in operations.workers())
    for usage in operations.recent():
        check(usage, fakeoperations.RECENT[1], "recent")
    for death in operations.deaths():
        check(death, fakeoperations.DEATHS[0], "deaths")
    jobs = await operations.jobs()
    check(jobs["jobs"][0], fakeoperations.JOBS["jobs"][0], "jobs")
    further = set(fakeoperations.DETAIL) - set(fakeoperations.RECENT[0])
    for job in (jobs["jobs"][0], operations.recent(limit=1)[0]):
        more = await operations.job(job["id"])
        assert further | set(job) <= set(more)
    for command in await operations.commands():
        if command["command"] != "other":
            check(command, fakeoperations.COMMANDS[0], "commands")
    clients = await operations.clients()
    check(clients["clients"][0], fakeoperations.CLIENTS["clients"][0], "clients")
    known = set().union(*fakeoperations.EVENTS["events"])
    watched = operations.watch()
    await take(server, "nothing")
    for event in (await watched)["events"]:
        assert set(event) <= known


# Limits of workers.


async def test_max_memory(own_server: RealServer) -> None:
    """With --max-memory a worker's memory has a bound, whatever the job does.

    One that allocates without end, or asks for too much at once, is lost, with the limit as the
    reason; so is one whose library crashes because it takes every allocation for granted, and one
    that has more in RAM by other means. No other job is, and the next finds a worker.
    """
    own_server.start(
        *MODULES, max_memory=200 * MIB, worker={"max_memory": 200 * MIB}, min_workers=2
    )
    ran_out = r"ran out of memory \(--max-memory 200 MiB\)"
    other = take(own_server, "nothing", until=own_server.path("end"))
    await until(lambda: own_server.workers("busy"))
    for what, amount, says in (
        ("allocate without end", 10, rf"{ran_out}|{SEEN}"),
        ("ask too much", 2**30, ran_out),
        ("allocate in C", 10, f"was killed by SIGSEGV .* Segmentation fault|{SEEN}"),
        ("share", 300, SEEN),
    ):
        with pytest.raises(dangad.WorkerLost, match=says):
            await take(own_server, what, amount)
    touch(own_server.path("end"))
    await other
    assert await take(own_server, "nothing")


async def test_recycle_jobs(own_server: RealServer) -> None:
    """With --recycle-jobs 1 each job has a worker of its own, which has booted before it comes."""
    own_server.start(*MODULES, recycle_jobs=1)
    performed = []
    for _ in range(5):
        [booted] = await until(
            lambda: not own_server.workers("stopping") and own_server.workers("idle")
        )
        performed.append(await take(own_server, "nothing"))
        assert performed[-1] == booted
        await until(lambda: not alive(performed[-1]))
    assert len(set(performed)) == 5
    waits = [job["wait"] for job in own_server.service.operations.recent()]
    assert sorted(waits)[len(waits) // 2] < 0.01


async def test_recycle_memory(own_server: RealServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --recycle-memory a worker that has grown leaves between two jobs, and none is lost.

    While a job has made it too large, the replacement boots; then the job ends well.
    """
    monkeypatch.setattr(supervisor, "WATCH_INTERVAL", 0.05)
    own_server.start(*MODULES, max_workers=1, recycle_memory=150 * MIB)
    leaking, *_ = [await take(own_server, "keep", 60) for _ in range(3)]
    await until(lambda: own_server.workers("idle") and leaking not in own_server.pids())
    log = own_server.logged("dangad.scheduler.workerrecord")
    assert re.search(rf"worker {leaking} is to be replaced: it has \d+ MiB of", log)
    job = take(own_server, "keep", 200, until=own_server.path("end"))
    [old] = await until(lambda: own_server.workers("busy"))
    [new] = await until(lambda: own_server.workers("idle"))
    touch(own_server.path("end"))
    assert await job == old != new
    await until(lambda: own_server.pids() == [new])


async def test_recycle_age(own_server: RealServer) -> None:
    """With --recycle-age an idle worker is replaced by another, which is ready before it leaves."""
    own_server.start(*MODULES, max_workers=1, recycle_age=0.5)
    [first] = await until(lambda: own_server.workers("idle"))
    await until(lambda: own_server.workers("idle") and first not in own_server.pids())
    log = own_server.logged("dangad.scheduler.workerrecord")
    assert re.search(rf"worker {first} is to be replaced: it is \d+ s old", log)


async def test_numbers(own_server: RealServer) -> None:
    """One idle worker is kept beyond those that are busy, as far as the maximum allows.

    An operator has more workers, and fewer again, while the server runs.
    """
    own_server.start(*MODULES, min_workers=0, max_workers=3, spare_workers=1)
    jobs = []
    for busy, idle in ((0, 1), (1, 1), (2, 1), (3, 0)):
        await until(
            lambda numbers=(busy, idle): (
                numbers == (len(own_server.workers("busy")), len(own_server.workers("idle")))
            )
        )
        jobs.append(take(own_server, "nothing", until=own_server.path("end")))
    assert len(own_server.pids()) == 3
    touch(own_server.path("end"))
    await gatherResults(jobs)
    for few, many, says in ((3, 2, "3 to 2 workers"), (1, 1_000_000, "too many for this machine")):
        with pytest.raises(ValueError, match=says):
            own_server.service.operations.scale(few, many)
    for number in (1, 3):
        own_server.service.operations.scale(number, number)
        await until(lambda number=number: len(own_server.workers("idle")) == number)
        await until(lambda number=number: len(own_server.pids()) == number)
    assert await take(own_server, "nothing") in own_server.pids()


async def test_relief(own_server: RealServer) -> None:
    """Jobs of one client that never end keep all workers, and another's are done by one more."""
    own_server.start(min_workers=2, relief_after=0.1)
    greedy, modest = await own_server.connect(), await own_server.connect()
    for _ in range(3):
        greedy.callRemote(Wait, path=own_server.path("never")).addErrback(lambda _: None)
    dispatcher = own_server.service.dispatcher
    await until(lambda: dispatcher.running == 2)
    for _ in range(3):
        await modest.callRemote(Odd, what="nothing")
    assert (dispatcher.running, dispatcher.waiting, len(own_server.pids())) == (2, 1, 3)
    greedy.transport.abortConnection()
    await until(lambda: dispatcher.running == 0)


# Job modules that change.

ONE, TWO = "One", "Two"

MODULE = """
import os, time
from twisted.protocols import amp
from dangad import job

class Both(amp.Command):
    arguments = [(b"until", amp.Unicode(optional=True))]
    response = [(b"version", amp.Unicode()), (b"pid", amp.Integer())]

class {version}(amp.Command):
    pass

@job(Both)
def both(until):
    while until is not None and not os.path.exists(until):
        time.sleep(0.002)
    return {{"version": "{version}", "pid": os.getpid()}}

@job({version})
def own():
    return {{}}
"""
"""A job module in one of two versions, which have one command in common."""
BROKEN = "import nowhere_to_be_found\n"
WHY = "No module named 'nowhere_to_be_found'"


class Both(amp.Command):
    """The command of both versions."""

    arguments = [(b"until", amp.Unicode(optional=True))]
    response = [(b"version", amp.Unicode()), (b"pid", amp.Integer())]
    errors = {**dangad.ERRORS}


def write(server: RealServer, text: str) -> None:
    """Have the job module be so, from one moment to the next."""
    path = Path(server.path("changing.py"))
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").rename(path)


def start(server: RealServer, workers: int, how: str = START) -> None:
    """With the server's folder in the path; without .pyc, to tell fast changes apart."""
    write(server, MODULE.format(version=ONE))
    server.start(
        "changing",
        worker={
            "path": (server.folder, *default_path()),
            "environment": {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            "start": how,
        },
        min_workers=workers,
        max_workers=workers,
    )


async def performs(server: RealServer, name: str) -> bool:
    """Whether the server performs a command of that name and no arguments."""
    client = await server.connect()
    try:
        await client.callRemoteString(name.encode())
    except amp.UnhandledCommand:
        return False
    return True


async def test_reload_under_load(own_server: RealServer) -> None:
    """Nothing is refused or lost, and when the reload is done all is new."""
    start(own_server, 2)
    stop: list[bool] = []

    async def load() -> list[str]:
        client = await own_server.connect()
        versions = []
        while not stop:
            versions.append((await client.callRemote(Both))["version"])
        return versions

    loads = [Deferred.fromCoroutine(load()) for _ in range(4)]
    await until(lambda: len(own_server.service.operations.recent()) > 20)
    old = own_server.pids()
    write(own_server, MODULE.format(version=TWO))
    await own_server.service.operations.reload()
    assert not any(map(alive, old))
    client = await own_server.connect()
    assert (await client.callRemote(Both))["version"] == TWO
    stop.append(True)
    assert {versions[0] for versions in await gatherResults(loads)} == {ONE}
    counters = own_server.service.dispatcher.counters
    status = own_server.service.operations.status()
    assert status["jobs"]["done"] == counters.accepted
    assert (counters.refused, status["generation"]) == (0, 2)
    assert status["reload"] == {"state": "done", "reason": ""}


async def test_reload_beside_an_old_worker(own_server: RealServer) -> None:
    """A new command is there while an old worker goes on; a removed one ends with that."""
    start(own_server, 2)
    client = await own_server.connect()
    job = client.callRemote(Both, until=own_server.path("end"))
    await until(lambda: own_server.workers("busy"))
    write(own_server, MODULE.format(version=TWO))
    operations = own_server.service.operations
    reloading = operations.reload()

    def generations() -> list[int]:
        return sorted(worker["generation"] for worker in operations.workers())

    await until(lambda: generations() == [1, 2, 2] and len(own_server.workers("idle")) == 2)
    assert await performs(own_server, TWO)
    removed = Deferred.fromCoroutine(performs(own_server, ONE))
    await until(lambda: own_server.service.dispatcher.waiting == 1)
    touch(own_server.path("end"))
    assert (await job)["version"] == ONE
    await reloading
    assert not await removed


async def test_reload_of_broken_code(own_server: RealServer) -> None:
    """If the new code is broken the old workers go on, and the reason is told; then mend it."""
    start(own_server, 2)
    await until(lambda: len(own_server.workers("idle")) == 2)
    old = sorted(own_server.pids())
    write(own_server, BROKEN)
    operations = own_server.service.operations
    with pytest.raises(ReloadFailed, match=WHY) as failed:
        await operations.reload()
    assert await performs(own_server, ONE)
    assert sorted(own_server.workers("idle")) == old
    assert operations.status()["reload"] == {"state": "failed", "reason": str(failed.value)}
    says = f"the reload failed, and the old code stays: {failed.value}"
    assert says in own_server.logged("dangad.scheduler.reload")
    write(own_server, MODULE.format(version=TWO))
    await operations.reload()
    assert await performs(own_server, TWO)
    assert not await performs(own_server, ONE)


async def test_breaks_and_is_mended(
    own_server: RealServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs get NO_WORKERS with the reason, starts grow rare, and all is well once mended."""
    monkeypatch.setattr(failingstarts, "PATIENCE", 0.5)
    start(own_server, 1, how=LEAN)  # a template that has the module does not see it break
    client = await own_server.connect()
    pid = (await client.callRemote(Both))["pid"]
    write(own_server, BROKEN)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not alive(pid))
    with pytest.raises(dangad.NoWorkers, match=WHY):
        await client.callRemote(Both)
    assert WHY in own_server.service.operations.status()["no_workers"]

    def tries() -> list[str]:
        log = own_server.logged("dangad.scheduler.failingstarts")
        return re.findall(r"next try (at once|in [\d.]+ s)", log)

    await until(lambda: len(tries()) >= 4)
    assert tries()[:4] == ["at once", "in 0.1 s", "in 0.2 s", "in 0.4 s"]
    write(own_server, MODULE.format(version=TWO))
    await until(lambda: own_server.workers("idle"))
    assert (await client.callRemote(Both))["version"] == TWO
    assert own_server.service.operations.status()["no_workers"] is None
