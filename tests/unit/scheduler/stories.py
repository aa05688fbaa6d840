"""The short stories in which tests of the scheduler's rules speak.

A story is a row of sentences, with commas or line ends between them. First the deeds, then what
must be true, and so on; names stand for themselves, the first time and always::

    ready w, ann: a b, w runs a, w dies, a told "WORKER_LOST", queued b

``ann: a few/Few/low/5s`` is that Ann submits two jobs, the second of type ``Few``, with low
priority and a deadline; ``parts`` has it ask for parts, ``100B`` gives its request a size. ``a1-3``
are three jobs. ``3x w answers`` is that it does so three times. ``bob reacts: cancel b`` has Bob do
that when he is told of an outcome next. ``types Few:max_running=2`` are the job types that those
workers perform that come from then on. Every other word is a method of the test case,
``do_`` or ``see_`` before it.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from typing import TYPE_CHECKING, Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dangad.scheduler.record import Job, JobState
from dangad.wire.values import Priority
from tests.fakes import FakeClient, FakeWorker, catalogue, make_job

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dangad.scheduler.dispatcher import Dispatcher

_SENTENCE = re.compile(r'(?:[^,\n"]|"[^"]*")+')
_RANGE = re.compile(r"(\D+)(\d+)-(\d+)$")
_TIMES = re.compile(r"(\d+)x$")


def names(words: Iterable[str]) -> list[str]:
    """The names in these words, where ``a1-3`` is ``a1 a2 a3``, each with the rest of its word."""
    found = []
    for word in words:
        name, slash, rest = word.partition("/")
        if (match := _RANGE.match(name)) is None:
            found.append(word)
            continue
        stem, first, last = match.groups()
        found += [f"{stem}{n}{slash}{rest}" for n in range(int(first), int(last) + 1)]
    return found


def value_of(word: str) -> object:
    """What a word of a policy stands for: a number, None, or itself."""
    if word == "none":
        return None
    return (float(word) if "." in word else int(word)) if word[0].isdigit() else word


def types(words: Iterable[str]) -> str:
    """The catalogue of these job types, each with its policy: ``Few:max_running=1:retries=2``."""
    policies = {}
    for word in words:
        name, *policy = word.split(":")
        policies[name] = {k: value_of(v) for k, _, v in (item.partition("=") for item in policy)}
    return catalogue(**policies)


class StoryTestCase(SynchronousTestCase):
    """Clients of a dispatcher and its workers, by their names; what stories can tell of all."""

    dispatcher: Dispatcher

    def setUp(self) -> None:
        """Begin the first story."""
        self.begin_anew()

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

    def leave(self, client: FakeClient) -> None:
        """Have `client` disconnect; if it is told anything afterwards, it raises."""
        client.gone = True
        self.dispatcher.client_gone(client)

    def tell(self, stories: dict[str, str], prelude: str = "") -> None:
        """Tell each of these stories, which have what they show as their names."""
        for shows, story in stories.items():
            with self.subTest(shows):
                self.begin_anew()
                self.play(f"{prelude}\n{story}")
                self.assertEqual(self.reactions, [], "nobody was told")
                self.tearDown()

    def play(self, story: str) -> None:
        """Have happen what the story tells, and see that it is true."""
        for sentence in filter(str.strip, _SENTENCE.findall(story)):
            try:
                self.say(sentence.strip())
            except Exception as error:
                error.add_note(f"in {sentence.strip()!r} of: {story}")
                raise

    def say(self, sentence: str) -> None:
        """Have one sentence be true."""
        subject, colon, deed = sentence.partition(" reacts: ")
        if colon:
            self.react(self.client(subject), deed)
            return
        first, *rest = shlex.split(sentence)
        if times := _TIMES.match(first):
            for _ in range(int(times[1])):
                self.say(sentence.split(None, 1)[1])
        elif first.endswith(":"):
            for word in names(rest):
                self.ask(self.client(first[:-1]), word)
        elif first in _STATES:
            states = {name: self.jobs[name].state.value for name in names(rest)}
            self.assertEqual(states, dict.fromkeys(states, _STATES[first]))
        elif hasattr(self, f"do_{first}"):
            getattr(self, f"do_{first}")(*names(rest))
        elif hasattr(self, f"see_{first}"):
            getattr(self, f"see_{first}")(*rest)
        else:
            self.act(first, *rest)

    def act(self, subject: str, verb: str, *rest: str) -> None:
        """Have a worker, client or job do something, or see that it has."""
        method = getattr(self, f"do_{verb}", None) or getattr(self, f"see_{verb}")
        for things in (self.named, self.clients, self.jobs):
            if subject in things:
                method(things[subject], *rest)
                return
        raise AssertionError(f"nobody is called {subject!r}")

    def ask(self, client: FakeClient, word: str) -> None:
        """Have a client submit a job: its name, and what there is to say about it."""
        name, *rest = word.split("/")
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
        self.jobs[name] = job = make_job(client, **options)
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

    # What happens.

    def do_cancel(self, *jobs: str) -> None:
        """Jobs are cancelled."""
        self.cancel_all(self.of(jobs))

    def do_hold(self, client: str) -> None:
        """A client does not read."""
        self.dispatcher.hold(self.client(client))

    def do_release(self, client: str) -> None:
        """A client reads again."""
        self.dispatcher.release(self.client(client))

    def do_leaves(self, client: FakeClient) -> None:
        """A client disconnects."""
        self.leave(client)

    def do_wait(self, seconds: str) -> None:
        """Time passes."""
        self.clock.advance(float(seconds))

    def do_lag(self, seconds: str) -> None:
        """Time passes, and the reactor is too busy to notice."""
        self.clock.rightNow += float(seconds)

    # What is true then.

    def see_runs(self, worker: FakeWorker, *job: str) -> None:
        """Which job the worker runs."""
        self.assertEqual(self.name_of(worker.job), *job)

    def see_ran(self, worker: FakeWorker, *jobs: str) -> None:
        """Which jobs the worker was given last, in order."""
        given = [self.name_of(job) for job in worker.given]
        self.assertEqual(given[-len(names(jobs)) :], names(jobs))

    def see_served(self, worker: FakeWorker, *clients: str) -> None:
        """Whose jobs the worker was given last, in order."""
        given = worker.given[-len(clients) :]
        self.assertEqual([self.owners[job].name for job in given], [*clients])

    def see_undisturbed(self, worker: FakeWorker) -> None:
        """The worker was neither interrupted nor killed."""
        self.assertEqual((worker.interrupts, worker.killed), ([], None))

    def see_interrupted(self, worker: FakeWorker, *why: str) -> None:
        """The worker was interrupted, for this."""
        self.assertEqual(worker.interrupts, [word.encode() for word in why])

    def see_killed(self, worker: FakeWorker, why: str = "") -> None:
        """The worker is being killed, for this."""
        self.assertIn(why, worker.killed or "it is not")

    def see_waiting(self, count: str) -> None:
        """How many jobs wait."""
        self.assertEqual(self.dispatcher.waiting, int(count))

    def see_busy(self, count: str) -> None:
        """How many workers run a job."""
        self.assertEqual(self.dispatcher.running, int(count))

    def see_idle(self, count: str) -> None:
        """How many workers are idle."""
        self.assertEqual(self.dispatcher.idle, int(count))

    def see_refused(self, count: str) -> None:
        """How many jobs were refused."""
        self.assertEqual(self.dispatcher.counters.refused, int(count))

    def see_ended(self, *ends: str) -> None:
        """How many jobs came to which end."""
        counts = (end.split("=") for end in ends)
        self.assertEqual(self.ended(), {_STATES[state]: int(count) for state, count in counts})

    def see_performing(self, command: str, count: str) -> None:
        """How many jobs of a type run."""
        running = Counter(
            job.command.decode() for job in self.dispatcher.state.assignments.running()
        )
        self.assertEqual(running[command], int(count))

    def see_attempt(self, job: Job, number: str) -> None:
        """How often a job was begun."""
        self.assertEqual(job.attempt, int(number))

    def see_waited(self, job: Job, seconds: str) -> None:
        """How long a job waited."""
        self.assertEqual(job.wait, float(seconds))

    def see_told(self, job: Job, text: str) -> None:
        """Its client was told that the job ended with this, once; ``{w}`` is a worker's pid."""
        numbers = {name: worker.pid for name, worker in self.named.items()}
        numbers |= {name: each.id for name, each in self.jobs.items()}
        for name, number in numbers.items():
            text = text.replace(f"{{{name}}}", str(number))
        text = " ".join(text.split())
        told = [str_of(client, job) for client in self.clients.values() if job.id in client.told]
        self.assertEqual([text in each for each in told], [True], told)

    def see_read(self, worker: FakeWorker, size: str) -> None:
        """How many bytes the last request has that the worker was given."""
        self.assertEqual(len(worker.boxes[-1]), int(size))

    def see_keeps(self, job: Job, size: str) -> None:
        """How many bytes of its request a job still has."""
        self.assertEqual(len(job.box), int(size))

    def see_answered(self, client: FakeClient, *jobs: str) -> None:
        """Which answers a client has, in order."""
        self.assertEqual([self.name_of(job) for job, *_ in client.answers], names(jobs))

    def see_failures(self, client: FakeClient, count: str) -> None:
        """How many of a client's jobs ended without an answer."""
        self.assertEqual(len(client.failures), int(count))

    def see_news(self, client: FakeClient, *jobs: str) -> None:
        """Of which jobs a client was told news, in order."""
        self.assertEqual([self.name_of(job) for job, *_ in client.reports], [*jobs])


_STATES = {state.value.replace(" ", "_"): state.value for state in JobState}


def str_of(client: FakeClient, job: Job) -> str:
    """The code and the text with which `job` ended, or "answered"."""
    failed = any(ended is job for ended, _ in client.failures)
    return client.failure_of(job) if failed else "answered"
