"""The short stories in which tests of the scheduler's rules speak.

They are in the form of :mod:`tests.unit.telling`: first the deeds, then what must be true, and so
on; names stand for themselves, the first time and always::

    ready w, ann: a b, w runs a, w dies, a told "WORKER_LOST", queued b

``ann: a few/Few/low/5s`` is that Ann submits two jobs, the second of type ``Few``, with low
priority and a deadline; ``parts`` has it ask for parts, ``100B`` gives its request a size.
``bob reacts: cancel b`` has Bob do that when he is told of an outcome next. Workers that come after
``types Few:max_running=2`` perform these types. With ``pause Few`` an operator pauses a type, with
``pause`` everything; with ``withdraw a`` one cancels a job.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.internet.task import Clock

from dangad.scheduler.record import Job, JobState
from dangad.wire.values import Priority
from tests.fakes import FakeClient, FakeWorker, catalogue, make_job
from tests.unit.telling import TellingTestCase, names

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dangad.scheduler.dispatcher import Dispatcher
    from tests.unit.telling import Deeds


def value_of(word: str) -> object:
    """What a word of a policy stands for: a number, True, None, or itself."""
    if word in ("none", "yes"):
        return True if word == "yes" else None
    return (float(word) if "." in word else int(word)) if word[0].isdigit() else word


def encoded(commands: tuple[str, ...]) -> list[bytes] | None:
    """Commands as operators name them to the dispatcher; none stand for all jobs."""
    return [command.encode() for command in commands] or None


def types(words: Iterable[str]) -> str:
    """The catalogue of these job types, each with its policy: ``Few:max_running=1:retries=2``."""
    policies = {}
    for word in words:
        name, *policy = word.split(":")
        policies[name] = {k: value_of(v) for k, _, v in (item.partition("=") for item in policy)}
    return catalogue(**policies)


class StoryTestCase(TellingTestCase):
    """Clients of a dispatcher and its workers, by their names; what stories can tell of all."""

    deeds: ClassVar[Deeds] = {
        "wait": lambda case, seconds: case.clock.advance(float(seconds)),
        "lag": lambda case, seconds: case.late(float(seconds)),  # the reactor is too busy to notice
        "cancel": lambda case, *jobs: case.cancel_all(case.of(jobs)),
        "hold": lambda case, client: case.dispatcher.hold(case.client(client)),
        "release": lambda case, client: case.dispatcher.release(case.client(client)),
        "leaves": lambda case, client: case.leave(client),
        "pause": lambda case, *commands: case.dispatcher.pause(encoded(commands)),
        "resume": lambda case, *commands: case.dispatcher.resume(encoded(commands)),
        "withdraw": lambda case, job: case.dispatcher.cancel_by_operator(case.jobs[job]),
    }
    facts: ClassVar[Deeds] = {
        "waiting": lambda case: case.dispatcher.waiting,  # jobs
        "seeking": lambda case: case.dispatcher.seeking,
        "all_paused": lambda case: "yes" if case.dispatcher.paused.all else "no",
        "commands_paused": lambda case: sorted(
            command.decode() for command in case.dispatcher.paused.commands
        ),
        "busy": lambda case: case.dispatcher.running,  # workers
        "idle": lambda case: case.dispatcher.idle,
        "refused": lambda case: case.dispatcher.counters.refused,
        "ended": lambda case: [f"{end.replace(' ', '_')}={n}" for end, n in case.ended().items()],
        # Of a worker: its job, whether it may go on with it, and its request's size.
        "runs": lambda case, worker: case.name_of(worker.job),
        "undisturbed": lambda _, worker: [
            *worker.interrupts,
            *([worker.killed] * bool(worker.killed)),
        ],
        "interrupted": lambda _, worker: [why.decode() for why in worker.interrupts],
        "read": lambda _, worker: len(worker.boxes[-1]),
        # Of a job: which attempt it is, how long it has waited, the bytes of its request.
        "attempt": lambda _, job: job.attempt,
        "waited": lambda _, job: job.wait,
        "keeps": lambda _, job: len(job.box),
        # Of a client: its answers and news, in order, and how many of its jobs failed.
        "answered": lambda case, client: [case.name_of(job) for job, *_ in client.answers],
        "news": lambda case, client: [case.name_of(job) for job, *_ in client.reports],
        "failures": lambda _, client: len(client.failures),
    }

    dispatcher: Dispatcher

    def begin_anew(self) -> None:
        """Have a new clock, and nobody whom others know."""
        self.clock = Clock()
        self.clock.advance(1000)
        self.clients: dict[str, FakeClient] = {}
        self.jobs: dict[str, Job] = {}
        self.owners: dict[Job, FakeClient] = {}
        self.named: dict[str, FakeWorker] = {}
        self.reactions: list[str] = []
        self.ann, self.bob = self.client("ann"), self.client("bob")

    def connect(self, name: str) -> FakeClient:
        """A new client."""
        return FakeClient(name)

    def client(self, name: str) -> FakeClient:
        """The client of this name."""
        if name not in self.clients:
            self.clients[name] = self.connect(name)
        return self.clients[name]

    def cancel_all(self, jobs: list[Job]) -> None:
        """Cancel these jobs."""
        for job in jobs:
            self.dispatcher.cancel(job)

    def ended(self) -> dict[str, int]:
        """How many jobs came to which end, without those to which none came."""
        ended = self.dispatcher.counters.ended.items()
        return {state.value: count for state, count in ended if count}

    def late(self, seconds: float) -> None:
        """Time passes, and the reactor does not notice yet."""
        self.clock.rightNow += seconds

    def leave(self, client: FakeClient) -> None:
        """Have `client` disconnect; if it is told anything afterwards, it raises."""
        client.gone = True
        self.dispatcher.client_gone(client)

    def see_all_is_over(self) -> None:
        """See that nothing is left of a story, and all have reacted who were to."""
        self.assertEqual(self.reactions, [], "nobody was told")
        self.tearDown()

    def say(self, sentence: str) -> None:
        """Have one sentence be true."""
        subject, colon, deed = sentence.partition(" reacts: ")
        first, *rest = sentence.split()
        if colon:
            self.react(self.client(subject), deed)
        elif first in _STATES:
            states = {name: self.jobs[name].state.value for name in names(rest)}
            self.assertEqual(states, dict.fromkeys(states, _STATES[first]))
        else:
            super().say(sentence)

    def find(self, name: str) -> FakeWorker | FakeClient | Job:
        """The worker, client or job of this name."""
        things: dict[str, Any] = {**self.jobs, **self.clients, **self.named}
        found: FakeWorker | FakeClient | Job = things[name]
        return found

    def ask(self, name: str, word: str) -> None:
        """Have a client submit a job: its name, and what there is to say about it."""
        client = self.client(name)
        job_name, *rest = word.split("/")
        options: dict[str, Any] = {}
        for about in rest:
            if about.upper() in Priority.__members__:
                options["priority"] = Priority[about.upper()]
            elif about == "parts":
                options["wants_chunks"] = True
            elif about.endswith("B") and about[0].isdigit():
                options["box"] = bytes(int(about[:-1]))
            elif about.endswith("s") and about[0].isdigit():
                options["deadline"] = float(about[:-1])
            else:
                options["command"] = about
        self.jobs[job_name] = job = make_job(client, **options)
        self.owners[job] = client
        self.dispatcher.submit(job)

    def react(self, client: FakeClient, deed: str) -> None:
        """Have a client do this when it is told next."""
        self.reactions.append(deed)

        def when_told(_: Job) -> None:
            client.when_told = client.when_reported = None
            self.reactions.remove(deed)
            for part in deed.split(" and "):
                self.say(part)

        client.when_told = client.when_reported = when_told

    def of(self, words: Iterable[str]) -> list[Job]:
        """The jobs of these names."""
        return [self.jobs[name] for name in names(words) if name != "nothing"]

    def name_of(self, thing: object) -> str:
        """The name of a job or worker."""
        things: dict[str, object] = {**self.jobs, **self.named}
        return next((name for name, each in things.items() if each is thing), "nothing")

    # What is true then.

    def see_ran(self, worker: FakeWorker, *jobs: str) -> None:
        """Which jobs the worker was given last, in order."""
        given = [self.name_of(job) for job in worker.given]
        self.assertEqual(given[-len(names(jobs)) :], names(jobs))

    def see_served(self, worker: FakeWorker, *clients: str) -> None:
        """Whose jobs the worker was given last, in order."""
        given = worker.given[-len(clients) :]
        self.assertEqual([self.owners[job].name for job in given], [*clients])

    def see_killed(self, worker: FakeWorker, why: str = "") -> None:
        """The worker is being killed, for this."""
        self.assertIn(why, worker.killed or "it is not")

    def see_performing(self, command: str, count: str) -> None:
        """How many jobs of a type run."""
        running = Counter(
            job.command.decode() for job in self.dispatcher.state.assignments.running()
        )
        self.assertEqual(running[command], int(count))

    def see_told(self, job: Job, text: str) -> None:
        """Its client was told that the job ended with this, once; ``{w}`` is a worker's pid."""
        numbers = {name: worker.pid for name, worker in self.named.items()}
        numbers |= {name: each.id for name, each in self.jobs.items()}
        for name, number in numbers.items():
            text = text.replace(f"{{{name}}}", str(number))
        text = " ".join(text.split())
        told = [str_of(client, job) for client in self.clients.values() if job.id in client.told]
        self.assertEqual([text in each for each in told], [True], told)


_STATES = {state.value.replace(" ", "_"): state.value for state in JobState}


def str_of(client: FakeClient, job: Job) -> str:
    """The code and the text with which `job` ended, or "answered"."""
    failed = any(ended is job for ended, _ in client.failures)
    return client.failure_of(job) if failed else "answered"
