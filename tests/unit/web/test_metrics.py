"""What Prometheus is told."""

from __future__ import annotations

import re
import shutil
import subprocess
import unittest
from typing import Any

from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_open_metrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text
from twisted.internet.defer import fail

from dangad.web.metrics import HISTOGRAMS, METRICS, STALLS
from dangad.web.scrapes import KEPT_TIME
from tests.reader import ROOT
from tests.unit.web.busyoperations import HOSTILE, command
from tests.unit.web.visits import Visit, VisitCase

HOW_TO = ROOT / "docs" / "how-to"
PAGES = tuple(HOW_TO / name for name in ("web.md", "web/alerts.yml", "web/grafana.json"))
PROMTOOL = shutil.which("promtool")
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def names_of(families: Any) -> set[str]:
    """The names of these metrics, without what a format adds."""
    return {re.sub("_(total|info)$", "", family.name) for family in families}


class MetricsTests(VisitCase):
    def values(self) -> dict[tuple[str, ...], float]:
        """All samples, by their names and the values of their labels."""
        found: dict[tuple[str, ...], float] = {}
        for family in parse_text(self.get("/metrics").text):
            for sample in family.samples:
                key = (sample.name, *sample.labels.values())
                self.assertNotIn(key, found)
                found[key] = sample.value
        return found

    def told(self) -> set[str]:
        """The names of all metrics."""
        return names_of(parse_text(self.get("/metrics").text))

    def test_shared(self) -> None:
        """All who ask within a second share one text in each format."""
        asked: list[str] = []
        commands = self.operations.commands

        def note() -> Any:
            asked.append("commands")
            return commands()

        self.operations.commands = note  # type: ignore[method-assign]
        visits = [Visit(self.site) for _ in range(5)]
        for visit in visits:
            visit.ask("GET /metrics")
        first = self.get("/metrics")
        self.assertEqual({visit.answer().body for visit in visits}, {first.body})
        self.assertEqual(len(asked), 1)
        self.assertTrue(self.get("/metrics", f"Accept: {OPEN_METRICS}").text.endswith("# EOF\n"))
        self.assertEqual(len(asked), 2)
        self.clock.advance(KEPT_TIME)
        self.get("/metrics")
        self.assertEqual(len(asked), 3)

    def test_many_formats(self) -> None:
        """Only few formats are made at a time."""
        kind = "Accept: application/openmetrics-text; version=1.0."
        found = [self.get("/metrics", f"{kind}{number}").status for number in range(5)]
        self.assertEqual(found, [200, 200, 200, 503, 503])
        self.clock.advance(KEPT_TIME)
        self.assertEqual(self.get("/metrics").status, 200)

    def test_failure(self) -> None:
        """A text that could not be made is tried again."""
        commands = self.operations.commands
        self.operations.commands = lambda: fail(KeyError("x"))  # type: ignore[method-assign]
        self.assertEqual(self.get("/metrics").status, 500)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.operations.commands = commands  # type: ignore[method-assign]
        self.assertEqual(self.get("/metrics").status, 200)

    def test_values(self) -> None:
        """Metrics tell what operators are told."""
        values = self.values()
        self.assertEqual(values["dangad_jobs_total", "Thumbnail", "done"], 1480)
        self.assertEqual(values["dangad_jobs_total", "Thumbnail", "refused"], 3)
        self.assertEqual(values["dangad_jobs_accepted_total", "Thumbnail"], 1502)
        self.assertEqual(values["dangad_backlog_jobs", "high"], 2)
        self.assertEqual(values["dangad_oldest_wait_seconds",], 4.25)
        self.assertEqual(values["dangad_errors_total", "BAD_IMAGE"], 12)
        self.assertEqual(values["dangad_workers", "busy"], 1)
        self.assertEqual(values["dangad_worker_deaths_total", "released"], 5)
        self.assertEqual(values["dangad_command_paused", "ListDirectory"], 1)
        self.assertEqual(values["dangad_command_quarantined", HOSTILE], 1)
        self.assertEqual(values["dangad_healthy",], 1)
        self.assertEqual(values["dangad_reactor_stall_longest_seconds", "ever"], 0.0214)

    def test_no_wait(self) -> None:
        """Where no job waits, the oldest has waited for no time."""
        self.operations.status_document["oldest_wait"] = None
        self.assertEqual(self.values()["dangad_oldest_wait_seconds",], 0)

    def test_histograms(self) -> None:
        """Buckets count all times up to their edges."""
        values = self.values()
        name = "dangad_job_wait_seconds"
        found = [values[f"{name}_bucket", "Thumbnail", le] for le in ("0.01", "0.1", "1", "+Inf")]
        self.assertEqual(found, [5, 8, 8, 9])
        self.assertEqual(values[f"{name}_count", "Thumbnail"], 9)
        self.assertEqual(values[f"{name}_sum", "Thumbnail"], 0.75)
        self.assertEqual(values["dangad_reactor_stall_seconds_count",], 9)

    def test_fewer_buckets(self) -> None:
        """Many fine buckets are told as some coarse ones, which lose no time."""
        edges = [50e-6 * 2 ** (step / 4) for step in range(120)]
        times = {"counts": [1] * 121, "sum": 9.0}
        commands = {"A": {"wait": times, "runtime": times}}
        stalls = {"edges": [1.0], "counts": [0, 0], "sum": 0.0}
        document = {"edges": edges, "commands": commands, "stalls": stalls}
        self.operations.histograms = lambda: document  # type: ignore[method-assign]
        values = self.values()
        buckets = {
            key[2]: value for key, value in values.items() if "wait_seconds_bucket" in key[0]
        }
        self.assertLess(len(buckets), 25)
        self.assertEqual(buckets["+Inf"], 121)
        for le, count in buckets.items():
            if le != "+Inf":
                self.assertEqual(count, sum(edge <= float(le) * 1.001 for edge in edges), le)

    def test_formats(self) -> None:
        """Whoever asks for OpenMetrics gets it, and the same values."""
        answer = self.get("/metrics", f"Accept: {OPEN_METRICS}")
        self.assertIn("application/openmetrics-text", answer.headers["content-type"])
        self.assertEqual(answer.text.count("# EOF"), 1)
        families: Any = parse_open_metrics(answer.text)
        self.assertEqual(names_of(families), self.told())

    def test_all_described(self) -> None:
        """What is described is told, and the other way round."""
        described = {each.name for each in METRICS} | {each.name for each in (*HISTOGRAMS, STALLS)}
        self.assertEqual(self.told(), described)

    def test_many(self) -> None:
        """The histograms of a thousand commands come in parts, each metric in one piece."""
        self.operations.commands_document = [command(f"Name{each}") for each in range(1000)]
        text = self.get("/metrics").text
        helps = re.findall(r"^# HELP (\S+)", text, re.MULTILINE)
        self.assertEqual(len(helps), len(set(helps)))
        last = 'dangad_job_runtime_seconds_count{command="Name999"} 9.0'
        self.assertIn(last, text)

    @unittest.skipIf(PROMTOOL is None, "promtool is in Debian's package prometheus")
    def test_promtool(self) -> None:
        """Prometheus's own check finds nothing."""
        assert PROMTOOL is not None
        checked = subprocess.run(
            [PROMTOOL, "check", "metrics"],
            input=self.get("/metrics").body,
            capture_output=True,
            check=False,
        )
        self.assertEqual((checked.stdout + checked.stderr).decode(), "")
        self.assertEqual(checked.returncode, 0)


class PagesTests(VisitCase):
    def test_names(self) -> None:
        """The metrics and outcomes in queries and alerts of the documentation are told."""
        names = set(re.findall(r"^(dangad_\w+)", self.get("/metrics").text, re.MULTILINE))
        for page in PAGES:
            used = set(re.findall(r"\b(dangad_\w+)", page.read_text()))
            self.assertGreater(len(used), 4)
            self.assertEqual(used - names, set(), page.name)
