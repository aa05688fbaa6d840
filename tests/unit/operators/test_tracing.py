"""The spans of jobs, made with OpenTelemetry's own SDK. Skipped where that is not installed."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from dangad.errors import WorkerLost
from dangad.host.startfailure import NotStarted
from dangad.scheduler.dispatcher import Dispatcher
from dangad.scheduler.record import Death, Job
from tests.fakes import FakeClient, FakeWorker, catalogue

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from dangad.operators import tracing

if TYPE_CHECKING:
    from collections.abc import Callable

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"
SECOND = 10**9


class ThreadClock(Clock):
    """A clock that is also called from threads."""

    def __init__(self) -> None:
        super().__init__()
        self.called = threading.Event()
        self.running: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def callFromThread(self, call: Callable[..., object], *args: object, **named: object) -> None:
        """Make the call in the next turn."""
        self.callLater(0, call, *args, **named)
        self.called.set()

    def callWhenRunning(self, call: Callable[..., Any], *args: Any) -> None:
        """Remember the call."""
        self.running.append((call, args))


class Stuck(InMemorySpanExporter):  # type: ignore[misc]
    """An exporter that does not end until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def shutdown(self) -> None:
        """Wait."""
        self.go_on.wait(60)


class TracingTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A dispatcher, and a tracing whose spans the test gets at once."""
        self.clock = ThreadClock()
        self.clock.advance(1000)
        self.exporter = InMemorySpanExporter()
        self.dispatcher = Dispatcher(self.clock, 10)
        self.tracing = self.trace(self.exporter)
        self.ann = FakeClient("ann")

    def trace(self, exporter: Any) -> tracing.Tracing:
        """A tracing with this exporter, until the end of the test."""
        made = tracing.Tracing(self.clock, lambda: SimpleSpanProcessor(exporter))
        made.start(self.dispatcher.counters)
        logger = logging.getLogger("opentelemetry")
        self.addCleanup(logger.removeHandler, logger.handlers[-1])
        return made

    def submit(self, traceparent: str | None = TRACEPARENT, **options: Any) -> Job:
        """A job of a client that wants it traced."""
        job = Job(self.dispatcher.next_id(), self.ann, b"1", b"Echo", b"xyz", **options)
        job.traceparent = traceparent
        self.dispatcher.submit(job)
        return job

    def ready(self) -> FakeWorker:
        """A worker that is idle, or has the first waiting job."""
        worker = FakeWorker()
        worker.say_hello(catalogue("Echo"))
        self.dispatcher.worker_ready(worker, worker.performs)
        return worker

    def test_life(self) -> None:
        """A job that waited and ran has two spans under its client's, with its times."""
        now = time.time()
        job = self.submit()
        self.clock.advance(2)
        worker = self.ready()
        self.clock.advance(3)
        worker.finish(True)
        self.dispatcher.answers.job_finished(worker, False, b"\0\0", b"250000 2000")
        waits, runs = self.exporter.get_finished_spans()
        for span in (waits, runs):
            self.assertEqual(f"{span.context.trace_id:032x}", TRACE)
            self.assertEqual(f"{span.parent.span_id:016x}", SPAN)
            self.assertTrue(span.parent.is_remote)
            self.assertTrue(span.status.is_unset)
            for name, value in (
                ("messaging.system", "dangad"),
                ("messaging.destination.name", "Echo"),
                ("messaging.message.id", str(job.id)),
                ("messaging.message.body.size", 3),
                ("messaging.client.id", "ann"),
                ("dangad.priority", "normal"),
                ("dangad.state", "done"),
            ):
                self.assertEqual(span.attributes[name], value)
        self.assertEqual([waits.name, runs.name], ["wait Echo", "process Echo"])
        self.assertEqual([waits.kind.name, runs.kind.name], ["INTERNAL", "CONSUMER"])
        self.assertEqual(runs.attributes["dangad.worker.pid"], worker.pid)
        self.assertEqual(runs.attributes["dangad.attempt"], 1)
        self.assertEqual(waits.end_time, runs.start_time)
        self.assertLess(abs(waits.end_time - waits.start_time - 2 * SECOND), 1000)
        self.assertLess(abs(runs.end_time - runs.start_time - 3 * SECOND), 1000)
        self.assertLess(abs(runs.end_time - now * SECOND), 60 * SECOND)
        self.assertEqual(runs.resource.attributes["service.name"], "dangad")

    def test_errors(self) -> None:
        """The last span of a job has its error; one that never ran has the span of its wait."""
        self.submit(deadline=1.0)
        self.clock.advance(2)
        [waits] = self.exporter.get_finished_spans()
        self.assertEqual(waits.attributes["error.type"], "DEADLINE_PASSED")
        self.assertIn("waited for its deadline", waits.status.description)
        self.exporter.clear()
        worker = self.ready()
        self.submit()
        worker.die()
        self.dispatcher.worker_gone(worker, Death("was killed by SIGKILL"))
        waits, runs = self.exporter.get_finished_spans()
        self.assertNotIn("error.type", waits.attributes)
        self.assertEqual(runs.attributes["error.type"], WorkerLost.code.decode())
        self.assertEqual(runs.status.status_code.name, "ERROR")

    def test_untraced(self) -> None:
        """A job without a trace has no spans, nor has one whose client does not sample it."""
        for traceparent in (None, TRACEPARENT[:-1] + "0"):
            self.submit(traceparent, deadline=1.0)
        self.clock.advance(2)
        self.assertEqual(self.exporter.get_finished_spans(), ())

    def test_stop(self) -> None:
        """A stop ends the export in a thread, and waits for it no longer than a moment."""
        stopped = self.tracing.stop()
        self.assertTrue(self.clock.called.wait(60))
        self.clock.advance(0)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.successResultOf(self.tracing.stop())
        self.submit(deadline=1.0)
        self.clock.advance(2)
        self.assertEqual(self.exporter.get_finished_spans(), ())

    def test_stuck_export(self) -> None:
        """An export that does not end is left behind."""
        stuck = Stuck()
        stopped = self.trace(stuck).stop()
        self.assertNoResult(stopped)
        self.clock.advance(tracing.FLUSH_TIME)
        self.successResultOf(stopped)
        self.clock.called.clear()
        stuck.go_on.set()
        self.assertTrue(self.clock.called.wait(60))
        self.clock.advance(0)

    def test_words_of_the_sdk(self) -> None:
        """What the SDK says is logged, in one line without control characters, and not often."""
        with capturedLogs() as events:
            for _ in range(99):
                logging.getLogger("opentelemetry.sdk").warning("Queue \x1b\n%s", "full")
            self.clock.advance(0)
        lines = [formatEvent(event) for event in events]
        self.assertEqual(lines, [r"traces: Queue \x1b\nfull"] * tracing.BURST)
        self.clock.advance(100)


class EnvironmentTests(SynchronousTestCase):
    def begin(self, **variables: str) -> ThreadClock:
        """Begin to trace with these environment variables."""
        clock = ThreadClock()
        kept = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
        with mock.patch.dict(os.environ, {**kept, **variables}, clear=True):
            tracing.trace_jobs(clock, Dispatcher(clock, 10).counters)
        return clock

    def test_begin(self) -> None:
        """Nothing is made before the reactor runs: the process may still become a daemon."""
        threads = threading.active_count()
        clock = self.begin()
        self.assertEqual(len(clock.running), 1)
        self.assertEqual(threading.active_count(), threads)

    def test_off(self) -> None:
        """The environment may say that nothing is exported."""
        for variables in ({"OTEL_SDK_DISABLED": "True"}, {"OTEL_TRACES_EXPORTER": "none"}):
            self.assertEqual(self.begin(**variables).running, [])

    def test_mistakes(self) -> None:
        """It may not ask for what there is not."""
        for name, value, says in (
            ("OTEL_TRACES_EXPORTER", "zipkin\x1b", r"OTEL_TRACES_EXPORTER is zipkin\x1b, not otlp"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "PROTOCOL is grpc, and dangad has only http/"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc", "TRACES_PROTOCOL is grpc, and"),
        ):
            with self.assertRaises(NotStarted) as caught:
                self.begin(**{name: value})
            self.assertIn(says, str(caught.exception))
