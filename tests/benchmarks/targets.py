"""What dangad has to reach: ratios between quantities of the same round, and a few plain figures.

Used by :mod:`tests.benchmarks.table` and :mod:`tests.benchmarks.publish`, for each question that
was asked.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.benchmarks.harness import DANGAD

if TYPE_CHECKING:
    from tests.benchmarks.harness import Findings

KB = 1000


@dataclass(frozen=True, slots=True)
class Target:
    """One promise: a quantity of a contender, or its ratio to another, and the bound."""

    question: str
    text: str
    measure: str
    """The quantity."""
    against: tuple[str, str] | None = None
    """The contender and the quantity that it is divided by; None to take it as it is."""
    at_least: float | None = None
    at_most: float | None = None
    unit: str = ""
    contender: str = DANGAD


@dataclass(frozen=True, slots=True)
class Judgement:
    """A target, and what was measured."""

    target: Target
    values: tuple[float, ...]
    """One for each round; none if something was skipped or has failed."""

    @property
    def median(self) -> float:
        """What counts."""
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None if it was not measured."""
        if not self.values:
            return None
        least, most = self.target.at_least, self.target.at_most
        return (least is None or self.median >= least) and (most is None or self.median <= most)


_TIMES_FASTER = {
    "Gearman::Server (Perl)": 4.0,
    "gearmand (C)": 3.0,
    "ProcessPoolExecutor": 1.25,
    "Celery + Redis": 20.0,
    "Dask distributed": 20.0,
}

STALLS = (
    "10,000 clients go at once",
    "a client with 100,000 jobs goes",
    "100,000 jobs are cancelled",
    "100,000 deadlines fall together",
    "a drain gives up 100,000 jobs",
    "40 workers start for their jobs",
    "100 clients ping without a pause",
    "100 clients send 1,000 jobs each",
    "100 clients ask for the catalogue",
    "urgent jobs come while 40 workers are busy",
    "two payloads of 60 MiB",
    "100 clients send 12,000 keys each",
    "jobs of 40 workers print 1,000 lines each",
)
"""What may happen to a server, none of which may keep its loop from the others for long."""

WITH_PAGE = "with a page that is open, and metrics"
"""The contender of `pagecost` that has a page."""
MANY = "much to see, and many look"
"""The contender of `operators` with everybody who can look at a server."""

TARGETS = (
    *(
        Target(
            "echo",
            f"throughput, against {peer}",
            "throughput",
            (peer, "throughput"),
            at_least=times,
        )
        for peer, times in _TIMES_FASTER.items()
    ),
    Target(
        "echo",
        "serial median, against the blocking relay",
        "serial",
        ("blocking relay", "serial"),
        at_most=4.0,
    ),
    Target(
        "echo",
        "serial 99th percentile, against its own median",
        "serial_p99",
        (DANGAD, "serial"),
        at_most=3.0,
    ),
    Target("echo", "parent's CPU per job", "parent_cpu", at_most=60e-6, unit="s"),
    Target(
        "echo",
        "parent's CPU per job, against the bare Twisted relay",
        "parent_cpu",
        ("bare Twisted relay", "parent_cpu"),
        at_most=1.3,
    ),
    Target("cpu_bound", "share of the ideal, 10 ms jobs", "share", at_least=0.95),
    Target("connections", "memory per idle connection", "per_connection", at_most=6 * KB, unit="B"),
    Target(
        "connections",
        "active client's median among idle ones, against alone",
        "median_among",
        (DANGAD, "median_alone"),
        at_most=1.5,
    ),
    Target(
        "backlog",
        "parent's CPU per job with a long queue, against a short one",
        "cpu_long",
        (DANGAD, "cpu_short"),
        at_most=1.3,
    ),
    Target("backlog", "memory per queued job beyond its data", "per_job", at_most=KB, unit="B"),
    Target(
        "payload",
        "throughput of a large payload, against the bare Twisted relay",
        "throughput",
        ("bare Twisted relay", "throughput"),
        at_least=0.5,
    ),
    Target("payload", "parent's peak memory, in payloads", "payloads", at_most=3.0),
    Target(
        "startup",
        "start to first answer, against its parts + 0.3 s",
        "first_answer",
        ("its parts + 0.3 s", "allowed"),
        at_most=1.0,
    ),
    Target(
        "starts",
        "a forked worker, against a new interpreter",
        "start",
        ("a new interpreter (--start fresh)", "start"),
        at_most=0.2,
        contender="a fork of the template (--start lean)",
    ),
    Target(
        "starts",
        "a preloaded worker, against a new interpreter",
        "start",
        ("a new interpreter (--start fresh)", "start"),
        at_most=0.04,
        contender="a fork with the job modules (--preload)",
    ),
    Target(
        "starts",
        "a preloaded worker with NumPy, against a new interpreter",
        "start",
        ("a new interpreter (--start fresh), with NumPy", "start"),
        at_most=0.04,
        contender="a fork with the job modules (--preload), with NumPy",
    ),
    Target(
        "starts",
        "jobs with a worker each, against new interpreters",
        "isolated",
        ("a new interpreter (--start fresh)", "isolated"),
        at_least=20.0,
        contender="a fork with the job modules (--preload)",
    ),
    Target(
        "starts",
        "memory of 8 workers with a model, against one",
        "memory",
        ("a fork with the job modules (--preload)", "one"),
        at_most=1.3,
        contender="a fork with the job modules (--preload)",
    ),
    Target(
        "recycling",
        "throughput with recycling, against without",
        "throughput",
        ("without recycling", "throughput"),
        at_least=0.9,
        contender="recycling every 100 jobs",
    ),
    Target(
        "recycling",
        "longest job with recycling, against the median",
        "longest",
        ("recycling every 100 jobs", "median"),
        at_most=5.0,
        contender="recycling every 100 jobs",
    ),
    *(
        Target(
            "stalls",
            f"longest turn: {happening}",
            "longest",
            None,
            at_most=0.05,
            unit="s",
            contender=happening,
        )
        for happening in STALLS
    ),
    Target(
        "operators",
        "longest turn while many look, without the garbage collector",
        "longest",
        at_most=0.05,
        unit="s",
        contender=MANY,
    ),
    Target(
        "operators",
        "active client's 99th percentile while many look",
        "p99",
        at_most=0.05,
        unit="s",
        contender=MANY,
    ),
    Target(
        "pagecost",
        "throughput with an open page and metrics, against without",
        "throughput",
        ("without a page", "throughput"),
        at_least=0.97,
        contender=WITH_PAGE,
    ),
    Target(
        "pagecost",
        "parent's CPU per job with an open page and metrics, against without",
        "parent_cpu",
        ("without a page", "parent_cpu"),
        at_most=1.03,
        contender=WITH_PAGE,
    ),
)


def judge_all(question: str, findings: Findings) -> list[Judgement]:
    """The targets of a question, and how they fared."""
    return [_judge(target, findings) for target in TARGETS if target.question == question]


def _judge(target: Target, findings: Findings) -> Judgement:
    values = findings.values(target.contender, target.measure)
    if target.against is None:
        return Judgement(target, tuple(values))
    others = findings.values(*target.against)
    pairs = zip(values, others, strict=False)  # of rounds in which both were measured
    return Judgement(target, tuple(value / other for value, other in pairs))
