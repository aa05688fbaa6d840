from __future__ import annotations

import gc
import itertools
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dangad.scheduler.fairqueue import JobQueue
from dangad.wire.values import Priority
from tests.fakes import FakeClient, make_job

if TYPE_CHECKING:
    from collections.abc import Callable

    from dangad.scheduler.interfaces import IClient
    from dangad.scheduler.record import Job

AGEING = 30.0
BOX = bytes(10)
"""The request of each job."""
HIGH, NORMAL, LOW = Priority


class QueueTestCase(SynchronousTestCase):
    """A queue, and a few clients."""

    def setUp(self) -> None:
        """Make the queue and the clients."""
        self.queue = JobQueue(AGEING)
        self.ann, self.bob, self.cid = (FakeClient(name) for name in ("ann", "bob", "cid"))

    def push(
        self, client: FakeClient, count: int = 1, priority: Priority = NORMAL, at: float = 0.0
    ) -> list[Job]:
        """Let so many jobs of `client` wait, and return them."""
        jobs = [make_job(client, priority=priority, accepted_at=at) for _ in range(count)]
        for job in jobs:
            self.queue.push(client, job)
        return jobs

    def pop_all(self, now: float = 0.0) -> list[Job]:
        """All jobs that may start, in their order."""
        return list(iter(lambda: self.queue.pop(now), None))

    def pop_clients(self, count: int, now: float = 0.0) -> str:
        """The first letters of the clients of the next jobs."""
        jobs = (self.queue.pop(now) for _ in range(count))
        return "".join("-" if job is None else str(job.client)[1] for job in jobs)


ORDERS = (
    # What comes and goes, and whose the next jobs are: see Script.
    ("clients take turns, in the order of their coming", "a3 b2 c >abcaba-"),
    ("a flood delays another by one turn", "a10000 >a b2 >babaa"),
    ("who was just served comes after all others", "a b c >a a >bca"),
    ("high jobs cost their client its turns", "aH10000 bL2 >ababa"),
    ("in a round those go first who are more urgent", "aL2 b2 cH2 >cbacba"),
    ("so does who comes while it runs", "a3 b3 >a cH2 >cbcaba"),
    ("but has a turn in each round only", "a9 b9 cH >ca cH >bc cH >ab cH >ca >b"),
    ("a more urgent job of one's own counts", "a bL bH >bab"),
    ("who is held gets no turn", "a2 b2 !a >bb-"),
    ("nor with jobs to come, in any priority", "!a aH aL @1000 >-"),
    ("who is released comes after those who wait", "a2 b2 !a ~a >baba"),
    ("to hold and release twice is as once", "a !a !a ~a ~a >a-"),
    ("to release who is not held costs nothing", "a b ~a >ab"),
    ("what is in a closed lane waits", "!X aX2 a2 bY >aba- ~X >aa-"),
    ("a client has one turn in all lanes", "a2 aX2 aY2 b6 >abababababab"),
    ("an opened lane is no head start", "!X aX3 bX3 a3 >aaa ~X >bababa"),
    ("an empty queue has no job to give", ">-"),
    ("a client's own jobs go by priority", "aL2 a2 aH2 =a5,a6,a3,a4,a1,a2"),
    ("whose urgent job is taken out stands with what is left", "aH aL b .a1 >ba"),
    ("to take one's jobs out gains no other turn", "a3 b3 c3 >a .a2 .a3 aH >bca"),
    ("one's own aged low jobs take turns", "aL3 @10 aH5 @20 =a4,a5 @30 =a1,a6,a2,a7,a3,a8"),
    ("also in lanes of their own", "aL @10 aHX9 @20 =a2 @30 =a3,a1"),
    ("to take out a job in one lane costs no turn in another", "b a b9 aX !X >b .a2 >a"),
    ("jobs that were set aside have their turn when called", "a b c a ^3 .b1 *a1 =a1 *c1 =c1,a2,-"),
    ("they are called in turns, but of nobody on hold", "a3 b ^4 !a *b1 *- ~a *a1 *a2 *a3"),
    ("who was called in vain lets the others go first", "a2 b ^3 *a1 %a1 *b1 *a1 *a2"),
    ("all of a client are called together, before what came since", "a3 ^3 a : : =a1,a2,a3,a4,-"),
    ("what was set aside goes with its client", "a ^1 /a >- b ^1 *b1 >b-"),
    ("one's more urgent are called before, one by one", "aL ^1 a ^1 aH ^1 *a3 >a *a2 >a *a1 >a"),
    ("or together", "aL ^1 a ^1 aH ^1 : =a3,a2,a1"),
    ("whose turn it is not yet is passed over", "a b ^2 |a *b1 |a *-"),
    # Jobs that were taken out, and are put back.
    ("what is put back goes before what came meanwhile", "a [1 b a ] c =a1,b1,c1,a2"),
    ("and is the next of its priority, and of no other", "aL2 a2 [3 bH ] =b1,a3,a4,a1,a2"),
    ("and waits in its lane until this is opened", "aX2 [1 !X ] >- ~X =a1,a2"),
    ("and is the next, whatever is in other lanes", "a2 bX [1 ] =a1,b1,a2"),
    ("also in its own lane", "a2 aX2 [3 ] !X =a1,a2 ~X =a3,a4"),
    ("and goes with its client", "a3 b [2 ] /a >b-"),
    ("or is taken out", "a [1 ] a [1 ] .a1 /a >-"),
    ("a job that rests has no turn until it is put back", "a {1 >- ] =a1"),
    ("or comes again", "a {1 a ( =a2,a1,-"),
    ("it goes with its client, or is taken out", "a b {2 /a .b1 >-"),
    ("who is dropped while held comes back free", "a2 !a /a a >a-"),
    ("from several workers", "aH3 a2 bL2 [7 ] =a1,b1,a2,b2,a3,a4,a5"),
    (
        "a more urgent job has the turn of what is put back for it",
        "aL2 bL2 {3 aH ] =a3,b1,b2,a1,a2",
    ),
    # How many workers a client has, while others wait.
    ("of two workers one client gets one", "+a aH9 b3 $b &b $b &b $b &b $a"),
    ("one that is alone gets all", "+a a3 $aaa-"),
    ("so it does if what the others have may not start", "!X !b +a a2 b cX $aa-"),
    ("while others' jobs run, all have their turns", "+a +a +a +b aH bL $ab"),
    ("who has jobs running has its turn after who has none", "+a +c aH2 b2 >baba"),
    ("nor is a job prefetched for one that has", "#1 +a a <-"),
    ("none has more than may", "#2 +a +a aH2 $- bL $b- &a $a-"),
    ("jobs that go on without a client are nobody's who waits", "+a /a b $b"),
    # Which jobs that were taken out, and rest, what may start ought to go before.
    ("none, if it waits behind them", "aH9 bL9 cL {8 ?nnnnnnnn"),
    ("who comes goes before rounds later by more than one", "aH9 >a {4 bL ?nyyy"),
    ("who comes with something urgent before its own round", "a4 b4 >a {2 cH ?yy"),
    ("who outranks others, before all of theirs", "aH2 {1 eL ?n eH ?y"),
    ("what may not start, before none", "a5 >a {2 !b bH !X cHX ?nn ~X ?yy !X ~b ?yy"),
)
STRICT_ORDERS = (
    # The same for clients who outrank others; Dot does not.
    ("a turn in one priority costs none in another", "aH2 a2 b2 >aaabab"),
    ("high goes before all others, low after them", "dH d dL aL2 aH2 b >aadbddaa"),
    ("a young low job is overtaken by every higher one", "aL bH9 @29.9 >bbbbbbbbb"),
    ("an aged one goes at once, and costs one start", "aL @10 bH9 >bb @30 >abb"),
    ("each turn ages for itself", "aL @25 aL bH20 @30 >babbb @55 >abb"),
    ("aged ones of all priorities share the starts", "aL9 b9 cH9 @30 >cbacbacba"),
    ("an aged flood delays a job by one turn", "a10000 @60 >100 b >ba"),
    ("an aged low flood delays each by one start", "aL10000 @60 >100 b3 cH3 >cacacbaba"),
    ("clients with aged jobs take turns", "aL5 bL5 cH20 @30 >cacbcacb"),
    ("priorities are strict, whoever came first", "aL2 b2 cH2 =c1,c2,b1,b2,a1,a2"),
    ("what is put back is as old as it was", "aL @10 aL [1 ] bH3 @29.9 >bb @30 =a1"),
    ("an aged job of a lower rank is not prefetched", "aL @30 bH2 =b1 <- =a1,b2"),
    ("the bound holds without starts for long", "aL @38 bH50 c50 @40 >b @60 =a1"),
)


class Script:
    """What comes and goes in a queue, told in words of few letters; a, b and c are clients.

    ``a2`` are two jobs of Ann's, ``aH`` is a high one, ``aX2`` are two in the lane X; ``!a`` holds
    Ann, ``~a`` releases her, ``!X`` and ``~X`` close a lane and open it, ``/a`` drops her; ``@30``
    is a time. ``>ab-`` are the clients of the next jobs, ``=a1,b1,-`` the jobs, ``>9`` any nine.
    ``.a2`` takes a job out; ``^2`` sets the next two aside, and ``*a1`` is that this one is called,
    ``|a`` that none of Ann's is then, ``%a1`` that it cannot start, and ``:`` that all of a
    client's are called. ``<a1`` takes this one out, as for a worker, ``[2`` two, and ``]`` puts
    them back, ``(`` behind all others of theirs; ``{2`` has two rest, and ``?ny`` tells whether
    others ought to go before them.
    ``+a`` starts a job of Ann's at once, ``$ab`` the next two, ``&a`` ends one of hers; ``#2`` is
    how many of a client may run.
    """

    def __init__(self, outranks: bool) -> None:
        self.queue = JobQueue(AGEING)
        names = ("ann", "bob", "cid")
        self.clients = {name[0]: FakeClient(name, outranks) for name in names}
        self.clients |= {"d": FakeClient("dot"), "e": FakeClient("eve", outranks=True)}
        self.now = 0.0
        self.jobs: dict[str, Job] = {}
        self.numbers: Counter[str] = Counter()
        self.taken: list[Job] = []
        self.passed_over: set[Any] = set()
        self.running: list[tuple[str, Job]] = []

    def name_of(self, job: Job | None) -> str:
        """A job's name."""
        return next((name for name, each in self.jobs.items() if each is job), "-")

    def next(self, count: str = "1") -> list[Job]:
        """The next jobs."""
        jobs = [self.queue.pop(self.now) for _ in range(int(count))]
        return [job for job in jobs if job is not None]

    def make(self, client: str, priority: Priority = NORMAL) -> Job:
        """Another job of a client's."""
        self.numbers[client] += 1
        job = make_job(self.clients[client], "Echo", priority, accepted_at=self.now, box=BOX)
        self.jobs[f"{client}{self.numbers[client]}"] = job
        return job

    def push(self, word: str) -> None:
        """Jobs come, as ``aHX2`` says."""
        client, rest = word[0], word[1:]
        priority = {"H": HIGH, "L": LOW}.get(rest[:1], NORMAL)
        rest = rest.lstrip("HL")
        lane = rest[0].encode() if rest[:1] in {"X", "Y"} else None
        for _ in range(int(rest.lstrip("XY") or 1)):
            job = self.make(client, priority)
            job.lane = lane
            self.queue.push(self.clients[client], job, lane)

    def start(self, job: Job | None) -> str:
        """Whose job is started."""
        name = self.name_of(job)[0]
        if job is not None:
            self.queue.started(job)
            self.running.append((name, job))
        return name

    def end(self, client: str) -> None:
        """A job of a client's ends."""
        pair = next(pair for pair in self.running if pair[0] == client)
        self.running.remove(pair)
        self.queue.ended(pair[1])

    def in_vain(self, job: Job) -> None:
        """A job that was called cannot start, and is set aside again."""
        self.queue.remove(job)
        self.queue.set_aside(job, first=True)

    def put_in_again(self, job: Job) -> None:
        """A job that was taken out comes anew."""
        assert job.client is not None
        self.queue.push(job.client, job)

    def take(self, count: str) -> list[Job]:
        """The next jobs are taken out for a worker."""
        jobs = [self.queue.pop_prefetch(self.now, lambda _: True) for _ in range(int(count))]
        self.taken = [job for job in jobs if job is not None]
        return self.taken

    def say(self, word: str) -> str | None:
        """Have it happen; what is true, if it was a question."""
        kind, rest = word[0], word[1:]
        queue, client = self.queue, self.clients.get(rest)
        deeds: dict[str, Callable[[], object]] = {
            "!": lambda: queue.hold(client) if client else queue.close_lane(rest.encode()),
            "~": lambda: queue.release(client) if client else queue.open_lane(rest.encode()),
            "/": lambda: client and queue.drop(client),
            "@": lambda: setattr(self, "now", float(rest)),
            "#": lambda: setattr(queue, "most_running", int(rest)),
            ".": lambda: queue.remove(self.jobs[rest]),
            "^": lambda: list(map(queue.set_aside, self.next(rest))),
            "|": lambda: self.passed_over.add(client),
            "%": lambda: self.in_vain(self.jobs[rest]),
            ":": lambda: queue.call_some(),
            "[": lambda: self.take(rest),
            "{": lambda: list(map(queue.rest, self.take(rest))),
            "]": lambda: list(map(queue.put_back, reversed(self.taken))),
            "(": lambda: list(map(self.put_in_again, self.taken)),
            "+": lambda: self.start(self.make(rest)),
            "&": lambda: self.end(rest),
        }
        if kind.isalpha():
            self.push(word)
        elif kind == ">" and rest.isdigit():
            self.next(rest)
        elif kind in deeds:
            deeds[kind]()
        else:
            return self.answer(kind, rest)
        return None

    def answer(self, kind: str, expected: str) -> str:
        """What is true, in the form of what was expected."""
        if kind == ">":
            return "".join(self.name_of(self.queue.pop(self.now))[0] for _ in expected)
        if kind == "=":
            return ",".join(self.name_of(self.queue.pop(self.now)) for _ in expected.split(","))
        if kind == "<":
            return self.name_of(next(iter(self.take("1")), None))
        if kind == "$":
            return "".join(self.start(self.queue.pop(self.now)) for _ in expected)
        if kind == "?":
            return "".join("y" if self.queue.is_before(job) else "n" for job in self.taken)
        passed_over, self.passed_over = self.passed_over, set()
        return self.name_of(self.queue.call_one(passed_over))


class OrderTests(QueueTestCase):
    def test_orders(self) -> None:
        """The order is that of the module's docstring, example by example."""
        for outranks, rows in ((False, ORDERS), (True, STRICT_ORDERS)):
            for what, story in rows:
                with self.subTest(what):
                    script = Script(outranks)
                    for word in story.split():
                        told = script.say(word)
                        self.assertIn(told, (None, word[1:]), f"{word} in {story}")
                    left = list(script.queue)  # whatever keeps them: a hold, a lane, a rest
                    self.assertEqual(len(script.queue), len(left))
                    self.assertEqual(script.queue.size, len(BOX) * len(left))
                    self.assertLessEqual(len(script.queue.aside), len(left))


class PriorityTests(QueueTestCase):
    def test_many_newcomers(self) -> None:
        """Who connects anew for each high job gets no more than two turns of three."""
        self.push(self.ann, 30, LOW)
        self.pop_clients(1)
        order = ""
        while len(order) < 30:
            if not order.endswith("a"):
                self.push(FakeClient(f"{len(order)}"), 1, HIGH)
            order += self.pop_clients(1)
        self.assertGreaterEqual(order.count("a"), 9, order)


class OutrankingTests(QueueTestCase):
    """Clients whose priorities are strict, because the operator lets them."""

    def setUp(self) -> None:
        """Let all clients outrank others."""
        super().setUp()
        self.ann, self.bob, self.cid = (FakeClient(name, True) for name in ("ann", "bob", "cid"))
        self.dot = FakeClient("dot")

    def test_bound_on_overtaking(self) -> None:
        """Whatever comes of higher priorities, a low job waits no longer than twice its time."""
        (job,) = self.push(self.ann, 1, LOW)
        now = 0.0
        while job in self.queue:
            self.push(self.bob, 2, HIGH, at=now)
            self.push(self.cid, 2, NORMAL, at=now)
            self.queue.pop(now)
            now += 0.5
        self.assertLessEqual(now, AGEING + 1.5)

    def test_cancelling_does_not_keep_a_turn_young(self) -> None:
        """A client that cancels and submits for ever does not stop the ageing of those behind."""
        churn = self.push(self.bob, 2, LOW)
        (job,) = self.push(self.ann, 1, LOW, at=1)
        now = 1.0
        while job in self.queue and now < 10 * AGEING:
            now += 1
            self.push(self.cid, 1, HIGH, at=now)
            churn += self.push(self.bob, 1, LOW, at=now)
            self.queue.remove(churn.pop(0))
            self.queue.pop(now)
        self.assertLessEqual(now, 2 * AGEING)


class ViewTests(QueueTestCase):
    def test_what_waits(self) -> None:
        """Whatever its turn, a job that waits is seen, and counts with its priority."""
        self.assertEqual((self.queue.jobs(), self.queue.oldest()), ([], None))
        [low] = self.push(self.ann, priority=LOW, at=1.0)
        [back] = self.push(self.bob, at=2.0)
        aside, highest = self.push(self.bob, priority=HIGH, at=3.0), self.push(self.cid, at=4.0)
        self.queue.hold(self.cid)
        self.assertEqual([self.queue.pop(5.0) for _ in range(3)], [*aside, low, back])
        self.assertEqual(self.queue.oldest(), 4.0)
        self.queue.set_aside(aside[0])
        self.assertEqual(self.queue.oldest(), 3.0)
        self.queue.put_back(back)
        self.queue.rest(low)
        self.assertCountEqual(self.queue.jobs(), [low, back, *aside, *highest])
        self.assertEqual(self.queue.count_by_priority(), {HIGH: 1, NORMAL: 2, LOW: 1})
        self.assertEqual(self.queue.oldest(), 1.0)
        self.queue.remove(low)
        self.assertEqual(self.queue.count_by_priority(), {HIGH: 1, NORMAL: 2, LOW: 0})
        self.assertEqual(self.queue.oldest(), 2.0)


class RemovalTests(QueueTestCase):
    def test_removal_under_a_changed_client(self) -> None:
        """A job whose record has lost its client is still found."""
        (job,) = self.push(self.ann)
        job.client = None
        self.assertTrue(self.queue.remove(job))

    def test_remembered_jobs_keep_no_client(self) -> None:
        """A job that is remembered after its end keeps nothing of its client's connection."""
        job = make_job(self.ann)
        self.queue.started(job)
        self.queue.ended(job)
        self.assertIsNone(job.runner)


class PutBackTests(QueueTestCase):
    def pop(self, count: int) -> list[Job]:
        """The next so many jobs, taken out."""
        jobs = [self.queue.pop_prefetch(0.0, lambda _: True) for _ in range(count)]
        return [job for job in jobs if job is not None]

    def put_back(self, jobs: list[Job]) -> None:
        """Put these back that were taken out, the last first."""
        for job in reversed(jobs):
            self.queue.put_back(job)

    def test_from_several_workers(self) -> None:
        """Whichever are put back first, they have their turns in the order that they had."""
        self.push(self.ann, 3, HIGH)
        self.push(self.ann, 2)
        self.push(self.bob, 2, LOW)
        taken = self.pop(7)
        for first, second in ((taken[:4], taken[4:]), (taken[4:], taken[:4])):
            self.put_back(first)
            self.put_back(second)
            self.assertEqual(self.pop(7), taken)

    def test_one_by_one(self) -> None:
        """A low job that comes in between has its turn after the high ones, which keep theirs."""
        jobs = self.push(self.ann, 4, HIGH)
        first, *_, last = self.pop(4)
        self.put_back([first])
        jobs += self.push(self.ann, 1, LOW)
        self.put_back([last])
        self.assertEqual(self.pop(3), [first, last, jobs[-1]])

    def test_no_client(self) -> None:
        """A job that nobody will be told about cannot be put back."""
        self.push(self.ann)
        (job,) = self.pop(1)
        job.client = None
        with self.assertRaises(ValueError):
            self.queue.put_back(job)
        self.assertEqual((len(self.queue), self.queue.size), (0, 0))

    @settings(max_examples=100, deadline=None, derandomize=True)
    @given(
        st.lists(st.tuples(st.integers(0, 3), st.sampled_from(Priority)), max_size=15),
        st.sets(st.integers(0, 3), max_size=2),
        st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=5),
    )
    def test_as_if_never_taken_out(
        self,
        pushes: list[tuple[int, Priority]],
        held: set[int],
        turns: list[tuple[int, bool]],
    ) -> None:
        """After any number of jobs were put back, all go in the order in which they would have."""
        clients = [FakeClient(str(number)) for number in range(4)]
        jobs = [make_job(clients[n], priority=p, box=bytes(n)) for n, p in pushes]
        self.queue, untouched = JobQueue(AGEING), JobQueue(AGEING)
        for queue in (self.queue, untouched):
            for job in jobs:
                assert job.client is not None
                queue.push(job.client, job)
            for number in held:
                queue.hold(clients[number])
        for count, rests in turns:
            taken = self.pop(count)
            for job in taken if rests else []:
                self.queue.rest(job)
            self.put_back(taken)
            self.assertEqual((len(self.queue), self.queue.size), (len(untouched), untouched.size))
        self.assertEqual(self.pop_all(), list(iter(lambda: untouched.pop(0.0), None)))
        for number in sorted(held):
            self.queue.release(clients[number])
            untouched.release(clients[number])
        self.assertEqual(self.pop_all(), list(iter(lambda: untouched.pop(0.0), None)))


class PrefetchTests(QueueTestCase):
    """Jobs that were taken out to be started later, and what comes meanwhile."""

    def prefetch(self, count: int) -> list[Job]:
        """The next so many jobs, which rest."""
        jobs = [self.queue.pop_prefetch(0.0, lambda _: True) for _ in range(count)]
        taken = [job for job in jobs if job is not None]
        for job in taken:
            self.queue.rest(job)
        self.news()
        return taken

    def news(self) -> object:
        """Who has come to a turn recently; asked once."""
        news, self.queue.news = self.queue.news, None
        return news

    def before(self, jobs: list[Job]) -> list[bool]:
        """For each of these jobs, whether what may start ought to go before it."""
        return [self.queue.is_before(job) for job in jobs]

    def test_begun(self) -> None:
        """A round runs from when the first of its jobs is begun."""
        self.push(self.ann, 9)
        self.pop_clients(1)
        prefetched = self.prefetch(3)
        for job in prefetched[:2]:
            self.queue.remove(job)
            self.queue.started(job)
        self.push(self.bob, 1)
        self.assertEqual(self.before(prefetched[2:]), [False])
        self.queue.put_back(prefetched[2])
        self.assertEqual(self.pop_clients(3), "baa")

    def test_news(self) -> None:
        """Who comes to a turn is told once; another job like the last is no news."""
        self.push(self.ann, 1)
        self.assertEqual(self.news(), (self.ann, NORMAL))
        self.assertIsNone(self.news())
        self.push(self.ann, 1)
        self.push(self.ann, 1, LOW)
        self.assertIsNone(self.news())
        self.push(self.ann, 1, HIGH)
        self.assertEqual(self.news(), (self.ann, HIGH))
        self.push(self.bob, 1)
        self.queue.drop(self.bob)
        self.assertEqual(self.news(), (None, LOW))

    def test_changes_nothing(self) -> None:
        """To ask costs nobody a turn, in whichever lanes the jobs are."""
        (other,) = self.push(self.cid)
        self.prefetch(1)
        for client in (self.ann, self.bob):
            for lane in (None, b"X"):
                self.queue.push(client, make_job(client), lane)
        order = ""
        while len(self.queue) > 1:
            self.queue.is_before(other)
            order += self.pop_clients(1)
        self.assertEqual(order, "abab")


class FitTests(QueueTestCase):
    def setUp(self) -> None:
        """Have looked at no job."""
        super().setUp()
        self.seen: list[Job] = []

    def looked_at(self, job: Job) -> bool:
        """Note that `job` was looked at; it fits."""
        self.seen.append(job)
        return True

    def test_fits(self) -> None:
        """The job whose turn it is comes out if it fits, and no other is looked at."""
        (job,) = self.push(self.ann)
        self.push(self.bob)
        self.assertIs(self.queue.pop_prefetch(0.0, self.looked_at), job)
        self.assertEqual(self.seen, [job])

    def test_does_not_fit(self) -> None:
        """If it does not fit none comes out, though another would fit; and all is as it was."""
        jobs = [make_job(client, box=bytes(50)) for client in (self.ann, self.bob, self.ann)]
        for job in jobs:
            assert job.client is not None
            self.queue.push(job.client, job)
        for _ in range(3):
            self.assertIsNone(self.queue.pop_prefetch(0.0, lambda each: each is not jobs[0]))
            self.assertEqual((len(self.queue), self.queue.size), (3, 150))
        self.assertEqual(self.pop_all(), jobs)

    def test_not_asked_about_none(self) -> None:
        """When none may start, none is asked about."""
        self.push(self.ann)
        self.queue.hold(self.ann)
        self.queue.push(self.bob, make_job(self.bob), b"X")
        self.queue.close_lane(b"X")
        self.assertIsNone(self.queue.pop_prefetch(0.0, self.looked_at))
        self.assertEqual(self.seen, [])


class CostTests(QueueTestCase):
    def test_cost_does_not_grow_with_the_backlog(self) -> None:
        """Every operation takes as many steps with 20,000 jobs of 500 clients as with 20 of 2."""
        few, many = self.steps(2, 10), self.steps(500, 40)
        for operation, steps in few.items():
            self.assertLessEqual(abs(many[operation] - steps), 2, operation)

    def steps(self, clients: int, jobs_each: int) -> dict[str, int]:
        """How many function calls each operation takes with so many jobs waiting, aged ones."""
        self.queue = JobQueue(AGEING)
        everybody = [FakeClient() for _ in range(clients)]
        priorities = itertools.cycle(Priority)
        for _ in range(jobs_each):
            for client in everybody:
                self.push(client, 1, next(priorities))
        self.push(everybody[0], 1)
        victim = self.push(everybody[0], 2)[0]
        new = make_job(self.ann)
        operations: dict[str, Callable[[], object]] = {
            "push": lambda: self.queue.push(self.ann, new),
            "hold": lambda: self.queue.hold(self.ann),
            "release": lambda: self.queue.release(self.ann),
            "remove": lambda: self.queue.remove(victim),
            "pop": lambda: self.queue.pop(0.0),
            "pop aged": lambda: self.queue.pop(1000.0),
            "len": lambda: len(self.queue),
            "drop": lambda: self.queue.drop(self.ann),
        }
        return {name: count_calls(operation) for name, operation in operations.items()}


def count_calls(operation: Callable[[], object]) -> int:
    """How many functions, of Python and of C, the operation calls."""
    events = []
    gc.disable()  # a collection in between would count too, and all that listens to it
    sys.setprofile(lambda frame, event, argument: events.append(event))
    try:
        operation()
    finally:
        sys.setprofile(None)
        gc.enable()
    return sum(event in {"call", "c_call"} for event in events)


class SlowQueue:
    """What the queue should do, in a form to be seen to be right, at any cost.

    `jobs` are all that wait, in the order of their coming; `due` the round of each client's next
    turn, and `place` the number of its place; `round` the round that runs, `begun` whether
    a job of it was started, and `room` how many may still join it; `starts` when each client
    had its last start in each priority, since it last had jobs of several; `running` how many
    jobs of each run.
    """

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.held: set[FakeClient] = set()
        self.running: Counter[FakeClient] = Counter()
        self.most_running = 1000
        self.due: Counter[FakeClient] = Counter()
        self.place: Counter[FakeClient] = Counter()
        self.places = 0
        self.round = 0
        self.begun = False
        self.room = 0
        self.starts: Counter[tuple[FakeClient, Priority]] = Counter()

    def jobs_of(self, client: FakeClient) -> list[Job]:
        """What of `client` waits, by priority."""
        return sorted(
            (job for job in self.jobs if job.client is client), key=lambda job: job.priority
        )

    def urgency(self, client: FakeClient) -> int:
        """The priority of what is most urgent of `client`; 3 if nothing waits."""
        return min((job.priority for job in self.jobs_of(client)), default=3)

    def waiting(self) -> set[FakeClient]:
        """Who has jobs waiting."""
        clients: set[Any] = {job.client for job in self.jobs}
        return clients

    def take_place(self, client: FakeClient) -> None:
        """Have `client` stand behind all of its round that are as urgent."""
        self.places += 1
        self.place[client] = self.places

    def push(self, client: FakeClient, job: Job) -> None:
        """See the queue."""
        before = self.urgency(client)
        comes = before == 3 and self.due[client] <= self.round
        if not self.waiting():
            self.round = max(self.round, self.due[client])
            self.begun = False
        if comes:
            joins = not self.running[client] and (not self.begun or self.room > 0)
            self.due[client] = self.round if joins else self.round + 1
            self.room -= joins
        self.jobs.append(job)
        if self.urgency(client) < before:
            self.take_place(client)

    def first(self, clients: set[FakeClient]) -> FakeClient | None:
        """Which of these has the next turn."""
        return min(
            clients,
            key=lambda each: (self.due[each], self.urgency(each), self.place[each]),
            default=None,
        )

    def pass_over(self, client: FakeClient) -> None:
        """Have `client`, whose turn it is, stand behind its equals."""
        self.due[client] = max(self.due[client], self.round)
        self.take_place(client)

    def pop(self, now: float) -> Job | None:
        """See the queue."""
        candidates = self.waiting() - self.held
        passed = []
        while (client := self.first(candidates)) and self.running[client] >= self.most_running:
            passed.append(client)
            candidates.remove(client)
        only = [each for each, number in self.running.items() if number]
        if client is not None and only == [client] and len(self.waiting()) > 1:
            self.pass_over(client)
            client = self.first(candidates - {client}) or client
        for other in passed:
            self.pass_over(other)
        if client is None:
            return None
        job = self.next_of(client, now)
        turn = self.due[client]
        self.due[client] = max(turn, self.round) + 1
        self.jobs.remove(job)
        if self.urgency(client) < 3:
            self.take_place(client)
        if turn > self.round or (turn == self.round and not self.begun):
            self.round, self.begun, self.room = turn, True, len(self.waiting())
        self.running[client] += 1
        return job

    def next_of(self, client: FakeClient, now: float) -> Job:
        """The job of `client` that goes in its turn."""
        jobs = self.jobs_of(client)
        firsts = {job.priority: job for job in reversed(jobs)}
        chosen = jobs[0]
        for priority in sorted(firsts):
            job = firsts[priority]
            earlier = self.starts[client, priority] < self.starts[client, chosen.priority]
            if earlier and now - job.accepted_at >= AGEING:
                chosen = job
        if len(firsts) > 1:
            last = max(self.starts[client, priority] for priority in Priority)
            self.starts[client, chosen.priority] = last + 1
        return chosen

    def end(self, client: FakeClient) -> None:
        """A job of `client` has ended."""
        self.running[client] -= 1

    def remove(self, job: Job) -> bool:
        """See the queue."""
        if job not in self.jobs:
            return False
        assert isinstance(job.client, FakeClient)
        before = self.urgency(job.client)
        self.jobs.remove(job)
        if before != self.urgency(job.client):
            self.take_place(job.client)
        return True

    def drop(self, client: FakeClient) -> list[Job]:
        """See the queue."""
        dropped = self.jobs_of(client)
        self.jobs = [job for job in self.jobs if job not in dropped]
        self.held.discard(client)
        del self.due[client]
        for priority in Priority:
            del self.starts[client, priority]
        return dropped

    def hold(self, client: FakeClient) -> None:
        """See the queue."""
        self.held.add(client)

    def release(self, client: FakeClient) -> None:
        """See the queue."""
        if client in self.held:
            self.held.discard(client)
            self.pass_over(client)


CLIENTS = st.integers(0, 3)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), CLIENTS, st.sampled_from(Priority)),
        st.tuples(st.just("pop"), st.integers(1, 3)),
        st.tuples(st.just("end"), st.integers(0, 9)),
        st.tuples(st.just("most"), st.integers(1, 4)),
        st.tuples(st.just("remove"), st.integers(0, 30)),
        st.tuples(st.just("switch"), CLIENTS, st.sampled_from(["drop", "hold", "release"])),
        st.tuples(st.just("wait"), st.sampled_from([0, 1, 5, 10])),
    ),
    max_size=80,
)


class ModelTests(SynchronousTestCase):
    @settings(max_examples=120, deadline=None, derandomize=True)
    @given(STEPS)
    def test_same_as_the_slow_queue(self, steps: list[tuple[Any, ...]]) -> None:
        """Whatever happens to it, the queue does what its description says."""
        self.queue, self.model, self.now = JobQueue(AGEING), SlowQueue(), 0.0
        self.clients = [FakeClient(str(number)) for number in range(4)]
        self.pushed: list[Job] = []
        self.running: list[Job] = []
        for name, *details in steps:
            getattr(self, name)(*details)
            self.assertEqual(len(self.queue), len(self.model.jobs))
            self.assertEqual({job.id for job in self.queue}, {job.id for job in self.model.jobs})
        for number in range(4):
            self.switch(number, "release")
        self.most(1000)
        while self.model.jobs:
            self.pop(1)
        self.assertIsNone(self.queue.pop(self.now))

    def push(self, number: int, priority: Priority) -> None:
        """A client submits a job."""
        job = make_job(self.clients[number], priority=priority, accepted_at=self.now)
        self.pushed.append(job)
        self.queue.push(self.clients[number], job)
        self.model.push(self.clients[number], job)

    def pop(self, count: int) -> None:
        """So many jobs are started."""
        for _ in range(count):
            job = self.queue.pop(self.now)
            self.assertIs(job, self.model.pop(self.now))
            if job is not None:
                self.queue.started(job)
                self.running.append(job)

    def end(self, number: int) -> None:
        """A job ends."""
        if number < len(self.running):
            job = self.running.pop(number)
            assert isinstance(job.client, FakeClient)
            self.queue.ended(job)
            self.model.end(job.client)

    def most(self, number: int) -> None:
        """So many jobs of a client may run from now on."""
        self.queue.most_running = self.model.most_running = number

    def remove(self, number: int) -> None:
        """A job is cancelled."""
        if number < len(self.pushed):
            job = self.pushed[number]
            self.assertEqual(self.queue.remove(job), self.model.remove(job))

    def switch(self, number: int, how: str) -> None:
        """A client is put on hold, or released, or leaves."""
        client = self.clients[number]
        self.assertEqual(getattr(self.queue, how)(client), getattr(self.model, how)(client))

    def wait(self, tenths: int) -> None:
        """So many tenths of the time of ageing pass."""
        self.now += tenths * AGEING / 10


LANES = (None, b"X", b"Y")
LANE_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), CLIENTS, st.sampled_from(LANES)),
        st.tuples(st.just("pop"), st.just(0), st.none()),
        st.tuples(st.just("remove"), st.integers(0, 30), st.none()),
        st.tuples(st.sampled_from(["hold", "release"]), CLIENTS, st.none()),
        st.tuples(st.sampled_from(["close", "open"]), st.just(0), st.sampled_from(LANES[1:])),
    ),
    max_size=120,
)


class LanePropertyTests(SynchronousTestCase):
    @settings(max_examples=120, deadline=None, derandomize=True)
    @given(LANE_STEPS)
    def test_lanes(self, steps: list[tuple[str, int, bytes | None]]) -> None:
        """Whatever opens and closes, what may start does, in its order and its turn.

        While a client has a job that may start, each other one gets two turns at most.
        """
        queue = JobQueue(AGEING)
        clients = [FakeClient(str(number)) for number in range(4)]
        waiting: list[tuple[Job, bytes | None]] = []
        held: set[FakeClient] = set()
        closed: set[bytes | None] = set()
        overtaken: dict[tuple[IClient | None, IClient | None], int] = {}
        for name, number, lane in steps:
            client = clients[number % 4]
            if name == "push":
                waiting.append((make_job(client), lane))
                queue.push(client, *waiting[-1])
            elif name == "remove" and number < len(waiting):
                self.assertTrue(queue.remove(waiting.pop(number)[0]))
            elif name == "hold":
                held.add(client)
                queue.hold(client)
            elif name == "release":
                held.discard(client)
                queue.release(client)
            elif name == "close":
                closed.add(lane)
                queue.close_lane(lane)
            elif name == "open":
                closed.discard(lane)
                queue.open_lane(lane)
            ready = [
                (job, lane)
                for job, lane in waiting
                if lane not in closed and job.client not in held
            ]
            if name == "pop":
                popped = queue.pop(0.0)
                self.assertEqual(popped is None, not ready)
                if popped is not None:
                    (lane,) = [lane for job, lane in ready if job is popped]
                    mine = [
                        job for job, other in ready if other == lane and job.client is popped.client
                    ]
                    self.assertIs(mine[0], popped)
                    waiting.remove((popped, lane))
                    for other_client in clients:
                        pair = popped.client, other_client
                        overtaken[pair] = overtaken.get(pair, 0) + 1
                    for other_client in clients:
                        overtaken[other_client, popped.client] = 0
            may_start = {job.client for job, _ in ready}
            overtaken = {pair: n for pair, n in overtaken.items() if pair[1] in may_start}
            self.assertLessEqual(max(overtaken.values(), default=0), 2)
            self.assertEqual(len(queue), len(waiting))
            self.assertEqual({job.id for job in queue}, {job.id for job, _ in waiting})
