"""The history of a run, as clients and workers wrote it down, and what contradicts in it.

Pure: :mod:`tests.historyload` makes the clients' part, :mod:`tests.historyjobs` the workers'.
Times are of the system's one monotonic clock, so those of different processes compare.

What a worker does lies behind what the server decided: a job that was handed to a worker may
begin a moment later, after it was cancelled. So of a job that the server has let go of by a
time T (cancelled, its client gone, its deadline passed) it is not said that nothing begins
after T, but that only what a worker had in hand does: the first sign that the worker gives
after T. Of a job whose end was answered, nothing at all may be seen afterwards.
"""

import os
import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter

from dangad.scheduler.endings import GRACE
from dangad.wire.catalogue import Policy

SLACK = 1.5
"""Seconds that a loaded machine may be late with what a clock decides."""
STOPPED = frozenset({"CANCELLED", "DEADLINE_PASSED", "TIMED_OUT", "WORKER_LOST"})
"""Errors with which the process that ran the job is gone."""
_NOTHING_RAN = re.compile(r"it never ran|is stopping|nothing ran")
_NOT_AGAIN = re.compile(r"too many workers in a row|not tried again: no worker can be started")
_NAMES_WORKER = re.compile(r"worker (\d+) ")


@dataclass(frozen=True, slots=True)
class Request:
    """A client is about to send a request."""

    time: float
    connection: int
    tag: str
    command: str
    name: str = ""
    """Of the job, unlike any other's; empty for a command of the server's own."""
    deadline: float | None = None
    reports: frozenset[str] = frozenset()
    """The kinds of reports that it asks for."""
    target: str = ""
    """The tag of the request that this one cancels."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A client has received an answer or an error."""

    time: float
    connection: int
    tag: str
    code: str = ""
    """Of the error; empty for a result."""
    text: str = ""
    """The error's description, or the result's token."""
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """A client has received progress, or a chunk with a number."""

    time: float
    connection: int
    tag: str
    kind: str
    number: int = 0


@dataclass(frozen=True, slots=True)
class Closed:
    """A connection is closed, by the client if `by_client`; what it asked need not be answered."""

    time: float
    connection: int
    by_client: bool = True


@dataclass(frozen=True, slots=True)
class Noticed:
    """By now the server knows that the connection is closed."""

    time: float
    connection: int


@dataclass(frozen=True, slots=True)
class Killed:
    """The process is about to be killed."""

    time: float
    pid: int


@dataclass(frozen=True, slots=True)
class Frozen:
    """The process is about to be stopped, for a while or for good, and may be found and killed."""

    time: float
    pid: int


Event = Request | Answer | Report | Closed | Noticed | Killed | Frozen


@dataclass(frozen=True, slots=True)
class Line:
    """A worker's sign of life.

    "boot": it imports its jobs; "start" and "end": of a job, the latter with the attempt's
    token, or with the name of the exception that stopped it; "alive": in the middle of a job;
    "dies": the job is about to kill it; "twin": the attempt before still lives, in the process
    that is named.
    """

    time: float
    sign: str
    name: str = "-"
    attempt: int = 0
    outcome: str = "-"


@dataclass
class Worker:
    """The life of one worker's process."""

    pid: int
    lines: list[Line] = field(default_factory=list)

    @property
    def last(self) -> float:
        """The time of its last sign of life."""
        return self.lines[-1].time if self.lines else 0.0

    def had_in_hand(self, line: Line, moment: float) -> bool:
        """Whether `line` is the first sign after `moment`, so that it was given before."""
        first = bisect_right(self.lines, moment, key=attrgetter("time"))
        return first == len(self.lines) or self.lines[first].time >= line.time


@dataclass
class Attempt:
    """One run of a job, as its worker saw it."""

    worker: Worker
    start: Line
    last: Line
    end: Line | None = None


@dataclass
class Story:
    """All that is known of one job.

    `accepted`, `cancelled_by` and `noticed` are times by which the server has its request, its
    cancel, and the end of its connection; `cancelled_from` and `closed` those before which it
    has not.
    """

    request: Request
    policy: Policy
    answer: Answer | None = None
    cancelled_from: float | None = None
    cancelled_by: float | None = None
    closed: float | None = None
    noticed: float | None = None
    accepted: float | None = None
    attempts: list[Attempt] = field(default_factory=list)
    twins: list[Line] = field(default_factory=list)

    @property
    def code(self) -> str | None:
        """The code of its answer, None if it has none."""
        return None if self.answer is None else self.answer.code


@dataclass
class History:
    """What all of them wrote down."""

    policies: Mapping[str, Policy]
    events: list[Event] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)

    def about(self, name: str) -> list[str]:
        """All that was written down of one job, in the order of time, to be read."""
        request = next(e for e in self.events if isinstance(e, Request) and e.name == name)
        seen: list[tuple[float, str]] = [
            (event.time, repr(event))
            for event in self.events
            if not isinstance(event, (Killed, Frozen))
            and event.connection == request.connection
            and (isinstance(event, (Closed, Noticed)) or request.tag in (event.tag, _target(event)))
        ]
        pids = set()
        for worker in self.workers:
            lines = [line for line in worker.lines if line.name == name]
            seen += [(line.time, f"worker {worker.pid}: {line}") for line in lines]
            if lines:
                pids.add(worker.pid)
                seen.append((worker.last, f"worker {worker.pid}: its last sign of life"))
        if told := [e for e in self.events if isinstance(e, Answer) and e.tag == request.tag]:
            pids |= {int(pid) for event in told for pid in _NAMES_WORKER.findall(event.text)}
        seen += [
            (event.time, repr(event))
            for event in self.events
            if isinstance(event, (Killed, Frozen)) and event.pid in pids
        ]
        return [f"{time:.6f} {text}" for time, text in sorted(seen)]


def read_workers(folder: str) -> list[Worker]:
    """The workers whose files are in `folder`; a last line that was not written whole is left."""
    workers = []
    for name in sorted(os.listdir(folder)):
        pid, _, born = name.partition("-")
        if not (pid.isdigit() and born.isdigit()):
            continue
        with open(os.path.join(folder, name)) as file:
            lines = [line.split() for line in file if line.endswith("\n")]
        workers.append(
            Worker(int(pid), [Line(float(t), s, n, int(a), o) for t, s, n, a, o in lines])
        )
    return workers


class Reconciliation:
    """The two halves of a history, put together job by job, and the rules that it must keep."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.stories: dict[str, Story] = {}
        self.killed: dict[int, list[float]] = defaultdict(list)
        self.frozen: dict[int, list[float]] = defaultdict(list)
        self._muddles: list[tuple[str, str]] = []
        self._read_events()
        for worker in history.workers:
            self._read_worker(worker)
        for story in self.stories.values():
            story.attempts.sort(key=lambda attempt: attempt.start.time)

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """What cannot be: the job it is about, or an empty string, and what is wrong."""
        yield from self._muddles
        yield from self._connections()
        yield from self._reports()
        yield from self._lanes()
        missing = 0
        for name, story in self.stories.items():
            missing += self._missing_starts(story)
            for rule in RULES:
                for text in rule(self, story):
                    yield name, f"{text} ({story.request.command})"
        hurt = len(self.killed.keys() | self.frozen.keys())
        if missing > hurt:
            yield "", f"{missing} attempts left no trace, and {hurt} workers were killed or frozen"

    def why_died(self, attempt: Attempt, before: float) -> str:
        """What ended the attempt's worker by that time, as far as it is known."""
        if attempt.worker.lines[-1].sign == "dies":
            return "dies"
        return "killed" if self.was_killed(attempt.worker.pid, before) else ""

    def was_killed(self, pid: int, before: float) -> bool:
        """Whether such a process was killed by that time."""
        return any(time <= before for time in self.killed.get(pid, ()))

    def was_found_frozen(self, pid: int, answer: Answer) -> bool:
        """Whether the answer says that such a process was killed as one that is frozen, rightly."""
        frozen = any(time <= answer.time for time in self.frozen.get(pid, ()))
        return frozen and "gave no sign of life" in answer.text

    # Putting together.

    def _read_events(self) -> None:
        open_requests: dict[tuple[int, str], Request] = {}
        for event in self.history.events:
            if isinstance(event, Killed):
                self.killed[event.pid].append(event.time)
            elif isinstance(event, Frozen):
                self.frozen[event.pid].append(event.time)
            elif isinstance(event, Request):
                open_requests[event.connection, event.tag] = event
                if event.name:
                    self.stories[event.name] = Story(event, self.history.policies[event.command])
                    continue
                story = self._story_at(open_requests, event.connection, event.target)
                if story is not None and story.cancelled_from is None:
                    story.cancelled_from = event.time
            elif isinstance(event, Answer):
                request = open_requests.get((event.connection, event.tag))
                if request is None:
                    continue
                if request.name:
                    self.stories[request.name].answer = event
                    continue
                story = self._story_at(open_requests, event.connection, request.target)
                if story is not None and story.answer is None and story.cancelled_by is None:
                    story.cancelled_by = event.time
        self._read_connections()

    def _story_at(
        self, requests: dict[tuple[int, str], Request], connection: int, tag: str
    ) -> Story | None:
        """The job that was asked for under that tag, if any was."""
        request = requests.get((connection, tag))
        return None if request is None else self.stories.get(request.name)

    def _read_connections(self) -> None:
        """When the server had which request, and knew of which end of a connection."""
        by_connection: dict[int, list[Request]] = defaultdict(list)
        answered: dict[tuple[int, str], float] = {}
        closed: dict[int, float] = {}
        noticed: dict[int, float] = {}
        for event in self.history.events:
            if isinstance(event, Request):
                by_connection[event.connection].append(event)
            elif isinstance(event, Answer):
                answered.setdefault((event.connection, event.tag), event.time)
            elif isinstance(event, Closed):
                closed[event.connection] = event.time
            elif isinstance(event, Noticed):
                noticed[event.connection] = event.time
        for connection, requests in by_connection.items():
            accepted: float | None = None
            for request in reversed(requests):
                time = answered.get((connection, request.tag))
                accepted = min((t for t in (accepted, time) if t is not None), default=None)
                if request.name:
                    story = self.stories[request.name]
                    story.accepted = accepted
                    story.closed = closed.get(connection)
                    story.noticed = noticed.get(connection)

    def _read_worker(self, worker: Worker) -> None:
        """Take a worker's lines apart into attempts, of which it makes one after the other."""
        current: Attempt | None = None
        ended = stopped = False
        for line in worker.lines:
            story = self.stories.get(line.name)
            if line.name != "-" and story is None:
                self._muddle(line, worker, "runs a job that nobody asked for")
            elif line.sign == "twin" and story is not None:
                story.twins.append(line)
            elif line.sign == "start" and story is not None:
                if current is not None and not ended:
                    self._muddle(line, worker, f"starts before {current.start.name} has ended")
                if stopped:
                    self._muddle(line, worker, "starts after its worker was told to stop")
                current = Attempt(worker, line, line)
                ended = False
                story.attempts.append(current)
            elif line.sign != "boot":
                if current is None or current.start.name != line.name or ended:
                    self._muddle(line, worker, f"gives a sign, {line.sign}, while it does not run")
                    continue
                current.last = line
                if line.sign == "end":
                    current.end = line
                    ended = True
                    stopped = line.outcome in _STOPS

    def _muddle(self, line: Line, worker: Worker, text: str) -> None:
        known = line.name if line.name in self.stories else ""
        self._muddles.append((known, f"{line.name} {text}, in worker {worker.pid}"))

    def _missing_starts(self, story: Story) -> int:
        """How many attempts there must have been that left no trace."""
        numbers = {attempt.start.attempt for attempt in story.attempts}
        return max(numbers, default=0) - len(numbers)

    # Rules about more than one job.

    def _connections(self) -> Iterator[tuple[str, str]]:
        """Each request on an open connection is answered once, and nothing else comes."""
        waiting: dict[tuple[int, str], Request] = {}
        closed: set[int] = set()
        for event in self.history.events:
            if isinstance(event, Request):
                waiting[event.connection, event.tag] = event
            elif isinstance(event, Answer):
                if waiting.pop((event.connection, event.tag), None) is None:
                    yield "", f"an answer to nothing that is open: {event}"
            elif isinstance(event, Closed):
                closed.add(event.connection)
                if not event.by_client:
                    yield "", f"the server has closed connection {event.connection}"
        for request in waiting.values():
            if request.connection not in closed:
                yield request.name, f"was not answered: {request}"

    def _reports(self) -> Iterator[tuple[str, str]]:
        """Progress and chunks come to those who asked, in order, and before the answer."""
        waiting: dict[tuple[int, str], Request] = {}
        chunks: Counter[tuple[int, str]] = Counter()
        for event in self.history.events:
            if isinstance(event, Request):
                waiting[event.connection, event.tag] = event
            elif isinstance(event, Answer):
                key = event.connection, event.tag
                request = waiting.pop(key, None)
                counts = request is not None and "Chunk" in request.reports and not event.code
                if request is not None and counts and chunks[key] != CHUNKS:
                    yield request.name, f"{chunks[key]} of {CHUNKS} chunks before the answer"
            elif isinstance(event, Report):
                key = event.connection, event.tag
                request = waiting.get(key)
                if request is None:
                    yield "", f"a report on nothing that is open: {event}"
                elif event.kind not in request.reports:
                    yield request.name, f"a report that it did not ask for: {event}"
                elif event.kind == "Chunk":
                    if event.number != chunks[key]:
                        text = f"chunk {event.number} in the place of {chunks[key]}"
                        yield request.name, text
                    chunks[key] += 1

    def _lanes(self) -> Iterator[tuple[str, str]]:
        """No more jobs of a type run at once than it allows."""
        running: dict[str, list[tuple[float, int, str]]] = defaultdict(list)
        for name, story in self.stories.items():
            if story.policy.max_running is not None:
                for attempt in story.attempts:
                    marks = running[story.request.command]
                    marks.append((attempt.start.time, 1, name))
                    marks.append((attempt.last.time, -1, name))
        for command, marks in running.items():
            limit = self.history.policies[command].max_running
            count = 0
            for _, step, name in sorted(marks):
                count += step
                if limit is not None and count > limit:
                    yield name, f"{count} of {command} run at once, {limit} may"


CHUNKS = 10
"""How many chunks a job sends that is asked for them."""
_STOPS = {"JobCancelled", "TimeLimitExceeded"}


def _target(event: Event) -> str:
    return event.target if isinstance(event, Request) else ""


# Rules about one job.


def attempts_in_order(record: Reconciliation, story: Story) -> Iterator[str]:
    """No more attempts than allowed, one after the other, each only after the last's death."""
    most = 1 + story.policy.retries
    if len(story.attempts) > most:
        yield f"started {len(story.attempts)} times, {most} are allowed"
    for twin in story.twins:
        yield f"attempt {twin.attempt} begins while worker {twin.outcome} lives"
    before: Attempt | None = None
    for attempt in story.attempts:
        start = attempt.start
        if start.time < story.request.time:
            yield "starts before it was asked for"
        if not 1 <= start.attempt <= most:
            yield f"starts for the time {start.attempt}, {most} are allowed"
        if before is not None:
            if start.attempt <= before.start.attempt:
                yield f"attempt {start.attempt} follows attempt {before.start.attempt}"
            if before.worker.last >= start.time:
                yield f"attempt {start.attempt} starts while worker {before.worker.pid} lives"
            elif not record.why_died(before, start.time):
                yield f"attempt {start.attempt} starts though nothing killed the one before"
        before = attempt


def answers_are_what_happened(record: Reconciliation, story: Story) -> Iterator[str]:
    """A result, or an error of the job's own, is that of the last attempt."""
    answer = story.answer
    if answer is None or answer.code not in ("", "JOB_FAILED", "DECLARED"):
        return
    ends = [a.end for a in story.attempts if a.end and a.end.outcome in answer.text.split()[-1:]]
    if len(ends) != 1:
        yield f"answered with {answer.text!r}, which {len(ends)} attempts ended with"
        return
    [end] = ends
    if end is not story.attempts[-1].end:
        yield "an attempt follows the one that was answered"
    if answer.time < end.time:
        yield "answered before its end"
    if not answer.code and answer.attempt != end.attempt:
        yield f"attempt {end.attempt} was answered as {answer.attempt}"
    if story.cancelled_by is not None and story.cancelled_by <= end.time:
        yield "ended after its cancel was confirmed, and was answered all the same"


def refused_jobs_never_start(record: Reconciliation, story: Story) -> Iterator[str]:
    """A job that is told that it did not run, did not."""
    answer = story.answer
    if answer is None or not story.attempts:
        return
    refused = answer.code in ("QUEUE_FULL", "NO_WORKERS", "BAD_ARGUMENTS", "UNHANDLED")
    if refused or (answer.code and _NOTHING_RAN.search(answer.text)):
        yield f"was answered {answer.code} ({answer.text}), and had started"
    if answer.code == "DEADLINE_PASSED" and "waited" in answer.text and not story.policy.retries:
        yield f"was answered {answer.text!r}, and had started"


def nothing_after_a_stop(record: Reconciliation, story: Story) -> Iterator[str]:
    """With the answer that it was stopped, the job's process is gone."""
    answer = story.answer
    if answer is None or answer.code not in STOPPED:
        return
    for attempt in story.attempts:
        if attempt.start.time > answer.time:
            yield f"starts after the answer {answer.code}"
        elif attempt.worker.last > answer.time:
            yield f"worker {attempt.worker.pid} lives after the answer {answer.code}"


def stops_have_a_cause(record: Reconciliation, story: Story) -> Iterator[str]:
    """Only what was cancelled is cancelled, and only what is out of time is timed out."""
    request, answer = story.request, story.answer
    cancelled = _earliest(story.cancelled_from)
    gone = _earliest(story.closed) if story.policy.on_disconnect == "cancel" else _NEVER
    limit = _earliest(story.policy.time_limit)
    deadline = _earliest(request.deadline)
    out_of_time = request.time + min(limit, deadline) - 0.05
    for attempt in story.attempts:
        outcome = attempt.end.outcome if attempt.end else ""
        time = attempt.last.time
        if outcome == "JobCancelled" and time < min(cancelled, gone):
            yield "JobCancelled was raised in it, and nobody had cancelled it"
        if outcome == "TimeLimitExceeded" and time < out_of_time:
            yield "TimeLimitExceeded was raised in it, and it had time left"
    if answer is None:
        return
    if answer.code == "CANCELLED" and answer.time < cancelled:
        yield "answered CANCELLED, and nobody had cancelled it"
    if answer.code == "TIMED_OUT" and answer.time < request.time + limit - 0.05:
        yield "answered TIMED_OUT within its time limit"
    started = "was not started" not in answer.text  # else too little of its deadline was left
    if (
        answer.code == "DEADLINE_PASSED"
        and started
        and answer.time < request.time + deadline - 0.05
    ):
        yield "answered DEADLINE_PASSED before its deadline"


def losses_have_a_cause(record: Reconciliation, story: Story) -> Iterator[str]:
    """A lost job names the worker that ran it, which was killed or killed itself."""
    answer = story.answer
    if answer is None or answer.code != "WORKER_LOST":
        return
    named = _NAMES_WORKER.search(answer.text)
    pid = int(named[1]) if named else 0
    ran = [attempt for attempt in story.attempts if attempt.worker.pid == pid]
    if ran:
        [*_, last] = ran
        if last is not story.attempts[-1]:
            yield f"lost with worker {pid}, and an attempt follows that one"
        given_up = _NOT_AGAIN.search(answer.text)
        if last.start.attempt <= story.policy.retries and not given_up:
            yield f"lost at attempt {last.start.attempt}, and more are allowed"
        if not record.why_died(last, answer.time):
            yield f"lost with worker {pid}, which nothing killed"
        return
    idle = [worker for worker in record.history.workers if worker.pid == pid]
    if not idle:
        yield f"lost with {pid}, which was no worker"
    elif record.was_found_frozen(pid, answer):
        return
    elif not record.was_killed(pid, answer.time):
        yield f"lost with worker {pid}, which never ran it, and was not killed"
    elif all(worker.lines[-1].sign not in ("boot", "end") for worker in idle):
        yield f"lost with worker {pid}, which died of another job"


def nothing_starts_once_let_go(record: Reconciliation, story: Story) -> Iterator[str]:
    """Cancelled, or its client gone, or its deadline passed, only what was in hand starts."""
    moments = {"its cancel": story.cancelled_by, "its client's end": story.noticed}
    if story.accepted is not None and story.request.deadline is not None:
        moments["its deadline"] = story.accepted + story.request.deadline + SLACK
    for what, moment in moments.items():
        for attempt in story.attempts:
            if moment is None or attempt.start.time <= moment:
                continue
            if not attempt.worker.had_in_hand(attempt.start, moment):
                late = attempt.start.time - moment
                yield f"given to worker {attempt.worker.pid} after {what}, {late:.3f} s"


def nothing_goes_on_once_stopped(record: Reconciliation, story: Story) -> Iterator[str]:
    """A job that is to stop gives no sign of life once its grace is over."""
    request, policy = story.request, story.policy
    ends = [story.cancelled_by]
    if policy.on_disconnect == "cancel":
        ends.append(story.noticed)
    if story.accepted is not None and request.deadline is not None:
        ends.append(story.accepted + request.deadline)
    for attempt in story.attempts:
        limit = attempt.start.time + _earliest(policy.time_limit)
        latest = min(limit, *map(_earliest, ends)) + GRACE + SLACK
        if attempt.last.time > latest:
            late = attempt.last.time - latest
            yield f"goes on {late:.3f} s after its grace, in worker {attempt.worker.pid}"


def finishing_jobs_finish(record: Reconciliation, story: Story) -> Iterator[str]:
    """A running job goes on without its client, if its type says so."""
    if story.policy.on_disconnect != "finish" or story.noticed is None:
        return
    if story.cancelled_from is not None or story.request.deadline is not None:
        return
    for attempt in story.attempts:
        if attempt.end is None and not record.why_died(attempt, _NEVER):
            yield f"did not finish in worker {attempt.worker.pid} after its client was gone"


_NEVER = float("inf")


def _earliest(time: float | None) -> float:
    return _NEVER if time is None else time


RULES: tuple[Callable[[Reconciliation, Story], Iterable[str]], ...] = (
    attempts_in_order,
    answers_are_what_happened,
    refused_jobs_never_start,
    nothing_after_a_stop,
    stops_have_a_cause,
    losses_have_a_cause,
    nothing_starts_once_let_go,
    nothing_goes_on_once_stopped,
    finishing_jobs_finish,
)
