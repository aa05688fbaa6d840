from __future__ import annotations

import errno
import itertools
from typing import TYPE_CHECKING

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dangad import workforce as rules
from dangad.dispatcher import Dispatcher
from dangad.errors import NoWorkers
from dangad.workforce import Workforce
from tests.fakes import FakeClient, FakeHatchery, FakeWorker, catalogue, make_job

if TYPE_CHECKING:
    from dangad.jobrecord import Job

ECHO = catalogue("Echo")
HOUR = 3600


class WorkforceTestCase(SynchronousTestCase):
    """A workforce with a real dispatcher, a clock, and workers that are no processes."""

    def setUp(self) -> None:
        """Make a workforce of 1 to 4."""
        self.clock = Clock()
        self.clock.advance(1000)
        self.ann = FakeClient("ann")
        self.staff(1, 4)

    def staff(self, min_workers: int, max_workers: int, quarantine_after: int = 5) -> None:
        """Make a workforce of this size, not yet started."""
        self.dispatcher = Dispatcher(self.clock, 10_000, quarantine_after=quarantine_after)
        self.workforce = Workforce(self.clock, self.dispatcher, min_workers, max_workers)
        self.hatchery = FakeHatchery(self.workforce, self.dispatcher)

    def start(self) -> None:
        """Begin."""
        self.workforce.start(self.hatchery)

    def boot(self) -> None:
        """Have all workers that start say Hello."""
        self.hatchery.boot_all(ECHO)

    def start_and_boot(self) -> None:
        """Begin, with workers that are ready at once."""
        self.start()
        self.boot()

    def submit(self, count: int = 1) -> list[Job]:
        """So many new jobs."""
        jobs = [make_job(self.ann) for _ in range(count)]
        for job in jobs:
            self.dispatcher.submit(job)
        return jobs

    def pass_time(self, seconds: float, step: float = 0.05) -> None:
        """Let time pass in small steps, as a reactor would."""
        for _ in range(round(seconds / step)):
            self.clock.advance(step)

    def fail_starts(self, how: str = "exited (status 1)") -> None:
        """Have each start from now on fail at the next turn of the clock."""
        self.hatchery.when_spawned = lambda worker: self.clock.callLater(
            0, self.hatchery.die, worker, how
        )
        for worker in self.hatchery.starting:
            self.hatchery.die(worker, how)

    def repair_starts(self) -> None:
        """Have each start from now on succeed at the next turn of the clock."""
        self.hatchery.refusal = None
        self.hatchery.when_spawned = lambda worker: self.clock.callLater(
            0, self.hatchery.boot, worker, ECHO
        )

    def spawned_in(self, seconds: float, step: float = 0.05) -> int:
        """How many workers are started in the next seconds."""
        before = self.hatchery.spawned
        self.pass_time(seconds, step)
        return self.hatchery.spawned - before


class SizeTests(WorkforceTestCase):
    def test_nothing_before_the_start(self) -> None:
        """A workforce that was not started asks for no process and no time."""
        self.submit()
        self.assertEqual((self.hatchery.spawned, self.clock.getDelayedCalls()), (0, []))

    def test_minimum_at_the_start(self) -> None:
        """At the start there are as many workers as there shall always be."""
        self.staff(3, 5)
        self.start_and_boot()
        self.assertEqual((self.hatchery.spawned, self.dispatcher.idle), (3, 3))

    def test_jobs_that_came_before_the_start(self) -> None:
        """Jobs that wait already when the workforce starts have workers started for them."""
        self.submit(3)
        self.start()
        self.assertEqual(self.hatchery.spawned, 3)

    def test_grows_while_jobs_wait(self) -> None:
        """For each job that waits a worker is started, those counted that start already."""
        self.start_and_boot()
        self.submit(1)
        self.assertEqual(self.hatchery.spawned, 1)
        self.submit(1)
        self.assertEqual(self.hatchery.spawned, 2)
        self.submit(1)
        self.assertEqual(self.hatchery.spawned, 3)

    def test_grows_no_further_than_the_maximum(self) -> None:
        """However many jobs wait, there are never more workers than the maximum."""
        self.start_and_boot()
        self.submit(100)
        self.boot()
        self.assertEqual((self.workforce.size, len(self.hatchery.busy)), (4, 4))
        self.hatchery.die(self.hatchery.busy[0])
        self.assertEqual(self.workforce.size, 4)

    def test_no_growth_for_what_runs(self) -> None:
        """A worker that takes the last waiting job leaves nothing to grow for."""
        self.start_and_boot()
        self.submit(1)
        self.hatchery.answer(self.hatchery.busy[0])
        self.submit(1)
        self.assertEqual(self.hatchery.spawned, 1)

    def test_no_growth_for_what_is_on_hold(self) -> None:
        """While a worker is idle, jobs that may not start are no reason for more workers."""
        self.staff(2, 4)
        self.start_and_boot()
        self.dispatcher.hold(self.ann)
        self.submit(10)
        self.clock.advance(rules.PROBATION)
        self.hatchery.die(self.hatchery.idle[0])
        self.assertEqual(self.workforce.size, 2)

    def test_surplus_that_dies(self) -> None:
        """A worker above the minimum that dies with nothing to do is not replaced."""
        self.start_and_boot()
        self.submit(4)
        self.boot()
        for worker in self.hatchery.busy:
            self.hatchery.answer(worker)
        self.hatchery.die(self.hatchery.idle[0])
        self.assertEqual(self.workforce.size, 3)

    def test_surplus_is_let_go(self) -> None:
        """A worker above the minimum that has nothing to do for long is asked to stop."""
        self.start_and_boot()
        self.submit(4)
        self.boot()
        for worker in self.hatchery.busy:
            self.hatchery.answer(worker)
        self.pass_time(2 * rules.IDLE_TIME)
        stopping = [worker for worker in self.hatchery.workers if worker.stopping]
        self.assertEqual((len(stopping), self.workforce.size), (3, 1))
        for worker in stopping:
            self.hatchery.die(worker, "exited (status 0)")
        self.assertEqual(self.hatchery.spawned, 4)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_busy_workers_are_not_let_go(self) -> None:
        """However long a job takes, its worker is not surplus, nor is one that is used."""
        self.start_and_boot()
        self.submit(2)
        self.boot()
        long, other = self.hatchery.busy
        for _ in range(20):
            self.pass_time(rules.IDLE_TIME / 3)
            if other.job:
                self.hatchery.answer(other)
            self.submit(1)
        self.assertEqual([long.stopping, other.stopping], [False, False])
        self.hatchery.answer(long)
        self.pass_time(3 * rules.IDLE_TIME)
        self.assertEqual(self.workforce.size, 1)

    def test_grows_again_after_shrinking(self) -> None:
        """A worker that is on its way out counts no more, and a new one is started at need."""
        self.start_and_boot()
        self.submit(2)
        self.boot()
        for worker in self.hatchery.busy:
            self.hatchery.answer(worker)
        self.pass_time(2 * rules.IDLE_TIME)
        self.assertEqual(self.workforce.size, 1)
        self.submit(2)
        self.assertEqual(self.hatchery.spawned, 3)
        self.boot()
        self.assertEqual(self.dispatcher.running, 2)

    def test_no_minimum(self) -> None:
        """With a minimum of none, workers come when jobs do, and go after them."""
        self.staff(0, 2)
        self.start()
        self.assertEqual(self.hatchery.spawned, 0)
        self.submit(1)
        self.boot()
        self.hatchery.answer(self.hatchery.busy[0])
        self.pass_time(2 * rules.IDLE_TIME)
        self.assertEqual(self.workforce.size, 0)

    def test_no_minimum_and_a_question(self) -> None:
        """With a minimum of none, whoever asks what the server performs is answered."""
        self.staff(0, 2)
        self.start()
        asked = self.dispatcher.describe()
        self.boot()
        self.assertEqual(self.successResultOf(asked), ECHO)


class DeathTests(WorkforceTestCase):
    def test_busy(self) -> None:
        """A worker that dies busy is replaced at once, and its job is lost."""
        self.start_and_boot()
        (job,) = self.submit()
        self.hatchery.die(self.hatchery.busy[0], "was killed by SIGSEGV")
        self.assertIn("was killed by SIGSEGV", self.ann.failure_of(job))
        self.assertEqual(self.hatchery.spawned, 2)
        self.boot()
        self.assertEqual(self.dispatcher.idle, 1)

    def test_idle_that_has_worked(self) -> None:
        """A worker that dies idle after some work is replaced at once."""
        self.start_and_boot()
        self.submit()
        self.hatchery.answer(self.hatchery.busy[0])
        self.hatchery.die(self.hatchery.idle[0])
        self.assertEqual((self.hatchery.spawned, self.dispatcher.idle), (2, 0))

    def test_idle_for_long(self) -> None:
        """A worker that dies idle after a while is replaced at once."""
        self.start_and_boot()
        self.clock.advance(rules.PROBATION)
        self.hatchery.die(self.hatchery.idle[0])
        self.assertEqual(self.hatchery.spawned, 2)

    def test_first_idle_death_is_replaced_at_once(self) -> None:
        """A worker that dies as soon as it was ready is replaced at the next turn of the loop."""
        self.start_and_boot()
        self.hatchery.die(self.hatchery.idle[0])
        self.clock.advance(0)
        self.assertEqual(self.hatchery.spawned, 2)

    def test_many_at_once(self) -> None:
        """If all workers are killed at once the minimum is there again in a moment."""
        self.staff(4, 8)
        self.start_and_boot()
        self.submit(4)
        for worker in list(self.hatchery.workers):
            self.hatchery.die(worker)
        self.assertEqual(self.workforce.size, 4)

    def test_all_idle_at_once(self) -> None:
        """If all idle workers are killed at once they are replaced without a growing delay."""
        self.staff(8, 8)
        self.start_and_boot()
        for worker in list(self.hatchery.workers):
            self.hatchery.die(worker)
        self.clock.advance(0)
        self.assertEqual(self.workforce.size, 8)
        self.boot()
        self.pass_time(1)
        for worker in list(self.hatchery.workers):
            self.hatchery.die(worker)
        self.clock.advance(rules.FIRST_DELAY)
        self.assertEqual(self.workforce.size, 8)

    def test_client_submits_when_told(self) -> None:
        """A client that tries again in the moment of the loss does not make the pool too large."""
        self.staff(1, 1)
        self.start_and_boot()
        self.submit()
        self.ann.when_told = lambda _: len(self.ann.failures) < 3 and self.submit()
        for _ in range(3):
            self.hatchery.die(self.hatchery.busy[0])
            self.assertEqual(self.workforce.size, 1)
            self.boot()

    def test_dies_at_each_job(self) -> None:
        """Jobs that kill their workers cost a start each, and no delay for the next job."""
        self.staff(1, 4, quarantine_after=0)
        self.start_and_boot()
        for _ in range(50):
            self.submit()
            self.hatchery.die(self.hatchery.busy[0])
            self.boot()
        self.assertEqual(self.hatchery.spawned, 51)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_quarantined_command_costs_no_more_starts(self) -> None:
        """A command that keeps killing its workers costs five of them, and then none."""
        self.start_and_boot()
        for _ in range(50):
            self.submit()
            for worker in self.hatchery.busy:
                self.hatchery.die(worker)
            self.boot()
        self.assertEqual(self.hatchery.spawned, 6)
        self.assertEqual(len(self.hatchery.idle), 1)


class BackoffTests(WorkforceTestCase):
    def test_delay_doubles(self) -> None:
        """Starts that fail are tried again at once, then after delays that double up to 30 s."""
        starts: list[float] = []

        def spawned(worker: FakeWorker) -> None:
            starts.append(self.clock.seconds())
            self.clock.callLater(0, self.hatchery.die, worker, "exited (status 1)")

        self.hatchery.when_spawned = spawned
        self.start()
        while len(starts) < 15:
            next_call = min(call.getTime() for call in self.clock.getDelayedCalls())
            self.clock.advance(next_call - self.clock.seconds())
        delays = [round(later - earlier, 6) for earlier, later in itertools.pairwise(starts)]
        self.assertEqual(
            delays,
            [0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30, 30, 30],
        )

    def test_no_busy_loop(self) -> None:
        """A server whose workers cannot start tries about twice a minute, whatever waits."""
        self.staff(1, 4)
        self.fail_starts()
        self.start()
        self.submit(100)
        self.assertLess(self.spawned_in(HOUR, step=0.5), 200)

    def test_no_busy_loop_when_workers_die_idle(self) -> None:
        """A server whose workers die as soon as they are ready does not start them in a loop."""
        self.staff(2, 4)

        def boot_and_die(worker: FakeWorker) -> None:
            self.hatchery.boot(worker, ECHO)
            self.clock.callLater(0.1, self.hatchery.die, worker)

        self.hatchery.when_spawned = lambda worker: self.clock.callLater(0, boot_and_die, worker)
        self.start()
        self.assertLess(self.spawned_in(HOUR, step=0.5), 400)

    def test_no_busy_loop_without_processes(self) -> None:
        """A system that has no room for a process is asked about twice a minute."""
        self.staff(3, 4)
        self.hatchery.refusal = OSError(errno.EAGAIN, "Resource temporarily unavailable")
        self.start()
        self.submit(10)
        self.assertLess(self.spawned_in(HOUR, step=0.5), 200)

    def test_no_busy_loop_beside_a_good_worker(self) -> None:
        """One good old worker does not make the others' failing starts a loop."""
        self.staff(2, 2)
        self.start()
        self.hatchery.boot(self.hatchery.starting[0], ECHO)
        self.pass_time(10)
        self.fail_starts()
        self.assertLess(self.spawned_in(HOUR, step=0.5), 200)

    def test_no_busy_loop_in_a_full_pool(self) -> None:
        """A pool that starts nothing, and says nothing, does not hang the server."""
        self.hatchery.spawn = lambda: None  # type: ignore[method-assign]
        self.start()
        self.assertEqual(self.workforce.size, 0)

    def test_workers_that_fail_together_count_once(self) -> None:
        """Eight workers that fail for one reason are tried again as soon as one that fails."""
        self.staff(8, 8)
        self.start()
        self.fail_starts()
        self.clock.advance(0)
        self.clock.advance(0)
        self.repair_starts()
        self.pass_time(0.2)
        self.assertEqual(self.dispatcher.idle, 8)

    def test_recovery(self) -> None:
        """When starts succeed again the pool is whole with the next try."""
        self.staff(2, 4)
        self.fail_starts()
        self.start()
        self.pass_time(HOUR, step=0.5)
        self.repair_starts()
        self.pass_time(rules.LONGEST_DELAY + 1)
        self.assertEqual(self.dispatcher.idle, 2)

    def test_failures_long_ago(self) -> None:
        """Failures before a good start do not slow down the replacement of what fails later."""
        self.fail_starts()
        self.start()
        self.pass_time(HOUR, step=0.5)
        self.repair_starts()
        self.pass_time(60)
        self.hatchery.when_spawned = None
        self.submit(4)
        self.hatchery.die(self.hatchery.starting[0], "was killed by SIGKILL")
        before = self.hatchery.spawned
        self.clock.advance(0)
        self.assertGreater(self.hatchery.spawned, before)

    def test_failures_before_some_work(self) -> None:
        """Once a worker has done some work, earlier failures slow nothing down any more."""
        self.submit()
        self.fail_starts()
        self.start()
        self.pass_time(2)
        self.repair_starts()
        self.pass_time(1.5)
        self.hatchery.when_spawned = None
        self.hatchery.die(self.hatchery.busy[0])
        self.hatchery.die(self.hatchery.starting[0])
        self.clock.advance(0)
        self.assertEqual(self.workforce.size, 1)

    def test_last_good_worker_dies_while_others_fail(self) -> None:
        """When the last worker dies at its work, a new one is tried at once, failures or not."""
        self.staff(2, 2)
        self.start()
        self.hatchery.boot(self.hatchery.starting[0], ECHO)
        self.fail_starts()
        self.pass_time(300)
        self.submit()
        before = self.hatchery.spawned
        self.hatchery.die(self.hatchery.busy[0])
        self.assertGreater(self.hatchery.spawned, before)

    def test_spawn_raises(self) -> None:
        """A system that cannot start a process is asked again, and what it said is passed on."""
        self.hatchery.refusal = OSError(errno.EAGAIN, "Resource temporarily unavailable")
        self.start()
        (job,) = self.submit()
        self.pass_time(rules.PATIENCE + 1)
        self.assertEqual(
            self.ann.failure_of(job),
            "NO_WORKERS: no worker can be started: "
            "no process can be started: Resource temporarily unavailable",
        )
        self.repair_starts()
        self.pass_time(60)
        self.assertEqual(self.dispatcher.idle, 1)


class PatienceTests(WorkforceTestCase):
    def test_jobs_wait_a_while(self) -> None:
        """While starts fail jobs wait for some seconds, and are then refused with the reason."""
        self.start()
        (job,) = self.submit()
        self.pass_time(1)
        self.fail_starts("exited (status 1)")
        self.pass_time(rules.PATIENCE - 0.5)
        self.assertEqual(self.ann.failures, [])
        self.pass_time(1)
        self.assertRegex(
            self.ann.failure_of(job),
            r"^NO_WORKERS: no worker can be started: worker \d+ exited \(status 1\)$",
        )
        (late,) = self.submit()
        self.assertIn("NO_WORKERS", self.ann.failure_of(late))

    def test_patience_begins_anew(self) -> None:
        """If a worker was ready for a moment, jobs wait as long again for the next."""
        self.fail_starts()
        self.start()
        self.pass_time(3)
        self.repair_starts()
        self.pass_time(1)
        self.fail_starts()
        self.hatchery.die(self.hatchery.idle[0])
        self.submit()
        self.pass_time(rules.PATIENCE - 0.5)
        self.assertEqual(self.ann.failures, [])
        self.pass_time(1)
        self.assertEqual(len(self.ann.failures), 1)

    def test_latest_reason(self) -> None:
        """The reason that clients are told is that of the latest failure."""
        self.fail_starts("exited (status 1)")
        self.start()
        self.pass_time(60)
        self.fail_starts("exited (status 7)")
        self.pass_time(60)
        (job,) = self.submit()
        self.assertIn("(status 7)", self.ann.failure_of(job))

    def test_slow_start_is_waited_for(self) -> None:
        """Jobs wait for a worker that only takes its time to start."""
        self.start()
        self.submit()
        self.pass_time(rules.BOOT_LIMIT - 1)
        self.assertEqual(self.ann.failures, [])
        self.boot()
        self.assertEqual(self.dispatcher.running, 1)

    def test_one_good_worker_is_enough(self) -> None:
        """As long as one worker lives, no job is refused, whatever other starts do."""
        self.staff(2, 2)
        self.start()
        self.fail_starts()
        self.clock.advance(0)
        self.hatchery.when_spawned = None
        self.clock.advance(0.2)
        self.hatchery.boot(self.hatchery.starting[0], ECHO)
        self.fail_starts()
        self.submit(3)
        self.pass_time(120)
        self.assertEqual(self.ann.failures, [])

    def test_recovers_by_itself(self) -> None:
        """After NO_WORKERS the first worker that is ready makes the server accept jobs again."""
        self.fail_starts()
        self.start()
        self.pass_time(20)
        self.repair_starts()
        self.pass_time(rules.LONGEST_DELAY)
        self.submit()
        self.assertEqual((self.dispatcher.running, self.ann.failures), (1, []))

    def test_recovers_by_itself_with_no_minimum(self) -> None:
        """So it does if no worker need live, although refused jobs are no demand for any."""
        self.staff(0, 2)
        self.fail_starts()
        self.start()
        self.submit()
        self.pass_time(20)
        self.assertEqual(len(self.ann.failures), 1)
        self.repair_starts()
        self.pass_time(rules.LONGEST_DELAY + 1)
        self.submit()
        self.assertEqual(len(self.ann.failures), 1)

    def test_question_while_no_worker_starts(self) -> None:
        """Whoever asks what the server performs is told that no worker can be started."""
        self.start()
        asked = self.dispatcher.describe()
        self.fail_starts()
        self.pass_time(rules.PATIENCE + 1)
        self.failureResultOf(asked, NoWorkers)


class BootLimitTests(WorkforceTestCase):
    def test_hanging_start_is_killed(self) -> None:
        """A worker that does not say Hello in time is killed, and counts as a failed start."""
        self.start()
        (job,) = self.submit()
        (worker,) = self.hatchery.starting
        self.pass_time(rules.BOOT_LIMIT + 0.1)
        self.assertEqual(worker.killed, "did not start within 60 s")
        self.hatchery.die(worker)
        self.pass_time(rules.PATIENCE + 0.1)
        self.assertIn(f"worker {worker.pid} did not start within 60 s", self.ann.failure_of(job))
        self.assertEqual(self.hatchery.spawned, 2)

    def test_limit_ends_with_hello(self) -> None:
        """A worker that said Hello in time is left alone."""
        self.start()
        self.pass_time(rules.BOOT_LIMIT - 1)
        self.boot()
        self.pass_time(10)
        self.assertIsNone(self.hatchery.workers[0].killed)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class StopTests(WorkforceTestCase):
    def stop(self) -> None:
        """Stop, and see that nothing goes on afterwards."""
        self.workforce.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        before = self.hatchery.spawned
        for worker in list(self.hatchery.workers):
            self.hatchery.die(worker)
        self.submit(3)
        self.pass_time(100)
        self.assertEqual(self.hatchery.spawned, before)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_idle(self) -> None:
        """A workforce that is stopped starts nothing and leaves no timer."""
        self.start_and_boot()
        self.stop()

    def test_never_started(self) -> None:
        """A workforce that never was started can be stopped."""
        self.stop()

    def test_starting(self) -> None:
        """So it is when it is stopped while workers start."""
        self.staff(3, 3)
        self.start()
        self.stop()

    def test_between_failed_starts(self) -> None:
        """So it is when it is stopped while it waits for the next try."""
        self.start()
        self.fail_starts()
        self.pass_time(2)
        self.hatchery.when_spawned = None
        self.stop()

    def test_with_surplus(self) -> None:
        """So it is when it is stopped while it watches for surplus."""
        self.start_and_boot()
        self.submit(4)
        self.boot()
        for worker in self.hatchery.busy:
            self.hatchery.answer(worker)
        self.stop()

    def test_busy(self) -> None:
        """So it is when it is stopped while jobs run, whose ends are told all the same."""
        self.start_and_boot()
        (job,) = self.submit()
        self.stop()
        self.assertIn("WORKER_LOST", self.ann.failure_of(job))

    def test_twice(self) -> None:
        """Stopping twice is the same as once."""
        self.start()
        self.workforce.stop()
        self.stop()

    def test_hello_after_the_stop(self) -> None:
        """A worker that says Hello after the stop gets no job."""
        self.start()
        self.workforce.stop()
        self.hatchery.boot(self.hatchery.starting[0], ECHO)
        self.submit()
        self.assertEqual(self.dispatcher.running, 0)
        self.hatchery.die(self.hatchery.workers[0])

    def test_stopped_by_the_last_job_of_a_drain(self) -> None:
        """The end of a drain may stop the workforce in the moment of the last worker's death."""
        self.start_and_boot()
        self.submit()
        self.dispatcher.drain(10).addCallback(lambda _: self.workforce.stop())
        self.hatchery.die(self.hatchery.busy[0])
        self.assertEqual((self.hatchery.spawned, self.clock.getDelayedCalls()), (1, []))
