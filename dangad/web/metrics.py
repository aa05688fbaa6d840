"""Metrics for Prometheus: what ``/metrics`` tells, each from the documents of ``IOperations``.

The values exist already; they are read when Prometheus asks. Labels are bounded: names of commands
come from the catalogue, and the commands beyond its bound count under ``other``.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from dangad.web.health import illness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from dangad.operators.interfaces import IOperations

SAMPLES_A_TURN = 600
"""Lines that are written in one turn of the reactor."""
COMMANDS_A_TURN = 30
"""Commands whose histograms are read in one turn of the reactor."""
OUTCOMES = ("done", "failed", "cancelled", "timed_out", "lost", "refused")
"""How jobs end, as the label ``outcome``; a refused request never became a job."""
ACCEPTED = ("done", "failed", "cancelled", "timed_out", "lost", "waiting", "running")
"""What becomes of accepted jobs: each is in one of these."""
STATES = ("starting", "idle", "busy", "stopping")
"""The states of workers."""
GROWTH = 1.99
"""Times that an edge of a histogram's bucket is at least as long as the one before it."""
SHORTEST, LONGEST = 0.00075, 500.0
"""Seconds between which the edges of buckets lie: enough for alarms, and not too many series."""
_END = b"# EOF\n"
"""The last line of OpenMetrics."""


@dataclass(frozen=True, slots=True)
class Documents:
    """What the metrics of one request are made of."""

    status: dict[str, Any]
    commands: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Described:
    """A metric that is a counter, a gauge or an info."""

    name: str
    """Its name; the samples of a counter have ``_total`` behind it."""
    kind: str
    """``counter``, ``gauge`` or ``info``."""
    labels: tuple[str, ...]
    """The names of its labels."""
    help: str
    """What it is, in one sentence."""
    read: Callable[[Documents], Iterable[tuple[tuple[str, ...], float]]]
    """Its values, each after the values of its labels."""


@dataclass(frozen=True, slots=True)
class DescribedHistogram:
    """A metric that is a histogram of seconds."""

    name: str
    """Its name; the samples have ``_bucket``, ``_count`` and ``_sum`` behind it."""
    labels: tuple[str, ...]
    """The names of its labels."""
    help: str
    """What it is, in one sentence."""
    field: str
    """The part of the document of histograms that it is made of."""

    kind = "histogram"


def _of(*path: str) -> Callable[[Documents], Iterator[tuple[tuple[str, ...], float]]]:
    """Reads one number of the status; no value while it is None."""

    def read(documents: Documents) -> Iterator[tuple[tuple[str, ...], float]]:
        value: Any = documents.status
        for name in path:
            value = value[name]
        if value is not None:
            yield (), value

    return read


def _each(*path: str) -> Callable[[Documents], Iterator[tuple[tuple[str, ...], float]]]:
    """Reads all numbers of a part of the status, by their names."""

    def read(documents: Documents) -> Iterator[tuple[tuple[str, ...], float]]:
        value: Any = documents.status
        for name in path:
            value = value[name]
        for name, each in value.items():
            yield (name,), each

    return read


def _by_command(field: str) -> Callable[[Documents], Iterator[tuple[tuple[str, ...], float]]]:
    """Reads one number of each command."""
    return lambda documents: (((each["command"],), each[field]) for each in documents.commands)


METRICS: tuple[Described, ...] = (
    Described(
        "dangad_jobs",
        "counter",
        ("command", "outcome"),
        "Jobs that ended, and requests that were refused.",
        lambda documents: (
            ((each["command"], outcome), each[outcome])
            for each in documents.commands
            for outcome in OUTCOMES
        ),
    ),
    Described(
        "dangad_jobs_accepted",
        "counter",
        ("command",),
        "Requests that became jobs.",
        lambda documents: (
            ((each["command"],), sum(each[part] for part in ACCEPTED))
            for each in documents.commands
        ),
    ),
    Described(
        "dangad_jobs_running", "gauge", ("command",), "Jobs that run now.", _by_command("running")
    ),
    Described(
        "dangad_jobs_waiting", "gauge", ("command",), "Jobs that wait now.", _by_command("waiting")
    ),
    Described(
        "dangad_backlog_jobs",
        "gauge",
        ("priority",),
        "Jobs that wait now, by priority.",
        _each("backlog"),
    ),
    Described(
        "dangad_oldest_wait_seconds",
        "gauge",
        (),
        "How long the oldest waiting job has waited; 0 if none waits.",
        lambda documents: [((), documents.status["oldest_wait"] or 0.0)],
    ),
    Described(
        "dangad_errors",
        "counter",
        ("code",),
        "Jobs that failed, by the code of the error.",
        _each("failed_by_code"),
    ),
    Described(
        "dangad_refused",
        "counter",
        ("code",),
        "Requests that were refused, by the code of the error.",
        _each("refused_by_code"),
    ),
    Described(
        "dangad_command_paused",
        "gauge",
        ("command",),
        "1 if an operator has paused the command, else 0.",
        _by_command("paused"),
    ),
    Described(
        "dangad_command_quarantined",
        "gauge",
        ("command",),
        "1 if the command is kept away from the workers because it has killed some, else 0.",
        lambda documents: (
            ((each["command"],), float(each["quarantine"] is not None))
            for each in documents.commands
        ),
    ),
    Described(
        "dangad_workers",
        "gauge",
        ("state",),
        "Worker processes, by state.",
        lambda documents: (((state,), documents.status["workers"][state]) for state in STATES),
    ),
    Described(
        "dangad_workers_max", "gauge", (), "The most worker processes.", _of("workers", "max")
    ),
    Described(
        "dangad_worker_deaths",
        "counter",
        ("cause",),
        "Worker processes that ended, by cause.",
        _each("deaths"),
    ),
    Described("dangad_connections", "gauge", (), "Connections of clients.", _of("connections")),
    Described(
        "dangad_held_bytes",
        "gauge",
        (),
        "Bytes of requests and answers that are held for clients.",
        _of("held"),
    ),
    Described(
        "dangad_memory_bytes",
        "gauge",
        (),
        "Memory of the server's own process that is in RAM, without its workers.",
        _of("memory"),
    ),
    Described(
        "dangad_reactor_stall_longest_seconds",
        "gauge",
        ("window",),
        "The longest time in which the server's event loop did nothing else.",
        lambda documents: (
            ((window,), documents.status["stall"][field] or 0.0)
            for window, field in (("minute", "last_minute"), ("ever", "ever"))
        ),
    ),
    Described(
        "dangad_generation",
        "gauge",
        (),
        "How often the job modules were loaded: 1 at the start, one more after each reload.",
        _of("generation"),
    ),
    Described(
        "dangad_healthy",
        "gauge",
        (),
        "1 if workers can be started and the server takes jobs, else 0.",
        lambda documents: [((), float(not illness(documents.status)))],
    ),
    Described(
        "dangad_uptime_seconds", "gauge", (), "Seconds since the server started.", _of("uptime")
    ),
    Described(
        "dangad_build",
        "info",
        ("version", "python"),
        "The versions of dangad and of Python.",
        lambda documents: [((documents.status["version"], platform.python_version()), 1.0)],
    ),
)
"""All metrics but the histograms, in the order in which they are told."""
HISTOGRAMS: tuple[DescribedHistogram, ...] = (
    DescribedHistogram(
        "dangad_job_wait_seconds",
        ("command",),
        "How long jobs waited, from acceptance to their start.",
        "wait",
    ),
    DescribedHistogram(
        "dangad_job_runtime_seconds",
        ("command",),
        "How long jobs ran, from their start to their end.",
        "runtime",
    ),
)
"""The histograms of each command."""
STALLS = DescribedHistogram(
    "dangad_reactor_stall_seconds",
    (),
    "Turns of the server's event loop that took long.",
    "stalls",
)
"""The histogram of the server itself."""


class _One(Collector):
    """A collector of one metric that exists already."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterator[Metric]:
        """The metric."""
        yield self._metric


async def render_metrics(operations: IOperations, encode: Callable[[Any], bytes]) -> bytes:
    """All metrics as text.

    Work on many commands is done in parts, each in a turn of its own.

    :param encode: writes a text, from ``choose_encoder``.
    """
    documents = Documents(operations.status(), await operations.commands())
    parts: list[bytes] = []
    ends = False
    begun = ""
    for metric in _metrics(documents, operations.histograms()):
        for part in _in_parts(metric):
            registry = CollectorRegistry(auto_describe=False)
            registry.register(_One(part))
            text = encode(registry)
            ends = ends or text.endswith(_END)
            text = text.removesuffix(_END)
            parts.append(_without_head(text) if part.name == begun else text)
            begun = part.name
            await operations.turn()
    if ends:
        parts.append(_END)
    return b"".join(parts)


def _metrics(documents: Documents, histograms: Mapping[str, Any]) -> Iterator[Metric]:
    """All metrics; a histogram of many commands comes in parts."""
    for described in METRICS:
        yield _family(described, documents)
    edges = histograms["edges"]
    commands = list(histograms["commands"].items())
    for each in HISTOGRAMS:
        for start in range(0, max(len(commands), 1), COMMANDS_A_TURN):
            family = HistogramMetricFamily(each.name, each.help, labels=each.labels)
            for name, times in commands[start : start + COMMANDS_A_TURN]:
                _add(family, (name,), edges, times[each.field])
            yield family
    stalls = histograms["stalls"]
    family = HistogramMetricFamily(STALLS.name, STALLS.help, labels=STALLS.labels)
    _add(family, (), stalls["edges"], stalls)
    yield family


def _in_parts(metric: Metric) -> Iterator[Metric]:
    """A metric with few samples at a time."""
    for start in range(0, max(len(metric.samples), 1), SAMPLES_A_TURN):
        part = Metric(metric.name, metric.documentation, metric.type, metric.unit)
        part.samples = metric.samples[start : start + SAMPLES_A_TURN]
        yield part


def _family(described: Described, documents: Documents) -> Metric:
    values = described.read(documents)
    if described.kind == "info":
        info = InfoMetricFamily(described.name, described.help)
        for labels, _ in values:
            info.add_metric((), dict(zip(described.labels, labels, strict=True)))
        return info
    kinds: dict[str, Any] = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}
    family: Metric = kinds[described.kind](described.name, described.help, labels=described.labels)
    for labels, value in values:
        family.add_metric(labels, value)  # type: ignore[attr-defined]
    return family


def _add(
    family: HistogramMetricFamily,
    labels: tuple[str, ...],
    edges: list[float],
    times: Mapping[str, Any],
) -> None:
    """Add the buckets of times that were counted, joined to fewer.

    The counts of the document are those of each bucket alone; the last bucket has no end.
    """
    sums = list(accumulate(times["counts"]))
    buckets = [(f"{edges[place]:.4g}", float(sums[place])) for place in _kept(edges)]
    family.add_metric(labels, [*buckets, ("+Inf", float(sums[-1]))], times["sum"])


def _kept(edges: list[float]) -> list[int]:
    """The places of the edges that Prometheus is told of."""
    kept: list[int] = []
    for place, edge in enumerate(edges):
        if SHORTEST <= edge <= LONGEST and (not kept or edge >= GROWTH * edges[kept[-1]]):
            kept.append(place)
    return kept


def _without_head(text: bytes) -> bytes:
    """The samples alone: the head stands before the first part."""
    return b"".join(line for line in text.splitlines(True) if not line.startswith(b"#"))
