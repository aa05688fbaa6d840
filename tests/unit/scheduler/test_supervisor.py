"""How many workers there are, when they start and leave: most of it told in short stories.

Workers are ``w1``, ``w2`` and so on, in the order of their starts. ``of 2-4 spare=1`` is a
supervisor of 2 to 4 workers that keeps a spare one, ``go`` has it start them, and them say Hello.
"""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any, ClassVar

from dangad.errors import NoWorkers, ReloadFailed
from dangad.scheduler import failingstarts, watch
from dangad.scheduler import supervisor as rules
from dangad.scheduler.dispatcher import Dispatcher
from dangad.scheduler.supervisor import Supervisor
from dangad.scheduler.workerrecord import RecycleLimits, WorkerState
from tests.fakes import FakeSpawner, FakeWorker, catalogue, make_job
from tests.unit.scheduler.stories import StoryTestCase, types, value_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IDelayedCall
    from twisted.internet.task import Clock

    from dangad.scheduler.record import Job
    from tests.unit.telling import Deeds

HOUR = 3600
NO_PROCESS = "Resource temporarily unavailable"
LIMITS = ("age", "memory", "max_memory")


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


class SupervisorTestCase(StoryTestCase):
    """A supervisor with a real dispatcher, a clock, and workers that are no processes."""

    deeds: ClassVar[Deeds] = StoryTestCase.deeds | {
        "types": lambda case, *words: setattr(case, "code", types(words)),
        "jobs": lambda case, count: case.submit(int(count)),  # the next of j1, j2 and so on
        "answers": lambda case, worker: case.spawner.answer(worker),
        "spoils": lambda case, worker: case.spawner.answer(worker, reusable=False),
        "dies": lambda case, worker, *how: case.spawner.die(worker, *how),
        "boots": lambda case, worker: case.spawner.boot(worker, case.code),
        "turn": lambda case: case.spawner.turn(),
        "slow": lambda case: setattr(case, "failing", ""),  # starts wait for the story to go on
        "no_process": lambda case: setattr(case.spawner, "refusal", OSError(11, NO_PROCESS)),
        "hour": lambda case: case.do_pass(HOUR, 1.0),
        "scale": lambda case, least, most: case.supervisor.scale(int(least), int(most)),
        "grows": lambda _, worker, size: setattr(worker, "resident", int(size)),
        "freezes": lambda _, worker: setattr(worker, "when_pinged", None),
        "stops_reading": lambda _, worker: setattr(worker, "reads", False),
        "reads": lambda _, worker: setattr(worker, "reads", True),
        "reload": lambda case: setattr(case, "asked", case.supervisor.reload()),
        "preparing": lambda case: setattr(case.spawner, "prompt", False),  # new code takes time
        "prepared": lambda case, *why_not: case.spawner.prepare(*why_not),
        "stop": lambda case: case.supervisor.stop(),
        "flush": lambda case: case.dispatcher.state.quiet.flush(),  # the log of many deaths
    }
    facts: ClassVar[Deeds] = StoryTestCase.facts | {
        "size": lambda case: case.supervisor.size,
        "spawned": lambda case: case.spawner.spawned,  # workers, ever
        "starting": lambda case: len(case.spawner.starting),
        "alive": lambda case: [case.name_of(worker) for worker in case.staying()],
        "alive_count": lambda case: len(case.staying()),
        "quiet": lambda case: case.pending(),  # nothing waits for its time
        "leaves": lambda _, worker: [] if worker.stopping else ["it stays"],
        "pinged": lambda _, worker: worker.pings,
        "explained": lambda case: ["yes" if case.supervisor.failing.why else "no"],
        "proven": lambda case: ["yes" if each else "no" for each in case.spawner.proven],
        "reloading": lambda case: [
            case.supervisor.reloading.state.value,
            case.supervisor.reloading.generation,
        ],
        "generations": lambda case: sorted(r.generation for r in case.supervisor.records.values()),
        "described": lambda case: [
            entry["name"]
            for entry in json.loads(case.successResultOf(case.dispatcher.describe()))["commands"]
        ],
    }

    def begin_anew(self) -> None:
        """Have a supervisor of 1 to 4."""
        super().begin_anew()
        self.code = catalogue("Echo")
        self.failing = ""
        self.asked: Deferred[None] | None = None
        self.supervise(1, 4)

    def supervise(
        self, min_workers: int, max_workers: int, *, quarantine_after: int = 5, **options: Any
    ) -> None:
        """Make a supervisor of this size, not yet started."""
        limits = {name: options.pop(name) for name in LIMITS if name in options}
        self.dispatcher = Dispatcher(self.clock, 10_000, quarantine_after=quarantine_after)
        self.supervisor = Supervisor(
            self.clock,
            self.dispatcher,
            min_workers,
            max_workers,
            options.pop("spare", 0),
            RecycleLimits(**limits),
            starts_at_once=options.pop("at_once", 100),
            relief_after=options.pop("relief_after", 0.0),
        )
        self.assertEqual(options, {})
        self.spawner = TurningSpawner(self.supervisor, self.dispatcher, self.clock)
        self.spawner.when_spawned = self.name_it
        self.named = {}

    def name_it(self, worker: FakeWorker) -> None:
        """Give a worker that was started its name, and its fate."""
        self.named[f"w{len(self.named) + 1}"] = worker
        if self.failing == "no more":
            self.clock.callLater(0, self.spawner.boot, worker, self.code)
        elif self.failing:
            self.clock.callLater(0, self.spawner.die, worker, self.failing)

    def submit(self, count: int = 1) -> list[Job]:
        """So many new jobs of Ann's."""
        jobs = [make_job(self.ann) for _ in range(count)]
        for job in jobs:
            self.jobs[f"j{len(self.jobs) + 1}"] = job
            self.owners[job] = self.ann
            self.dispatcher.submit(job)
        self.spawner.turn()
        return jobs

    def pending(self) -> list[IDelayedCall]:
        """The calls that wait, but for the next look at all workers, which is one in a second."""
        calls = self.clock.getDelayedCalls()
        soon = self.clock.seconds() + rules.WATCH_INTERVAL
        looks = [call for call in calls if call.getTime() <= soon]
        return [call for call in calls if call not in looks[:1]]

    def staying(self) -> list[FakeWorker]:
        """The workers that have not been asked to stop."""
        return [worker for worker in self.spawner.workers if not worker.stopping]

    # What happens in stories.

    def do_of(self, size: str, *options: str) -> None:
        """There is a supervisor of this size, with these options."""
        pairs: dict[str, Any] = {
            name: value_of(value) for name, _, value in (each.partition("=") for each in options)
        }
        least, _, most = size.partition("-")
        self.supervise(int(least), int(most), **pairs)

    def do_start(self) -> None:
        """The supervisor begins."""
        self.supervisor.start(self.spawner)
        self.spawner.turn()

    def do_boot(self, *workers: str) -> None:
        """These workers say Hello, or all that start."""
        for name in workers:
            self.spawner.boot(self.named[name], self.code)
        if not workers:
            self.spawner.boot_all(self.code)

    def do_go(self) -> None:
        """The supervisor begins, with workers that are ready at once."""
        self.do_start()
        self.do_boot()

    def do_all_answer(self) -> None:
        """Each worker answers that has a job, until none has."""
        while self.spawner.busy:
            self.spawner.answer(self.spawner.busy[0])

    def do_lose(self) -> None:
        """A job comes, its worker dies of it, and the next says Hello."""
        self.submit()
        for worker in self.spawner.busy:
            self.spawner.die(worker)
        self.do_boot()

    def do_bury(self) -> None:
        """All who were asked to stop, or killed, are gone."""
        for worker in list(self.spawner.workers):
            if worker.stopping or worker.killed is not None:
                self.spawner.die(worker)

    def do_kill_all(self) -> None:
        """All workers die in one turn of the reactor."""
        for worker in list(self.spawner.workers):
            FakeSpawner.die(self.spawner, worker)
        self.spawner.turn()

    def do_turn_over(self) -> None:
        """All who start say Hello, and all who leave are gone, until nothing changes."""
        while self.spawner.starting or len(self.staying()) < len(self.spawner.workers):
            self.do_boot()
            self.do_bury()

    def do_fail(self, how: str = "exited (status 1)") -> None:
        """Each start from now on fails at the next turn of the clock."""
        self.failing = how
        for worker in self.spawner.starting:
            self.spawner.die(worker, how)

    def do_repair(self) -> None:
        """Each start from now on succeeds at the next turn of the clock."""
        self.spawner.refusal = None
        self.failing = "no more"

    def do_pass(self, seconds: str | float, step: str | float = 0.05) -> None:
        """Time passes in small steps, as in a reactor."""
        for _ in range(round(float(seconds) / float(step))):
            self.clock.advance(float(step))

    def do_recycle(self, *workers: str) -> None:
        """These workers have done their jobs, as their links tell."""
        for name in workers:
            self.supervisor.recycle_worker(self.named[name], "it has done 1 jobs")

    # What is true then.

    def see_reloaded(self, error: str = "") -> None:
        """The reload has succeeded, or failed with this."""
        assert self.asked is not None
        if error:
            self.assertIn(error, str(self.failureResultOf(self.asked, ReloadFailed).value))
        else:
            self.successResultOf(self.asked)

    def see_not_reloaded(self) -> None:
        """The reload has not come to its end."""
        assert self.asked is not None
        self.assertNoResult(self.asked)


SURPLUS = "go, jobs 4, boot, all_answer"
"""Four workers that have nothing to do any more."""
SIZES = {
    "at the start there is the minimum": "of 3-5, quiet, spawned 0, go, spawned 3",
    "or a worker for each job that waits": "of 1-5, jobs 3, spawned 0, go, spawned 3, busy 3",
    "or none": "of 0-5, go, spawned 0",
    "for each job that waits a worker is started, those counted that start already": """
        go, jobs 1, spawned 1, jobs 1, spawned 2, jobs 1, spawned 3, boot, all_answer, jobs 1
        spawned 3
    """,
    "however many jobs wait, there are never more workers than the maximum": """
        go, jobs 100, boot, size 4, busy 4, w2 dies, size 4
    """,
    "while a worker is idle, jobs that may not start are no reason for more workers": f"""
        of 2-4, go, hold ann, jobs 10, wait {failingstarts.PROBATION}, w1 dies, size 2
    """,
    "paused jobs are no reason for more workers, and neither are they the reason for none": f"""
        of 0-3, pause Echo, go, jobs 10, spawned 0, resume, boot, size 3, busy 3, pause, all_answer
        pass {3 * rules.IDLE_TIME}, size 0, waiting 7
    """,
    "one job that may start brings one worker, however many are paused": """
        of 0-5, types Echo Other, pause Echo, go, jobs 10, bob: b/Other, boot, spawned 1, w1 runs b
        bob: c/Other, boot, spawned 2, w2 runs c, bob: d/Other, boot, spawned 3
    """,
    "a worker above the minimum that dies with nothing to do is not replaced": f"""
        {SURPLUS}, w1 dies, size 3
    """,
    "one that has nothing to do for long is asked to stop; if it is missed, another starts": f"""
        {SURPLUS}, pass {2 * rules.IDLE_TIME}, size 1, jobs 1, spawned 4, bury, jobs 1, boot
        spawned 5, busy 2
    """,
    "however long a job takes, its worker is not surplus, nor is one that is used": f"""
        go, jobs 2, boot, 20x w2 works_on, alive w1 w2, w1 answers, w2 answers
        pass {3 * rules.IDLE_TIME}, size 1
    """,
    "with a minimum of none, workers come when jobs do, and go after them": f"""
        of 0-2, start, spawned 0, jobs 1, boot, busy 1, w1 answers, pass {2 * rules.IDLE_TIME}
        size 0
    """,
}
DEATHS = {
    "a worker that dies busy is replaced at once, and its job is lost": """
        go, jobs 1, w1 dies "was killed by SIGSEGV", j1 told "was killed by SIGSEGV", spawned 2
        boot, idle 1
    """,
    "one that dies idle after work is replaced at once": """
        go, jobs 1, w1 answers, w1 dies, turn, spawned 2, idle 0
    """,
    "so is one after a while": f"""
        go, wait {failingstarts.PROBATION}, w1 dies, turn, spawned 2, idle 0
    """,
    "and the first time": "go, w1 dies, turn, spawned 2, idle 0",
    "if all workers are killed at once the minimum is there again in a moment": """
        of 4-8, go, jobs 4, kill_all, size 4
    """,
    "if all idle ones are killed at once they are replaced without a growing delay": f"""
        of 8-8, go, kill_all, size 8, boot, pass 1, kill_all
        pass {failingstarts.FIRST_DELAY + 0.05}, size 8
    """,
    "a client that tries again in the moment of the loss does not make the pool too large": """
        of 1-1, go, jobs 1, ann reacts: jobs 1, w1 dies, size 1, boot, ann reacts: jobs 1, w2 dies
        size 1, boot, busy 1
    """,
    "jobs that kill their workers cost a start each, and no delay for the next job": """
        of 1-4 quarantine_after=0, go, 50x lose, flush, spawned 51, quiet
    """,
    "a command that keeps killing its workers costs five of them, and then none": """
        go, 50x lose, spawned 6, idle 1
    """,
}
FAILURES = {
    "eight workers that fail for one reason are tried again as soon as one that fails": """
        of 8-8, start, fail, 2x wait 0, repair, pass 0.2, idle 8
    """,
    "when starts succeed again the pool is whole with the next try": f"""
        of 2-4, fail, start, hour, repair, pass {failingstarts.LONGEST_DELAY + 1}, idle 2
    """,
    "from the first failure on it is told why no worker serves, until one does": """
        of 0-1, fail, start, explained no, jobs 1, wait 0, explained yes, repair, pass 1
        busy 1, explained no, flush, busiest answers, pass 60, size 0, explained no
    """,
    "failures before a good start do not slow down the replacement of what fails later": """
        fail, start, hour, repair, pass 60, slow, jobs 4, starting 3, newest dies, starting 3
    """,
    "once a worker has done some work, earlier failures slow nothing down any more": """
        jobs 1, fail, start, pass 2, repair, pass 1.5, busy 1, slow, busiest dies, starting 1
        newest dies, turn, size 1
    """,
    "when the last worker dies at its work, a new one is tried at once, failures or not": """
        of 2-2, start, boot w1, fail, pass 300, jobs 1, slow, starting 0, w1 dies, starting 2
    """,
    "a system that cannot start a process is asked again, and what it said is passed on": f"""
        no_process, start, jobs 1, pass {failingstarts.PATIENCE + 1}, j1 told "NO_WORKERS: no worker
        can be started: no process can be started: {NO_PROCESS}", repair, pass 60, idle 1
    """,
    "while starts fail jobs wait for some seconds, and are then refused with the reason": f"""
        start, jobs 1, pass 1, fail "exited (status 1)", pass {failingstarts.PATIENCE - 0.5}
        ann failures 0, pass 1, j1 told "NO_WORKERS: no worker can be started: worker"
        j1 told "exited (status 1)", jobs 1, j2 told NO_WORKERS
    """,
    "so are those that need a worker which has had no job, but no others": f"""
        of 1-2, types Echo Alone:isolate=yes, go, ann: a, w1 answers, fail, ann: b/Alone
        pass {failingstarts.PATIENCE - 0.5}, ann failures 0, pass 1
        b told "NO_WORKERS: no worker can be started: worker", ann: c, w1 answers, ann failures 1
        repair, ann: d/Alone, pass 60, ann failures 1, busy 1
    """,
    "not even if there is only one worker, which would have to make room": f"""
        of 1-1, types Echo Alone:isolate=yes, go, ann: a, w1 answers, fail, ann: b/Alone
        pass {failingstarts.PATIENCE + 1}, b told NO_WORKERS, ann: c, w1 runs c, w1 answers
        repair, ann: d/Alone, pass 60, busy 1, ann failures 1
    """,
    "if a worker was ready for a moment, jobs wait as long again for the next": f"""
        fail, start, pass 3, repair, pass 1, fail, idlest dies, jobs 1
        pass {failingstarts.PATIENCE - 0.5}, ann failures 0, pass 1, ann failures 1
    """,
    "the reason that clients are told is that of the latest failure": """
        fail "exited (status 1)", start, pass 60, fail "exited (status 7)", pass 60, jobs 1
        j1 told "(status 7)"
    """,
    "jobs wait for a worker that only takes its time to start": f"""
        start, jobs 1, pass {rules.START_TIMEOUT - 1}, ann failures 0, boot, busy 1
    """,
    "as long as one worker serves, no job is refused, whatever other starts do": """
        of 2-2, start, fail, wait 0, slow, wait 0.2, newest boots, fail, jobs 3, pass 120
        ann failures 0
    """,
    "after NO_WORKERS the first worker that is ready makes the server accept jobs again": f"""
        of 1-2, fail, start, jobs 1, pass 20, ann failures 1, repair
        pass {failingstarts.LONGEST_DELAY + 1}, jobs 1, ann failures 1
    """,
    "it is looked for even if none need live, and refused jobs are no demand for any": f"""
        of 0-2, fail, start, jobs 1, pass 20, ann failures 1, repair
        pass {failingstarts.LONGEST_DELAY + 1}, jobs 1, ann failures 1
    """,
    "a worker that does not say Hello in time is killed, and counts as a failed start": f"""
        start, jobs 1, pass {rules.START_TIMEOUT + 0.1}
        w1 killed "did not start within 60 s (--start-timeout), and was killed", w1 dies
        pass {failingstarts.PATIENCE + 0.1}, j1 told "worker {{w1}} did not start within 60 s"
        spawned 2
    """,
    "a worker that said Hello in time is left alone": f"""
        start, pass {rules.START_TIMEOUT - 1}, boot, pass 10, w1 undisturbed, quiet
    """,
}
SCALES = {
    "with a spare worker, one is idle as long as there may be more, whatever is busy": """
        of 1-3 spare=1, go, idle 1, jobs 1, busy 1, boot, idle 1, jobs 1, busy 2, boot, idle 1
        jobs 1, boot, busy 3, size 3
    """,
    "spares are counted above the busy workers, not above the minimum": """
        of 2-8 spare=2, go, size 2, jobs 1, size 3
    """,
    "when the busy are idle again, all but the minimum and the spares leave after a time": f"""
        of 0-8 spare=1, go, jobs 4, boot, all_answer, pass {2 * rules.IDLE_TIME}, bury, size 1
    """,
    "more workers are started at once": "go, scale 3 5, boot, size 3, idle 3",
    "of idle workers those beyond the new maximum leave at once": """
        of 4-4, go, scale 1 1, size 1, idle 1
    """,
    "busy workers beyond the new maximum end their jobs first, and get no others": """
        of 3-3, go, jobs 5, scale 1 1, busy 3, all_answer, done j1-5, size 1
    """,
    "only a few are starting at a time; each that is ready, or fails, makes room for one": """
        of 1-1 at_once=3, go, scale 50 50, turn, starting 3, boot w3, starting 3, idle 2
        w2 dies, starting 3, boot, starting 0, idle 50
    """,
    "who wants fewer has the starts of an earlier order stopped, and no more made": """
        of 1-1 at_once=3, go, scale 50 50, turn, scale 1 1, bury, turn, spawned 4, idle 1, quiet
        w4 killed "was not wanted any more while it started"
    """,
    "who wants somewhat fewer keeps of the starts what is still wanted": """
        of 1-1 at_once=3, go, scale 50 50, turn, scale 3 3, bury, boot, spawned 4, idle 3
    """,
    "starts for jobs that were done meanwhile by others are not made": """
        of 1-50 at_once=2, go, jobs 5, all_answer, boot, size 3
    """,
    "if many are too many, they are let go a few in a turn, and all in the end": f"""
        of 60-60, go, scale 1 1, alive_count {60 - rules.LEAVE_AT_ONCE}, turn, alive_count 1
    """,
}
RECYCLING = {
    "a worker to be recycled goes on until its replacement is ready, and then leaves": """
        of 1-1, go, recycle w1, spawned 2, idle 1, jobs 1, w1 runs j1, w1 answers, boot, w1 leaves
        idle 1, size 1
    """,
    "one that is busy then ends its job first, and gets no other": """
        of 1-1, go, jobs 1, recycle w1, boot, jobs 2, w2 runs j2, w1 answers, w1 leaves, waiting 1
    """,
    "of several that are due the first leaves that is idle; a long job holds up nothing": """
        of 3-3, go, jobs 3, recycle w1 w2 w3, boot, w1 answers, w1 leaves, bury, boot, w2 answers
        w2 leaves, bury, boot, alive w3 w4 w5 w6, w3 answers, bury, spawned 6, size 3
    """,
    "however many are due, there is never more than one worker above the maximum": """
        of 4-4, go, recycle w1 w2 w3 w4, size 5, turn_over, spawned 8, alive w5 w6 w7 w8
    """,
    "a worker that is recycling and not needed leaves at once": """
        go, jobs 2, boot, all_answer, recycle w1, spawned 2, size 1
    """,
    "if its replacement cannot be started, the old one serves on, and it is tried again": f"""
        of 1-1, go, fail, recycle w1, pass 60, jobs 1, w1 runs j1, repair
        pass {failingstarts.LONGEST_DELAY}, w1 answers, w1 leaves, size 1
    """,
    "a worker that is old enough is replaced": """
        of 1-1 age=60, go, pass 59, spawned 1, pass 3, spawned 2
    """,
    "a worker that has grown is replaced when it is idle": """
        of 1-1 memory=100, go, w1 grows 100, pass 2, spawned 1, w1 grows 101, pass 2, spawned 2
        w1 undisturbed
    """,
    "or busy": """
        of 1-1 memory=100, go, jobs 1, w1 grows 100, pass 2, spawned 1, w1 grows 101, pass 2
        spawned 2, w1 undisturbed
    """,
    "a worker that has more memory than it may is killed, and its job told why": f"""
        of 1-1 max_memory={2**20}, go, jobs 1, w1 grows {2**21}, pass 2, bury
        j1 told "had 2.0 MiB of memory, where --max-memory is 1", boot, idle 1
    """,
    "one that is killed so while it is idle is asked for no sign of life any more": f"""
        of 1-1 max_memory={2**20}, go, w1 grows {2**21}, wait {watch.HEARTBEAT + 1}
        w1 killed "had 2.0 MiB of memory", w1 pinged 0
    """,
    "a worker that is not reusable leaves after its answer, and is replaced": """
        go, jobs 2, w1 spoils, ann answered j1, w1 leaves, boot, running j2
    """,
}
HEARTBEATS = {
    "an idle worker is asked for a sign of life now and then, and gives it": f"""
        go, pass {4 * watch.HEARTBEAT}, w1 pinged 3, w1 undisturbed
    """,
    "one that does not give it is killed and replaced, and is given no job meanwhile": f"""
        go, w1 freezes, pass {watch.HEARTBEAT + watch.HEARTBEAT_PATIENCE + 2}
        w1 killed "gave no sign of life for 5 s and was killed", jobs 1, bury, boot, busy 1
    """,
    "a job that was given to a frozen worker is lost when that is found out, not never": f"""
        go, w1 freezes, pass {watch.HEARTBEAT + 1}, jobs 1, pass {watch.HEARTBEAT_PATIENCE + 1}
        bury, j1 told WORKER_LOST
    """,
    "one that was frozen when it was given a job, and does not read it, is found out": f"""
        go, jobs 1, w1 stops_reading, pass {watch.HEARTBEAT_PATIENCE - 1}, w1 undisturbed, pass 3
        bury, j1 told "did not read what it was sent for 5 s"
    """,
    "one that reads its job late goes on": f"""
        go, jobs 1, w1 stops_reading, pass {watch.HEARTBEAT_PATIENCE - 1}, w1 reads
        pass {watch.HEARTBEAT_PATIENCE - 1}, w1 stops_reading, pass {watch.HEARTBEAT_PATIENCE - 1}
        w1 reads, pass {watch.HEARTBEAT_PATIENCE - 1}, w1 undisturbed
    """,
    "a worker that is busy is not asked": f"""
        go, jobs 1, pass {HOUR} 1, w1 pinged 0, w1 undisturbed
    """,
}
RELOADS = {
    "all workers are replaced, one by one, and as many as ever are there all the time": """
        of 3-3, go, reload, size 4, not_reloaded, boot, idle 3, bury, not_reloaded, boot, idle 3
        bury, not_reloaded, boot, idle 3, bury, reloaded, alive w4 w5 w6, reloading done 2
    """,
    "if the first new worker does not start, the old ones stay, and the reason is told": f"""
        of 2-2, go, reload, w3 dies "could not start: no module named x", pass {HOUR} 1, proven no
        reloaded "could not start: no module named x", alive w1 w2, idle 2, reloading failed 1
    """,
    "until the new code is prepared, workers are started with the old": """
        of 2-2, go, preparing, reload, w1 dies, boot, alive w2 w3, generations 1 1, not_reloaded
        prepared, boot, proven yes, alive w3 w4, bury, turn_over, reloaded
        generations 2 2, proven yes
    """,
    "and one of these that does not start is none of the reload's": """
        of 2-2, go, preparing, reload, w1 dies, w3 dies "could not start: x", not_reloaded
    """,
    "if it cannot be prepared, the old workers stay, and the reason is told": f"""
        of 2-2, go, preparing, reload, prepared "no module named x", pass {HOUR} 1
        reloaded "no module named x", alive w1 w2, idle 2, reloading failed 1
    """,
    "if the code changes meanwhile, both reloads end with the last code": """
        go, preparing, reload, reload, prepared, turn_over, reloaded, generations 2
    """,
    "that it is prepared when the server stops is too late": """
        go, preparing, reload, stop, prepared, reloaded stopping, starting 0
    """,
    "if the system has no room for a process, the reload fails with that": f"""
        go, no_process, reload, reloaded "{NO_PROCESS}"
    """,
    "after a failure the next reload is tried at once, and may succeed": """
        go, reload, w2 dies, reloaded "was killed", reload, turn_over, reloaded
    """,
    "if a later one does not start, those that are replaced already stay so": """
        of 2-2, go, reload, boot, bury, w4 dies, reloaded "was killed", pass 60, generations 1 2
    """,
    "a worker that is busy ends its job, and is replaced then": """
        of 1-1, go, jobs 1, reload, boot, alive w1 w2, w1 answers, bury, reloaded
    """,
    "a reload in the middle of another replaces what that has begun": """
        of 2-2, go, reload, boot, reload, turn_over, reloaded, generations 3 3
    """,
    "a worker that was still starting, with whatever code, is started anew": """
        start, reload, w1 killed, bury, boot, reloaded
    """,
    "with no worker at all, one is started to see whether the code can be served": """
        of 0-2, start, reload, boot, reloaded
    """,
    "when workers cannot start, a reload tries at once instead of at the next try": """
        start, fail, pass 100, repair, reload, pass 0.1, reloaded, idle 1
    """,
    "a reload that is under way when the server stops, or comes later, fails with that": """
        go, reload, stop, reloaded stopping, reload, reloaded stopping
    """,
    "new commands come with the first new worker, old ones go with the last old one": """
        of 2-2, types Echo Old, go, types Echo New, reload, boot, bury, ann: old/Old new/New
        w2 runs old, w3 runs new, described Echo New Old, ann: late/Old, boot, w2 answers, bury
        late told UNHANDLED, described Echo New
    """,
    "if a replacement performs other commands than the rest, the rest is replaced, too": f"""
        of 2-2, types Echo Old, go, pass {failingstarts.PROBATION + 1}, w1 dies, types Echo New
        turn_over, spawned 4, size 2, described Echo New
    """,
}
HELD = "of 2-2 relief_after=5.0, go, jobs 4"
"""One client's jobs have both workers."""
RELIEF = {
    "a client that is alone has all workers, for as long as it likes": f"""
        {HELD}, live 60, alive w1 w2, w1 answers, busy 2, waiting 1
    """,
    "after some seconds there is a worker more, for Bob's jobs and not for Ann's": f"""
        {HELD}, bob: b1, live 4, alive w1 w2, live 3, w3 runs b1, w3 answers, w3 runs nothing
        bob: b2, w3 runs b2, running j1-2
    """,
    "if that is busy, too, others wait": f"{HELD}, bob: b1-2, live 60, alive w1 w2 w3",
    "as long as workers become free now and then, turns are enough": f"""
        {HELD}, bob: b1-10, live 4, w1 answers, live 4, w2 answers, live 4, w1 answers, live 4
        w2 answers, alive w1 w2
    """,
    "so it is if a job starts and ends before anybody looks, and the next comes at once": f"""
        {HELD}, jobs 10, bob: b1, live 4, w1 answers, w1 runs b1, w1 answers
        bob: b2, live 4, w1 answers, w1 runs b2, w1 answers, bob: b3, live 4, alive w1 w2
    """,
    "it leaves when it has had nothing to do for a while, and comes again if need be": f"""
        {HELD}, bob: b1, live 7, w3 answers, live 60, w3 leaves, bury, live 60, alive w1 w2
        bob: b2, live 7, running b2
    """,
    "once a job of the client's has ended, as many workers are left as may be": f"""
        {HELD}, bob: b1, live 7, w1 answers, live 2, w2 answers, live 2, w3 answers, live 60
        alive_count 2, all_answer, waiting 0
    """,
    "it can be switched off": "of 2-2, go, jobs 2, bob: b, live 60, alive w1 w2",
}
LEAVING = {
    "two workers are replaced whose jobs do not end, each further one when it is gone": """
        of 3-3, go, jobs 3, cancel j1-3, boot, spawned 5, size 2, jobs 2, cancel j4-5, boot
        spawned 5, size 0, w1 dies, boot, size 1, w2 dies, boot, size 2, w3 dies, boot, size 3
        w4 dies, boot, size 3, spawned 8
    """,
    "and so it is with workers that are let go after their jobs, and take their time": """
        of 3-3, go, jobs 3, w1 spoils, w2 spoils, w3 spoils, boot, spawned 5, size 2, w1 dies, boot
        spawned 6, size 3
    """,
}


class StoryTests(SupervisorTestCase):
    """What is told in stories."""

    def find(self, name: str) -> Any:
        """``newest``, ``busiest`` and ``idlest`` are workers, too, whatever their names are."""
        found = {
            "newest": self.spawner.starting[-1:],
            "busiest": self.spawner.busy[:1],
            "idlest": self.spawner.idle[:1],
        }.get(name)
        return found[0] if found else super().find(name)

    def do_works_on(self, worker: FakeWorker) -> None:
        """A worker has one job after the other."""
        self.do_pass(str(rules.IDLE_TIME / 3))
        if worker.job:
            self.spawner.answer(worker)
        self.submit()

    def do_live(self, seconds: str) -> None:
        """Time passes, and what is started meanwhile says Hello."""
        for _ in range(round(2 * float(seconds))):
            self.clock.advance(0.5)
            self.do_boot()

    def test_stories(self) -> None:
        """They are true."""
        self.tell(SIZES, DEATHS, LEAVING, FAILURES, SCALES, RECYCLING, HEARTBEATS, RELOADS, RELIEF)


class SupervisorTests(SupervisorTestCase):
    def test_questions(self) -> None:
        """Whoever asks what is performed has a worker started, and is told if none can be."""
        self.play("of 0-2, start")
        asked = self.dispatcher.describe()
        self.play("boot, spawned 1")
        self.assertEqual(self.successResultOf(asked), self.code)
        self.play("of 0-4, start")
        asked = self.dispatcher.describe()
        self.play("turn, scale 0 1, boot")
        self.assertEqual(self.successResultOf(asked), self.code)
        self.play("of 1-4, start")
        asked = self.dispatcher.describe()
        self.play(f"fail, pass {failingstarts.PATIENCE + 1}")
        self.failureResultOf(asked, NoWorkers)

    def test_nonsense(self) -> None:
        """Numbers that make no sense are refused, and nothing changes."""
        self.play("go")
        for numbers in ((-1, 2), (0, 0), (3, 2)):
            self.assertRaises(ValueError, self.supervisor.scale, *numbers)
        self.assertEqual((self.supervisor.min_workers, self.supervisor.max_workers), (1, 4))

    def test_reload_whose_callers_differ(self) -> None:
        """A second reload ends the first as well; that nobody waits any more ends none."""
        self.play("of 2-2, go")
        first = self.supervisor.reload()
        self.play("boot")
        gone = self.supervisor.reload()
        gone.addErrback(lambda _: None)
        gone.cancel()
        self.play("turn_over, reloading done 3")
        self.successResultOf(first)


class BackoffTests(SupervisorTestCase):
    def test_delay_doubles(self) -> None:
        """Starts that fail are tried again at once, then after delays that double up to 30 s."""
        starts: list[float] = []

        def spawned(worker: FakeWorker) -> None:
            starts.append(self.clock.seconds())
            self.clock.callLater(0, self.spawner.die, worker, "exited (status 1)")

        self.spawner.when_spawned = spawned
        self.do_start()
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
        for story, most in (
            ("of 1-4, fail, start, jobs 100", 200),
            ("of 2-4, short_lives, start", 400),
            ("of 3-4, no_process, start, jobs 10", 200),
            ("of 2-2, start, boot w1, pass 10, fail", 200),
        ):
            self.begin_anew()
            self.play(story)
            before = self.spawner.spawned
            self.play("hour")
            self.assertLess(self.spawner.spawned - before, most, story)

    def do_short_lives(self) -> None:
        """Each worker says Hello, and dies soon."""

        def boot_and_die(worker: FakeWorker) -> None:
            self.spawner.boot(worker, self.code)
            self.clock.callLater(0.1, self.spawner.die, worker)

        self.spawner.when_spawned = lambda worker: self.clock.callLater(0, boot_and_die, worker)

    def test_no_busy_loop_in_a_full_pool(self) -> None:
        """A pool that starts nothing, and says nothing, does not hang the server."""
        self.spawner.spawn = lambda: None  # type: ignore[method-assign]
        self.do_start()
        self.assertEqual(self.supervisor.size, 0)


class StopTests(SupervisorTestCase):
    def test_nothing_goes_on(self) -> None:
        """A supervisor that is stopped starts nothing and leaves no timer, whatever went on."""
        for story in ("", "start", "go", "start, fail, pass 2, slow", SURPLUS, "start, stop"):
            with self.subTest(story):
                self.begin_anew()
                self.play(f"{story}, stop")
                self.see_stopped()

    def see_stopped(self) -> None:
        """Nothing goes on."""
        self.assertEqual(self.clock.getDelayedCalls(), [])
        states = {record.state for record in self.supervisor.records.values()}
        self.assertLessEqual(states, {WorkerState.STOPPING})
        before = self.spawner.spawned
        self.play(f"kill_all, jobs 3, pass 100, spawned {before}, quiet")

    def test_stopped(self) -> None:
        """So it is when it is stopped while jobs run, or workers start."""
        self.tell(
            {
                "the ends of jobs are told": "go, jobs 1, stop, stopped, j1 told WORKER_LOST",
                "who says Hello gets no job": "start, stop, boot w1, jobs 1, busy 0, w1 dies",
            }
        )

    def test_stopped_by_the_last_job_of_a_drain(self) -> None:
        """The end of a drain may stop the supervisor in the moment of the last worker's death."""
        self.play("go, jobs 1")
        self.dispatcher.drain(10).addCallback(lambda _: self.supervisor.stop())
        self.play("w1 dies, spawned 1")
        self.assertEqual(self.clock.getDelayedCalls(), [])


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
        self.do_go()
        jobs = [make_job(self.ann) for _ in range(10)]
        self.assertEqual(self.spawned_by(lambda: list(map(self.dispatcher.submit, jobs))), 1)
        self.do_boot()
        self.assertEqual(len(self.spawner.busy), 10)
        died = list(self.spawner.workers)
        die = FakeSpawner.die
        self.assertEqual(self.spawned_by(lambda: [die(self.spawner, worker) for worker in died]), 1)

    def test_stop(self) -> None:
        """A supervisor that is stopped between two starts makes none any more."""
        self.supervise(5, 5)
        self.supervisor.start(self.spawner)
        self.supervisor.stop()
        self.spawner.turn()
        self.assertEqual(self.spawner.spawned, 1)
