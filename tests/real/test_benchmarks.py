"""The benchmarks run, by turns, and find out wrong answers; what they measure is not tested."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.benchmarks import (
    backlog,
    connections,
    contenders,
    cpu_bound,
    echo,
    models,
    operators,
    pagecost,
    payload,
    publish,
    reactors,
    recycling,
    stalls,
    starts,
    startup,
    table,
    targets,
)
from tests.benchmarks.harness import (
    DANGAD,
    Bench,
    Contender,
    Findings,
    Measure,
    Running,
    Series,
    Spread,
)
from tests.benchmarks.harness import percentile as percentile_of
from tests.benchmarks.processes import ROOT, Broken, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

MEASURES = {"time": Measure("the time", "s"), "rate": Measure("the rate", "1/s")}


def quiet(_: str) -> None:
    """Say nothing."""


class HarnessTest(SynchronousTestCase):
    """What the harness does with whatever it measures."""

    def setUp(self) -> None:
        """A bench that says nothing."""
        self.bench = Bench(MEASURES, quick=True, say=quiet)

    def test_turns(self) -> None:
        """Contenders are measured A, B, A, B, and each value is kept."""
        turns: list[str] = []

        def run(name: str) -> Mapping[str, float]:
            turns.append(name)
            return {"time": len(turns)}

        self.bench.interleave(3, {"A": partial(run, "A"), "B": partial(run, "B")})
        self.assertEqual("".join(turns), "ABABAB")
        self.assertEqual(self.bench.findings.values("B", "time"), [2, 4, 6])

    def test_failure(self) -> None:
        """One that fails is left out from then on, with its reason; the others go on."""
        outcomes = iter([{"time": 1.0}])

        def fail_later() -> Mapping[str, float]:
            for outcome in outcomes:
                return outcome
            raise Broken("a wrong answer")

        self.bench.interleave(3, {"A": fail_later, "B": lambda: {"time": 2.0}})
        self.assertEqual(self.bench.findings.failed, {"A": "a wrong answer"})
        self.assertEqual(self.bench.findings.values("A", "time"), [1.0])
        self.assertEqual(self.bench.findings.values("B", "time"), [2.0] * 3)

    def test_skipped(self) -> None:
        """What is not installed is not started, and the output says how to install it."""
        said: list[str] = []
        bench = Bench(MEASURES, quick=True, say=said.append)

        def boot(_: Stage) -> Running:
            raise AssertionError("started")

        bench.compare(1, [Contender("A", boot, lambda: "apt-get install a")], lambda _: {})
        self.assertEqual(bench.findings.skipped, {"A": "apt-get install a"})
        self.assertIn("apt-get install a", said[0])

    def test_spread(self) -> None:
        """A spread goes from the least to the largest, whatever the order of the values."""
        self.assertEqual(Spread.of([5, 1, 4, 2, 3]), Spread(1, 2, 3, 4, 5))
        self.assertEqual(Spread.of([7]), Spread(7, 7, 7, 7, 7))

    def test_percentile(self) -> None:
        """The 99th percentile is the value that 99 % do not exceed."""
        self.assertEqual(percentile_of(range(1, 1001), 99), 990)
        self.assertEqual(percentile_of([3], 99), 3)


class JudgementTest(SynchronousTestCase):
    """How findings are held against targets."""

    def judge(self, **values: list[float]) -> targets.Judgement:
        """The judgement on Celery's target, given the throughputs of both."""
        series = [
            Series(name.replace("_", " "), "throughput", "", "1/s", each)
            for name, each in values.items()
        ]
        findings = Findings([*series[:1], *[_named(each, "Celery + Redis") for each in series[1:]]])
        return next(
            each for each in targets.judge_all("echo", findings) if "Celery" in each.target.text
        )

    def test_pairs(self) -> None:
        """A ratio is taken round by round, and its median counts."""
        judgement = self.judge(dangad=[100.0, 3000.0, 60.0], peer=[10.0, 100.0, 2.0])
        self.assertEqual(judgement.values, (10.0, 30.0, 30.0))
        self.assertTrue(judgement.met)

    def test_missed(self) -> None:
        """A median below the bound is a target missed."""
        self.assertIs(self.judge(dangad=[100.0], peer=[10.0]).met, False)

    def test_not_measured(self) -> None:
        """A target whose peer was skipped is neither met nor missed."""
        self.assertIsNone(self.judge(dangad=[100.0]).met)

    def test_measured_by_somebody(self) -> None:
        """Each target is about quantities that its question measures."""
        asked = {
            "echo": echo,
            "cpu_bound": cpu_bound,
            "connections": connections,
            "backlog": backlog,
            "payload": payload,
            "startup": startup,
            "starts": starts,
            "recycling": recycling,
            "stalls": stalls,
            "operators": operators,
            "pagecost": pagecost,
        }
        for target in targets.TARGETS:
            measures = asked[target.question].MEASURES
            self.assertIn(target.measure, measures)
            if target.against is not None:
                self.assertIn(target.against[1], measures)


class TableTest(SynchronousTestCase):
    """How findings are printed."""

    def test_quantities(self) -> None:
        """Quantities have three digits, and a unit of their size."""
        for value, unit, text in (
            (0.0000405, "s", "40.5 µs"),
            (0.15, "s", "150 ms"),
            (12.34, "s", "12.3 s"),
            (23_456, "1/s", "23,500/s"),
            (1800, "B", "1,800 B"),
            (2.5e8, "B/s", "250 MB/s"),
            (0.9512, "", "0.951"),
        ):
            self.assertEqual(table.quantity(value, unit), text)

    def test_missing(self) -> None:
        """Where nothing was measured, the table has a dash."""
        findings = Findings()
        findings.add("A", "time", MEASURES["time"], 0.001)
        findings.add("B", "rate", MEASURES["rate"], 5)
        self.assertEqual(
            table.figures(findings),
            [("", "the time", "the rate"), ("A", "1.00 ms", "-"), ("B", "-", "5.00/s")],
        )


class PagesTest(SynchronousTestCase):
    """The pages of the documentation that show results."""

    def test_pages(self) -> None:
        """The tables are those that ``python -m tests.benchmarks.publish`` makes of the results."""
        store = publish.EXPLANATION / publish.PUBLISHED / "results.json"
        questions = json.loads(store.read_text())["questions"]
        for page in publish.PAGES:
            text = (publish.EXPLANATION / page).read_text()
            self.assertIn("<!-- results: ", text)
            self.assertEqual(text, publish.fill(text, questions), "publish the results again")

    def test_charts(self) -> None:
        """Each chart that a page shows is there."""
        for page in publish.PAGES:
            text = (publish.EXPLANATION / page).read_text()
            for chart in re.findall(r"```\{image\} (\S+)", text):
                self.assertTrue((publish.EXPLANATION / chart).is_file(), chart)

    def test_not_measured(self) -> None:
        """A question that was not asked yet is said to be so, and the rest of the page is kept."""
        page = "before\n<!-- results: echo -->\nold\n<!-- end -->\nafter\n"
        filled = publish.fill(page, {})
        self.assertNotIn("old", filled)
        self.assertIn("Not measured yet.", filled)
        self.assertTrue(filled.startswith("before\n") and filled.endswith("\nafter\n"))


RELAY = "bare Twisted relay"
QUESTIONS: dict[str, tuple[Any, list[Contender], dict[str, tuple[str, ...]]]] = {
    "echo": (
        echo,
        [contenders.dangad(), contenders.blocking_relay(), contenders.bare_relay()],
        {
            DANGAD: ("serial", "serial_p99", "throughput", "parent_cpu"),
            RELAY: ("serial", "serial_p99", "throughput", "parent_cpu"),
            contenders.blocking_relay().name: ("serial", "serial_p99"),
        },
    ),
    "reactors": (reactors, [], dict.fromkeys(reactors.REACTORS, tuple(reactors.MEASURES))),
    "cpu_bound": (
        cpu_bound,
        [contenders.ampoule_alone(), contenders.process_pool()],
        dict.fromkeys(
            (contenders.ampoule_alone().name, contenders.process_pool().name), ("share",)
        ),
    ),
    "connections": (connections, [], {DANGAD: ("median_alone", "median_among")}),
    "backlog": (backlog, [], {DANGAD: ("cpu_short", "cpu_long")}),
    "operators": (
        operators,
        [],
        dict.fromkeys(
            (operators.QUIET, operators.CROWDED, targets.MANY),
            ("median", "p99", "longest", "share", "/metrics", "/jobs", "Commands"),
        ),
    ),
    "pagecost": (
        pagecost,
        [],
        dict.fromkeys((pagecost.WITHOUT, targets.WITH_PAGE), tuple(pagecost.MEASURES)),
    ),
    "payload": (payload, [], dict.fromkeys((DANGAD, RELAY), ("throughput",))),
    "starts": (
        starts,
        [],
        {
            **dict.fromkeys(starts.STARTS, ("start", "isolated")),
            starts.PRELOADED: ("start", "isolated", "memory", "one"),
        },
    ),
    "startup": (
        startup,
        [],
        {DANGAD: ("first_answer",), "its parts + 0.3 s": ("reactor", "worker", "allowed")},
    ),
    "models": (
        models,
        models.peers()[2:4],
        dict.fromkeys(
            (models.LOOP, models.FORK), ("short_listing_median", "10_cpu_median", "100_memory")
        ),
    ),
}
"""Each question, who takes part, and what is measured of whom: what needs nothing installed."""


def ask(question: Any, taking_part: list[Contender]) -> Findings:
    """What comes of a question, asked in small sizes."""
    bench = Bench(question.MEASURES, quick=True, say=quiet)
    question.run(bench, *([taking_part] if taking_part else []))
    return bench.findings


class QuestionsTest(SynchronousTestCase):
    @pytest.mark.soak
    def test_questions(self) -> None:
        """Each question can be asked; nothing fails, and each quantity has one positive value."""
        for name, (question, taking_part, measures) in QUESTIONS.items():
            with self.subTest(name):
                findings = ask(question, taking_part)
                self.assertEqual(findings.failed, {})
                for contender, measure in (
                    (each, measure) for each, some in measures.items() for measure in some
                ):
                    (value,) = findings.values(contender, measure)
                    self.assertGreater(value, 0, (contender, measure))

    @pytest.mark.soak
    def test_stalls(self) -> None:
        """Turns of the loop are measured while things happen, and when the server ends."""
        happenings = ("100,000 jobs are cancelled", "a drain gives up 100,000 jobs")
        self.patch(stalls, "HAPPENINGS", {name: stalls.HAPPENINGS[name] for name in happenings})
        findings = ask(stalls, [])
        for name in happenings:
            for measure in stalls.MEASURES.keys() - {"collected"}:
                (value,) = findings.values(name, measure)
                self.assertGreater(value, 0, (name, measure))
            self.assertTrue(findings.values(name, "collected"))

    def test_wrong_answer(self) -> None:
        """A server that answers something else is found out by the first job."""
        failed = ask(echo, [Contender("a liar", _boot_liar)]).failed
        self.assertIn("WrongAnswer", failed["a liar"])


class EndTest(SynchronousTestCase):
    """Nothing is left running."""

    def test_interrupted(self) -> None:
        """Ctrl-C in the middle ends the server that was being measured, too."""
        process = subprocess.Popen(
            [sys.executable, "-c", INTERRUPTED], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        server = int(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        process.wait(60)
        self.assertRaises(ProcessLookupError, os.kill, server, 0)


INTERRUPTED = """
import time
from tests.benchmarks.harness import Bench
from tests.benchmarks import contenders

def measure(running):
    print(running.parent, flush=True)
    time.sleep(60)

Bench({}, quick=True, say=lambda _: None).compare(1, [contenders.bare_relay()], measure)
"""

LIAR = """
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
while True:
    client, _ = listener.accept()
    while request := client.recv(65536):
        client.sendall(request)
"""


def _boot_liar(stage: Stage) -> Running:
    pid = stage.start_python("-c", LIAR, stage.path(contenders.SOCKET))
    return Running(contenders.drive_socket(stage), pid, stage)


def _named(series: Series, contender: str) -> Series:
    return Series(contender, series.measure, series.text, series.unit, series.values)
