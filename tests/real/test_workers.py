"""What a job does to its worker, and what its client is told: with real processes."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

import dangad
from dangad.host import capacity
from dangad.scheduler import endings, watch
from tests.oddjobs import Limited, Odd, Oops, Wait
from tests.realserver import RealServer, alive, is_frozen, shared_server, touch, until

shared = shared_server(max_workers=1)


async def outcome(client: Any, what: str) -> Any:
    """The pid that the job answered, or the error that it ended with."""
    try:
        return (await client.callRemote(Odd, what=what))["pid"]
    except Exception as error:  # noqa: BLE001 - which one it is, is the question
        return error


async def test_errors(server: RealServer) -> None:
    """Each deed ends with its error, and the next job runs in the same worker."""
    client = await server.connect()
    worker = await outcome(client, "nothing")
    for what, kind, text in (
        ("raise", dangad.JobFailed, "ZeroDivisionError: by zero"),
        ("oops", Oops, "declared"),
        ("fails later", Oops, "later"),
        ("system exit", dangad.JobFailed, "SystemExit"),
        ("keyboard interrupt", dangad.JobFailed, "KeyboardInterrupt"),
        ("none", dangad.BadResponse, "the job returned None"),
        ("wrong type", dangad.BadResponse, "'pid' is a str, where Integer takes a whole number"),
        ("extra", dangad.BadResponse, "'more'"),
        ("write to 4", dangad.JobFailed, "Bad file descriptor"),  # ampoule's pipe was there
    ):
        error = await outcome(client, what)
        assert isinstance(error, kind), what
        assert text in str(error), what
        assert await outcome(client, "nothing") == worker, what
    [number] = {job for _, job, line in server.lines() if "ZeroDivisionError: by zero" in line}
    assert (worker, number, "Traceback (most recent call last):") in server.lines()


async def test_asynchronous_jobs(server: RealServer) -> None:
    """A job may return a Deferred, be a coroutine, and use the reactor's processes."""
    client = await server.connect()
    worker = await outcome(client, "nothing")
    for what in ("deferred", "coroutine", "process in reactor", "deferred", "nothing"):
        answer = len("hi\n") if what == "process in reactor" else worker
        assert await outcome(client, what) == answer


async def test_output(server: RealServer) -> None:
    """Raw writes, prints, warnings and log records have the worker's pid and the job's id."""
    client = await server.connect()
    pid = await outcome(client, "descriptors")
    await outcome(client, "log")
    (_, first, _), *_ = server.lines()
    of_first, of_second = (
        [line for each, job, line in server.lines() if (each, job) == (pid, number)]
        for number in (first, first + 1)
    )
    assert sorted(of_first) == ["raw to one", "raw to two, and no newline"]
    assert any("a warning of the job" in line for line in of_second)
    assert any("an info of the job" in line for line in of_second)


async def test_left_over_output(server: RealServer) -> None:
    """What a job's thread prints after its end is no other job's, in the log or in an error."""
    client = await server.connect()
    pid = await outcome(client, "leave speaker")
    error = await outcome(client, "let speak and die")
    assert isinstance(error, dangad.WorkerLost)
    assert "spoken in time" in str(error)
    assert "late" not in str(error)
    assert [job > 0 for _, job, line in server.lines() if line == "spoken in time"] == [True]
    late = [line for line in server.lines() if "late" in line[2]]
    assert late == [(pid, 0, "spoken late"), (pid, 0, "INFO odd: logged late")]


async def test_closes_descriptors_and_hangs(server: RealServer) -> None:
    """A job that closes the pipe and goes on is killed, and the jobs behind it run elsewhere."""
    client = await server.connect()
    before = await outcome(client, "nothing")
    lost, *rest = [client.callRemote(Odd, what=w) for w in ("close all and hang", *["nothing"] * 9)]
    with pytest.raises(dangad.WorkerLost, match=f"worker {before} closed its pipe and was killed"):
        await lost
    assert before not in {(await answer)["pid"] for answer in rest}
    assert not alive(before)


async def test_frozen_before_its_job(server: RealServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that was frozen when it was given a job is killed, and another runs the job."""
    monkeypatch.setattr(watch, "HEARTBEAT_PATIENCE", 0.3)
    client = await server.connect()
    pid = await outcome(client, "nothing")
    os.kill(pid, signal.SIGSTOP)
    await until(lambda: is_frozen(pid))
    assert await outcome(client, "nothing") not in (pid, None)
    assert f"worker {pid} did not read what it was sent" in server.logged("dangad.pool.link")


async def test_signals_of_a_terminal(server: RealServer) -> None:
    """SIGINT, SIGTERM and SIGHUP to a busy worker do nothing to its job."""
    client = await server.connect()
    waiting = client.callRemote(Wait, path=server.path("go"), mark=server.path("mark"))
    await until(lambda: os.path.exists(server.path("mark")))
    [pid] = server.pids()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pid, number)
    touch(server.path("go"))
    assert (await waiting)["pid"] == pid


@pytest.mark.parametrize(
    ("how", "leaves", "where"),
    [
        ("busy", "time", "_clean_up"),  # a loop in Python gets TimeLimitExceeded, and may clean up
        ("sleep", None, "<lambda>"),
        ("in C", None, "match"),  # and is killed after the grace, as are the next two
        ("swallow", None, "_swallow"),
        ("block signals", None, ""),
        ("child", "child", "_child"),
        ("asynchronous", "cancelled", ""),  # its Deferred is
    ],
)
async def test_time_limit(
    server: RealServer,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    leaves: str | None,
    where: str,
) -> None:
    """At its limit a job gets TIMED_OUT, its process is gone, and the next one runs.

    The log has, under the job's id, where it was.
    """
    monkeypatch.setattr(endings, "GRACE", 5.0 if leaves else 0.3)
    client = await server.connect()
    mark = Path(server.folder, how)
    says = r"Limited ran for its time limit, \d\.\d s, after it had waited \d\.\d s"
    with pytest.raises(dangad.TimedOut, match=says):
        await client.callRemote(Limited, how=how, mark=str(mark))
    assert not alive(int(mark.read_text()))
    assert await outcome(client, "nothing") in server.pids()
    assert leaves is None or os.path.exists(f"{mark}.{leaves}")
    if leaves == "child":
        assert not alive(int(Path(f"{mark}.child").read_text()))
    if where:
        stack = [line for _, job, line in server.lines() if job]
        assert any(line.endswith(f" in {where}") for line in stack), stack
        assert any(line.endswith(" in endless") for line in stack)


async def test_descriptors(server: RealServer) -> None:
    """A worker never takes more of the server's descriptors than are kept for it.

    They are free again when it is gone.
    """

    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    await until(lambda: server.service.dispatcher.idle == 1)
    before = count()
    server.service.supervisor.scale(2, 2)
    starting = count()
    await until(lambda: server.service.dispatcher.idle == 2)
    ready = count()
    server.service.supervisor.scale(1, 1)
    await until(lambda: len(server.pids()) == 1)
    assert count() == before
    assert ready - before <= capacity.WORKER_FILES
    assert starting - before <= capacity.WORKER_FILES + capacity.STARTING_FILES
