"""The checker of histories finds each contradiction, in histories made by hand.

Each test says what is wrong with a history that else is right.
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


def found(events: Sequence[Event], *workers: Worker) -> list[str]:
    """What contradicts in a history."""
    history = History(POLICIES, list(events), list(workers))
    return [text for _, text in Reconciliation(history).contradictions()]


class CheckerCase(unittest.TestCase):
    """Holds what is found against what should be."""

    def sound(self, events: Sequence[Event], *workers: Worker) -> None:
        """Nothing contradicts."""
        self.assertEqual(found(events, *workers), [])

    def wrong(self, text: str, events: Sequence[Event], *workers: Worker) -> None:
        """One thing does, and it is this one."""
        texts = found(events, *workers)
        self.assertTrue(any(text in one for one in texts), (text, texts))
        self.assertEqual(len(texts), 1, texts)


class ConnectionTests(CheckerCase):
    """What comes over connections."""

    def test_sound(self) -> None:
        """A request, a run and its answer."""
        self.sound([asked(), answered()], run())

    def test_unanswered(self) -> None:
        """A request on an open connection has no answer; on a closed one it needs none."""
        self.wrong("was not answered", [asked()], run())
        self.sound([asked(), Closed(3.0, 1)], run())

    def test_answered_twice(self) -> None:
        """A request is answered twice."""
        self.wrong("an answer to nothing", [asked(), answered(), answered()], run())

    def test_unknown_tag(self) -> None:
        """An answer comes to what was not asked, or to another connection's request."""
        self.wrong("an answer to nothing", [Answer(1.0, 1, "5")])
        self.wrong("an answer to nothing", [asked(), answered(), Answer(3.0, 2, "1")], run())

    def test_closed_by_server(self) -> None:
        """The server closes a connection."""
        self.wrong("the server has closed", [Closed(1.0, 1, by_client=False)])

    def test_reports(self) -> None:
        """Progress comes before the answer, to those who asked."""
        progress = Report(2.0, 1, "1", "Progress")
        request = asked(reports=frozenset({"Progress"}))
        self.sound([request, progress, answered()], run())
        self.wrong("a report on nothing", [request, answered(), progress], run())
        self.wrong("did not ask", [asked(), progress, answered()], run())

    def test_chunks(self) -> None:
        """Chunks come in order, and all before the answer."""
        request = asked(reports=frozenset({"Chunk"}))
        chunks = [Report(2.0, 1, "1", "Chunk", number) for number in range(CHUNKS)]
        self.sound([request, *chunks, answered()], run())
        self.wrong("9 of 10 chunks", [request, *chunks[:-1], answered()], run())
        swapped = [*chunks[:-1], chunks[0]]
        self.wrong("chunk 0 in the place of 9", [request, *swapped, answered()], run())


class WorkerTests(CheckerCase):
    """What workers do."""

    def test_unknown_job(self) -> None:
        """A job runs that nobody asked for."""
        texts = found([], run())
        self.assertIn("runs a job that nobody asked for", texts[0])

    def test_two_at_once(self) -> None:
        """A worker starts a job before its last has ended."""
        worker = run()
        worker.lines.insert(2, Line(2.1, "start", "b", 1))
        worker.lines.insert(3, Line(2.2, "end", "b", 1, "7.2"))
        texts = found(
            [asked(), answered(), asked(tag="2", name="b"), Answer(3.0, 1, "2", "", "7.2", 1)],
            worker,
        )
        self.assertIn("b starts before a has ended, in worker 7", texts)

    def test_sign_out_of_place(self) -> None:
        """A job gives a sign of life after its end."""
        worker = run()
        worker.lines.append(Line(2.6, "alive", "a", 1))
        self.wrong("while it does not run", [asked(), answered()], worker)

    def test_starts_after_stop(self) -> None:
        """A worker whose job was stopped begins another."""
        worker = run(outcome="JobCancelled")
        worker.lines += [Line(2.6, "start", "b", 1), Line(2.7, "end", "b", 1, "7.2")]
        events: list[Event] = [asked(), asked(tag="2", name="b"), cancel(2.2)]
        events += [
            Answer(2.3, 1, "9"),
            answered(2.8, "CANCELLED", ""),
            Answer(2.9, 1, "2", "", "7.2", 1),
        ]
        self.wrong("after its worker was told to stop", events, worker)

    def test_max_running(self) -> None:
        """Two jobs run at once of a type of which one may."""
        events = [
            asked("Alone"),
            asked("Alone", tag="2", name="b"),
            answered(),
            Answer(3.0, 1, "2", "", "8.1", 1),
        ]
        self.sound(events, run(), run(2.6, 2.7, "8.1", pid=8, name="b"))
        self.wrong("2 of Alone run at once", events, run(), run(2.4, 2.7, "8.1", pid=8, name="b"))


class AttemptTests(CheckerCase):
    """How often a job runs, and when."""

    def test_retry(self) -> None:
        """A second attempt after the first's worker killed itself, or was killed."""
        events = [asked("Again"), answered(5.0, text="8.1", attempt=2)]
        second = run(3.0, 4.0, "8.1", pid=8, attempt=2)
        self.sound(events, run(end=None, dies=2.5), second)
        self.sound([Killed(2.6, 7), *events], run(end=None), second)
        self.wrong("nothing killed the one before", events, run(end=None), second)

    def test_too_often(self) -> None:
        """A job without retries runs twice."""
        second = run(3.0, 4.0, "8.1", pid=8)
        texts = found([asked(), answered(5.0, text="8.1")], run(end=None, dies=2.5), second)
        self.assertIn("started 2 times, 1 are allowed (Once)", texts)

    def test_attempt_number(self) -> None:
        """An attempt has a number that cannot be."""
        texts = found([Killed(1.5, 6), asked(), answered(attempt=2)], run(attempt=2))
        self.assertEqual(texts, ["starts for the time 2, 1 are allowed (Once)"])

    def test_no_trace(self) -> None:
        """A first attempt left no trace, which needs a kill."""
        events = [asked("Again"), answered(attempt=2)]
        self.sound([Killed(1.5, 6), *events], run(attempt=2))
        self.wrong("left no trace", events, run(attempt=2))

    def test_at_once(self) -> None:
        """The second attempt begins while the first one's worker lives."""
        events = [asked("Again"), answered(5.0, text="8.1", attempt=2)]
        second = run(3.0, 4.0, "8.1", pid=8, attempt=2)
        self.wrong("while worker 7 lives", events, run(end=None, dies=3.5), second)

    def test_twin(self) -> None:
        """A job finds the process of its attempt before alive."""
        worker = run()
        worker.lines.insert(1, Line(1.9, "twin", "a", 1, "6"))
        self.wrong("begins while worker 6 lives", [asked(), answered()], worker)

    def test_before_its_time(self) -> None:
        """A job runs before it was asked for."""
        self.wrong("before it was asked for", [asked(time=2.1), answered()], run())


class AnswerTests(CheckerCase):
    """What clients are told of a job's end."""

    def test_result_of_none(self) -> None:
        """A job is answered that has not run, or with another's result."""
        self.wrong("which 0 attempts ended with", [asked(), answered()])
        self.wrong("which 0 attempts ended with", [asked(), answered(text="7.2")], run())

    def test_error_of_its_own(self) -> None:
        """The same with errors of the job's own."""
        self.sound([asked(), answered(code="DECLARED")], run())
        failed = answered(code="JOB_FAILED", text="ZeroDivisionError: 7.1")
        self.sound([asked(), failed], run())
        self.wrong("which 0 attempts", [asked(), failed], run(outcome="7.2"))

    def test_too_early(self) -> None:
        """A job is answered before its end."""
        self.wrong("answered before its end", [asked(), answered(2.4)], run())

    def test_wrong_attempt(self) -> None:
        """The answer has the number of another attempt."""
        self.wrong("attempt 1 was answered as 2", [asked("Again"), answered(attempt=2)], run())

    def test_run_after_answer(self) -> None:
        """Another attempt follows the one that was answered."""
        again = run(3.5, 4.0, "8.1", pid=8, attempt=2)
        events = [Killed(2.6, 7), asked("Again"), answered()]
        self.wrong("an attempt follows the one that was answered", events, run(), again)

    def test_refused(self) -> None:
        """A job runs of which its client was told that it did not."""
        for code, text in (
            ("QUEUE_FULL", "full"),
            ("NO_WORKERS", "none"),
            ("SHUTTING_DOWN", "the server is stopping"),
            ("DEADLINE_PASSED", "Once waited for its deadline, 1 s"),
        ):
            refusal = answered(1.9 + 1, code, text)
            self.sound([asked(deadline=1.0), refusal])
            self.wrong("and had started", [asked(deadline=1.0), refusal], run())

    def test_never_ran(self) -> None:
        """A cancelled job runs of which its client was told that it never did."""
        events = [asked(), cancel(2.2), Answer(2.3, 1, "9")]
        refusal = answered(code="CANCELLED", text="Once was cancelled; it never ran")
        self.sound([*events, refusal])
        self.wrong("and had started", [*events, refusal], run(outcome="JobCancelled"))

    def test_lives_after_stop(self) -> None:
        """The worker of a stopped job gives a sign after its client was told."""
        events = [asked("Brief"), answered(2.4, "TIMED_OUT", "")]
        self.sound(events, run(end=2.3, outcome="TimeLimitExceeded"))
        self.wrong("lives after", events, run(outcome="TimeLimitExceeded"))

    def test_starts_after_stop(self) -> None:
        """A job starts after its client was told that it was lost."""
        events = [Killed(1.5, 6), asked("Again"), answered(1.9, "WORKER_LOST", "worker 6 was")]
        texts = found(events, Worker(6, [Line(0.5, "boot")]), run())
        self.assertIn("starts after the answer WORKER_LOST (Again)", texts)


class CauseTests(CheckerCase):
    """Whether what ended a job is a reason."""

    def test_cancelled_by_nobody(self) -> None:
        """A job is cancelled that nobody cancelled."""
        self.wrong(
            "JobCancelled was raised",
            [asked("On"), Closed(1.5, 1), Noticed(1.6, 1)],
            run(outcome="JobCancelled"),
        )
        self.wrong("answered CANCELLED", [asked(), answered(code="CANCELLED", text="")])

    def test_cancelled_later(self) -> None:
        """A job is cancelled before its client asks for that."""
        events = [asked(), answered(2.6, "CANCELLED", ""), cancel(2.7), Answer(2.8, 1, "9")]
        texts = found(events, run(outcome="JobCancelled"))
        self.assertEqual(len(texts), 2)

    def test_disconnected(self) -> None:
        """A job is cancelled when its client is gone."""
        self.sound([asked(), Closed(2.4, 1), Noticed(2.45, 1)], run(outcome="JobCancelled"))

    def test_time_left(self) -> None:
        """A job is timed out that has time left."""
        early = [asked("Brief", 1.6), answered(2.4, "TIMED_OUT", "")]
        texts = found(early, run(end=2.3, outcome="TimeLimitExceeded"))
        self.assertEqual(len(texts), 2)
        self.wrong("TIMED_OUT within", [asked(), answered(code="TIMED_OUT", text="")])
        self.wrong(
            "DEADLINE_PASSED before",
            [asked(deadline=5.0), answered(code="DEADLINE_PASSED", text="waited")],
        )

    def test_lost(self) -> None:
        """A lost job names its last worker, which something killed."""
        lost = answered(code="WORKER_LOST", text="worker 7 exited (status 0) 0.1 s into Once")
        self.sound([asked(), lost], run(end=None, dies=2.5))
        self.sound([Killed(2.4, 7), asked(), lost], run(end=None))
        self.wrong("which nothing killed", [asked(), lost], run(end=None))
        self.wrong("which was no worker", [asked(), lost], run(end=None, dies=2.5, pid=8))
        self.wrong("more are allowed", [asked("Again"), lost], run(end=None, dies=2.5))
        given_up = "worker 7 exited; it is not tried again: no worker can be started: worker 8 was"
        self.sound(
            [asked("Again"), answered(code="WORKER_LOST", text=given_up)], run(end=None, dies=2.5)
        )

    def test_lost_with_idle_worker(self) -> None:
        """A job may be lost with a worker that had not begun it, if that was killed."""
        lost = answered(code="WORKER_LOST", text="worker 7 was killed by SIGKILL 0.0 s into Once")
        idle = run(start=None, end=None)
        self.sound([Killed(2.0, 7), asked(), lost], idle)
        self.wrong("was not killed", [asked(), lost], idle)

    def test_lost_with_frozen_worker(self) -> None:
        """A job may be lost with a worker that gave no sign of life, if that was frozen."""
        text = "worker 7 gave no sign of life for 5 s and was killed 0.0 s into Once"
        lost = answered(code="WORKER_LOST", text=text)
        idle = run(start=None, end=None)
        self.sound([Frozen(2.0, 7), asked(), lost], idle)
        self.wrong("was not killed", [asked(), lost], idle)
        self.wrong("was not killed", [asked(), lost, Frozen(3.5, 7)], idle)
        self.wrong("which nothing killed", [Frozen(2.0, 7), asked(), lost], run(end=None))
        signalled = answered(code="WORKER_LOST", text="worker 7 was killed by SIGKILL 0.0 s in")
        self.wrong("was not killed", [Frozen(2.0, 7), asked(), signalled], idle)

    def test_lost_with_anothers_worker(self) -> None:
        """A job is lost with a worker that died of another."""
        lost = answered(code="WORKER_LOST", text="worker 7 was killed by SIGKILL 0.0 s into Once")
        events = [Killed(2.4, 7), asked(), lost, asked(tag="2", name="b"), Closed(4.0, 1)]
        self.wrong("died of another job", events, run(end=None, name="b"))


class LetGoTests(CheckerCase):
    """What the server has let go of does not start, and what it stops ends."""

    def test_cancelled_in_hand(self) -> None:
        """After the cancel was confirmed, a job starts that the worker had in hand."""
        events = [asked(), cancel(1.5), Answer(1.6, 1, "9"), answered(code="CANCELLED", text="")]
        self.sound(events, run(outcome="JobCancelled"))

    def test_given_after_cancel(self) -> None:
        """After the cancel was confirmed, the job is given to a worker that had done another."""
        worker = run(outcome="JobCancelled")
        worker.lines[1:1] = [Line(1.0, "start", "b", 1), Line(1.8, "end", "b", 1, "7.2")]
        events = [asked(tag="2", name="b", time=0.9), asked(), cancel(1.5)]
        events_after: list[Event] = [
            Answer(1.6, 1, "9"),
            Answer(1.9, 1, "2", "", "7.2", 1),
            answered(code="CANCELLED", text=""),
        ]
        self.wrong("after its cancel", [*events, *events_after], worker)

    def test_answered_after_cancel(self) -> None:
        """A result comes after the cancel was confirmed."""
        events = [asked(), cancel(1.5), Answer(1.6, 1, "9"), answered()]
        self.wrong("answered after its cancel was confirmed", events, run())

    def test_given_after_disconnect(self) -> None:
        """A job of a client that is gone is given to a worker."""
        worker = run()
        worker.lines.insert(1, Line(1.9, "boot"))
        self.wrong("after its client's end", [asked("On"), Closed(1.5, 1), Noticed(1.6, 1)], worker)

    def test_given_after_deadline(self) -> None:
        """A job starts long after its deadline."""
        worker = run(12.0, 12.1, "TimeLimitExceeded")
        worker.lines.insert(1, Line(11.0, "boot"))
        events = [
            asked(deadline=0.1),
            Request(1.0, 1, "2", "dangad.Ping"),
            Answer(1.1, 1, "2"),
            answered(12.2, "DEADLINE_PASSED", "reached its deadline"),
        ]
        self.assertIn("after its deadline", found(events, worker)[0])

    def test_goes_on(self) -> None:
        """A job goes on for long after it was to stop."""
        stopped = run(1.5, 20.0, "JobCancelled")
        self.wrong(
            "after its grace",
            [asked(), cancel(2.0), Answer(2.1, 1, "9"), answered(21.0, "CANCELLED", "")],
            stopped,
        )
        self.wrong("after its grace", [asked(), Closed(2.0, 1), Noticed(2.1, 1)], stopped)
        self.sound([asked("On"), Closed(2.0, 1), Noticed(2.1, 1)], run(1.5, 20.0))

    def test_over_its_limit(self) -> None:
        """A job runs for much longer than its time limit."""
        events = [asked("Brief"), answered(30.0, "TIMED_OUT", "")]
        self.wrong("after its grace", events, run(end=20.0, outcome="TimeLimitExceeded"))

    def test_does_not_finish(self) -> None:
        """A job that should finish without its client does not."""
        events = [asked("On"), Closed(2.1, 1), Noticed(2.2, 1)]
        self.wrong("did not finish", events, run(end=None))
        self.sound([*events, Killed(3.0, 7)], run(end=None))


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
