"""Which job is whose: in threads, pools and delayed calls, and after its end."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from typing import TYPE_CHECKING, Any

from twisted.internet.task import Clock, LoopingCall
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase

from dangad import current_job
from dangad.worker.context import MAX_NUMBER, NO_JOB, RunningJob, set_current_job
from dangad.worker.following import follow

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 60.0


def in_thread(function: Callable[[], Any]) -> Any:
    """What the function returns in a new thread."""
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append(function()))
    thread.start()
    thread.join(PATIENCE)
    return seen[0]


class FollowingTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Have no job, and follow what is started."""
        follow()
        self.addCleanup(set_current_job, NO_JOB)

    def begin(self, id: int) -> RunningJob:
        """Have a job of this id, instead of the one before, which has ended."""
        if current_job() is not NO_JOB:
            current_job().end()
        job = RunningJob(id, "Work", 1)
        set_current_job(job)
        return job

    def test_threads(self) -> None:
        """A thread has the job in which it was started, and so have those that it starts."""
        job = self.begin(1)
        self.assertIs(in_thread(current_job), job)
        self.assertIs(in_thread(lambda: in_thread(current_job)), job)
        set_current_job(NO_JOB)
        self.assertIs(in_thread(current_job), NO_JOB)

    def test_thread_of_another_time(self) -> None:
        """A thread that was started before a job has none, nor has one after its job."""
        go, seen = threading.Event(), []

        def look() -> None:
            go.wait(PATIENCE)
            seen.append(current_job())
            seen.append(in_thread(current_job))

        threads = [threading.Thread(target=look)]
        threads[0].start()
        self.begin(1)
        threads.append(threading.Thread(target=look))
        threads[1].start()
        self.begin(2)
        self.assertRaises(RuntimeError, threads[0].start)
        go.set()
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual(seen, [NO_JOB] * 4)

    def test_pools(self) -> None:
        """What is given to a pool of threads belongs to who gave it, whenever the threads began."""
        with ThreadPoolExecutor(1) as pool:
            for id in range(1, 4):
                job = self.begin(id)
                self.assertIs(pool.submit(current_job).result(PATIENCE), job)
            set_current_job(NO_JOB)
            self.assertIs(pool.submit(current_job).result(PATIENCE), NO_JOB)

    def test_asyncio(self) -> None:
        """So it is with the threads of asyncio, and with tasks that are left to run."""
        go = asyncio.Event()

        async def later() -> RunningJob:
            await go.wait()
            return current_job()

        async def two_jobs() -> None:
            tasks, job = [], NO_JOB
            for id in (1, 2):
                job = self.begin(id)
                tasks.append(asyncio.create_task(later()))
                self.assertIs(await asyncio.to_thread(current_job), job)
                loop = asyncio.get_running_loop()
                self.assertIs(await loop.run_in_executor(None, current_job), job)
            go.set()
            self.assertEqual(await asyncio.gather(*tasks), [NO_JOB, job])

        asyncio.run(two_jobs())

    def test_twisted_pool(self) -> None:
        """So it is with the threads of Twisted."""
        pool = ThreadPool(1, 1)
        pool.start()
        self.addCleanup(pool.stop)
        seen: Queue[RunningJob] = Queue()
        for id in (1, 2):
            job = self.begin(id)
            pool.callInThread(lambda: seen.put(current_job()))
            self.assertIs(seen.get(timeout=PATIENCE), job)

    def test_delayed_calls(self) -> None:
        """A call that a job leaves to Twisted's clock is not the next job's, however often."""
        clock, seen = Clock(), []
        job = self.begin(1)
        ticking = LoopingCall(lambda: seen.append(current_job()))
        ticking.clock = clock
        ticking.start(1.0)
        clock.advance(1.0)
        self.begin(2)
        clock.pump([1.0, 1.0])
        self.assertEqual(seen, [job, job, NO_JOB, NO_JOB])
        self.assertEqual(current_job().id, 2)


class EndTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Begin a job whose client wants everything."""
        self.told: list[Any] = []
        self.job = RunningJob(
            7, "Work", 1, report=lambda *news: self.told.append(news), part=self.told.append
        )

    def test_end(self) -> None:
        """The last progress is told at the end, and nothing after it."""
        for done in range(1, 4):
            self.job.progress(done, 9)
        self.assertTrue(self.job.wants_chunks)
        self.job.end()
        self.job.progress(4, 9)
        self.job.flush()
        error = self.assertRaises(RuntimeError, self.job.send, b"late")
        self.assertEqual(str(error), "nothing can be sent for job 7 Work: it has ended")
        self.assertFalse(self.job.wants_chunks)
        self.assertEqual(self.told, [(1, 9, ""), (3, 9, "")])

    def test_nobody_wants_to_know(self) -> None:
        """What it tells a client that has asked for nothing is not told, until its end."""
        job = RunningJob(7, "Work", 1)
        job.send(b"part")
        job.progress(1, 2)
        job.flush()
        job.end()
        self.assertRaises(RuntimeError, job.send, b"late")

    def test_end_waits(self) -> None:
        """What a thread is sending goes out whole before the job has ended."""
        begun, go = threading.Event(), threading.Event()

        def part(data: bytes) -> None:
            begun.set()
            go.wait(PATIENCE)
            self.told.append(data)

        job = RunningJob(7, "Work", 1, part=part)
        sender = threading.Thread(target=job.send, args=(b"part",))
        sender.start()
        begun.wait(PATIENCE)

        def end() -> None:
            job.end()
            self.told.append("end")

        ender = threading.Thread(target=end)
        ender.start()
        self.assertFalse(job.has_ended)
        go.set()
        sender.join(PATIENCE)
        ender.join(PATIENCE)
        self.assertEqual(self.told, [b"part", "end"])

    def test_end_among_many(self) -> None:
        """However many threads speak, none is heard after the end."""

        def speak() -> None:
            try:
                while True:
                    self.job.progress(1, 2)
                    self.job.send(b"part")
            except RuntimeError:
                pass

        threads = [threading.Thread(target=speak) for _ in range(8)]
        for thread in threads:
            thread.start()
        while len(self.told) < 1000:
            pass
        self.job.end()
        heard = len(self.told)
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual(len(self.told), heard)

    def test_interrupting_itself(self) -> None:
        """A handler of a signal that comes in the middle of sending cannot send, nor waits."""

        def part(data: bytes) -> None:
            self.told.append(data)
            job.progress(1, 2)
            self.told.append(str(self.assertRaises(RuntimeError, job.send, b"inner")))

        job = RunningJob(7, "Work", 1, report=lambda *news: self.told.append(news), part=part)
        job.send(b"outer")
        job.end()
        told = "nothing can be sent for job 7 Work: its process is in the middle of sending"
        self.assertEqual(self.told, [b"outer", told, (1, 2, "")])

    def test_what_is_told(self) -> None:
        """Progress is told in plain numbers that fit into 64 bits, and a plain text."""

        class Odd(str):
            def encode(self, *_: Any) -> Any:
                raise ValueError

        self.job.progress(True, MAX_NUMBER, Odd("caf\udce9"))
        self.assertEqual(repr(self.told), f"[(1, {MAX_NUMBER}, 'caf?')]")
        for numbers, kind, says in (
            ((3, 10**5000), ValueError, f"`total` is not between 0 and {MAX_NUMBER}"),
            ((-1, 4), ValueError, "`done` is not between 0 and"),
            (("3", 4), TypeError, "`done` is '3', where a whole number is needed"),
            ((3, 4.5), TypeError, "`total` is 4.5, where a whole number is needed"),
        ):
            with self.assertRaisesRegex(kind, says):
                self.job.progress(*numbers)
        self.assertRaises(TypeError, self.job.progress, 1, 2, b"half")
