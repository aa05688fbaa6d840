"""For how long a job that waits for its client to read may keep its worker from others."""

from __future__ import annotations

from dangad.scheduler.pauses import HURRY, LOOK_INTERVAL, PATIENCE, RATE
from tests.fakes import FakeClient
from tests.test_dispatcher import CHUNK, DispatcherTestCase


class PauseTests(DispatcherTestCase):
    def setUp(self) -> None:
        """Have two workers: one for Ann's parts, and one that is busy for somebody else."""
        super().setUp()
        self.eve = FakeClient("eve")
        self.other = self.ready()
        self.busy = self.submit(self.bob)
        self.worker = self.ready()
        self.parts = self.submit(self.ann, wants_chunks=True)

    def pause(self, seconds: float) -> None:
        """Ann does not read for so long, and then does."""
        self.dispatcher.hold(self.ann)
        self.wait(seconds)
        if not self.worker.interrupts:
            self.dispatcher.release(self.ann)

    def wait(self, seconds: float) -> None:
        """Time passes, bit by bit."""
        for _ in range(round(seconds / LOOK_INTERVAL)):
            self.clock.advance(LOOK_INTERVAL)

    def send(self, size: int) -> None:
        """Ann is sent a part."""
        self.dispatcher.job_reported(self.worker, CHUNK, bytes(size))

    def test_nobody_waits(self) -> None:
        """While no other job waits, it may wait for its client as long as that likes."""
        self.pause(100 * PATIENCE)
        self.assertEqual(self.worker.interrupts, [])
        self.assertIs(self.answer(self.worker), self.parts)
        self.answer(self.other)

    def test_others_wait(self) -> None:
        """While others wait, it ends when the patience is over; its client is told why."""
        waiting = self.submit(self.eve)
        self.pause(PATIENCE - LOOK_INTERVAL)
        self.assertEqual(self.worker.interrupts, [])
        self.pause(LOOK_INTERVAL)
        self.assertEqual((self.worker.interrupts, self.worker.paused), ([b"cancelled"], False))
        self.die(self.worker)
        self.assertEqual(
            self.ann.failure_of(self.parts),
            "CANCELLED: Echo was ended: its client did not read the parts of its result for 10 s "
            "in all, while other jobs waited for its worker",
        )
        self.assertIs(self.ready().job, waiting)

    def test_only_its_own_wait(self) -> None:
        """Jobs of clients that do not read wait for these, and for no worker."""
        self.submit(self.ann)
        self.pause(3 * PATIENCE)
        self.assertEqual(self.worker.interrupts, [])

    def test_now_and_then(self) -> None:
        """To read a little now and then does not help: all pauses count together."""
        self.submit(self.eve)
        for _ in range(round(PATIENCE) - 1):
            self.pause(1.0)
            self.send(1000)
            self.wait(5.0)
        self.assertEqual(self.worker.interrupts, [])
        self.pause(1.5)
        self.assertEqual(self.worker.interrupts, [b"cancelled"])

    def test_steadily(self) -> None:
        """Who reads steadily may take any time, and more pauses than patience."""
        self.submit(self.eve)
        for _ in range(5 * round(PATIENCE)):
            self.pause(1.0)
            self.send(RATE)
        self.assertEqual(self.worker.interrupts, [])

    def test_all_paused(self) -> None:
        """When all workers are held like this, the one that was longest ends much sooner."""
        self.answer(self.other)
        second = self.submit(self.eve, wants_chunks=True)
        self.assertIs(self.other.job, second)
        waiting = self.submit(self.bob)
        self.dispatcher.hold(self.ann)
        self.wait(LOOK_INTERVAL)
        self.dispatcher.hold(self.eve)
        self.wait(HURRY - LOOK_INTERVAL)
        self.assertEqual((self.worker.interrupts, self.other.interrupts), ([b"cancelled"], []))
        self.die(self.worker)
        self.worker = self.ready()
        self.assertIs(self.worker.job, waiting)
        self.wait(2 * HURRY)
        self.assertEqual(self.other.interrupts, [])

    def test_client_gone(self) -> None:
        """Nothing is looked at any more when the client has gone, or the job has ended."""
        self.submit(self.eve)
        self.dispatcher.hold(self.ann)
        self.leave(self.ann)
        self.die(self.worker)
        self.wait(2 * PATIENCE)
        self.answer(self.other)
        self.answer(self.other)
