"""Traces of jobs, for OpenTelemetry: two spans for each job whose client has asked for them.

Made by :mod:`dangad.tap` for ``--traces``. A client asks with the key ``_traceparent`` of its
request. When the job has ended, the span of its wait and the span of its run are made, children of
the client's span. OpenTelemetry's SDK exports them in a thread of its own, from a bounded queue: it
never blocks the reactor, and drops spans if the collector is too slow.

This is the only module of dangad that imports OpenTelemetry, which is the extra ``dangad[otel]``.
"""

from __future__ import annotations

import logging
import os
import threading
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from dangad.host.clock import epoch_of
from dangad.host.quietlog import QuietLog
from dangad.host.startfailure import NotStarted
from dangad.scheduler.interfaces import IJournal
from dangad.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from dangad.errors import DangadError
    from dangad.scheduler.counters import Counters
    from dangad.scheduler.record import Job

log = Logger()

# OpenTelemetry's names for messaging; those of dangad's own begin with its name.
SYSTEM = "messaging.system"
DESTINATION = "messaging.destination.name"
MESSAGE = "messaging.message.id"
SIZE = "messaging.message.body.size"
OPERATION = "messaging.operation.name"
OPERATION_TYPE = "messaging.operation.type"
CLIENT = "messaging.client.id"
ERROR = "error.type"
PRIORITY = "dangad.priority"
ATTEMPT = "dangad.attempt"
WORKER = "dangad.worker.pid"
STATE = "dangad.state"

PROTOCOL = "http/protobuf"
"""The only way of export, one of OpenTelemetry's."""
FLUSH_TIME = 3.0
"""Seconds in which the last spans must be exported when the server stops."""
BURST = 3
"""The most lines of the SDK in the log in :data:`dangad.host.quietlog.INTERVAL` seconds."""
MOST_LINE = 1000
"""The most characters of a line of the SDK in the log."""


def trace_jobs(reactor: Any, counters: Counters) -> Tracing | None:
    """Trace jobs from the start of the reactor on, as the environment says.

    Returns what must be stopped before the reactor stops; None if nothing is traced.

    :raises NotStarted: the environment asks for what dangad does not have.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    exporter = os.environ.get("OTEL_TRACES_EXPORTER", "otlp")
    if exporter not in ("otlp", "none"):
        raise NotStarted(f"--traces: OTEL_TRACES_EXPORTER is {printable(exporter)}, not otlp")
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if os.environ.get(name, PROTOCOL) != PROTOCOL:
            asked = printable(os.environ[name])
            raise NotStarted(f"--traces: {name} is {asked}, and dangad has only {PROTOCOL}")
    if exporter == "none":
        return None
    tracing = Tracing(reactor, lambda: BatchSpanProcessor(OTLPSpanExporter()))
    reactor.callWhenRunning(tracing.start, counters)
    return tracing


@implementer(IJournal)
class Tracing:
    """Makes the spans of jobs that have ended."""

    def __init__(self, reactor: Any, make_processor: Callable[[], Any]) -> None:
        """Trace nothing yet.

        :param make_processor: makes what exports the spans. It may start threads, so it is called
            only when the process has become a daemon.
        """
        self._reactor = reactor
        self._make_processor = make_processor
        self._propagator = TraceContextTextMapPropagator()
        self._quiet = QuietLog(reactor, log, BURST)
        #: The SDK's objects; None before the start and after the stop.
        self._provider: Any = None
        self._tracer: Any = None

    def start(self, counters: Counters) -> None:
        """Trace the jobs of `counters` from now on."""
        logging.getLogger("opentelemetry").addHandler(_ToLog(self._warn))
        named = "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        own = {} if named or os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "dangad"}
        self._provider = TracerProvider(
            resource=Resource.create({**own, "service.version": version("dangad")}),
            shutdown_on_exit=False,  # it would wait for long, when the process ends
        )
        self._provider.add_span_processor(self._make_processor())
        self._tracer = self._provider.get_tracer("dangad", version("dangad"))
        counters.journals += (self,)

    def stop(self) -> Deferred[None]:
        """Export the last spans. Fires when this is done, or has taken too long."""
        done: Deferred[None] = Deferred()
        provider, self._provider, self._tracer = self._provider, None, None
        if provider is None:
            done.callback(None)
            return done
        alarm = self._reactor.callLater(FLUSH_TIME, done.callback, None)

        def is_done() -> None:
            self._quiet.flush()
            if alarm.active():
                alarm.cancel()
                done.callback(None)

        def shut_down() -> None:
            try:
                provider.shutdown()
            finally:
                self._reactor.callFromThread(is_done)

        threading.Thread(target=shut_down, name="last traces", daemon=True).start()
        return done

    def job_ended(self, job: Job) -> None:
        """See :meth:`IJournal.job_ended`: make the spans of `job`, if its client wants them."""
        if not job.traceparent or self._tracer is None:
            return
        context = self._propagator.extract({"traceparent": job.traceparent})
        offset = epoch_of(self._reactor)
        accepted, ended = (
            _nanoseconds(offset + job.accepted_at),
            _nanoseconds(offset + job.ended_at),
        )
        started = _nanoseconds(offset + job.started_at) if job.attempt else ended
        common = {
            SYSTEM: "dangad",
            DESTINATION: job.name,
            MESSAGE: str(job.id),
            SIZE: job.size,
            CLIENT: printable(job.asker),
            PRIORITY: job.priority.name.lower(),
            STATE: job.state.value,
        }
        waits = {**common, OPERATION: "wait"}
        self._span(job, context, SpanKind.INTERNAL, waits, accepted, started, not job.attempt)
        if job.attempt:
            runs = {**common, OPERATION: "process", OPERATION_TYPE: "process"}
            runs |= {ATTEMPT: job.attempt, WORKER: job.pid}
            self._span(job, context, SpanKind.CONSUMER, runs, started, ended, True)

    def _span(
        self,
        job: Job,
        context: Any,
        kind: Any,
        attributes: dict[str, Any],
        start: int,
        end: int,
        is_last: bool,
    ) -> None:
        """Make one span; the last one of a job has its error."""
        span = self._tracer.start_span(
            f"{attributes[OPERATION]} {job.name}",
            context=context,
            kind=kind,
            attributes=attributes,
            start_time=start,
        )
        if is_last and job.ended_for is not None:
            code, reason = job.ended_for
            span.set_attribute(ERROR, code)
            span.set_status(StatusCode.ERROR, reason)
        span.end(max(start, end))

    def _warn(self, line: str) -> None:
        """Log what the SDK says; it may say it in any thread."""
        self._reactor.callFromThread(self._quiet.warn, "sdk", None, "traces: {line}", line=line)

    def job_accepted(self, job: Job) -> None:
        """See :meth:`IJournal.job_accepted`: nothing to tell yet."""

    def job_started(self, job: Job) -> None:
        """See :meth:`IJournal.job_started`: nothing to tell yet."""

    def job_retried(self, job: Job, error: DangadError) -> None:
        """See :meth:`IJournal.job_retried`: nothing to tell yet."""

    def job_refused(self, job: Job, error: DangadError) -> None:
        """See :meth:`IJournal.job_refused`: it neither waited nor ran."""


class _ToLog(logging.Handler):
    """Hands over the SDK's warnings, each as one line."""

    def __init__(self, write: Callable[[str], object]) -> None:
        super().__init__(logging.WARNING)
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        """Hand over the record, without a traceback."""
        self._write(printable(record.getMessage()[:MOST_LINE]))


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
