"""Jobs of types that leave their worker in order when they are stopped."""

from typing import Any

from twisted.internet.defer import CancelledError

import dangad
from dangad.errors import DeadlinePassed
from dangad.limits import Limits
from tests.isolatedjobs import Plain, Wait
from tests.real.test_workers import async_test
from tests.realserver import RealServerCase, reactor, until


class StoppableTests(RealServerCase):
    """The worker of a stopped job goes on if it is in order."""

    jobs = ("tests.isolatedjobs",)
    limits = Limits(min_workers=1, max_workers=1, drain=5.0)

    async def begin(self) -> None:
        """Have a client, and know the worker."""
        self.client = await dangad.connect(reactor, f"unix:{self.socket}")
        self.addCleanup(self.client.close)
        self.worker = (await self.client.run(Plain))["pid"]

    async def stopped(self, how: str, **options: Any) -> type[Exception]:
        """Begin such a job, and stop it; what its client is told."""
        answer = self.client.run(Wait, how=how, **options)
        if not options:
            await until(lambda: self.service.dispatcher.running)
            answer.cancel()
        try:
            await answer
        except (CancelledError, DeadlinePassed) as error:
            return type(error)
        raise AssertionError("it was not stopped")

    @async_test
    async def test_goes_on(self) -> None:
        """Whether it ends by the exception, by another, or by an answer of its own."""
        await self.begin()
        for how in ("raise", "fail", "answer") * 3:
            self.assertIs(await self.stopped(how), CancelledError)
            self.assertIs(await self.stopped(how, deadline=0.05), DeadlinePassed)
            self.assertEqual((await self.client.run(Plain))["pid"], self.worker)

    @async_test
    async def test_ends(self) -> None:
        """It ends if the job does not, or leaves something."""
        await self.begin()
        for how in ("swallow", "leave a process"):
            self.assertIs(await self.stopped(how), CancelledError)
            pid = (await self.client.run(Plain))["pid"]
            self.assertNotEqual(pid, self.worker)
            self.worker = pid

    @async_test
    async def test_half_a_box(self) -> None:
        """It ends if it was stopped in the middle of a box."""
        await self.begin()
        for _ in range(10):
            stream = self.client.stream(Wait, how="send")
            async for _part in stream:
                break
            stream.cancel()
            with self.assertRaises(CancelledError):
                await stream.result()
            await self.client.run(Plain)
