"""Job modules that the template imports: shared by all workers, if forks can share them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.protocols import amp

from dangad.errors import ReloadFailed
from dangad.limits import PRELOADED, Limits
from dangad.pool.launch import WorkerSettings, default_path
from dangad.worker import hooks
from dangad.worker.jobtypes import BadJobType
from tests.real import test_template as lean
from tests.real.test_workers import async_test
from tests.realserver import RealServerCase, until

MODULE = """
import os, random, ssl
from twisted.protocols import amp
import dangad

class Tell(amp.Command):
    response = [
        (b"pid", amp.Integer()),
        (b"imported_by", amp.Integer()),
        (b"version", amp.Integer()),
        (b"begun", amp.ListOf(amp.Integer())),
        (b"random", amp.Integer()),
    ]

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
    }}
"""


class Tell(amp.Command):
    """What a worker knows of itself; the module has a command like this."""

    response = [
        (b"pid", amp.Integer()),
        (b"imported_by", amp.Integer()),
        (b"version", amp.Integer()),
        (b"begun", amp.ListOf(amp.Integer())),
        (b"random", amp.Integer()),
    ]


class ModuleCase(RealServerCase):
    """A server whose template preloads a module."""

    jobs = ("preloaded_jobs",)
    client: Any

    def settings(self) -> WorkerSettings:
        """A module of this test's own."""
        self.write(MODULE.format(version=1))
        path = (self.folder, *default_path())
        return WorkerSettings(
            self.jobs, path=path, start=PRELOADED, max_memory=self.limits.max_memory
        )

    def write(self, text: str) -> None:
        """Change the module."""
        Path(self.folder, f"{self.jobs[0]}.py").write_text(text)

    async def tell(self) -> dict[str, Any]:
        """Ask the worker that is idle."""
        answer: dict[str, Any] = await self.client.callRemote(Tell)
        return answer

    @property
    def templates(self) -> set[int]:
        """The templates that there are."""
        pids: set[int] = self.service.pool.starter.template.pids
        return pids


class ServerTests(ModuleCase):
    """The module is shared, changed, and not to be shared."""

    @async_test
    async def test_shared(self) -> None:
        """The module is imported once; each worker begins and ends by its own functions."""
        self.client = await self.connect()
        first = await self.tell()
        self.assertEqual({first["imported_by"]}, self.templates)
        self.assertEqual(first["begun"], [first["pid"], 1])
        self.service.supervisor.scale(0, 1)
        self.service.supervisor.recycle_worker(next(iter(self.service.pool.processes)), "a test")
        await until(lambda: first["pid"] not in self.pids())
        second = await self.tell()
        self.assertEqual(second["imported_by"], first["imported_by"])
        self.assertNotEqual(second["random"], first["random"])
        self.assertEqual(second["begun"], [second["pid"], 1])
        lines = [line for pid, _, line in self.lines() if pid == first["pid"]]
        self.assertEqual(lines[-1], f"the worker ends {first['pid']}")
        self.assertIn("ZeroDivisionError: division by zero", lines)

    @async_test
    async def test_reload(self) -> None:
        """A reload has another template if the new code can be imported; else the old stays."""
        self.client = await self.connect()
        old = await self.tell()
        self.write(MODULE.format(version=2))
        self.assertEqual((await self.tell())["version"], 1)
        await self.service.supervisor.reload()
        new = await self.tell()
        self.assertEqual(new["version"], 2)
        await until(lambda: self.templates == {new["imported_by"]})
        self.assertNotEqual(new["imported_by"], old["imported_by"])
        self.write("1 / 0")
        with pytest.raises(ReloadFailed, match=r"ZeroDivisionError: division by zero \(.*line 1\)"):
            await self.service.supervisor.reload()
        before = set(self.pids())
        self.service.pool.kill_all("was killed by a test")
        await until(lambda: not before & set(self.pids()))
        self.assertEqual((await self.tell())["version"], 2)
        await until(lambda: self.templates == {new["imported_by"]})

    @async_test
    async def test_unshareable(self) -> None:
        """What cannot be shared is imported by each worker, until a reload finds it fit."""
        self.client = await self.connect()
        text = MODULE.format(version=2)
        self.write(f"{text}\nimport socket\nkept = socket.socketpair()\n")
        await self.service.supervisor.reload()
        lean = await self.tell()
        self.assertEqual(lean["imported_by"], lean["pid"])
        [said] = [text for text in self.logged("dangad.pool.template") if "preloaded" in text]
        self.assertIn("preloaded_jobs has left a socket, which forks cannot share", said)
        self.write(text)
        await self.service.supervisor.reload()
        self.assertEqual({(await self.tell())["imported_by"]}, self.templates)


class MemoryTests(ModuleCase):
    """A limit of memory is about what a worker takes beyond what it shares."""

    limits = Limits(min_workers=1, max_workers=1, max_memory=60 * 2**20, drain=5.0)

    def write(self, text: str) -> None:
        """Have it share more than the limit, and take some more with each job."""
        more = "model = bytes(range(256)) * 2**18\ntaken = []\n"
        text = text.replace("\n    return", "\n    taken.append(b'x' * 2**24)\n    return")
        super().write(more + text)

    @async_test
    async def test_own(self) -> None:
        """The model does not count; what jobs have taken does."""
        self.client = await self.connect()
        first = await self.tell()
        [worker] = self.service.pool.processes
        self.assertLess(2**24, worker.memory())
        self.assertLess(worker.memory(), 2**25)
        with pytest.raises(
            amp.UnknownRemoteError, match=r"ran out of memory \(--max-memory 60 MiB\)"
        ):
            await self.tell_often()
        self.assertNotEqual((await self.tell())["pid"], first["pid"])

    async def tell_often(self) -> None:
        """Have the worker take too much."""
        for _ in range(5):
            await self.tell()


class PreloadedTests(lean.TemplateCase):
    """Settings with which the other tests of templates are repeated."""

    def settings(self) -> WorkerSettings:
        """Preload."""
        return WorkerSettings(self.jobs, self.limits.max_payload, start=PRELOADED)


class PreloadedDeathTests(PreloadedTests, lean.DeathTests):
    """A template that preloads may die like any."""


class PreloadedOrderTests(PreloadedTests, lean.OrderTests):
    """What is ordered of it is made once, or not at all."""


class PreloadedManyTests(PreloadedTests, lean.ManyTests):
    """It can fork hundreds of times."""


class PreloadedLikenessTests(PreloadedTests, lean.LikenessTests):
    """Its forks are to their jobs what fresh workers are."""

    warm = PRELOADED


TRIAL = """
import sys
from dangad.worker.preload import Unshareable, preload
sys.path.insert(0, sys.argv[1])
try:
    preload(["fine", "module"])
except Unshareable as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import random, logging, sqlite3, decimal", ""),
        ("import tempfile; kept = tempfile.TemporaryFile()", ""),
        ("import socket; kept = socket.socket()", "a socket"),
        ("import select; kept = select.epoll()", "an epoll descriptor, as event loops have"),
        ("import asyncio; kept = asyncio.new_event_loop()", "an epoll descriptor"),
        ("import os; kept = os.pipe()", "a pipe"),
        ("import os; kept = os.memfd_create('x')", ""),
        ("import threading as t; k = t.Timer(9, print); k.daemon = True; k.start()", "a thread ("),
        ("import _thread, time; _thread.start_new_thread(time.sleep, (99,))", "a thread,"),
        (
            "import subprocess; kept = subprocess.Popen(['sleep', '99'], stdout=-3, stderr=-3)",
            "a child process (",
        ),
        ("from twisted.internet import reactor", "an installed reactor"),
        ("import dangad, dangad.client.factory", ""),
    ],
)
def test_fitness(tmp_path: Path, text: str, found: str) -> None:
    """What a module leaves is named with the module, if a fork could not share it."""
    (tmp_path / "fine.py").write_text("")
    (tmp_path / "module.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", TRIAL, str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stderr == ""
    said = done.stdout.strip()
    assert said.startswith(f"module has left {found}" if found else "")
    assert bool(said) == bool(found)


@pytest.mark.parametrize("decorate", [hooks.worker_start, hooks.worker_stop])
def test_functions_that_cannot_be_called(decorate: Any) -> None:
    """A function that a worker could not call is refused at once, with the reason."""

    async def later() -> None: ...

    for function, reason in (
        (later, "no plain function"),
        (3, "no plain function"),
        (lambda job: job, "it has arguments"),
    ):
        with pytest.raises(BadJobType, match=reason):
            decorate(function)
