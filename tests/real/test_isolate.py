"""Jobs that have a worker of their own, among others that have not."""

import random
from typing import Any

from twisted.internet.defer import gatherResults

from dangad.limits import PRELOADED, STARTS, Limits
from dangad.pool.launch import WorkerSettings
from tests.isolatedjobs import Alone, Few, Plain
from tests.real.test_workers import async_test
from tests.realserver import RealServerCase, until


class IsolateTests(RealServerCase):
    """A worker that has an isolated job has done nothing before it, and does nothing after it."""

    jobs = ("tests.isolatedjobs",)

    def settings(self) -> WorkerSettings:
        """The quickest start."""
        return WorkerSettings(self.jobs, start=PRELOADED)

    async def perform(self, *commands: type[Plain]) -> None:
        """Run the commands at once, and see who has run in whose process."""
        answers = await gatherResults([self.client.callRemote(each) for each in commands])
        told = list(zip(commands, answers, strict=True))
        isolated = [answer["pid"] for command, answer in told if command is not Plain]
        self.assertEqual(len(set(isolated)), len(isolated))
        for command, answer in told:
            if command is Plain:
                self.assertEqual(set(answer["before"]) - {"plain"}, set())
                self.assertNotIn(answer["pid"], isolated)
            else:
                self.assertEqual(answer["before"], [])

    @async_test
    async def test_one_after_the_other(self) -> None:
        """Each waits for a worker that has done nothing, whatever is idle."""
        self.client = await self.connect()
        for command in (Plain, Alone, Alone, Plain, Few, Plain, Alone):
            await self.perform(command)
            if command is Plain:
                await until(lambda: self.service.dispatcher.idle)

    @async_test
    async def test_mixed(self) -> None:
        """All kinds together, more than there are workers."""
        self.client = await self.connect()
        commands = [Plain] * 60 + [Alone] * 15 + [Few] * 15
        random.Random(1).shuffle(commands)
        await self.perform(*commands)

    @async_test
    async def test_all_busy(self) -> None:
        """An isolated job has its turn although others always wait."""
        self.client = await self.connect()
        asked = [0]

        def ask(_: Any = None) -> Any:
            asked[0] += 1
            return self.client.callRemote(Plain).addCallback(lambda _: done or ask())

        done: list[Any] = []
        others = gatherResults([ask() for _ in range(20)])
        done.append(await self.client.callRemote(Alone))
        self.assertEqual(done[0]["before"], [])
        await others


class StartTests(IsolateTests):
    """So it is with any start, and with one worker at most."""

    limits = Limits(min_workers=0, max_workers=1, drain=5.0)

    @async_test
    async def test_starts(self) -> None:
        """One after the other, with each start."""
        for start in STARTS:
            await self.service.stopService()
            self.start(WorkerSettings(self.jobs, start=start))
            self.client = await self.connect()
            for command in (Alone, Plain, Alone):
                await self.perform(command)
