"""The checker of histories finds each contradiction, in histories made by hand.

Each row says what is wrong with a history that else is right; "" is that nothing is.
"""

import os
import unittest
from collections.abc import Sequence
from tempfile import TemporaryDirectory

from dangad.wire.catalogue import Policy
from tests.history import (
    CHUNKS,
    Answer,
    Closed,
    Event,
    Frozen,
    History,
    Killed,
    Line,
    Noticed,
    Reconciliation,
    Report,
    Request,
    Worker,
    read_workers,
)

POLICIES = {
    "Once": Policy(),
    "Again": Policy(retries=1),
    "Brief": Policy(time_limit=1.0),
    "Alone": Policy(max_running=1),
    "On": Policy(on_disconnect="finish"),
}


def asked(command: str = "Once", time: float = 1.0, **more: object) -> Event:
    """A request for a job, of connection 1 under tag 1 unless said otherwise."""
    given = {"connection": 1, "tag": "1", "name": "a", **more}
    return Request(time=time, command=command, **given)  # type: ignore[arg-type]


def cancel(time: float, target: str = "1") -> Event:
    """A request that cancels another."""
    return Request(time, 1, "9", "dangad.Cancel", target=target)


def answered(time: float = 3.0, code: str = "", text: str = "7.1", attempt: int = 1) -> Event:
    """The answer to it."""
    return Answer(time, 1, "1", code, text, attempt if not code else 0)


def run(
    start: float | None = 2.0,
    end: float | None = 2.5,
    outcome: str = "7.1",
    *,
    pid: int = 7,
    name: str = "a",
    attempt: int = 1,
    dies: float | None = None,
) -> Worker:
    """A worker that ran one job, and may have killed itself."""
    lines = [Line(0.5, "boot")]
    if start is not None:
        lines.append(Line(start, "start", name, attempt))
    if end is not None:
        lines.append(Line(end, "end", name, attempt, outcome))
    if dies is not None:
        lines.append(Line(dies, "dies", name, attempt))
    return Worker(pid, lines)


def more(worker: Worker, *lines: Line, at: int | None = None) -> Worker:
    """The worker, with further lines, at its end if not said otherwise."""
    place = len(worker.lines) if at is None else at
    worker.lines[place:place] = lines
    return worker


def lost(text: str) -> Event:
    """The answer that the job was lost."""
    return answered(code="WORKER_LOST", text=text)


def refused(code: str, text: str = "", time: float = 3.0) -> Event:
    """The answer that the job ended without a result."""
    return answered(time, code, text)


def found(events: Sequence[Event], *workers: Worker) -> list[str]:
    """What contradicts in a history."""
    history = History(POLICIES, list(events), list(workers))
    return [text for _, text in Reconciliation(history).contradictions()]


Row = tuple[str, Sequence[Event], Sequence[Worker]]

TALKS = asked(reports=frozenset({"Progress"}))
PROGRESS = Report(2.0, 1, "1", "Progress")
IN_PARTS = asked(reports=frozenset({"Chunk"}))
PARTS = [Report(2.0, 1, "1", "Chunk", number) for number in range(CHUNKS)]
CONNECTIONS: tuple[Row, ...] = (
    ("", [asked(), answered()], [run()]),
    # Each request on an open connection is answered once; on a closed one it needs no answer.
    ("was not answered", [asked()], [run()]),
    ("", [asked(), Closed(3.0, 1)], [run()]),
    ("an answer to nothing", [asked(), answered(), answered()], [run()]),
    ("an answer to nothing", [Answer(1.0, 1, "5")], []),
    ("an answer to nothing", [asked(), answered(), Answer(3.0, 2, "1")], [run()]),
    ("the server has closed", [Closed(1.0, 1, by_client=False)], []),
    # Progress comes before the answer, to those who asked; chunks in order, and all.
    ("", [TALKS, PROGRESS, answered()], [run()]),
    ("a report on nothing", [TALKS, answered(), PROGRESS], [run()]),
    ("did not ask", [asked(), PROGRESS, answered()], [run()]),
    ("", [IN_PARTS, *PARTS, answered()], [run()]),
    ("9 of 10 chunks", [IN_PARTS, *PARTS[:-1], answered()], [run()]),
    ("chunk 0 in the place of 9", [IN_PARTS, *PARTS[:-1], PARTS[0], answered()], [run()]),
)
OTHER = asked(tag="2", name="b")
OTHERS_LINES = Line(2.6, "start", "b", 1), Line(2.7, "end", "b", 1, "7.2")
STOPPED = [asked(), OTHER, cancel(2.2), Answer(2.3, 1, "9"), refused("CANCELLED", time=2.8)]
ALONE = [asked("Alone"), asked("Alone", tag="2", name="b"), answered()]
BOTH_ALONE = [*ALONE, Answer(3.0, 1, "2", "", "8.1", 1)]
WORKERS: tuple[Row, ...] = (
    ("while it does not run", [asked(), answered()], [more(run(), Line(2.6, "alive", "a", 1))]),
    (
        "after its worker was told to stop",
        [*STOPPED, Answer(2.9, 1, "2", "", "7.2", 1)],
        [more(run(outcome="JobCancelled"), *OTHERS_LINES)],
    ),
    # Of a type of which one may run at once, no two do.
    ("", BOTH_ALONE, [run(), run(2.6, 2.7, "8.1", pid=8, name="b")]),
    ("2 of Alone run at once", BOTH_ALONE, [run(), run(2.4, 2.7, "8.1", pid=8, name="b")]),
)
AGAIN = [asked("Again"), answered(5.0, text="8.1", attempt=2)]
SECOND = run(3.0, 4.0, "8.1", pid=8, attempt=2)
ATTEMPTS: tuple[Row, ...] = (
    # There is a second attempt after the first's worker killed itself, or was killed.
    ("", AGAIN, [run(end=None, dies=2.5), SECOND]),
    ("", [Killed(2.6, 7), *AGAIN], [run(end=None), SECOND]),
    ("nothing killed the one before", AGAIN, [run(end=None), SECOND]),
    ("while worker 7 lives", AGAIN, [run(end=None, dies=3.5), SECOND]),
    # That a first attempt left no trace needs a kill.
    ("", [Killed(1.5, 6), asked("Again"), answered(attempt=2)], [run(attempt=2)]),
    ("left no trace", [asked("Again"), answered(attempt=2)], [run(attempt=2)]),
    (
        "starts for the time 2, 1 are allowed (Once)",
        [Killed(1.5, 6), asked(), answered(attempt=2)],
        [run(attempt=2)],
    ),
    (
        "begins while worker 6 lives",
        [asked(), answered()],
        [more(run(), Line(1.9, "twin", "a", 1, "6"), at=1)],
    ),
    ("before it was asked for", [asked(time=2.1), answered()], [run()]),
)
FAILED = answered(code="JOB_FAILED", text="ZeroDivisionError: 7.1")
NEVER_RAN: list[Event] = [
    asked(),
    cancel(2.2),
    Answer(2.3, 1, "9"),
    refused("CANCELLED", "it never ran"),
]
LATE = asked(deadline=1.0)
REFUSALS = (
    refused("QUEUE_FULL", "full", 2.9),
    refused("NO_WORKERS", "none", 2.9),
    refused("SHUTTING_DOWN", "the server is stopping", 2.9),
    refused("DEADLINE_PASSED", "Once waited for its deadline, 1 s", 2.9),
)
ANSWERS: tuple[Row, ...] = (
    # A job is answered that has not run, with another's result, before its end, as another attempt.
    ("which 0 attempts ended with", [asked(), answered()], []),
    ("which 0 attempts ended with", [asked(), answered(text="7.2")], [run()]),
    ("", [asked(), answered(code="DECLARED")], [run()]),
    ("", [asked(), FAILED], [run()]),
    ("which 0 attempts", [asked(), FAILED], [run(outcome="7.2")]),
    ("answered before its end", [asked(), answered(2.4)], [run()]),
    ("attempt 1 was answered as 2", [asked("Again"), answered(attempt=2)], [run()]),
    (
        "an attempt follows the one that was answered",
        [Killed(2.6, 7), asked("Again"), answered()],
        [run(), run(3.5, 4.0, "8.1", pid=8, attempt=2)],
    ),
    # A job runs of which its client was told that it did not, or did no more.
    *(("", [LATE, refusal], []) for refusal in REFUSALS),
    *(("and had started", [LATE, refusal], [run()]) for refusal in REFUSALS),
    ("", NEVER_RAN, []),
    ("and had started", NEVER_RAN, [run(outcome="JobCancelled")]),
    (
        "",
        [asked("Brief"), refused("TIMED_OUT", time=2.4)],
        [run(end=2.3, outcome="TimeLimitExceeded")],
    ),
    (
        "lives after",
        [asked("Brief"), refused("TIMED_OUT", time=2.4)],
        [run(outcome="TimeLimitExceeded")],
    ),
)
GONE: list[Event] = [Closed(1.5, 1), Noticed(1.6, 1)]
IDLE = run(start=None, end=None)
BY_SIGNAL = lost("worker 7 was killed by SIGKILL 0.0 s into Once")
SILENT = lost("worker 7 gave no sign of life for 5 s and was killed 0.0 s into Once")
EXITED = lost("worker 7 exited (status 0) 0.1 s into Once")
GIVEN_UP = "worker 7 exited; it is not tried again: no worker can be started: worker 8 was"
CAUSES: tuple[Row, ...] = (
    ("JobCancelled was raised", [asked("On"), *GONE], [run(outcome="JobCancelled")]),
    ("answered CANCELLED", [asked(), refused("CANCELLED")], []),
    ("", [asked(), Closed(2.4, 1), Noticed(2.45, 1)], [run(outcome="JobCancelled")]),
    ("TIMED_OUT within", [asked(), refused("TIMED_OUT")], []),
    ("DEADLINE_PASSED before", [asked(deadline=5.0), refused("DEADLINE_PASSED", "waited")], []),
    # A lost job names its last worker, which something killed.
    ("", [asked(), EXITED], [run(end=None, dies=2.5)]),
    ("", [Killed(2.4, 7), asked(), EXITED], [run(end=None)]),
    ("which nothing killed", [asked(), EXITED], [run(end=None)]),
    ("which was no worker", [asked(), EXITED], [run(end=None, dies=2.5, pid=8)]),
    ("more are allowed", [asked("Again"), EXITED], [run(end=None, dies=2.5)]),
    ("", [asked("Again"), lost(GIVEN_UP)], [run(end=None, dies=2.5)]),
    # It may be lost with one that had not begun it, if that was killed, or frozen.
    ("", [Killed(2.0, 7), asked(), BY_SIGNAL], [IDLE]),
    ("was not killed", [asked(), BY_SIGNAL], [IDLE]),
    ("", [Frozen(2.0, 7), asked(), SILENT], [IDLE]),
    ("was not killed", [asked(), SILENT], [IDLE]),
    ("was not killed", [asked(), SILENT, Frozen(3.5, 7)], [IDLE]),
    ("which nothing killed", [Frozen(2.0, 7), asked(), SILENT], [run(end=None)]),
    ("was not killed", [Frozen(2.0, 7), asked(), BY_SIGNAL], [IDLE]),
    (
        "died of another job",
        [Killed(2.4, 7), asked(), BY_SIGNAL, OTHER, Closed(4.0, 1)],
        [run(end=None, name="b")],
    ),
)
CONFIRMED: list[Event] = [asked(), cancel(1.5), Answer(1.6, 1, "9")]
LEFT: list[Event] = [Closed(2.0, 1), Noticed(2.1, 1)]
LET_GO: tuple[Row, ...] = (
    # After the cancel was confirmed, a job may start that the worker had in hand; no other.
    ("", [*CONFIRMED, refused("CANCELLED")], [run(outcome="JobCancelled")]),
    (
        "after its cancel",
        [
            asked(tag="2", name="b", time=0.9),
            *CONFIRMED,
            Answer(1.9, 1, "2", "", "7.2", 1),
            refused("CANCELLED"),
        ],
        [
            more(
                run(outcome="JobCancelled"),
                Line(1.0, "start", "b", 1),
                Line(1.8, "end", "b", 1, "7.2"),
                at=1,
            )
        ],
    ),
    ("ended after its cancel was confirmed", [*CONFIRMED, answered()], [run()]),
    # A job that has ended before may still be answered: its worker has begun the next one.
    ("", [*CONFIRMED, answered()], [run(1.1, 1.5)]),
    ("after its client's end", [asked("On"), *GONE], [more(run(), Line(1.9, "boot"), at=1)]),
    # A job goes on for long after it was to stop, or does not finish though it should.
    (
        "after its grace",
        [asked(), cancel(2.0), Answer(2.1, 1, "9"), refused("CANCELLED", time=21.0)],
        [run(1.5, 20.0, "JobCancelled")],
    ),
    ("after its grace", [asked(), *LEFT], [run(1.5, 20.0, "JobCancelled")]),
    ("", [asked("On"), *LEFT], [run(1.5, 20.0)]),
    (
        "after its grace",
        [asked("Brief"), refused("TIMED_OUT", time=30.0)],
        [run(end=20.0, outcome="TimeLimitExceeded")],
    ),
    ("did not finish", [asked("On"), Closed(2.1, 1), Noticed(2.2, 1)], [run(end=None)]),
    ("", [asked("On"), Closed(2.1, 1), Noticed(2.2, 1), Killed(3.0, 7)], [run(end=None)]),
)
SEVERAL: tuple[Row, ...] = (
    # More than this contradicts.
    ("runs a job that nobody asked for", [], [run()]),
    (
        "b starts before a has ended, in worker 7",
        [asked(), answered(), OTHER, Answer(3.0, 1, "2", "", "7.2", 1)],
        [more(run(), Line(2.1, "start", "b", 1), Line(2.2, "end", "b", 1, "7.2"), at=2)],
    ),
    (
        "started 2 times, 1 are allowed (Once)",
        [asked(), answered(5.0, text="8.1")],
        [run(end=None, dies=2.5), run(3.0, 4.0, "8.1", pid=8)],
    ),
    (
        "starts after the answer WORKER_LOST (Again)",
        [Killed(1.5, 6), asked("Again"), refused("WORKER_LOST", "worker 6 was", 1.9)],
        [Worker(6, [Line(0.5, "boot")]), run()],
    ),
    (
        "JobCancelled was raised",  # before its client asked for that
        [asked(), refused("CANCELLED", time=2.6), cancel(2.7), Answer(2.8, 1, "9")],
        [run(outcome="JobCancelled")],
    ),
    (
        "TIMED_OUT within",  # it had time left
        [asked("Brief", 1.6), refused("TIMED_OUT", time=2.4)],
        [run(end=2.3, outcome="TimeLimitExceeded")],
    ),
    (
        "after its deadline",
        [
            asked(deadline=0.1),
            Request(1.0, 1, "2", "dangad.Ping"),
            Answer(1.1, 1, "2"),
            refused("DEADLINE_PASSED", "reached its deadline", 12.2),
        ],
        [more(run(12.0, 12.1, "TimeLimitExceeded"), Line(11.0, "boot"), at=1)],
    ),
)


class CheckerTests(unittest.TestCase):
    def test_one(self) -> None:
        """In each of these histories one thing contradicts, or nothing."""
        for rows in (CONNECTIONS, WORKERS, ATTEMPTS, ANSWERS, CAUSES, LET_GO):
            for text, events, workers in rows:
                with self.subTest(text=text, events=events, workers=workers):
                    texts = found(events, *workers)
                    self.assertEqual(len(texts), bool(text), texts)
                    self.assertIn(text, "".join(texts))

    def test_several(self) -> None:
        """In each of these the same is found from two sides, or something else follows from it."""
        for text, events, workers in SEVERAL:
            with self.subTest(text=text):
                self.assertTrue(any(text in one for one in found(events, *workers)))


class ReadingTests(unittest.TestCase):
    """The files of the workers, and a job's story as people read it."""

    def test_read(self) -> None:
        """A line that was not written whole is left, and so are other files."""
        with TemporaryDirectory() as folder:
            for name, text in (
                ("7-100", "1.5 boot - 1 -\n2.0 start a 1 -\n2.5 en"),
                ("attempt-job-1", "7 100"),
                ("log", ""),
            ):
                with open(os.path.join(folder, name), "w") as file:
                    file.write(text)
            [worker] = read_workers(folder)
        self.assertEqual(worker.pid, 7)
        self.assertEqual(worker.lines, [Line(1.5, "boot", "-", 1), Line(2.0, "start", "a", 1)])

    def test_about(self) -> None:
        """All that concerns a job is told in the order of time, and nothing else."""
        events: list[Event] = [
            Killed(9.0, 7),
            Killed(9.5, 8),
            Frozen(8.0, 7),
            Frozen(8.5, 8),
            asked(),
            cancel(2.1),
            answered(),
            asked(tag="2", name="b"),
        ]
        history = History(POLICIES, events, [run()])
        times = [line.split()[0] for line in history.about("a")]
        self.assertEqual(times, sorted(times))
        self.assertEqual(len(times), 8, history.about("a"))
