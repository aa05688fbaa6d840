"""For how long a job that waits for its client to read may keep its worker from others."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from dangad.scheduler.pauses import HURRY, LOOK_INTERVAL, PATIENCE, RATE
from dangad.scheduler.record import END_STATES, Job, JobState
from dangad.scheduler.wariness import ASIDE, DEBT, KEEP
from tests.fakes import FakeClient, FakeWorker, catalogue
from tests.unit.scheduler.dispatching import DispatcherTestCase

if TYPE_CHECKING:
    from tests.unit.telling import Deeds

BESIDE = "ready x, bob: b, ready w, ann: a/parts, w runs a"
"""One worker for Ann's parts, and one that is busy for somebody else."""
PAUSES = {
    "while no other job waits, it may wait for its client as long as that likes": f"""
        {BESIDE}, ann pauses {100 * PATIENCE}, w undisturbed, w answers, x answers
    """,
    "while others wait, it ends when the patience is over; its client is told why": f"""
        {BESIDE}, eve: e, ann pauses {PATIENCE - LOOK_INTERVAL}, w undisturbed
        ann pauses {LOOK_INTERVAL}, w interrupted cancelled, paused, w dies, a told "CANCELLED: Echo
        was ended: its client did not read the parts of its result for 10 s in all, while other jobs
        waited for its worker", ready y, y runs e
    """,
    "jobs of clients that do not read wait for these, and for no worker": f"""
        {BESIDE}, ann: c, ann pauses {3 * PATIENCE}, w undisturbed
    """,
    "to read a little now and then does not help: all pauses count together": f"""
        {BESIDE}, eve: e, {round(PATIENCE) - 1}x ann reads_a_little, w undisturbed, ann pauses 1.5
        w interrupted cancelled
    """,
    "who reads steadily may take any time, and more pauses than patience": f"""
        {BESIDE}, eve: e, {5 * round(PATIENCE)}x ann reads_steadily, w undisturbed
    """,
    "when all workers are held like this, the one that was longest ends much sooner": f"""
        {BESIDE}, x answers, eve: e/parts, x runs e, bob: c, hold ann, pass {LOOK_INTERVAL}
        hold eve, pass {HURRY - LOOK_INTERVAL}, w interrupted cancelled, x undisturbed, w dies
        ready y, y runs c, pass {2 * HURRY}, x undisturbed
    """,
    "nothing is looked at any more when the client has gone, or the job has ended": f"""
        {BESIDE}, eve: e, hold ann, ann leaves, w dies, pass {2 * PATIENCE}, 2x x answers
    """,
}
COST = "ready w x, ann: cost, cancel cost, x dies"
"""A client has cost one of two workers."""
COSTS = {
    "until the worker is replaced, the other one is left to others, job by job": f"""
        {COST}, bob: b, w answers, ann: a, 5x bob comes_and_goes, queued a, ready y, running a
        y answers, bob: c, y answers, wait {KEEP}
    """,
    "a stoppable job that ended by itself has cost none": """
        types Echo Soft:stoppable=yes, ready w, ann: a/Soft, cancel a, wait 1, w answers, bob: b
        w answers, ann: c, w runs c, w answers
    """,
    "nor has one that its worker had not read when it died": """
        ready w, ann: a, wait 1, w dies_unread, wait 1, ready x, x runs a, x answers, bob: b
        x answers, ann: c, x runs c, x answers
    """,
    "with nobody else there it is not kept back at all": f"{COST}, ann: a, w answers",
    "if none can be started, that counts no longer after a time": f"""
        {COST}, bob: b, w answers, ann: a, {round(DEBT / KEEP) * 2}x bob comes_and_goes
        w runs a, w answers
    """,
    "jobs of one client that stand back keep their order, whichever of them can start": f"""
        {COST}, bob: b, w answers, ann: a1-4, wait {KEEP}, 4x w answers, w ran a1-4
    """,
    "when that is over they are not overtaken by jobs that came later, and are prefetched": f"""
        {COST}, bob: b, w answers, ann: a1-5, queued a1-5, ready y, ann: c1-5, 3x both answer
        done a1-5, 2x both answer, done c1-5, wait {KEEP}, wary False
    """,
}
LEAVERS = {
    # Who has cost a worker pays from the moment when its job is to stop, whatever it does.
    "the more urgent of its jobs start first, also if they come last": f"""
        cancel cost, x dies, done_one bob, ann: l1-2/low n h1-2/high, wait {KEEP}, 5x w answers
        done l1-2 n h1-2, w last_ran h1 h2 n l1 l2
    """,
    "the last worker is kept from it from that moment on, however long its job goes on": f"""
        cancel cost, kept_from ann, wait {2 * DEBT}, kept_from ann, x dies
    """,
    # The next job might cost this worker, too.
    "it is so for as long again as it took until the old worker was gone, and a new one there": f"""
        cancel cost, wait {HURRY}, ready y, wait {HURRY}, x dies, cid: long, wait {HURRY}
        kept_from ann, wait {HURRY}, done_one bob, ann: a, running a long
    """,
    "a client that leaves, and comes back over another connection, owes what it has cost": """
        ann leaves, peer again ann, kept_from again, x dies, kept_from again
    """,
    "other connections of its peer go on, once one of their jobs was answered": """
        peer neighbour ann, done_one neighbour, ann leaves, done_one neighbour bob neighbour, x dies
    """,
}


class StoryTests(DispatcherTestCase):
    """What is told in stories."""

    facts: ClassVar[Deeds] = (
        DispatcherTestCase.facts
        | {
            "wary": lambda case: case.dispatcher.is_wary,  # whether any job stands back
            "last_ran": lambda case, worker: [case.name_of(job) for job in worker.given[-5:]],
        }
    )

    def do_pass(self, seconds: str) -> None:
        """Time passes, bit by bit."""
        for _ in range(round(float(seconds) / LOOK_INTERVAL)):
            self.clock.advance(LOOK_INTERVAL)

    def do_pauses(self, client: FakeClient, seconds: str) -> None:
        """A client does not read for so long, and then does."""
        self.dispatcher.hold(client)
        self.do_pass(seconds)
        if not self.named["w"].interrupts:
            self.dispatcher.release(client)

    def send(self, size: int) -> None:
        """Ann is sent a part."""
        self.dispatcher.answers.job_reported(self.named["w"], bytes(size), parts=True)

    def do_reads_a_little(self, client: FakeClient) -> None:
        """A client pauses, and then reads a little."""
        self.do_pauses(client, "1")
        self.send(1000)
        self.do_pass("5")

    def do_reads_steadily(self, client: FakeClient) -> None:
        """It pauses, and then reads as much as it should."""
        self.do_pauses(client, "1")
        self.send(RATE)

    def do_comes_and_goes(self, client: FakeClient) -> None:
        """A client has a job done at once, unless the worker is somebody else's."""
        if self.named["w"].job is None:
            self.play(f"{client.name}: next, w runs next, w answers, wait {KEEP / 2}")

    def do_both(self, _: str) -> None:
        """Both workers answer, if they have jobs."""
        for name in ("w", "y"):
            if self.named[name].job is not None:
                self.answer(self.named[name])

    def do_peer(self, name: str, other: str) -> None:
        """A client connects whose peer is another's, too."""
        self.client(name).peer = self.client(other).peer

    def do_done_one(self, *names: str) -> None:
        """A job of each of these clients is done at once."""
        for name in names:
            job = self.submit(self.client(name))
            assert isinstance(job.worker, FakeWorker)
            self.answer(job.worker)
            self.assertIs(job.state, JobState.DONE)

    def see_kept_from(self, name: str) -> None:
        """The last worker is kept from a client, whose job does not start, as long as Bob comes."""
        self.do_done_one("bob")
        wanted = self.submit(self.client(name))
        for _ in range(5):
            self.assertIs(wanted.state, JobState.QUEUED)
            self.do_done_one("bob")
            self.clock.advance(KEEP / 2)
        self.dispatcher.cancel(wanted)
        self.clock.advance(KEEP)

    def test_stories(self) -> None:
        """They are true."""
        self.tell(PAUSES, COSTS)
        self.tell(LEAVERS, prelude="ready w x, ann: cost")


class ManyUnreadTests(DispatcherTestCase):
    """Many clients ask for parts, and none of them reads any."""

    def setUp(self) -> None:
        """Have room for all of them."""
        super().setUp()
        self.code = catalogue("Echo", "Long")
        self.dispatcher.admission.max_queued = 2000
        self.workers: list[FakeWorker] = []
        self.unread: list[FakeClient] = []

    def begin(self, workers: int, unread: int) -> None:
        """Have so many workers, and so many clients that do not read."""
        self.workers = [self.ready() for _ in range(workers)]
        self.unread = [FakeClient(f"unread {number}") for number in range(unread)]
        for client in self.unread:
            self.submit(client, wants_chunks=True)
        self.go_on(0.0)

    def go_on(self, seconds: float) -> None:
        """Time passes: a job sends parts until it has to wait; one that is to stop does.

        Each that is paused holds its worker; others take no time.
        """
        for _ in range(round(seconds / LOOK_INTERVAL)):
            self.clock.advance(LOOK_INTERVAL)
            self.work()
        self.work()

    def work(self) -> None:
        """Do what there is to do."""
        for index, worker in enumerate(self.workers):
            if worker.interrupts:
                self.die(worker)
                self.workers[index] = self.ready()
        self.clock.advance(0)
        for worker in self.workers:
            while worker.job is not None and not worker.paused:
                job = worker.job
                if job.wants_chunks and isinstance(job.client, FakeClient):
                    self.dispatcher.hold(job.client)
                    self.assertTrue(worker.paused)
                elif job.command == b"Long":
                    break
                else:
                    self.answer(worker)

    def wait_for(self, job: Job, most: float) -> float:
        """How many seconds pass until `job` has ended; so many at most."""
        since = self.clock.seconds()
        while job.state not in END_STATES:
            self.assertLess(self.clock.seconds() - since, most)
            self.go_on(LOOK_INTERVAL)
        return self.clock.seconds() - since

    def test_others_wait_no_longer_the_more_they_are(self) -> None:
        """A job of somebody else waits for one of them at most, whatever the workers' number."""
        for workers, unread in ((1, 20), (2, 20), (4, 1000)):
            self.begin(workers, unread)
            waits = [self.wait_for(self.submit(self.ann), 60.0) for _ in range(5)]
            self.assertLessEqual(max(waits), HURRY + LOOK_INTERVAL, (workers, unread, waits))
            self.end()

    def test_one_job_after_the_other(self) -> None:
        """Somebody who asks for the next job a moment after the last one finds a worker."""
        for workers, unread in ((1, 20), (2, 20)):
            self.begin(workers, unread)
            self.wait_for(self.submit(self.ann), 60.0)
            for _ in range(30):
                self.clock.advance(KEEP / 2)
                self.work()
                job = self.submit(self.ann)
                self.work()
                self.assertIs(job.state, JobState.DONE)
            self.end()

    def test_new_ones_meanwhile(self) -> None:
        """Nor does it help to ask for parts only then, when none of one's jobs waits."""
        self.begin(1, 2)
        self.wait_for(self.submit(self.ann), 60.0)
        self.leave(self.unread.pop())
        for _ in range(20):
            self.unread.append(FakeClient("again"))
            late = self.submit(self.unread[-1], wants_chunks=True)
            self.assertIs(late.state, JobState.QUEUED)
            self.assertIs(self.submit(self.ann).state, JobState.RUNNING)
            self.work()
            self.clock.advance(KEEP / 2)
        self.go_on(2 * LOOK_INTERVAL)
        assert self.workers[0].job is not None
        self.assertIs(self.workers[0].job.client, self.unread[1])
        self.end()

    def test_beside_a_steady_one(self) -> None:
        """One that has jobs without a pause does not keep them back for ever, nor for long."""
        self.begin(2, 0)
        reader = FakeClient("reads steadily")
        long = self.submit(reader, wants_chunks=True)
        self.submit(self.ann, "Long")
        self.submit(self.bob)
        self.dispatcher.hold(reader)
        self.clock.advance(LOOK_INTERVAL)
        self.dispatcher.release(reader)
        [others] = [worker for worker in self.workers if worker.job is not long]
        self.unread = [FakeClient("wants parts, too")]
        wanted = self.submit(self.unread[0], wants_chunks=True)
        since = self.clock.seconds()
        while wanted.state is JobState.QUEUED:
            self.assertLess(self.clock.seconds() - since, 2 * ASIDE)
            self.answer(others)
            self.clock.advance(KEEP / 4)
            if others.job is None:
                self.submit(self.ann)
            self.clock.advance(KEEP / 4)
        self.assertIs(long.state, JobState.RUNNING)
        self.leave(reader)
        self.end()

    def test_beside_a_long_job(self) -> None:
        """So it is beside a job that takes long: that one leaves its worker to nobody."""
        self.begin(2, 0)
        long = self.submit(self.bob, "Long")
        self.unread = [FakeClient(f"unread {number}") for number in range(20)]
        for client in self.unread:
            self.submit(client, wants_chunks=True)
        self.go_on(2 * HURRY)
        waits = [self.wait_for(self.submit(self.ann), 60.0) for _ in range(5)]
        self.assertLessEqual(max(waits), PATIENCE + LOOK_INTERVAL, waits)
        self.dispatcher.cancel(long)
        self.end()

    def test_many_others(self) -> None:
        """Somebody who always has jobs waiting has one of two workers, and they the other."""
        self.begin(2, 20)
        jobs = [self.submit(self.ann, "Long") for _ in range(10)]
        self.go_on(HURRY)
        for job in jobs:
            self.assertIs(job.state, JobState.RUNNING)
            self.go_on(LOOK_INTERVAL)
            assert isinstance(job.worker, FakeWorker)
            self.answer(job.worker)
            self.work()
        self.end()

    def test_they_go_on(self) -> None:
        """They have their turns again, in their order, when nobody else waits."""
        self.begin(2, 6)
        self.wait_for(self.submit(self.ann), 60.0)
        for _ in range(10):
            self.submit(self.ann)
        self.go_on(200.0)
        told = [client for client in self.unread if client.failures]
        self.assertEqual(told, self.unread[:4])
        self.end()

    def test_cancelled_meanwhile(self) -> None:
        """Those that are kept back end like any that wait: cancelled, or with their client."""
        self.begin(1, 0)
        self.unread = [FakeClient(f"unread {number}") for number in range(4)]
        jobs = [self.submit(client, wants_chunks=True) for client in self.unread]
        long = [self.submit(self.ann, "Long") for _ in range(2)]
        self.work()
        self.go_on(HURRY)
        self.assertIs(long[0].state, JobState.RUNNING)
        self.dispatcher.cancel(jobs[1])
        self.leave(self.unread[2])
        self.clock.advance(0)
        self.assertEqual(self.dispatcher.waiting, 2)
        for job in long:
            assert isinstance(job.worker, FakeWorker)
            self.answer(job.worker)
        self.clock.advance(KEEP)
        self.assertIs(jobs[3].state, JobState.RUNNING)
        self.end()

    def end(self) -> None:
        """All that is left ends."""
        for client in self.unread:
            if not client.gone:
                self.leave(client)
        self.leave(self.ann)
        for _ in range(30):
            self.work()
        for worker in self.workers:
            self.dispatcher.dismiss(worker)
        self.clock.advance(KEEP)
        self.ann = FakeClient("ann")
        self.assertEqual((self.dispatcher.waiting, self.dispatcher.running), (0, 0))
