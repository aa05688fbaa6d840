"""Workers that a template forks, whatever becomes of the template, and workers without one."""

import os
import resource
import signal
from pathlib import Path
from typing import Any
from unittest.mock import patch

from dangad.host.descent import children
from dangad.limits import FRESH, LEAN, Limits
from dangad.pool import template
from dangad.pool.launch import WorkerSettings
from tests.oddjobs import Facts, Odd
from tests.real.test_workers import async_test
from tests.realserver import RealServerCase, alive, is_frozen, reactor, until

FORKS = 300
THREAD = """
import threading
thread = threading.Timer(600, print)
thread.daemon = True
thread.start()
"""


class TemplateCase(RealServerCase):
    """A server with one worker, and room for a second."""

    def template(self) -> int:
        """The template's process."""
        pid = self.service.pool.starter.template.pid
        assert isinstance(pid, int)
        return pid

    async def begin(self) -> None:
        """Have a worker that is ready."""
        self.client = await self.connect()
        await until(lambda: self.service.dispatcher.idle == 1)

    async def freeze(self) -> int:
        """Have the template stand still; its pid."""
        pid = self.template()
        os.kill(pid, signal.SIGSTOP)
        await until(lambda: is_frozen(pid))
        return pid

    async def second_worker(self) -> None:
        """There is one more, which works."""
        await until(lambda: self.service.dispatcher.idle == 2)
        self.assertNotIn(0, self.pids())
        self.assertEqual(len(set(self.pids())), 2)
        answer = await self.client.callRemote(Odd, what="nothing")
        self.assertIn(answer["pid"], self.pids())

    def failed_starts(self) -> list[str]:
        """What the log says of starts that have failed."""
        return self.logged("dangad.scheduler.failingstarts")


class DeathTests(TemplateCase):
    """Its death touches no worker, and nobody is told who waits for one."""

    @async_test
    async def test_idle(self) -> None:
        """While nothing is ordered: the workers live on, and the next is forked by another."""
        await self.begin()
        [worker], old = self.pids(), self.template()
        os.kill(old, signal.SIGKILL)
        await until(lambda: self.service.pool.starter.template.pid not in (old, None))
        self.assertEqual(self.pids(), [worker])
        self.service.supervisor.scale(2, 2)
        await self.second_worker()
        self.assertIn(worker, self.pids())
        self.assertEqual(self.failed_starts(), [])

    @async_test
    async def test_ordered(self) -> None:
        """While it has an order that it has not read: that is for the next one."""
        await self.begin()
        old = await self.freeze()
        self.service.supervisor.scale(2, 2)
        self.assertIn(0, self.pids())
        os.kill(old, signal.SIGKILL)
        await self.second_worker()
        self.assertNotEqual(self.template(), old)
        self.assertEqual(self.failed_starts(), [])

    @async_test
    async def test_frozen(self) -> None:
        """One that does not fork in time is killed and replaced."""
        await self.begin()
        old = await self.freeze()
        with patch.object(template, "FORK_TIME", 0.2):
            self.service.supervisor.scale(2, 2)
            await until(lambda: not alive(old))
        await self.second_worker()
        self.assertEqual(self.failed_starts(), [])

    @async_test
    async def test_again_and_again(self) -> None:
        """If none lives to fork, workers are started without one, after one failed start."""
        await self.begin()
        self.service.supervisor.scale(2, 2)
        await self.second_worker()
        self.service.supervisor.scale(1, 1)
        await until(lambda: len(self.pids()) == 1)
        for _ in range(template.MOST_FAILURES):
            await until(lambda: self.service.pool.starter.template.pid)
            old = await self.freeze()
            if 0 not in self.pids():
                self.service.supervisor.scale(2, 2)
            os.kill(old, signal.SIGKILL)
            await until(lambda old=old: self.service.pool.starter.template.pid != old)
        await self.second_worker()
        self.assertEqual(len(self.failed_starts()), 1)
        self.assertIn("3 templates have forked nothing", self.failed_starts()[0])


class OrderTests(TemplateCase):
    """What is ordered is made once, or not at all."""

    @async_test
    async def test_not_wanted_any_more(self) -> None:
        """A worker that is given up before it was forked is gone at once, and for ever."""
        await self.begin()
        frozen = await self.freeze()
        self.service.supervisor.scale(2, 2)
        self.service.supervisor.scale(1, 1)
        await until(lambda: len(self.pids()) == 1)
        os.kill(frozen, signal.SIGCONT)
        await until(lambda: not self.service.pool.is_forking)
        own = {*self.service.pool.pids, self.service.guardian.pid}
        await until(lambda: children() - self.others <= own)
        self.assertEqual(len(self.pids()), 1)

    @async_test
    async def test_dead_before_it_is_known(self) -> None:
        """A worker that dies before its fork was reported is one that failed to start."""
        await self.begin()
        reading = self.service.pool.starter.template._process
        reactor.removeReader(reading)
        before = children()
        self.service.supervisor.scale(2, 2)
        [pid] = await until(lambda: children() - before)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not alive(pid))
        reactor.addReader(reading)
        await self.second_worker()
        [failed] = self.failed_starts()
        self.assertIn(f"worker {pid} was killed by SIGKILL before it was ready", failed)

    def start(self, settings: WorkerSettings) -> None:
        """Note which children this process has besides."""
        self.others = children()
        super().start(settings)

    @async_test
    async def test_no_descriptor_is_left(self) -> None:
        """What the template cannot do is a start that fails, with the reason, and tried again."""
        await self.begin()
        pid = self.template()
        few = len(os.listdir(f"/proc/{pid}/fd"))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, few + 1000))
        self.service.supervisor.scale(2, 2)
        await until(self.failed_starts)
        self.assertIn("could not be forked: no descriptor is left", self.failed_starts()[0])
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (few + 1000, few + 1000))
        await self.second_worker()
        self.assertEqual(self.template(), pid)


class ThreadTests(TemplateCase):
    """Where each Python process has a second thread, nothing can be forked."""

    def settings(self) -> WorkerSettings:
        """Have a thread started before anything else, as agents of monitoring do."""
        Path(self.folder, "sitecustomize.py").write_text(THREAD)
        environment = {**os.environ, "PYTHONPATH": self.folder}
        return WorkerSettings(self.jobs, environment=environment)

    @async_test
    async def test_fresh_instead(self) -> None:
        """Workers are started without a template, and the log says why."""
        client = await self.connect()
        answer = await client.callRemote(Odd, what="nothing")
        self.assertIn(answer["pid"], self.pids())
        [said] = self.logged("dangad.pool.template")
        self.assertIn("something starts threads in each Python process", said)


class ManyTests(TemplateCase):
    """A worker for each job, hundreds of times."""

    limits = Limits(min_workers=1, max_workers=2, recycle_jobs=1, drain=5.0)

    @async_test
    async def test_nothing_is_left(self) -> None:
        """No process, no descriptor, neither here nor in the template."""
        await self.begin()

        def held() -> tuple[int, ...]:
            pids = (os.getpid(), self.template())
            descriptors = [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids]
            return (*descriptors, len(children()))

        async def fork(number: int) -> tuple[int, ...]:
            for _ in range(number):
                await self.client.callRemote(Odd, what="nothing")
            await until(lambda: self.service.dispatcher.idle == 1 and len(self.pids()) == 1)
            return held()

        before = await fork(10)
        self.assertEqual(await fork(FORKS), before)
        self.assertEqual(self.failed_starts(), [])


class LikenessTests(TemplateCase):
    """A forked worker is to its jobs what a fresh one is."""

    warm = LEAN

    async def facts(self, start: str) -> dict[str, Any]:
        """What a job sees of its process."""
        settings = WorkerSettings(self.jobs, environment={**os.environ, "ODD": start}, start=start)
        await self.service.stopService()
        self.start(settings)
        client = await self.connect()
        answer: dict[str, Any] = await client.callRemote(Facts)
        return answer

    @async_test
    async def test_same_facts(self) -> None:
        """Path, streams, group, descriptors, environment, signals."""
        fresh, warm = await self.facts(FRESH), await self.facts(self.warm)
        for each in fresh, warm:
            each.pop("variable", None)
        self.assertEqual(fresh, warm)
