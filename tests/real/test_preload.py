"""Job modules that the template imports: shared by all workers, if forks can share them."""

import inspect
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import gatherResults
from twisted.protocols import amp

from dangad.errors import ReloadFailed
from dangad.limits import PRELOADED
from dangad.pool import link
from dangad.pool.launch import default_path
from dangad.worker import hooks
from dangad.worker.jobtypes import BadJobType
from tests.realserver import RealServer, touch, until


class Tell(amp.Command):
    """What does a worker know of itself?"""

    response = [
        (b"pid", amp.Integer()),
        (b"imported_by", amp.Integer()),
        (b"version", amp.Integer()),
        (b"begun", amp.ListOf(amp.Integer())),
        (b"random", amp.Integer()),
        (b"secret", amp.String()),
    ]


MODULE = (
    """
import os, random, ssl
from twisted.protocols import amp
import dangad

"""
    + inspect.getsource(Tell)
    + """

ssl.RAND_bytes(8)  # its generator is seeded before the fork
IMPORTED_BY = os.getpid()
VERSION = {version}
begun = []

@dangad.worker_start
def begin():
    begun.append(os.getpid())

@dangad.worker_start
def begin_more():
    begun.append(len(begun))

@dangad.worker_stop
def end():
    print("the worker ends", begun[0])

@dangad.worker_stop
def fail():
    print("before that it fails", 1 / 0)

@dangad.job(Tell)
def tell():
    return {{
        "pid": os.getpid(),
        "imported_by": IMPORTED_BY,
        "version": VERSION,
        "begun": begun,
        "random": random.randrange(2**31),
        "secret": ssl.RAND_bytes(8),
    }}
"""
)


def write(server: RealServer, text: str) -> None:
    """Change the module. Python tells two changes apart by their seconds and sizes alone."""
    shutil.rmtree(server.path("__pycache__"), ignore_errors=True)
    Path(server.path("preloaded_jobs.py")).write_text(text)


def templates(server: RealServer) -> set[int]:
    """The templates that there are."""
    pids: set[int] = server.service.pool.starter.template.pids
    return pids


async def begin(
    server: RealServer, text: str = MODULE.format(version=1), max_memory: int = 0
) -> Callable[[], Awaitable[dict[str, Any]]]:
    """Have a server whose template preloads the module; asks the worker that is idle."""
    write(server, text)
    path = (server.folder, *default_path())
    worker = {"path": path, "start": PRELOADED, "max_memory": max_memory}
    server.start("preloaded_jobs", worker=worker, max_memory=max_memory)
    client = await server.connect()
    return partial(client.callRemote, Tell)


async def test_shared(own_server: RealServer) -> None:
    """The module is imported once; each worker begins and ends by its own functions."""
    tell = await begin(own_server)
    first = await tell()
    assert {first["imported_by"]} == templates(own_server)
    assert first["begun"] == [first["pid"], 1]
    supervisor = own_server.service.supervisor
    supervisor.scale(0, 1)
    supervisor.recycle_worker(next(iter(own_server.service.pool.processes)), "a test")
    await until(lambda: first["pid"] not in own_server.pids())
    second = await tell()
    assert second["imported_by"] == first["imported_by"]
    assert second["random"] != first["random"]
    assert second["secret"] != first["secret"]
    assert second["begun"] == [second["pid"], 1]
    lines = [line for pid, _, line in own_server.lines() if pid == first["pid"]]
    assert lines[-1] == f"the worker ends {first['pid']}"
    assert "ZeroDivisionError: division by zero" in lines


async def test_reload(own_server: RealServer) -> None:
    """A reload has another template if the new code can be imported; else the old stays."""
    tell = await begin(own_server)
    old = await tell()
    write(own_server, MODULE.format(version=22))
    assert (await tell())["version"] == 1
    await own_server.service.supervisor.reload()
    new = await tell()
    assert new["version"] == 22
    await until(lambda: templates(own_server) == {new["imported_by"]})
    assert new["imported_by"] != old["imported_by"]
    write(own_server, "1 / 0")
    with pytest.raises(ReloadFailed, match=r"ZeroDivisionError: division by zero \(.*line 1\)"):
        await own_server.service.supervisor.reload()
    before = set(own_server.pids())
    own_server.service.pool.kill_all("was killed by a test")
    await until(lambda: not before & set(own_server.pids()))
    assert (await tell())["version"] == 22
    await until(lambda: templates(own_server) == {new["imported_by"]})


async def test_reload_to_workers_that_cannot_begin(own_server: RealServer) -> None:
    """Code that is imported, and whose workers cannot begin, leaves the old template in place."""
    tell = await begin(own_server)
    old = await tell()
    write(own_server, MODULE.format(version="22").replace("begun.append(os.getpid())", "1 / 0"))
    with pytest.raises(ReloadFailed, match="ZeroDivisionError"):
        await own_server.service.supervisor.reload()
    os.kill(old["pid"], signal.SIGKILL)
    await until(lambda: old["pid"] not in own_server.pids())
    assert (await tell())["imported_by"] == old["imported_by"]
    await until(lambda: templates(own_server) == {old["imported_by"]})


async def test_slow_reload(own_server: RealServer) -> None:
    """While a reload imports the new code, workers are started with the old code."""
    tell = await begin(own_server)
    old = await tell()
    gate = own_server.path("gate")
    wait = f"import os, time\nwhile not os.path.exists({gate!r}):\n    time.sleep(0.01)\n"
    write(own_server, wait + MODULE.format(version=22))
    reloads = [own_server.service.supervisor.reload() for _ in range(5)]
    os.kill(old["pid"], signal.SIGKILL)
    await until(lambda: old["pid"] not in own_server.pids())
    assert (await tell())["imported_by"] == old["imported_by"]
    await until(lambda: len(templates(own_server)) == 2)
    touch(gate)
    await gatherResults(reloads)
    new = await tell()
    assert new["version"] == 22
    await until(lambda: templates(own_server) == {new["imported_by"]})


async def test_unshareable(own_server: RealServer) -> None:
    """What cannot be shared is imported by each worker, until a reload finds it fit."""
    tell = await begin(own_server)
    text = MODULE.format(version=22)
    write(own_server, f"{text}\nimport socket\nkept = socket.socketpair()\n")
    await own_server.service.supervisor.reload()
    lean = await tell()
    assert lean["imported_by"] == lean["pid"]
    says = "preloaded_jobs has left a socket, which forks cannot share"
    assert says in own_server.logged("dangad.pool.template")
    write(own_server, text)
    await own_server.service.supervisor.reload()
    preloaded = await tell()
    await until(lambda: templates(own_server) == {preloaded["imported_by"]})


async def test_memory(own_server: RealServer) -> None:
    """What a worker shares does not count; what its jobs have taken does."""
    model = "model = bytes(range(256)) * 2**18\ntaken = []\n"
    text = MODULE.format(version=1).replace(
        "\n    return", "\n    taken.append(b'x' * 2**24)\n    return"
    )
    tell = await begin(own_server, model + text, 60 * 2**20)
    await tell()
    [worker] = own_server.service.pool.processes
    assert 2**24 < worker.memory() < 2**25
    await tell()
    await tell()
    with pytest.raises(amp.UnknownRemoteError, match=r"ran out of memory \(--max-memory 60 MiB\)"):
        await tell()


async def test_never_forked(own_server: RealServer) -> None:
    """A worker that never had a process has no number in the log."""
    write(own_server, "1 / 0")
    own_server.start(
        "preloaded_jobs", worker={"path": (own_server.folder, *default_path()), "start": PRELOADED}
    )
    log = partial(own_server.logged, "dangad.pool.link")
    await until(lambda: "could not start" in log())
    says = r"a worker could not start: the job modules cannot be served: ZeroDivisionError.*\)"
    assert re.fullmatch(says, log().splitlines()[0])


async def test_peak_memory(own_server: RealServer) -> None:
    """The peak of a job is what its worker had beyond what it shares, however the job ended."""
    model = "model = bytes(range(256)) * 2**18\ntaken = []\n"
    grow = "taken.append(b'x' * 2**24)\n    os.kill(os.getpid(), 9 if len(taken) == 2 else 0)"
    text = MODULE.format(version=1).replace("\n    return", f"\n    {grow}\n    return")
    tell = await begin(own_server, model + text)
    await tell()
    with pytest.raises(amp.UnknownRemoteError, match=r"used up to 3\d MiB of memory of its own"):
        await tell()
    done, lost = own_server.service.operations.recent()
    assert 2**24 < done["peak_memory"] < 2**25
    assert 2**25 < lost["peak_memory"] < 2**25 + 2**24


TRIAL = """
import sys
from dangad.worker.preload import Unshareable, preload
sys.path.insert(0, sys.argv[1])
try:
    preload(["fine", "module", "second"])
except Unshareable as error:
    print(error)
"""
WATCH = "import ctypes; ctypes.CDLL(None).inotify_init1(0)"
SIGNALS = "import ctypes; ctypes.CDLL(None).signalfd(-1, ctypes.create_string_buffer(128), 0)"
TIMES = "import ctypes; ctypes.CDLL(None).timerfd_create(0, 0)"
QUEUE = "import logging.handlers as h, queue; k = h.QueueListener(queue.Queue()); k.start()"
SHARED_MEMORY = "from multiprocessing import resource_tracker as r; r.ensure_running()"
POOL = "import multiprocessing; kept = multiprocessing.get_context('fork').Pool(2)"


def try_out(folder: Path, module: str, second: str = "") -> str:
    """What is said of two modules that are imported in a template, one after the other."""
    for name, text in (("fine", ""), ("module", module), ("second", second)):
        (folder / f"{name}.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", TRIAL, str(folder)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stderr == ""
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import random, logging, sqlite3, decimal", ""),
        ("import tempfile; kept = tempfile.TemporaryFile()", ""),
        ("import multiprocessing; kept = multiprocessing.Lock()", ""),
        ("import fcntl; kept = open(__file__); fcntl.flock(kept, fcntl.LOCK_EX)", ""),
        ("import signal; signal.signal(signal.SIGALRM, print)", ""),
        ("import socket; kept = socket.socket()", "a socket"),
        ("import select; kept = select.epoll()", "an epoll descriptor, as event loops have"),
        ("import asyncio; kept = asyncio.new_event_loop()", "an epoll descriptor"),
        ("import os; kept = os.pipe()", "a pipe, which"),
        ("import os; kept = os.eventfd(0)", "an event descriptor"),
        ("import os; kept = os.pidfd_open(os.getpid())", "the descriptor of a process"),
        (WATCH, "an inotify descriptor"),
        (SIGNALS, "a signal descriptor"),
        (TIMES, "a timer descriptor"),
        ("import os; kept = os.memfd_create('x')", ""),
        ("import threading as t; k = t.Timer(9, print); k.daemon = True; k.start()", "a thread ("),
        ("import _thread, time; _thread.start_new_thread(time.sleep, (99,))", "a thread,"),
        (QUEUE, "a thread (Thread-1"),
        ("import signal; signal.setitimer(signal.ITIMER_REAL, 99)", "a timer that sends a signal"),
        (
            "import subprocess; kept = subprocess.Popen(['sleep', '99'], stdout=-3, stderr=-3)",
            "a child process (sleep)",
        ),
        (SHARED_MEMORY, "a pipe, a resource tracker of multiprocessing"),
        (POOL, "a pipe, 2 child processes (python"),
        ("from twisted.internet import reactor", "an installed reactor"),
        ("import dangad, dangad.client.factory", ""),
    ],
)
def test_fitness(tmp_path: Path, text: str, found: str) -> None:
    """What a module leaves is named with the module, if a fork could not share it."""
    said = try_out(tmp_path, text)
    assert said.startswith(f"module has left {found}" if found else "")
    assert bool(said) == bool(found)
    remedy = "import the reactor in the" if "reactor" in found else "make this in a @dangad.worker_"
    assert not found or f", which forks cannot share; {remedy}" in said


def test_all_unfit(tmp_path: Path) -> None:
    """All modules that forks cannot share are named, each with all that it leaves."""
    said = try_out(tmp_path, POOL, "import socket; kept = socket.socket()")
    assert re.fullmatch(
        r"module has left a pipe, 2 child processes \(.*\), 3 threads \(.*\); "
        r"second has left a socket, which forks cannot share; "
        r"make this in a @dangad.worker_start function",
        said,
    )


@pytest.mark.parametrize("decorate", [hooks.worker_start, hooks.worker_stop])
def test_functions_that_cannot_be_called(decorate: Any) -> None:
    """A function that a worker could not call is refused at once, with the reason."""

    async def later() -> None: ...

    async def parts_later() -> AsyncIterator[int]:
        yield 1

    def parts() -> Iterator[int]:
        yield 1

    for function, reason in (
        (later, "not a plain function"),
        (parts_later, "not a plain function"),
        (parts, "not a plain function"),
        (3, "not a plain function"),
        (lambda job: job, "it has arguments"),
    ):
        with pytest.raises(BadJobType, match=reason):
            decorate(function)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("raise ValueError('no database')", r"raised ValueError: no database \(.*, line \d+\)"),
        ("import sys; sys.exit(3)", r"raised SystemExit: 3 \(.*, line \d+\)"),
        ("return (each for each in 'ab')", "has returned a generator, which nobody runs"),
        (
            "from twisted.internet.defer import Deferred; return Deferred()",
            "has returned a Deferred, wh",
        ),
    ],
)
async def test_begins_badly(own_server: RealServer, line: str, says: str) -> None:
    """If a function for the start fails, the reason names it, and leaves the module in peace."""
    tell = await begin(own_server)
    await tell()
    text = MODULE.format(version=22).replace("    begun.append(len(begun))", f"    {line}")
    write(own_server, text)
    with pytest.raises(ReloadFailed, match=rf"preloaded_jobs\.begin_more {says}") as caught:
        await own_server.service.supervisor.reload()
    assert "job modules" not in str(caught.value)


async def test_begins_never(own_server: RealServer) -> None:
    """If a function for the start takes too long, the log shows where it is."""
    text = MODULE.format(version=1).replace(
        "    begun.append(len(begun))", "    import time\n    time.sleep(600)"
    )
    write(own_server, text)
    worker = {"path": (own_server.folder, *default_path())}
    own_server.start("preloaded_jobs", worker=worker, start_timeout=1.5)
    log = partial(own_server.logged, "dangad.scheduler.failingstarts")
    await until(lambda: "did not start within 1.5 s" in log())
    assert any("in begin_more" in line for _, _, line in own_server.lines())


async def test_ends_never(own_server: RealServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a function for the end takes too long, the log shows where it is."""
    monkeypatch.setattr(link, "STOP_GRACE", 0.5)
    text = MODULE.format(version=1).replace('print("the worker', "import time; time.sleep(600)#")
    tell = await begin(own_server, text)
    first = await tell()
    own_server.service.supervisor.recycle_worker(
        next(iter(own_server.service.pool.processes)), "a test"
    )
    await until(lambda: first["pid"] not in own_server.pids())
    assert "had not exited after 0.5 s and was killed" in own_server.logged("dangad.pool.link")
    lines = [line for pid, _, line in own_server.lines() if pid == first["pid"]]
    assert any(line.endswith("in end") for line in lines)
