"""A dispatcher with clients and workers, for stories and for other tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from dangad.scheduler.dispatcher import Dispatcher
from dangad.scheduler.record import Death, Job
from dangad.scheduler.retries import LONGEST_RETRY
from dangad.wire.values import Priority
from tests.fakes import FakeClient, FakeSupervisor, FakeWorker, catalogue, make_job
from tests.unit.scheduler.stories import StoryTestCase, types, value_of
from tests.unit.scheduler.whole import assert_whole

if TYPE_CHECKING:
    from tests.unit.telling import Deeds

ECHO = catalogue("Echo")
MAX_QUEUED = 20


class DispatcherTestCase(StoryTestCase):
    """A dispatcher with a clock, clients, and a supervisor that sends nobody by itself."""

    performs = ECHO
    """The catalogue of workers that say nothing else."""
    deeds: ClassVar[Deeds] = StoryTestCase.deeds | {
        "types": lambda case, *words: setattr(case, "code", types(words)),
        "answers": lambda case, worker: case.answer(worker),
        "fails": lambda case, worker: case.answer(worker, failed=True),
        "spoils": lambda case, worker: case.answer(worker, reusable=False),  # its last answer
        "tells": lambda case, worker: case.dispatcher.answers.job_reported(worker, b"news", False),
        "sends": lambda case, worker: case.dispatcher.answers.job_reported(worker, b"part", True),
        "dies": lambda case, worker, *how: case.die(worker, *how),
        "dies_unread": lambda case, worker: case.die_unread(worker),  # it had not read its job
        "rest": lambda case: case.clock.advance(LONGEST_RETRY),  # before a job's next attempt
        "drain": lambda case, seconds: case.dispatcher.drain(float(seconds)),
        "no_workers": lambda case, why: case.dispatcher.no_workers(why),
    }
    facts: ClassVar[Deeds] = StoryTestCase.facts | {
        "queued_bytes": lambda case: case.dispatcher.state.queue.size,
        "demanded": lambda case: list(case.supervisor.demands),
        "released": lambda case: [case.name_of(each) for each in case.supervisor.released],
        "paused": lambda case: [name for name, each in case.named.items() if each.paused],
        "logged": lambda case: len(case.flushLoggedErrors(MemoryError)),  # failures of the server's
    }

    def begin_anew(self) -> None:
        """Have a new clock and a new dispatcher, and nobody who knows it."""
        super().begin_anew()
        self.broken = False
        self.dispatcher = Dispatcher(self.clock, MAX_QUEUED)
        self.supervisor = FakeSupervisor()
        self.dispatcher.supervised_by(self.supervisor)
        self.code = self.performs

    def connect(self, name: str) -> FakeClient:
        """A client; whenever it is told of an outcome, the dispatcher's state is whole."""
        client = FakeClient(name)
        client.watch = lambda _: None if self.broken else assert_whole(self.dispatcher)
        return client

    def tearDown(self) -> None:
        """See that the dispatcher's state is whole, and no alarm is left for what has ended."""
        if self.broken:
            return
        assert_whole(self.dispatcher)
        if not self.dispatcher.waiting + self.dispatcher.running:
            self.dispatcher.state.quiet.flush()
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def serve(self, **options: Any) -> None:
        """Have another dispatcher, with these options."""
        self.dispatcher = Dispatcher(self.clock, MAX_QUEUED, **options)
        self.dispatcher.supervised_by(self.supervisor)

    def submit(
        self,
        client: FakeClient,
        command: str = "Echo",
        priority: Priority = Priority.NORMAL,
        **options: Any,
    ) -> Job:
        """A job of `client`, submitted."""
        job = make_job(client, command, priority, **options)
        self.dispatcher.submit(job)
        return job

    def ready(self, performs: str | None = None) -> FakeWorker:
        """A worker that has just said Hello."""
        worker = FakeWorker()
        worker.say_hello(self.code if performs is None else performs)
        self.dispatcher.worker_ready(worker, worker.performs)
        return worker

    def answer(
        self, worker: FakeWorker, failed: bool = False, body: bytes = b"\0\0", **how: bool
    ) -> Job:
        """Have `worker` answer its job, which is returned."""
        reusable = how.pop("reusable", not worker.ends_with_its_job) and worker.killed is None
        job = worker.finish(reusable or worker.begun > 0)
        self.dispatcher.answers.job_finished(
            worker, failed, body, b"250000 2000", reusable=reusable, **how
        )
        return job

    def die(self, worker: FakeWorker, how: str = "was killed by SIGKILL") -> None:
        """Have `worker` be gone."""
        worker.die()
        self.dispatcher.worker_gone(worker, Death(worker.killed or how))

    def die_unread(self, worker: FakeWorker) -> None:
        """Have `worker` be gone before it had read its job."""
        unread = worker.boxes[-1]
        worker.die()
        self.dispatcher.worker_gone(worker, Death("was killed by SIGKILL", unread=unread))

    def break_once(self, whom: object, name: str) -> None:
        """Have a method raise when it is next called, as if there was no memory.

        The counters may be wrong from then on, but nothing else.
        """
        self.broken = True

        def raise_it(*_: object, **__: object) -> None:
            patch.restore()
            raise MemoryError

        patch = self.patch(whom, name, raise_it)

    # What happens in stories.

    def do_server(self, *options: str) -> None:
        """The dispatcher is made with these options; those of the queue may change later, too."""
        pairs = {k: value_of(v) for k, _, v in (item.partition("=") for item in options)}
        if set(pairs) <= {"max_queued", "max_queued_bytes"}:
            for name, value in pairs.items():
                setattr(self.dispatcher.admission, name, value)
        else:
            self.serve(**pairs)

    def do_ready(self, *workers: str) -> None:
        """Workers say Hello."""
        for name in workers:
            self.named[name] = self.ready()

    def do_lose(self, count: str) -> None:
        """So many workers come, one after the other, and die of the job that they get."""
        for _ in range(int(count)):
            worker = self.ready()
            self.assertIsNotNone(worker.job)
            self.die(worker)

    def do_turns(self, count: str) -> None:
        """The reactor turns."""
        for _ in range(int(count)):
            self.clock.advance(0)

    def do_dismiss(self, worker: str = "") -> None:
        """The supervisor lets this worker go, or whoever is idle."""
        if worker:
            self.dispatcher.dismiss(self.named[worker])
        else:
            self.dispatcher.dismiss_idle(self.clock.seconds())

    def do_call_back(self, *workers: str) -> None:
        """The supervisor wants one of these workers, none of which is idle."""
        self.assertIsNone(self.dispatcher.call_back([self.named[name] for name in workers]))

    def do_break(self, path: str) -> None:
        """A method of the dispatcher, or of a worker, raises once."""
        *owners, name = path.split(".")
        thing: Any = self.named.get(owners[0], self.dispatcher)
        for owner in owners[owners[0] in self.named :]:
            thing = getattr(thing, owner)
        self.break_once(thing, name)

    # What is true then.
