"""The lines of ``dangad dev``: of jobs, of what they print, and of the server's log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dangad.cli.devlines import HOLD, JobLines, LogLine, event_pieces, read_log_line
from dangad.host.logformat import json_line

if TYPE_CHECKING:
    from dangad.cli.devlines import Screen


def text_of(pieces: Any) -> str:
    """The text of a line, without its styles."""
    return "".join(piece if isinstance(piece, str) else piece[0] for piece in pieces)


def said(kind: str, **more: Any) -> str:
    """What is said of an event in the life of job 3."""
    return text_of(event_pieces({"kind": kind, "job": 3, "command": "Add", **more}))


class EventTests(SynchronousTestCase):
    def test_lives(self) -> None:
        """The events of a job's life have a line each."""
        self.assertEqual(said("accepted"), "job 3 Add waits")
        self.assertEqual(said("started", wait=0.001), "job 3 Add started")
        self.assertEqual(said("started", wait=1.25), "job 3 Add started after 1.2 s of waiting")
        self.assertEqual(
            said("retried", code="WORKER_LOST", text="worker 7 died"),
            "job 3 Add is tried again: WORKER_LOST: worker 7 died",
        )
        self.assertEqual(said("ended", state="done", runtime=0.012), "job 3 Add done in 12 ms")
        self.assertEqual(
            said("ended", state="failed", runtime=0.012, code="JOB_FAILED", text="KeyError: 'a'"),
            "job 3 Add failed in 12 ms: JOB_FAILED: KeyError: 'a'",
        )
        self.assertEqual(said("ended", state="cancelled"), "job 3 Add cancelled")

    def test_refused(self) -> None:
        """A refused request has no number."""
        pieces = event_pieces(
            {"kind": "refused", "command": "Ad", "code": "UNHANDLED", "text": "no such command"}
        )
        self.assertEqual(text_of(pieces), "Ad refused: UNHANDLED: no such command")


def logged(**fields: Any) -> str:
    """A line of the log, as the server writes it."""
    return json_line({"level": "info", "namespace": "dangad.pool.output", **fields})


class LogTests(SynchronousTestCase):
    def test_line(self) -> None:
        """A line of the log has a part of the server, a level and a text."""
        line = logged(namespace="dangad.pool.link", level="warn", text="worker 7 was killed")
        self.assertEqual(
            read_log_line(line), LogLine("dangad.pool.link", "warn", "worker 7 was killed", None)
        )
        failed = read_log_line(logged(text="failed", traceback="Traceback ...\n  File"))
        assert failed is not None
        self.assertEqual(failed.text, "failed\nTraceback ...\n  File")

    def test_other(self) -> None:
        """What is no line of the log is told apart."""
        for line in ("twistd dangad: checking the job modules: jobs", "", "{}", "[1]", "17"):
            self.assertIsNone(read_log_line(line))

    def test_output(self) -> None:
        """What a job prints is found in the log."""
        line = read_log_line(logged(text="worker 7 job 3: a", worker=7, job=3, line="  a: b"))
        assert line is not None
        self.assertEqual(line.output, (7, 3, "  a: b"))
        line = read_log_line(logged(text="worker 7 job 0: a", worker=7, job=None, line="a"))
        assert line is not None
        self.assertEqual(line.output, (7, 0, "a"))


class FakeScreen:
    """Remembers the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, *pieces: Any) -> None:
        """Take a line."""
        self.lines.append(text_of(pieces))


def event(kind: str, job: int = 3, **more: Any) -> dict[str, Any]:
    """An event in the life of a job."""
    return {"kind": kind, "job": job, "command": "Add", **more}


class JobLinesTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Nothing has happened yet."""
        self.clock = Clock()
        self.screen = FakeScreen()
        self.jobs = JobLines(self.clock, cast("Screen", self.screen))

    def test_order(self) -> None:
        """What a job prints is between its start and its end, though it is known before."""
        self.jobs.show_output(7, 3, "first")
        self.jobs.show_events([event("accepted"), event("started")])
        self.jobs.show_output(7, 3, "second")
        self.jobs.show_events([event("ended", state="done")])
        self.assertEqual(
            self.screen.lines,
            ["job 3 Add started", "job 3 | first", "job 3 | second", "job 3 Add done"],
        )

    def test_waits(self) -> None:
        """A job that has to wait has a line for that."""
        self.jobs.show_events([event("accepted")])
        self.jobs.show_events([event("started")])
        self.assertEqual(self.screen.lines, ["job 3 Add waits", "job 3 Add started"])

    def test_unannounced(self) -> None:
        """Output of a job whose start is not told is shown a moment later."""
        self.jobs.show_output(7, 3, "first")
        self.assertEqual(self.screen.lines, [])
        self.clock.advance(HOLD)
        self.assertEqual(self.screen.lines, ["job 3 | first"])

    def test_held_too_much(self) -> None:
        """Output in masses does not wait, and stays in order."""
        for number in range(1002):
            self.jobs.show_output(7, 3, str(number))
        self.assertEqual(self.screen.lines, [f"job 3 | {number}" for number in range(1001)])
        self.jobs.flush()
        self.assertEqual(self.screen.lines[1001:], ["job 3 | 1001"])

    def test_outside(self) -> None:
        """What is printed outside of a job has the worker's number."""
        self.jobs.show_output(7, 0, "imported")
        self.assertEqual(self.screen.lines, ["worker 7 | imported"])
