"""The worker's end of its pipe, in this process: who is stopped, and who is not."""

import os
import select
import signal
import threading
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from dangad.errors import TooLarge
from dangad.pool.jobpipe import waiting
from dangad.wire import boxes, commands, workerboxes
from dangad.worker.context import JobCancelled, JobStopped, TimeLimitExceeded
from dangad.worker.perform import Answer
from dangad.worker.pipe import WorkerPipe

JOB = boxes.pair(workerboxes.RUN, b"2 1") + boxes.pack([(boxes.COMMAND, b"Echo")])


PART = b"x" * 90_000
PATIENCE = 5.0
"""Seconds after which half a box is not the beginning of a whole one."""


class Late(Exception):
    """What a job has for a limit of its own."""


class PipeTests(SynchronousTestCase):
    """Plays the parent: writes boxes, and sends the signal."""

    def setUp(self) -> None:
        """Make the pipes, with an end of each for the worker to take over."""
        for number in (commands.STOP_SIGNAL, signal.SIGIO):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        reads, self.parent_writes = os.pipe()
        self.parent_reads, writes = os.pipe()
        wishes, self.parent_wishes = os.pipe()
        self.pipe = WorkerPipe(reads, writes, wishes, 100_000)
        for fd in (
            self.parent_reads,
            self.parent_writes,
            self.parent_wishes,
            self.pipe._read_fd,
            self.pipe._wish_fd,
            self.pipe._write_fd,
        ):
            self.addCleanup(os.close, fd)

    def stop(self, job_id: int, why: bytes = b"cancelled") -> None:
        """Have the worker told that the job is to stop."""
        os.write(self.parent_wishes, workerboxes.stop(job_id, why))
        self.call()

    def call(self) -> None:
        """Have the worker look."""
        os.kill(os.getpid(), commands.STOP_SIGNAL)

    def stopped(self, story: Callable[[], None]) -> JobStopped | None:
        """What the story is stopped by, if it is."""
        try:
            story()
        except JobStopped as stop:
            return stop
        return None

    def test_made_non_blocking(self) -> None:
        """A pipe that a job has made non-blocking is put right, and waited for."""
        os.set_blocking(self.pipe._read_fd, False)

        def write() -> None:
            while not os.get_blocking(self.pipe._read_fd):
                pass
            os.write(self.parent_writes, JOB)

        writing = threading.Thread(target=write)
        writing.start()
        self.assertEqual(self.pipe.next_job(), JOB)
        writing.join()

    def test_answers_made_non_blocking(self) -> None:
        """What does not fit into a pipe that a job has made non-blocking waits, and is whole."""
        for size in (1_000, len(PART)):
            with self.subTest(size=size):
                os.set_blocking(self.pipe._write_fd, False)
                os.write(self.pipe._write_fd, b"x" * (2**16 - 500))
                received = bytearray()

                def receive(received: bytearray = received, size: int = size) -> None:
                    while not os.get_blocking(self.pipe._write_fd):
                        pass
                    while received.count(b"y") < size:
                        received.extend(os.read(self.parent_reads, 2**16))

                receiving = threading.Thread(target=receive)
                receiving.start()
                self.pipe.send_part(7, b"y" * size)
                receiving.join()
                self.assertEqual(received.count(b"y"), size)

    def test_orders_made_blocking(self) -> None:
        """A pipe of orders that a job has made blocking does not hold the worker up."""
        os.set_blocking(self.pipe._wish_fd, True)
        self.pipe.begin_job(1)
        self.assertIsInstance(self.stopped(lambda: self.stop(1)), JobCancelled)

    def test_interrupted_by_the_job_itself(self) -> None:
        """A handler of the job's own that raises does not leave half a box in the pipe."""
        main = threading.get_ident()
        for call in (
            lambda: signal.pthread_kill(main, signal.SIGUSR1),
            lambda: os.kill(os.getpid(), signal.SIGUSR1),
        ):
            with self.subTest(call=call):
                self.assertRaises(Late, self.interrupted, call)
                self.pipe.send_report(7, 1, 2, "next")
                reader = boxes.BoxReader(200_000, ())
                reader.feed(self.received + os.read(self.parent_reads, 2**16))
                read = [box.raw for box in iter(reader.next, None)]
                self.assertEqual(len(read), 2)
                self.assertEqual(bytes(read[0] or b"").count(b"x"), len(PART))

    def interrupted(self, call: Callable[[], object]) -> None:
        """Send a part, during which `call` sends a signal, and have it received."""

        def late(_number: int, _frame: object) -> None:
            raise Late

        def receive() -> None:
            while waiting(self.parent_reads) < 2**16:
                pass
            call()
            self.received = b""
            while select.select([self.parent_reads], [], [], PATIENCE)[0]:
                self.received += os.read(self.parent_reads, 2**16)
                if self.received.endswith(boxes.END) and len(self.received) > len(PART):
                    break

        usual = signal.signal(signal.SIGUSR1, late)
        receiving = threading.Thread(target=receive)
        receiving.start()
        try:
            self.pipe.send_part(7, PART)
        finally:
            receiving.join()
            signal.signal(signal.SIGUSR1, usual)

    def test_stop(self) -> None:
        """The job that runs is stopped, once, however often the signal comes until its end."""
        self.pipe.begin_job(1)
        self.assertIsInstance(self.stopped(lambda: self.stop(1)), JobCancelled)
        self.assertTrue(self.pipe.stopped)
        for _ in range(3):
            self.assertIsNone(self.stopped(self.call))
        self.assertIsNone(self.stopped(lambda: self.stop(1)))

    def test_time_limit(self) -> None:
        """The end of its time is told by an exception of its own."""
        self.pipe.begin_job(1)
        self.assertIsInstance(self.stopped(lambda: self.stop(1, b"time")), TimeLimitExceeded)

    def test_too_late(self) -> None:
        """A stop that comes when its job has just ended does not hit the next one."""
        self.pipe.begin_job(1)
        self.pipe.end_job()
        self.stop(1)
        os.write(self.parent_writes, JOB)
        self.assertEqual(self.pipe.next_job(), JOB)
        self.assertIsNone(self.stopped(lambda: self.pipe.begin_job(2)))
        self.assertFalse(self.pipe.stopped)

    def test_too_late_by_much(self) -> None:
        """Not even when the signal comes after the next job has begun."""
        self.pipe.begin_job(2)
        self.assertIsNone(self.stopped(lambda: self.stop(1)))
        self.assertIsInstance(self.stopped(lambda: self.stop(2)), JobCancelled)

    def test_just_in_time(self) -> None:
        """A stop that comes between the box of a job and its beginning stops it."""
        os.write(self.parent_writes, JOB)
        self.assertEqual(self.pipe.next_job(), JOB)
        self.stop(2)
        self.assertIsInstance(self.stopped(lambda: self.pipe.begin_job(2)), JobCancelled)

    def test_anybodys_signal(self) -> None:
        """A signal without a word of the parent's does nothing, and leaves the next jobs alone."""
        os.write(self.parent_writes, JOB)
        for number in (1, 2):
            self.pipe.begin_job(number)
            self.assertIsNone(self.stopped(self.call))
            self.pipe.end_job()
            self.assertIsNone(self.stopped(self.call))
        self.assertEqual(waiting(self.parent_writes), len(JOB))
        self.assertEqual(self.pipe.next_job(), JOB)

    def test_not_in_a_fork(self) -> None:
        """A fork of the worker that gets the signal does not take the word from the worker."""
        self.pipe.begin_job(1)
        os.write(self.parent_wishes, workerboxes.stop(1, b"time"))
        fork = os.fork()
        if not fork:
            try:
                os._exit(0 if self.stopped(self.call) is None else 1)
            finally:
                os._exit(2)
        self.assertEqual(os.waitpid(fork, 0)[1], 0)
        self.assertIsInstance(self.stopped(self.call), TimeLimitExceeded)

    def test_garbage(self) -> None:
        """What a job has written where the parent says that it is to stop does nothing."""
        os.write(self.parent_wishes, b"garbage" * 10)
        self.pipe.begin_job(1)
        self.assertIsNone(self.stopped(self.call))
        self.assertFalse(self.pipe.stopped)

    def test_instead_of_raising(self) -> None:
        """An asynchronous job is stopped by a call."""
        stops: list[JobStopped] = []
        self.pipe.begin_job(1)
        self.pipe.instead_of_raising(stops.append)
        self.assertIsNone(self.stopped(lambda: self.stop(1)))
        self.assertIsInstance(stops[0], JobCancelled)

    def test_quiet_after_stop(self) -> None:
        """A job that was stopped tells its client nothing any more."""
        self.pipe.begin_job(1)
        self.stopped(lambda: self.stop(1))
        self.pipe.send_report(1, 1, 2, "")
        self.pipe.send_part(1, b"part")
        self.pipe.send_answer(1, Answer(False, boxes.END))
        sent = os.read(self.parent_reads, 1000)
        self.assertEqual(sent, boxes.pair(workerboxes.DONE, b"1 0 0 0 0") + boxes.END)

    def test_boxes(self) -> None:
        """Reports, parts and answers begin with the id of their job."""
        self.pipe.send_report(7, 1, 2, "half")
        self.pipe.send_part(7, b"part")
        self.pipe.send_answer(7, Answer(True, boxes.END))
        self.assertEqual(
            os.read(self.parent_reads, 1000),
            boxes.pair(workerboxes.REPORT, b"7")
            + boxes.pack([(b"done", b"1"), (b"total", b"2"), (b"message", b"half")])
            + boxes.pair(workerboxes.PART, b"7")
            + boxes.pack([(b"data", b"part")])
            + boxes.pair(workerboxes.FAILED, b"7 0 0 0 0")
            + boxes.END,
        )

    def test_large_part(self) -> None:
        """A part is as large as a box may be, and no larger."""
        with self.assertRaises(TooLarge):
            self.pipe.send_part(1, bytes(100_000))

    def test_end(self) -> None:
        """A pipe that the parent has closed has no more jobs."""
        os.write(self.parent_writes, JOB)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.parent_writes)  # which closes it, and leaves its number taken
        os.close(null)
        self.assertEqual(self.pipe.next_job(), JOB)
        self.assertIsNone(self.pipe.next_job())
