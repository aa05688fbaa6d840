"""A dispatcher with clients and workers, for stories and for other tests."""

from __future__ import annotations

from typing import Any

from dangad.scheduler.dispatcher import Dispatcher
from dangad.scheduler.record import Death, Job
from dangad.scheduler.retries import LONGEST_RETRY
from dangad.wire.values import Priority
from tests.fakes import FakeClient, FakeSupervisor, FakeWorker, catalogue, make_job
from tests.unit.scheduler.stories import StoryTestCase, types, value_of
from tests.unit.scheduler.whole import assert_whole

ECHO = catalogue("Echo")
MAX_QUEUED = 20


class DispatcherTestCase(StoryTestCase):
    """A dispatcher with a clock, clients, and a supervisor that sends nobody by itself."""

    performs = ECHO
    """The catalogue of workers that say nothing else."""

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
        worker.say_hello()
        self.dispatcher.worker_ready(worker, self.code if performs is None else performs)
        return worker

    def answer(
        self, worker: FakeWorker, failed: bool = False, body: bytes = b"\0\0", **how: bool
    ) -> Job:
        """Have `worker` answer its job, which is returned."""
        reusable = how.pop("reusable", True) and worker.killed is None
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

    def do_types(self, *words: str) -> None:
        """Workers that come from now on perform these."""
        self.code = types(words)

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

    def do_answers(self, worker: FakeWorker, body: str = "\0\0") -> None:
        """A worker answers its job."""
        self.answer(worker, body=body.encode())

    def do_fails(self, worker: FakeWorker) -> None:
        """It answers with an error."""
        self.answer(worker, failed=True)

    def do_spoils(self, worker: FakeWorker) -> None:
        """It answers, and cannot be used any more."""
        self.answer(worker, reusable=False)

    def do_tells(self, worker: FakeWorker) -> None:
        """A worker tells news of its job."""
        self.dispatcher.answers.job_reported(worker, b"news", False)

    def do_sends(self, worker: FakeWorker) -> None:
        """It sends a part of its job's result."""
        self.dispatcher.answers.job_reported(worker, b"part", True)

    def do_dies(self, worker: FakeWorker, how: str = "was killed by SIGKILL") -> None:
        """A worker is gone."""
        self.die(worker, how)

    def do_lose(self, count: str) -> None:
        """So many workers come, one after the other, and die of the job that they get."""
        for _ in range(int(count)):
            worker = self.ready()
            self.assertIsNotNone(worker.job)
            self.die(worker)

    def do_rest(self) -> None:
        """As much passes as the longest rest before a job's next attempt."""
        self.clock.advance(LONGEST_RETRY)

    def do_turns(self, count: str) -> None:
        """The reactor turns."""
        for _ in range(int(count)):
            self.clock.advance(0)

    def do_drain(self, seconds: str) -> None:
        """The server stops."""
        self.dispatcher.drain(float(seconds))

    def do_dismiss(self, worker: str = "") -> None:
        """The supervisor lets this worker go, or whoever is idle."""
        if worker:
            self.dispatcher.dismiss(self.named[worker])
        else:
            self.dispatcher.dismiss_idle(self.clock.seconds())

    def do_call_back(self, *workers: str) -> None:
        """The supervisor wants one of these workers, none of which is idle."""
        self.assertIsNone(self.dispatcher.call_back([self.named[name] for name in workers]))

    def do_no_workers(self, why: str) -> None:
        """No worker can be had."""
        self.dispatcher.no_workers(why)

    def do_break(self, path: str) -> None:
        """A method of the dispatcher, or of a worker, raises once."""
        *owners, name = path.split(".")
        thing: Any = self.named.get(owners[0], self.dispatcher)
        for owner in owners[owners[0] in self.named :]:
            thing = getattr(thing, owner)
        self.break_once(thing, name)

    # What is true then.

    def see_paused(self, *workers: str) -> None:
        """Exactly these workers are held back."""
        self.assertEqual(sorted(n for n, w in self.named.items() if w.paused), sorted(workers))

    def see_demanded(self, *counts: str) -> None:
        """For how many jobs workers were asked for, each time."""
        self.assertEqual(self.supervisor.demands, [int(count) for count in counts])

    def see_released(self, *workers: str) -> None:
        """Which workers the supervisor was told it may have, in order."""
        self.assertEqual([self.name_of(each) for each in self.supervisor.released], [*workers])

    def see_queued_bytes(self, size: str) -> None:
        """How many bytes those that wait have."""
        self.assertEqual(self.dispatcher.state.queue.size, int(size))

    def see_logged(self, count: str) -> None:
        """How many failures of the server's own were logged."""
        self.assertEqual(len(self.flushLoggedErrors(MemoryError)), int(count))
