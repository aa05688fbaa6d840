from __future__ import annotations

import errno
import itertools
from typing import TYPE_CHECKING

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dangad.errors import NoWorkers, ReloadFailed
from dangad.scheduler import failingstarts, watch
from dangad.scheduler import supervisor as rules
from dangad.scheduler.dispatcher import Dispatcher
from dangad.scheduler.supervisor import Supervisor
from dangad.scheduler.workerrecord import RecycleLimits, WorkerState
from tests.fakes import FakeClient, FakeSpawner, FakeWorker, catalogue, make_job

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IDelayedCall

    from dangad.scheduler.record import Job

ECHO = catalogue("Echo")
HOUR = 3600


class TurningSpawner(FakeSpawner):
    """One after whose every news the reactor turns, until nothing is left to be done at once."""

    def __init__(self, supervisor: Supervisor, dispatcher: Dispatcher, clock: Clock) -> None:
        super().__init__(supervisor, dispatcher)
        self._clock = clock

    def turn(self) -> None:
        """Let the reactor turn."""
        now = self._clock.seconds()
        while any(call.getTime() <= now for call in self._clock.getDelayedCalls()):
            self._clock.advance(0)

    def boot(self, worker: FakeWorker, performs: str) -> None:
        """Have `worker` say Hello."""
        super().boot(worker, performs)
        self.turn()

    def answer(
        self, worker: FakeWorker, failed: bool = False, body: bytes = b"\0\0", reusable: bool = True
    ) -> Job:
        """Have `worker` answer its job, which is returned."""
        job = super().answer(worker, failed, body, reusable)
        self.turn()
        return job

    def die(
        self, worker: FakeWorker, how: str = "was killed by SIGKILL", *, unread: bytes = b""
    ) -> None:
        """Have `worker` be gone."""
        super().die(worker, how, unread=unread)
        self.turn()


class SupervisorTestCase(SynchronousTestCase):
    """A supervisor with a real dispatcher, a clock, and workers that are no processes."""

    def setUp(self) -> None:
        """Make a supervisor of 1 to 4."""
        self.clock = Clock()
        self.clock.advance(1000)
        self.ann = FakeClient("ann")
        self.supervise(1, 4)

    def supervise(
        self,
        min_workers: int,
        max_workers: int,
        *,
        quarantine_after: int = 5,
        spare: int = 0,
        at_once: int = 100,
        recycle_limits: RecycleLimits | None = None,
        relief_after: float = 0.0,
    ) -> None:
        """Make a supervisor of this size, not yet started."""
        self.dispatcher = Dispatcher(self.clock, 10_000, quarantine_after=quarantine_after)
        self.supervisor = Supervisor(
            self.clock,
            self.dispatcher,
            min_workers,
            max_workers,
            spare,
            recycle_limits,
            starts_at_once=at_once,
            relief_after=relief_after,
        )
        self.spawner = TurningSpawner(self.supervisor, self.dispatcher, self.clock)

    def start(self) -> None:
        """Begin."""
        self.supervisor.start(self.spawner)
        self.spawner.turn()

    def boot(self) -> None:
        """Have all workers that start say Hello."""
        self.spawner.boot_all(ECHO)

    def start_and_boot(self) -> None:
        """Begin, with workers that are ready at once."""
        self.start()
        self.boot()

    def submit(self, count: int = 1) -> list[Job]:
        """So many new jobs."""
        jobs = [make_job(self.ann) for _ in range(count)]
        for job in jobs:
            self.dispatcher.submit(job)
        self.spawner.turn()
        return jobs

    def pass_time(self, seconds: float, step: float = 0.05) -> None:
        """Let time pass in small steps, as a reactor would."""
        for _ in range(round(seconds / step)):
            self.clock.advance(step)

    def pending(self) -> list[IDelayedCall]:
        """The calls that wait, but for the next look at all workers, which is one in a second."""
        calls = self.clock.getDelayedCalls()
        soon = self.clock.seconds() + rules.WATCH_INTERVAL
        looks = [call for call in calls if call.getTime() <= soon]
        return [call for call in calls if call not in looks[:1]]

    def pids(self) -> list[int]:
        """The workers that have not left."""
        return [worker.pid for worker in self.spawner.workers if not worker.stopping]

    def bury(self) -> None:
        """Have all who were asked to stop, or killed, be gone."""
        for worker in list(self.spawner.workers):
            if worker.stopping or worker.killed is not None:
                self.spawner.die(worker)

    def kill_all(self) -> None:
        """Have all workers die in one turn of the reactor."""
        for worker in list(self.spawner.workers):
            FakeSpawner.die(self.spawner, worker)
        self.spawner.turn()

    def turn_over(self) -> None:
        """Have all who start say Hello, and all who leave be gone, until nothing changes."""
        while self.spawner.starting or len(self.pids()) < len(self.spawner.workers):
            self.boot()
            self.bury()

    def fail_starts(self, how: str = "exited (status 1)") -> None:
        """Have each start from now on fail at the next turn of the clock."""
        self.spawner.when_spawned = lambda worker: self.clock.callLater(
            0, self.spawner.die, worker, how
        )
        for worker in self.spawner.starting:
            self.spawner.die(worker, how)

    def repair_starts(self) -> None:
        """Have each start from now on succeed at the next turn of the clock."""
        self.spawner.refusal = None
        self.spawner.when_spawned = lambda worker: self.clock.callLater(
            0, self.spawner.boot, worker, ECHO
        )

    def spawned_in(self, seconds: float, step: float = 0.05) -> int:
        """How many workers are started in the next seconds."""
        before = self.spawner.spawned
        self.pass_time(seconds, step)
        return self.spawner.spawned - before


class SizeTests(SupervisorTestCase):
    def test_at_the_start(self) -> None:
        """At the start there is the minimum, or a worker for each job that waits; before, none."""
        for minimum, jobs, spawned in ((3, 0, 3), (1, 3, 3), (0, 0, 0)):
            self.supervise(minimum, 5)
            self.submit(jobs)
            self.assertEqual((self.spawner.spawned, self.clock.getDelayedCalls()), (0, []))
            self.start_and_boot()
            self.assertEqual((self.spawner.spawned, self.dispatcher.running), (spawned, jobs))
            self.supervisor.stop()

    def test_grows_while_jobs_wait(self) -> None:
        """For each job that waits a worker is started, those counted that start already."""
        self.start_and_boot()
        for spawned in (1, 2, 3):
            self.submit(1)
            self.assertEqual(self.spawner.spawned, spawned)
        self.boot()
        for worker in self.spawner.busy:
            self.spawner.answer(worker)
        self.submit(1)
        self.assertEqual(self.spawner.spawned, 3)

    def test_grows_no_further_than_the_maximum(self) -> None:
        """However many jobs wait, there are never more workers than the maximum."""
        self.start_and_boot()
        self.submit(100)
        self.boot()
        self.assertEqual((self.supervisor.size, len(self.spawner.busy)), (4, 4))
        self.spawner.die(self.spawner.busy[0])
        self.assertEqual(self.supervisor.size, 4)

    def test_no_growth_for_what_is_on_hold(self) -> None:
        """While a worker is idle, jobs that may not start are no reason for more workers."""
        self.supervise(2, 4)
        self.start_and_boot()
        self.dispatcher.hold(self.ann)
        self.submit(10)
        self.clock.advance(failingstarts.PROBATION)
        self.spawner.die(self.spawner.idle[0])
        self.assertEqual(self.supervisor.size, 2)

    def surplus(self) -> None:
        """Have four workers that have nothing to do any more."""
        self.start_and_boot()
        self.submit(4)
        self.boot()
        for worker in self.spawner.busy:
            self.spawner.answer(worker)

    def test_surplus_that_dies(self) -> None:
        """A worker above the minimum that dies with nothing to do is not replaced."""
        self.surplus()
        self.spawner.die(self.spawner.idle[0])
        self.assertEqual(self.supervisor.size, 3)

    def test_surplus_is_let_go(self) -> None:
        """One that has nothing to do for long is asked to stop; if it is missed, another starts."""
        self.surplus()
        self.pass_time(2 * rules.IDLE_TIME)
        stopping = [worker for worker in self.spawner.workers if worker.stopping]
        self.assertEqual((len(stopping), self.supervisor.size), (3, 1))
        self.submit(1)
        self.assertEqual(self.spawner.spawned, 4)
        for worker in stopping:
            self.spawner.die(worker, "exited (status 0)")
        self.submit(1)
        self.boot()
        self.assertEqual((self.spawner.spawned, self.dispatcher.running), (5, 2))

    def test_busy_workers_are_not_let_go(self) -> None:
        """However long a job takes, its worker is not surplus, nor is one that is used."""
        self.start_and_boot()
        self.submit(2)
        self.boot()
        long, other = self.spawner.busy
        for _ in range(20):
            self.pass_time(rules.IDLE_TIME / 3)
            if other.job:
                self.spawner.answer(other)
            self.submit(1)
        self.assertEqual([long.stopping, other.stopping], [False, False])
        self.spawner.answer(long)
        self.pass_time(3 * rules.IDLE_TIME)
        self.assertEqual(self.supervisor.size, 1)

    def test_no_minimum(self) -> None:
        """With a minimum of none, workers come when jobs or questions do, and go after them."""
        self.supervise(0, 2)
        self.start()
        self.assertEqual(self.spawner.spawned, 0)
        asked = self.dispatcher.describe()
        self.boot()
        self.assertEqual(self.successResultOf(asked), ECHO)
        self.submit(1)
        self.boot()
        self.spawner.answer(self.spawner.busy[0])
        self.pass_time(2 * rules.IDLE_TIME)
        self.assertEqual(self.supervisor.size, 0)


class DeathTests(SupervisorTestCase):
    def test_busy(self) -> None:
        """A worker that dies busy is replaced at once, and its job is lost."""
        self.start_and_boot()
        (job,) = self.submit()
        self.spawner.die(self.spawner.busy[0], "was killed by SIGSEGV")
        self.assertIn("was killed by SIGSEGV", self.ann.failure_of(job))
        self.assertEqual(self.spawner.spawned, 2)
        self.boot()
        self.assertEqual(self.dispatcher.idle, 1)

    def test_idle(self) -> None:
        """One that dies idle is replaced at once: after work, after a while, and the first time."""
        for before in (
            lambda: self.submit() and self.spawner.answer(self.spawner.busy[0]),
            lambda: self.clock.advance(failingstarts.PROBATION),
            lambda: None,
        ):
            self.supervise(1, 4)
            self.start_and_boot()
            before()
            self.spawner.die(self.spawner.idle[0])
            self.clock.advance(0)
            self.assertEqual((self.spawner.spawned, self.dispatcher.idle), (2, 0))
            self.supervisor.stop()

    def test_many_at_once(self) -> None:
        """If all workers are killed at once the minimum is there again in a moment."""
        self.supervise(4, 8)
        self.start_and_boot()
        self.submit(4)
        self.kill_all()
        self.assertEqual(self.supervisor.size, 4)

    def test_all_idle_at_once(self) -> None:
        """If all idle workers are killed at once they are replaced without a growing delay."""
        self.supervise(8, 8)
        self.start_and_boot()
        self.kill_all()
        self.assertEqual(self.supervisor.size, 8)
        self.boot()
        self.pass_time(1)
        self.kill_all()
        self.pass_time(failingstarts.FIRST_DELAY + 0.05)
        self.assertEqual(self.supervisor.size, 8)

    def test_client_submits_when_told(self) -> None:
        """A client that tries again in the moment of the loss does not make the pool too large."""
        self.supervise(1, 1)
        self.start_and_boot()
        self.submit()
        self.ann.when_told = lambda _: len(self.ann.failures) < 3 and self.submit()
        for _ in range(3):
            self.spawner.die(self.spawner.busy[0])
            self.assertEqual(self.supervisor.size, 1)
            self.boot()

    def test_dies_at_each_job(self) -> None:
        """Jobs that kill their workers cost a start each, and no delay for the next job."""
        self.supervise(1, 4, quarantine_after=0)
        self.start_and_boot()
        for _ in range(50):
            self.submit()
            self.spawner.die(self.spawner.busy[0])
            self.boot()
        self.dispatcher.state.quiet.flush()  # of so many deaths not each has its line
        self.assertEqual(self.spawner.spawned, 51)
        self.assertEqual(self.pending(), [])

    def test_quarantined_command_costs_no_more_starts(self) -> None:
        """A command that keeps killing its workers costs five of them, and then none."""
        self.start_and_boot()
        for _ in range(50):
            self.submit()
            for worker in self.spawner.busy:
                self.spawner.die(worker)
            self.boot()
        self.assertEqual(self.spawner.spawned, 6)
        self.assertEqual(len(self.spawner.idle), 1)


class BackoffTests(SupervisorTestCase):
    def test_delay_doubles(self) -> None:
        """Starts that fail are tried again at once, then after delays that double up to 30 s."""
        starts: list[float] = []

        def spawned(worker: FakeWorker) -> None:
            starts.append(self.clock.seconds())
            self.clock.callLater(0, self.spawner.die, worker, "exited (status 1)")

        self.spawner.when_spawned = spawned
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
        """Whatever keeps workers from starting, or living, it is tried about twice a minute."""

        def start_to_fail() -> None:
            self.fail_starts()
            self.start()
            self.submit(100)

        def start_to_die_idle() -> None:
            def boot_and_die(worker: FakeWorker) -> None:
                self.spawner.boot(worker, ECHO)
                self.clock.callLater(0.1, self.spawner.die, worker)

            self.spawner.when_spawned = lambda worker: self.clock.callLater(0, boot_and_die, worker)
            self.start()

        def have_no_processes() -> None:
            self.spawner.refusal = OSError(errno.EAGAIN, "Resource temporarily unavailable")
            self.start()
            self.submit(10)

        def fail_beside_a_good_one() -> None:
            self.start()
            self.spawner.boot(self.spawner.starting[0], ECHO)
            self.pass_time(10)
            self.fail_starts()

        for begin, sizes, most in (
            (start_to_fail, (1, 4), 200),
            (start_to_die_idle, (2, 4), 400),
            (have_no_processes, (3, 4), 200),
            (fail_beside_a_good_one, (2, 2), 200),
        ):
            self.supervise(*sizes)
            begin()
            self.assertLess(self.spawned_in(HOUR, step=0.5), most, begin)
            self.supervisor.stop()

    def test_no_busy_loop_in_a_full_pool(self) -> None:
        """A pool that starts nothing, and says nothing, does not hang the server."""
        self.spawner.spawn = lambda: None  # type: ignore[method-assign]
        self.start()
        self.assertEqual(self.supervisor.size, 0)

    def test_workers_that_fail_together_count_once(self) -> None:
        """Eight workers that fail for one reason are tried again as soon as one that fails."""
        self.supervise(8, 8)
        self.start()
        self.fail_starts()
        self.clock.advance(0)
        self.clock.advance(0)
        self.repair_starts()
        self.pass_time(0.2)
        self.assertEqual(self.dispatcher.idle, 8)

    def test_recovery(self) -> None:
        """When starts succeed again the pool is whole with the next try."""
        self.supervise(2, 4)
        self.fail_starts()
        self.start()
        self.pass_time(HOUR, step=0.5)
        self.repair_starts()
        self.pass_time(failingstarts.LONGEST_DELAY + 1)
        self.assertEqual(self.dispatcher.idle, 2)

    def test_failures_long_ago(self) -> None:
        """Failures before a good start do not slow down the replacement of what fails later."""
        self.fail_starts()
        self.start()
        self.pass_time(HOUR, step=0.5)
        self.repair_starts()
        self.pass_time(60)
        self.spawner.when_spawned = None
        self.submit(4)
        before = self.spawner.spawned
        self.spawner.die(self.spawner.starting[0], "was killed by SIGKILL")
        self.assertGreater(self.spawner.spawned, before)

    def test_failures_before_some_work(self) -> None:
        """Once a worker has done some work, earlier failures slow nothing down any more."""
        self.submit()
        self.fail_starts()
        self.start()
        self.pass_time(2)
        self.repair_starts()
        self.pass_time(1.5)
        self.spawner.when_spawned = None
        self.spawner.die(self.spawner.busy[0])
        self.spawner.die(self.spawner.starting[0])
        self.clock.advance(0)
        self.assertEqual(self.supervisor.size, 1)

    def test_last_good_worker_dies_while_others_fail(self) -> None:
        """When the last worker dies at its work, a new one is tried at once, failures or not."""
        self.supervise(2, 2)
        self.start()
        self.spawner.boot(self.spawner.starting[0], ECHO)
        self.fail_starts()
        self.pass_time(300)
        self.submit()
        before = self.spawner.spawned
        self.spawner.die(self.spawner.busy[0])
        self.assertGreater(self.spawner.spawned, before)

    def test_spawn_raises(self) -> None:
        """A system that cannot start a process is asked again, and what it said is passed on."""
        self.spawner.refusal = OSError(errno.EAGAIN, "Resource temporarily unavailable")
        self.start()
        (job,) = self.submit()
        self.pass_time(failingstarts.PATIENCE + 1)
        self.assertEqual(
            self.ann.failure_of(job),
            "NO_WORKERS: no worker can be started: "
            "no process can be started: Resource temporarily unavailable",
        )
        self.repair_starts()
        self.pass_time(60)
        self.assertEqual(self.dispatcher.idle, 1)


class PatienceTests(SupervisorTestCase):
    def test_jobs_wait_a_while(self) -> None:
        """While starts fail jobs wait for some seconds, and are then refused with the reason."""
        self.start()
        (job,) = self.submit()
        self.pass_time(1)
        self.fail_starts("exited (status 1)")
        self.pass_time(failingstarts.PATIENCE - 0.5)
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
        self.spawner.die(self.spawner.idle[0])
        self.submit()
        self.pass_time(failingstarts.PATIENCE - 0.5)
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
        self.pass_time(rules.START_TIMEOUT - 1)
        self.assertEqual(self.ann.failures, [])
        self.boot()
        self.assertEqual(self.dispatcher.running, 1)

    def test_one_good_worker_is_enough(self) -> None:
        """As long as one worker records, no job is refused, whatever other starts do."""
        self.supervise(2, 2)
        self.start()
        self.fail_starts()
        self.clock.advance(0)
        self.spawner.when_spawned = None
        self.clock.advance(0.2)
        self.spawner.boot(self.spawner.starting[0], ECHO)
        self.fail_starts()
        self.submit(3)
        self.pass_time(120)
        self.assertEqual(self.ann.failures, [])

    def test_recovers_by_itself(self) -> None:
        """After NO_WORKERS the first worker that is ready makes the server accept jobs again.

        It is looked for even if none need live, and refused jobs are no demand for any.
        """
        for minimum in (1, 0):
            self.ann = FakeClient("ann")
            self.supervise(minimum, 2)
            self.fail_starts()
            self.start()
            self.submit()
            self.pass_time(20)
            self.assertEqual(len(self.ann.failures), 1)
            self.repair_starts()
            self.pass_time(failingstarts.LONGEST_DELAY + 1)
            self.submit()
            self.assertEqual(len(self.ann.failures), 1)
            self.supervisor.stop()

    def test_question_while_no_worker_starts(self) -> None:
        """Whoever asks what the server performs is told that no worker can be started."""
        self.start()
        asked = self.dispatcher.describe()
        self.fail_starts()
        self.pass_time(failingstarts.PATIENCE + 1)
        self.failureResultOf(asked, NoWorkers)


class BootLimitTests(SupervisorTestCase):
    def test_hanging_start_is_killed(self) -> None:
        """A worker that does not say Hello in time is killed, and counts as a failed start."""
        self.start()
        (job,) = self.submit()
        (worker,) = self.spawner.starting
        self.pass_time(rules.START_TIMEOUT + 0.1)
        self.assertEqual(
            worker.killed, "did not start within 60 s (--start-timeout), and was killed"
        )
        self.spawner.die(worker)
        self.pass_time(failingstarts.PATIENCE + 0.1)
        self.assertIn(f"worker {worker.pid} did not start within 60 s", self.ann.failure_of(job))
        self.assertEqual(self.spawner.spawned, 2)

    def test_limit_ends_with_hello(self) -> None:
        """A worker that said Hello in time is left alone."""
        self.start()
        self.pass_time(rules.START_TIMEOUT - 1)
        self.boot()
        self.pass_time(10)
        self.assertIsNone(self.spawner.workers[0].killed)
        self.assertEqual(self.pending(), [])


class StopTests(SupervisorTestCase):
    def stop(self) -> None:
        """Stop, and see that nothing goes on afterwards."""
        self.supervisor.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        states = {record.state for record in self.supervisor.records.values()}
        self.assertLessEqual(states, {WorkerState.STOPPING})
        before = self.spawner.spawned
        for worker in list(self.spawner.workers):
            self.spawner.die(worker)
        self.submit(3)
        self.pass_time(100)
        self.assertEqual(self.spawner.spawned, before)
        self.assertEqual(self.pending(), [])

    def test_nothing_goes_on(self) -> None:
        """A supervisor that is stopped starts nothing and leaves no timer, whatever went on."""

        def wait_between_failed_starts() -> None:
            self.start()
            self.fail_starts()
            self.pass_time(2)
            self.spawner.when_spawned = None

        def have_surplus() -> None:
            self.start_and_boot()
            self.submit(4)
            self.boot()
            for worker in self.spawner.busy:
                self.spawner.answer(worker)

        def stop_twice() -> None:
            self.start()
            self.supervisor.stop()

        for begin in (
            lambda: None,
            self.start,
            self.start_and_boot,
            wait_between_failed_starts,
            have_surplus,
            stop_twice,
        ):
            self.supervise(1, 4)
            begin()
            self.stop()
            self.dispatcher.client_gone(self.ann)

    def test_busy(self) -> None:
        """So it is when it is stopped while jobs run, whose ends are told all the same."""
        self.start_and_boot()
        (job,) = self.submit()
        self.stop()
        self.assertIn("WORKER_LOST", self.ann.failure_of(job))

    def test_hello_after_the_stop(self) -> None:
        """A worker that says Hello after the stop gets no job."""
        self.start()
        self.supervisor.stop()
        self.spawner.boot(self.spawner.starting[0], ECHO)
        self.submit()
        self.assertEqual(self.dispatcher.running, 0)
        self.spawner.die(self.spawner.workers[0])

    def test_stopped_by_the_last_job_of_a_drain(self) -> None:
        """The end of a drain may stop the supervisor in the moment of the last worker's death."""
        self.start_and_boot()
        self.submit()
        self.dispatcher.drain(10).addCallback(lambda _: self.supervisor.stop())
        self.spawner.die(self.spawner.busy[0])
        self.assertEqual((self.spawner.spawned, self.clock.getDelayedCalls()), (1, []))


class SpareTests(SupervisorTestCase):
    def test_ready_before_it_is_needed(self) -> None:
        """With a spare worker, one is idle as long as there may be more, whatever is busy."""
        self.supervise(1, 3, spare=1)
        self.start_and_boot()
        self.assertEqual(self.dispatcher.idle, 1)
        for busy in (1, 2):
            self.submit()
            self.assertEqual(self.dispatcher.running, busy)
            self.boot()
            self.assertEqual(self.dispatcher.idle, 1)
        self.submit()
        self.boot()
        self.assertEqual((self.dispatcher.running, self.supervisor.size), (3, 3))

    def test_beyond_the_minimum(self) -> None:
        """Spares are counted above the busy workers, not above the minimum."""
        self.supervise(2, 8, spare=2)
        self.start_and_boot()
        self.assertEqual(self.supervisor.size, 2)
        self.submit()
        self.assertEqual(self.supervisor.size, 3)

    def test_let_go_when_idle(self) -> None:
        """When the busy are idle again, all but the minimum and the spares leave after a time."""
        self.supervise(0, 8, spare=1)
        self.start_and_boot()
        self.submit(4)
        self.boot()
        while self.spawner.busy:
            self.spawner.answer(self.spawner.busy[0])
        self.pass_time(2 * rules.IDLE_TIME)
        self.bury()
        self.assertEqual(self.supervisor.size, 1)


class ScaleTests(SupervisorTestCase):
    def test_more(self) -> None:
        """More workers are started at once."""
        self.start_and_boot()
        self.supervisor.scale(3, 5)
        self.boot()
        self.assertEqual((self.supervisor.size, self.dispatcher.idle), (3, 3))

    def test_fewer_idle(self) -> None:
        """Of idle workers those beyond the new maximum leave at once."""
        self.supervise(4, 4)
        self.start_and_boot()
        self.supervisor.scale(1, 1)
        self.assertEqual((self.supervisor.size, self.dispatcher.idle), (1, 1))

    def test_fewer_busy(self) -> None:
        """Busy workers beyond the new maximum end their jobs first, and get no others."""
        self.supervise(3, 3)
        self.start_and_boot()
        jobs = self.submit(5)
        self.supervisor.scale(1, 1)
        self.assertEqual(self.dispatcher.running, 3)
        for _ in jobs:
            self.spawner.answer(self.spawner.busy[0])
        self.assertEqual([len(self.ann.answers), self.supervisor.size], [5, 1])

    def test_nonsense(self) -> None:
        """Numbers that make no sense are refused, and nothing changes."""
        self.start_and_boot()
        for numbers in ((-1, 2), (0, 0), (3, 2)):
            self.assertRaises(ValueError, self.supervisor.scale, *numbers)
        self.assertEqual((self.supervisor.min_workers, self.supervisor.max_workers), (1, 4))


class PaceTests(SupervisorTestCase):
    def spawned_by(self, act: Callable[[], object]) -> int:
        """How many workers `act` starts at once."""
        before = self.spawner.spawned
        act()
        return self.spawner.spawned - before

    def turn(self) -> None:
        """Let the reactor turn once: what is called for the next turn waits, unlike a Clock's."""
        now = self.clock.seconds()
        for call in [call for call in self.clock.calls if call.getTime() <= now]:
            self.clock.calls.remove(call)
            call.func()

    def test_one_in_a_turn(self) -> None:
        """However many workers are missing, the reactor turns after each start."""
        self.supervise(4, 9)
        starts = [self.spawned_by(lambda: self.supervisor.start(self.spawner))]
        starts += [self.spawned_by(self.turn) for _ in range(4)]
        self.assertEqual(starts, [1, 1, 1, 1, 0])

    def test_one_in_a_turn_for_many_jobs(self) -> None:
        """So it is if many jobs come in one turn, or many workers die in one."""
        self.supervise(1, 20)
        self.start_and_boot()
        jobs = [make_job(self.ann) for _ in range(10)]
        self.assertEqual(self.spawned_by(lambda: list(map(self.dispatcher.submit, jobs))), 1)
        self.boot()
        self.assertEqual(len(self.spawner.busy), 10)
        died = list(self.spawner.workers)
        die = FakeSpawner.die
        self.assertEqual(self.spawned_by(lambda: [die(self.spawner, worker) for worker in died]), 1)

    def test_few_at_a_time(self) -> None:
        """Only a few are starting at a time; each that is ready, or fails, makes room for one."""
        self.supervise(1, 1, at_once=3)
        self.start_and_boot()
        self.supervisor.scale(50, 50)
        self.spawner.turn()
        self.assertEqual(len(self.spawner.starting), 3)
        self.spawner.boot(self.spawner.starting[1], ECHO)
        self.assertEqual((len(self.spawner.starting), self.dispatcher.idle), (3, 2))
        self.spawner.die(self.spawner.starting[0], "exited (status 1)")
        self.assertEqual(len(self.spawner.starting), 3)
        self.boot()
        self.assertEqual((self.spawner.starting, self.dispatcher.idle), ([], 50))

    def test_later_order(self) -> None:
        """Who wants fewer has the starts of an earlier order stopped, and no more made."""
        self.supervise(1, 1, at_once=3)
        self.start_and_boot()
        self.supervisor.scale(50, 50)
        self.spawner.turn()
        self.supervisor.scale(1, 1)
        self.assertEqual(
            [worker.killed for worker in self.spawner.starting],
            ["was not wanted any more while it started"] * 3,
        )
        self.bury()
        self.spawner.turn()
        self.assertEqual((self.spawner.spawned, self.dispatcher.idle), (4, 1))
        self.assertEqual(self.pending(), [])

    def test_later_order_in_between(self) -> None:
        """Who wants somewhat fewer keeps of the starts what is still wanted."""
        self.supervise(1, 1, at_once=3)
        self.start_and_boot()
        self.supervisor.scale(50, 50)
        self.spawner.turn()
        self.supervisor.scale(3, 3)
        self.bury()
        self.boot()
        self.assertEqual((self.spawner.spawned, self.dispatcher.idle), (4, 3))

    def test_jobs_that_are_gone(self) -> None:
        """Starts for jobs that were done meanwhile by others are not made."""
        self.supervise(1, 50, at_once=2)
        self.start_and_boot()
        self.submit(5)
        while self.spawner.busy:
            self.spawner.answer(self.spawner.busy[0])
        self.boot()
        self.assertEqual(self.supervisor.size, 3)

    def test_many_leave(self) -> None:
        """If many are too many, they are let go a few in a turn, and all in the end."""
        self.supervise(60, 60)
        self.start_and_boot()
        self.supervisor.scale(1, 1)
        self.assertEqual(len(self.pids()), 60 - rules.LEAVE_AT_ONCE)
        self.spawner.turn()
        self.assertEqual(len(self.pids()), 1)

    def test_stop(self) -> None:
        """A supervisor that is stopped between two starts makes none any more."""
        self.supervise(5, 5)
        self.supervisor.start(self.spawner)
        self.supervisor.stop()
        self.spawner.turn()
        self.assertEqual(self.spawner.spawned, 1)


class RecyclingTests(SupervisorTestCase):
    def recycling(self, worker: FakeWorker) -> None:
        """Tell that the worker has done its jobs, as its link does."""
        self.supervisor.recycle_worker(worker, "it has done 1 jobs")

    def test_replacement_first(self) -> None:
        """A worker to be recycled goes on until its replacement is ready, and then leaves."""
        self.supervise(1, 1)
        self.start_and_boot()
        (old,) = self.spawner.workers
        self.recycling(old)
        self.assertEqual((self.spawner.spawned, self.dispatcher.idle), (2, 1))
        self.submit()
        self.assertIs(self.spawner.busy[0], old)
        self.spawner.answer(old)
        self.boot()
        self.assertTrue(old.stopping)
        self.assertEqual((self.dispatcher.idle, self.supervisor.size), (1, 1))

    def test_busy_when_its_replacement_is_ready(self) -> None:
        """One that is busy then ends its job first, and gets no other."""
        self.supervise(1, 1)
        self.start_and_boot()
        (old,) = self.spawner.workers
        self.submit()
        self.recycling(old)
        self.boot()
        jobs = self.submit(2)
        self.assertIs(jobs[0].worker, self.spawner.workers[1])
        self.spawner.answer(old)
        self.assertTrue(old.stopping)
        self.assertEqual(self.dispatcher.waiting, 1)

    def test_first_that_is_idle(self) -> None:
        """Of several that are due the first leaves that is idle; a long job holds up nothing."""
        self.supervise(3, 3)
        self.start_and_boot()
        jobs = self.submit(3)
        long, *others = (job.worker for job in jobs)
        for worker in list(self.spawner.workers):
            self.recycling(worker)
        for other in others:
            self.boot()
            assert isinstance(other, FakeWorker)
            self.spawner.answer(other)
            self.assertTrue(other.stopping)
            self.bury()
        self.boot()
        assert isinstance(long, FakeWorker)
        self.assertFalse(long.stopping)
        self.spawner.answer(long)
        self.bury()
        self.assertEqual((self.spawner.spawned, self.supervisor.size), (6, 3))

    def test_one_at_a_time(self) -> None:
        """However many are due, there is never more than one worker above the maximum."""
        self.supervise(4, 4)
        self.start_and_boot()
        for worker in list(self.spawner.workers):
            self.recycling(worker)
        self.assertEqual(self.supervisor.size, 5)
        before = {worker.pid for worker in self.spawner.workers[:4]}
        self.turn_over()
        self.assertEqual((self.spawner.spawned, self.supervisor.size), (8, 4))
        self.assertFalse(before.intersection(self.pids()))

    def test_surplus_is_not_replaced(self) -> None:
        """A worker that is recycling and not needed leaves at once."""
        self.supervise(1, 4)
        self.start_and_boot()
        self.submit(2)
        self.boot()
        while self.spawner.busy:
            self.spawner.answer(self.spawner.busy[0])
        self.recycling(self.spawner.workers[0])
        self.assertEqual((self.spawner.spawned, self.supervisor.size), (2, 1))

    def test_replacement_does_not_start(self) -> None:
        """If its replacement cannot be started, the old one serves on, and it is tried again."""
        self.supervise(1, 1)
        self.start_and_boot()
        (old,) = self.spawner.workers
        self.fail_starts()
        self.recycling(old)
        self.pass_time(60)
        (job,) = self.submit()
        self.assertIs(job.worker, old)
        self.repair_starts()
        self.pass_time(failingstarts.LONGEST_DELAY)
        self.spawner.answer(old)
        self.assertTrue(old.stopping)
        self.assertEqual(self.supervisor.size, 1)

    def test_age(self) -> None:
        """A worker that is old enough is replaced."""
        self.supervise(1, 1, recycle_limits=RecycleLimits(age=60))
        self.start_and_boot()
        self.pass_time(59)
        self.assertEqual(self.spawner.spawned, 1)
        self.pass_time(3)
        self.assertEqual(self.spawner.spawned, 2)

    def test_memory(self) -> None:
        """A worker that has grown is replaced, whether it is idle or busy."""
        for busy in (False, True):
            self.supervise(1, 1, recycle_limits=RecycleLimits(memory=10**8))
            self.start_and_boot()
            if busy:
                self.submit()
            (old,) = self.spawner.workers
            old.resident = 10**8
            self.pass_time(2)
            self.assertEqual(self.spawner.spawned, 1)
            old.resident += 1
            self.pass_time(2)
            self.assertEqual(self.spawner.spawned, 2)
            self.assertIsNone(old.killed)

    def test_too_much_memory(self) -> None:
        """A worker that has more memory than it may is killed, and its job told why."""
        self.supervise(1, 1, recycle_limits=RecycleLimits(max_memory=2**20))
        self.start_and_boot()
        (job,) = self.submit()
        (worker,) = self.spawner.workers
        worker.resident = 2**21
        self.pass_time(2)
        self.bury()
        self.assertIn("had 2.0 MiB of memory, where --max-memory is 1", self.ann.failure_of(job))
        self.boot()
        self.assertEqual(self.dispatcher.idle, 1)

    def test_killed_and_not_asked(self) -> None:
        """One that is killed so while it is idle is asked for no sign of life any more."""
        self.supervise(1, 1, recycle_limits=RecycleLimits(max_memory=2**20))
        self.start_and_boot()
        (worker,) = self.spawner.workers
        worker.resident = 2**21
        self.clock.advance(watch.HEARTBEAT + 1)  # the first look finds both at once
        assert worker.killed is not None
        self.assertIn("had 2.0 MiB of memory", worker.killed)
        self.assertEqual(worker.pings, 0)

    def test_not_fit(self) -> None:
        """A worker that is not reusable leaves after its answer, and is replaced."""
        self.start_and_boot()
        first, second = self.submit(2)
        worker = first.worker
        assert isinstance(worker, FakeWorker)
        self.spawner.answer(worker, reusable=False)
        self.assertEqual([answer[0] for answer in self.ann.answers], [first])
        self.assertTrue(worker.stopping)
        self.boot()
        self.assertIn(second.worker, self.spawner.busy)


class HeartbeatTests(SupervisorTestCase):
    def test_lives(self) -> None:
        """An idle worker is asked for a sign of life now and then, and gives it."""
        self.start_and_boot()
        self.pass_time(4 * watch.HEARTBEAT)
        (worker,) = self.spawner.workers
        self.assertGreaterEqual(worker.pings, 3)
        self.assertIsNone(worker.killed)

    def test_frozen(self) -> None:
        """One that does not give it is killed and replaced, and is given no job meanwhile."""
        self.start_and_boot()
        (worker,) = self.spawner.workers
        worker.when_pinged = None
        self.pass_time(watch.HEARTBEAT + watch.HEARTBEAT_PATIENCE + 2)
        self.assertEqual(worker.killed, "gave no sign of life for 5 s and was killed")
        self.submit()
        self.bury()
        self.boot()
        self.assertEqual(self.dispatcher.running, 1)

    def test_frozen_before_a_job(self) -> None:
        """A job that was given to a frozen worker is lost when that is found out, not never."""
        self.start_and_boot()
        (worker,) = self.spawner.workers
        worker.when_pinged = None
        self.pass_time(watch.HEARTBEAT + 1)
        (job,) = self.submit()
        self.pass_time(watch.HEARTBEAT_PATIENCE + 1)
        self.bury()
        self.assertIn("WORKER_LOST", self.ann.failure_of(job))

    def test_does_not_read(self) -> None:
        """One that was frozen when it was given a job, and does not read it, is found out."""
        self.start_and_boot()
        (job,) = self.submit()
        (worker,) = self.spawner.workers
        worker.reads = False
        self.pass_time(watch.HEARTBEAT_PATIENCE - 1)
        self.assertIsNone(worker.killed)
        self.pass_time(3)
        self.bury()
        self.assertIn("did not read what it was sent for 5 s", self.ann.failure_of(job))

    def test_reads_late(self) -> None:
        """One that reads its job late goes on."""
        self.start_and_boot()
        self.submit()
        (worker,) = self.spawner.workers
        for reads in (False, True, False, True):
            worker.reads = reads
            self.pass_time(watch.HEARTBEAT_PATIENCE - 1)
        self.assertIsNone(worker.killed)

    def test_busy(self) -> None:
        """A worker that is busy is not asked."""
        self.start_and_boot()
        self.submit()
        self.pass_time(HOUR, 1)
        (worker,) = self.spawner.workers
        self.assertEqual((worker.pings, worker.killed), (0, None))


NEW = catalogue("Echo", "New")
OLD = catalogue("Echo", "Old")


class ReloadTests(SupervisorTestCase):
    def roll(self, performs: str) -> None:
        """Have all who start say Hello with this catalogue, and all who leave be gone."""
        while self.spawner.starting or len(self.pids()) < len(self.spawner.workers):
            self.spawner.boot_all(performs)
            self.bury()

    def test_rolls(self) -> None:
        """All workers are replaced, one by one, and as many as ever are there all the time."""
        self.supervise(3, 3)
        self.start_and_boot()
        before = set(self.pids())
        done = self.supervisor.reload()
        self.assertEqual(self.supervisor.size, 4)
        for _ in range(3):
            self.assertNoResult(done)
            self.boot()
            self.assertEqual(self.dispatcher.idle, 3)
            self.bury()
        self.successResultOf(done)
        self.assertFalse(before.intersection(self.pids()))
        self.assertEqual((self.supervisor.size, self.supervisor.reloading.generation), (3, 2))
        self.assertEqual(self.supervisor.reloading.state.value, "done")

    def test_fails(self) -> None:
        """If the first new worker does not start, the old ones stay, and the reason is told."""
        self.supervise(2, 2)
        self.start_and_boot()
        before = self.pids()
        done = self.supervisor.reload()
        self.spawner.die(self.spawner.starting[0], "could not start: no module named x")
        self.pass_time(HOUR, 1)
        failed = self.failureResultOf(done, ReloadFailed)
        self.assertIn("could not start: no module named x", str(failed.value))
        self.assertEqual((self.pids(), self.dispatcher.idle), (before, 2))
        self.assertEqual(self.supervisor.reloading.state.value, "failed")
        self.assertEqual(self.supervisor.reloading.generation, 1)

    def test_no_process(self) -> None:
        """If the system has no room for a process, the reload fails with that."""
        self.start_and_boot()
        self.spawner.refusal = OSError(errno.EAGAIN, "Resource temporarily unavailable")
        failed = self.failureResultOf(self.supervisor.reload(), ReloadFailed)
        self.assertIn("Resource temporarily unavailable", str(failed.value))

    def test_again_after_a_failure(self) -> None:
        """After a failure the next reload is tried at once, and may succeed."""
        self.start_and_boot()
        self.failureResultOf(self.fail_reload(), ReloadFailed)
        done = self.supervisor.reload()
        self.turn_over()
        self.successResultOf(done)

    def fail_reload(self) -> Deferred[None]:
        """Reload, with a new worker that does not start."""
        done = self.supervisor.reload()
        self.spawner.die(self.spawner.starting[0], "exited (status 1)")
        return done

    def test_fails_in_the_middle(self) -> None:
        """If a later one does not start, those that are replaced already stay so."""
        self.supervise(2, 2)
        self.start_and_boot()
        done = self.supervisor.reload()
        self.boot()
        self.bury()
        self.spawner.die(self.spawner.starting[0], "exited (status 1)")
        self.failureResultOf(done, ReloadFailed)
        self.pass_time(60)
        generations = sorted(record.generation for record in self.supervisor.records.values())
        self.assertEqual(generations, [1, 2])

    def test_busy(self) -> None:
        """A worker that is busy ends its job, and is replaced then."""
        self.supervise(1, 1)
        self.start_and_boot()
        (job,) = self.submit()
        old = job.worker
        assert isinstance(old, FakeWorker)
        done = self.supervisor.reload()
        self.boot()
        self.assertFalse(old.stopping)
        self.spawner.answer(old)
        self.bury()
        self.successResultOf(done)

    def test_twice(self) -> None:
        """A reload in the middle of another replaces what that has begun, and ends both."""
        self.supervise(2, 2)
        self.start_and_boot()
        first = self.supervisor.reload()
        self.boot()
        second = self.supervisor.reload()
        self.turn_over()
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual({record.generation for record in self.supervisor.records.values()}, {3})

    def test_while_one_starts(self) -> None:
        """A worker that was still starting, with whatever code, is started anew."""
        self.start()
        (early,) = self.spawner.workers
        done = self.supervisor.reload()
        self.assertIsNotNone(early.killed)
        self.bury()
        self.boot()
        self.successResultOf(done)

    def test_without_workers(self) -> None:
        """With no worker at all, one is started to see whether the code can be served."""
        self.supervise(0, 2)
        self.start()
        done = self.supervisor.reload()
        self.boot()
        self.successResultOf(done)

    def test_recovers_from_broken_code(self) -> None:
        """When workers cannot start, a reload tries at once instead of at the next try."""
        self.start()
        self.fail_starts()
        self.pass_time(100)
        self.repair_starts()
        done = self.supervisor.reload()
        self.pass_time(0.1)
        self.successResultOf(done)
        self.assertEqual(self.dispatcher.idle, 1)

    def test_server_stops(self) -> None:
        """A reload that is under way when the server stops, or comes later, fails with that."""
        self.start_and_boot()
        done = self.supervisor.reload()
        self.supervisor.stop()
        for asked in (done, self.supervisor.reload()):
            self.assertIn("stopping", str(self.failureResultOf(asked, ReloadFailed).value))

    def test_caller_gone(self) -> None:
        """That nobody waits for the end any more does not end the reload."""
        self.start_and_boot()
        done = self.supervisor.reload()
        done.addErrback(lambda _: None)
        done.cancel()
        self.turn_over()
        self.assertEqual(self.supervisor.reloading.state.value, "done")

    def test_new_and_old_commands(self) -> None:
        """New commands come with the first new worker, old ones go with the last old one."""
        self.supervise(2, 2)
        self.start()
        self.spawner.boot_all(OLD)
        old_workers = list(self.spawner.workers)
        self.supervisor.reload()
        self.spawner.boot_all(NEW)
        self.bury()
        (new,) = [worker for worker in self.spawner.idle if worker not in old_workers]
        old_job, new_job = (make_job(self.ann, name) for name in ("Old", "New"))
        self.dispatcher.submit(old_job)
        self.dispatcher.submit(new_job)
        self.assertIn(old_job.worker, old_workers)
        self.assertIs(new_job.worker, new)
        described = self.successResultOf(self.dispatcher.describe())
        self.assertEqual(described, catalogue("Echo", "New", "Old"))
        waiting = make_job(self.ann, "Old")
        self.dispatcher.submit(waiting)
        assert isinstance(old_job.worker, FakeWorker)
        self.spawner.boot_all(NEW)
        self.spawner.answer(old_job.worker)
        self.bury()
        self.assertIn("UNHANDLED", self.ann.failure_of(waiting))
        self.assertEqual(self.successResultOf(self.dispatcher.describe()), NEW)

    def test_code_that_changed_by_itself(self) -> None:
        """If a replacement performs other commands than the rest, the rest is replaced, too."""
        self.supervise(2, 2)
        self.start()
        self.spawner.boot_all(OLD)
        self.pass_time(failingstarts.PROBATION + 1)
        self.spawner.die(self.spawner.idle[0])
        self.roll(NEW)
        self.assertEqual((self.spawner.spawned, self.supervisor.size), (4, 2))
        self.assertEqual(self.successResultOf(self.dispatcher.describe()), NEW)


class ReliefTests(SupervisorTestCase):
    """One client's jobs have both workers, and another's wait."""

    def setUp(self) -> None:
        """Have both workers perform jobs of Ann's, which has two more waiting."""
        super().setUp()
        self.supervise(2, 2, relief_after=5.0)
        self.start_and_boot()
        self.bob = FakeClient("bob")
        self.running = self.submit(4)[:2]
        self.holders = list(self.spawner.workers)

    def submit_for_bob(self) -> Job:
        """A job of Bob's."""
        job = make_job(self.bob)
        self.dispatcher.submit(job)
        return job

    def wait(self, seconds: float) -> None:
        """Let time pass, and what is started meanwhile say Hello."""
        for _ in range(round(2 * seconds)):
            self.clock.advance(0.5)
            self.boot()

    def test_alone(self) -> None:
        """A client that is alone has all workers, for as long as it likes."""
        self.wait(HOUR / 60)
        self.assertEqual(len(self.spawner.workers), 2)
        self.spawner.answer(self.holders[0])
        self.assertEqual((self.dispatcher.running, self.dispatcher.waiting), (2, 1))

    def test_relieved(self) -> None:
        """After some seconds there is a worker more, for Bob's jobs and not for Ann's."""
        job = self.submit_for_bob()
        self.wait(4)
        self.assertEqual(len(self.spawner.workers), 2)
        self.wait(3)
        (relief,) = set(self.spawner.workers) - set(self.holders)
        self.assertIs(relief.job, job)
        self.spawner.answer(relief)
        self.assertIsNone(relief.job)
        next_job = self.submit_for_bob()
        self.assertIs(relief.job, next_job)
        self.assertEqual({worker.job for worker in self.holders}, set(self.running))

    def test_never_more_than_one(self) -> None:
        """If that is busy, too, others wait."""
        self.submit_for_bob()
        self.submit_for_bob()
        self.wait(60)
        self.assertEqual(len(self.spawner.workers), 3)

    def test_not_while_jobs_start(self) -> None:
        """As long as workers become free now and then, turns are enough."""
        for _ in range(10):
            self.submit_for_bob()
        for _ in range(5):
            self.wait(4)
            worker = next(each for each in self.holders if each.job is not None)
            self.spawner.answer(worker)
            self.assertEqual(len(self.spawner.workers), 2)

    def test_not_while_jobs_start_between_looks(self) -> None:
        """So it is if a job starts and ends before anybody looks, and the next comes at once."""
        self.submit(10)
        for _ in range(5):
            job = self.submit_for_bob()
            self.wait(4)
            self.spawner.answer(self.holders[0])
            self.assertIs(self.holders[0].job, job)
            self.spawner.answer(self.holders[0])
        self.assertEqual(self.spawner.workers, self.holders)

    def test_leaves_when_nobody_needs_it(self) -> None:
        """It leaves when it has had nothing to do for a while, and comes again if need be."""
        self.submit_for_bob()
        self.wait(7)
        (relief,) = set(self.spawner.workers) - set(self.holders)
        self.spawner.answer(relief)
        self.wait(60)
        self.assertTrue(relief.stopping)
        self.bury()
        self.wait(60)
        self.assertEqual(self.spawner.workers, self.holders)
        job = self.submit_for_bob()
        self.wait(7)
        self.assertIn(job, [worker.job for worker in self.spawner.workers])

    def test_ends_with_the_hold(self) -> None:
        """Once a job of the client's has ended, as many workers are left as may be."""
        self.submit_for_bob()
        self.wait(7)
        for worker in list(self.spawner.workers):
            self.spawner.answer(worker)
            self.wait(2)
        self.wait(60)
        self.assertEqual(len([each for each in self.spawner.workers if not each.stopping]), 2)
        while any(worker.job for worker in self.spawner.workers):
            for worker in list(self.spawner.workers):
                if worker.job is not None:
                    self.spawner.answer(worker)
        self.assertEqual(self.dispatcher.waiting, 0)

    def test_never(self) -> None:
        """It can be switched off."""
        self.supervise(2, 2, relief_after=0.0)
        self.start_and_boot()
        self.submit(2)
        self.submit_for_bob()
        self.wait(60)
        self.assertEqual(len(self.spawner.workers), 2)
