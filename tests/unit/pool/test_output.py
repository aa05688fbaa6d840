from __future__ import annotations

import faulthandler
import itertools
import tempfile
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from dangad.host.turns import QUOTA
from dangad.pool.output import (
    LINES_A_SECOND,
    MAX_LINE,
    MAX_LINES,
    SURE_LINES,
    TAIL,
    JobOutput,
    last_lines,
)
from dangad.pool.outputlog import OutputLog
from dangad.scheduler.record import Job
from tests.unit.host.test_turns import TurnClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Unhurried(OutputLog):
    """One that writes each line at once: a turn for each."""

    def write_each(self, write: Callable[[Any], object], lines: Iterable[object]) -> None:
        """Write them."""
        super().write_each(write, lines)
        self.flush()


def a_job(number: int) -> Job:
    """A job with this id."""
    return Job(number, None, None, b"Echo", b"")


def output_of_worker(clock: Clock | None = None) -> JobOutput:
    """The output of one whose lines are in the log as soon as they have come."""
    clock = clock or Clock()
    return JobOutput(clock, Unhurried(clock))


def logged(*pieces: bytes) -> list[str]:
    """What the log says if job 7 of worker 4711 prints these pieces."""
    output = output_of_worker()
    output.pid = 4711
    with capturedLogs() as events:
        output.begin_job(a_job(7))
        for piece in pieces:
            output.received(piece)
        output.end_job()
    return [formatEvent(event) for event in events]


PRINTED: tuple[tuple[bytes, list[str]], ...] = (
    (b"", []),
    (b"one\ntwo\n", ["one", "two"]),
    (b"one", ["one"]),
    (b"\n\n", ["", ""]),
    # What is no UTF-8, or would be obeyed by a terminal, is escaped; a line may end in CRLF.
    (b"\xff {pid} \xc3\xa9\r\n", ["\\xff {pid} é"]),
    (b"\x1b[2Jgone\rback\tx\x00\n", ["\\x1b[2Jgone\\rback\tx\\x00"]),
    # A line that is too long is cut; of very many lines those over the limit are counted.
    (b"x" * (3 * MAX_LINE + 5) + b"\n", [*["x" * MAX_LINE] * 3, "xxxxx"]),
    (b"x\n" * (MAX_LINES + 234), [*["x"] * MAX_LINES, "234 more lines of output were dropped"]),
)
"""What a job prints, and its lines in the log."""
FRAMES = [f"  File {number}" for number in range(20)]
LAST: tuple[tuple[list[str], str], ...] = (
    (["", "  "], ""),
    (
        [*(f"line {n}" for n in range(9)), "", "x" * 500, "end"],
        f"line 7 | line 8 | {'x' * 200} | end",
    ),
    # Of a report on a crash the innermost frames count, which come first.
    (
        ["before", "Fatal Python error: Aborted", "", "Current thread:", *FRAMES],
        "Fatal Python error: Aborted | Current thread: | File 0 | File 1",
    ),
)
"""What a worker that died has printed, and what its client is told of that."""


class JobOutputTests(SynchronousTestCase):
    def test_lines(self) -> None:
        """Each line of a job's output, and a rest, is one log line, with pid and id."""
        self.assertEqual(logged(), [])
        for printed, lines in PRINTED:
            with self.subTest(printed[:80]):
                self.assertEqual(logged(printed), [f"worker 4711 job 7: {line}" for line in lines])

    def test_last_lines(self) -> None:
        """Of what a dead worker printed, the client is told the last lines, cut."""
        for lines, told in LAST:
            self.assertEqual(last_lines(lines), told)

    def test_line_without_end(self) -> None:
        """A line that never ends is logged as it comes, and not kept."""
        output = output_of_worker()
        output.begin_job(a_job(1))
        with capturedLogs() as events:
            for _ in range(100):
                output.received(b"x" * 1000)
        self.assertEqual(len(events), 100 * 1000 // MAX_LINE)

    def test_flood_in_pieces(self) -> None:
        """However a flood comes, each of its lines is counted, and the last ones are known."""
        text = b"".join(b"line %d\n" % number for number in range(10_000))
        for size in (7, 1000, 2**16):
            output = output_of_worker()
            with capturedLogs() as events:
                output.begin_job(a_job(7))
                for start in range(0, len(text), size):
                    output.received(text[start : start + size])
                self.assertEqual(output.tail[-1], "line 9999")
                output.end_job()
            self.assertEqual(events[-1]["dropped"], 10_000 - MAX_LINES)

    def test_next_job_starts_afresh(self) -> None:
        """Each job may print as much, if the one before it was not just now."""
        clock = Clock()
        output = output_of_worker(clock)
        for job in (1, 2):
            with capturedLogs() as events:
                output.begin_job(a_job(job))
                output.received(b"x\n" * (MAX_LINES + 1))
                output.end_job()
            self.assertEqual([event["job"] for event in events], [job] * (MAX_LINES + 1))
            clock.advance(MAX_LINES / LINES_A_SECOND)

    def test_one_shouter_after_the_other(self) -> None:
        """Jobs that shout fill the log no faster than one worker may; each has a few lines in it.

        And one that prints little has all of them.
        """
        clock = Clock()
        output = output_of_worker(clock)
        jobs, seconds, few = 200, 10, b"a\nb\nc\n"
        with capturedLogs() as events:
            for job in range(1, jobs + 1):
                output.begin_job(a_job(job))
                output.received(few if job % 2 else b"x\n" * 5000)
                output.end_job()
                clock.advance(seconds / jobs)
        lines = [event["job"] for event in events if "line" in event]
        self.assertLess(len(lines), MAX_LINES + seconds * LINES_A_SECOND + jobs * SURE_LINES)
        self.assertEqual({lines.count(job) for job in range(1, jobs, 2)}, {3})
        self.assertTrue(all(lines.count(job) >= SURE_LINES for job in range(2, jobs, 2)))
        told = {event["job"]: event["dropped"] for event in events if "dropped" in event}
        self.assertEqual(told, {job: 5000 - lines.count(job) for job in range(2, jobs + 1, 2)})

    def test_a_flood_at_once(self) -> None:
        """Of a flood that comes in one piece, only what may be told is looked at line by line."""
        output = output_of_worker()
        looked_at: list[bytes] = []
        self.patch(output, "_log", looked_at.extend)
        output.begin_job(a_job(7))
        output.received(b"x\n" * 30_000)
        self.assertEqual(len(looked_at), MAX_LINES + TAIL)

    def test_between_jobs(self) -> None:
        """What a worker prints between jobs is nobody's, is bounded, and does not hit the next."""
        output = output_of_worker()
        with capturedLogs() as events:
            output.received(b"x\n" * 2 * MAX_LINES + b"rest")
            output.begin_job(a_job(7))
            output.received(b"mine\n")
            output.end_job()
            output.received(b"a line that is begun")
            output.begin_job(a_job(8))
            output.received(b"mine, too\n")
        jobs = [event["job"] for event in events]
        self.assertEqual(jobs, [0] * (MAX_LINES + 1) + [7, 0, 8])
        lines = [event["line"] for event in events[-3:]]
        self.assertEqual(lines, ["mine", "a line that is begun", "mine, too"])

    def test_close(self) -> None:
        """When the worker dies, what it printed last is logged."""
        output = output_of_worker()
        output.begin_job(a_job(7))
        output.received(b"about to d")
        with capturedLogs() as events:
            output.close()
            output.close()
        self.assertEqual([event["line"] for event in events], ["about to d"])

    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(st.binary(max_size=8), st.lists(st.integers(0, 3 * MAX_LINE), max_size=8))
    def test_any_split(self, seed: bytes, cuts: list[int]) -> None:
        """The same output makes the same log lines, in whatever pieces it comes."""
        text = b"".join(bytes([byte % 3 + 9]) * (byte % 3 == 1 or byte * 20) for byte in seed)
        edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
        pieces = [text[start:end] for start, end in itertools.pairwise(edges)]
        self.assertEqual(logged(*pieces), logged(text))


class TurnsTests(SynchronousTestCase):
    """What is written in one turn of the reactor."""

    def setUp(self) -> None:
        """Have two workers whose lines go into one log."""
        self.clock = TurnClock()
        log = OutputLog(self.clock)
        self.outputs = [JobOutput(self.clock, log) for _ in range(2)]
        for pid, output in enumerate(self.outputs, 1):
            output.pid = pid
            output.begin_job(a_job(10 * pid))

    def test_many_lines(self) -> None:
        """Of many lines that come at once few are written in each turn, and all in the end.

        They are in order, each with its own job's id, though that may have ended meanwhile.
        """
        numbers = [f"{number}" for number in range(MAX_LINES)]
        with capturedLogs() as events:
            for output in self.outputs:
                output.received("".join(f"{number}\n" for number in numbers).encode())
                output.received(b"one more\n")
                output.end_job()
            in_turns = [len(events)]
            while self.clock.getDelayedCalls():
                self.clock.turn()
                in_turns.append(len(events) - sum(in_turns))
        self.assertLessEqual(max(in_turns), QUOTA)
        for pid in (1, 2):
            *lines, last = (event for event in events if event["worker"] == pid)
            self.assertEqual([event["line"] for event in lines], numbers)
            self.assertEqual(last["dropped"], 1)
            self.assertEqual({event["job"] for event in (*lines, last)}, {10 * pid})

    def test_few_lines(self) -> None:
        """They are in the log at once."""
        with capturedLogs() as events:
            self.outputs[0].received(b"one\ntwo\n")
        self.assertEqual([event["line"] for event in events], ["one", "two"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_end(self) -> None:
        """When no turn is to come, all that waits is written."""
        with capturedLogs() as events:
            self.outputs[0].received(b"x\n" * MAX_LINES)
            self.outputs[0]._written.flush()
        self.assertEqual(len(events), MAX_LINES)


class StackTests(SynchronousTestCase):
    def test_apart(self) -> None:
        """A stack that was asked for is shown and logged, and is no output of the job."""
        output = output_of_worker()
        with tempfile.TemporaryFile() as file:
            faulthandler.dump_traceback(file, all_threads=True)
            file.seek(0)
            dumped = file.read()
        shown: list[str] = []
        output.begin_job(a_job(7))
        output.received(b"hello\n")
        output.listen(shown)
        output.received(dumped + b"more\n")
        output.end_listening(shown)
        self.assertEqual(list(output.tail), ["hello", "more"])
        self.assertEqual(shown, [*dumped.decode().splitlines(), "more"])
        output.begin_job(a_job(8))
        output.received(dumped)
        self.assertEqual(list(output.tail), dumped.decode().splitlines()[-TAIL:])
