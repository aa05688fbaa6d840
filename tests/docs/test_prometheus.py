"""The alerts and the dashboard of the documents: Prometheus takes them, and they fire in time."""

import json
import re
import shutil
import subprocess
import tempfile
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from dangad.scheduler.record import Cause
from dangad.web.metrics import (
    HISTOGRAMS,
    METRICS,
    OUTCOMES,
    STALLS,
    Described,
    DescribedHistogram,
)
from tests.reader import ROOT

FOLDER = ROOT / "docs" / "how-to" / "web"
RULES = FOLDER / "alerts.yml"
DASHBOARD = FOLDER / "grafana.json"
PAGE = FOLDER.parent / "troubleshooting.md"
ALERTS = Path(__file__).with_name("alerttests.yml")
PROMTOOL = shutil.which("promtool")
SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_count", "_sum"),
    "info": ("_info",),
}
"""What the samples of a metric have behind its name."""
OF_PROMETHEUS = {"instance", "job", "le"}
"""Labels that are not dangad's own."""


def labels_of_samples() -> dict[str, set[str]]:
    """The labels of all samples that the server tells."""
    told: list[Described | DescribedHistogram] = [*METRICS, *HISTOGRAMS, STALLS]
    return {
        described.name + suffix: {*described.labels, *OF_PROMETHEUS}
        for described in told
        for suffix in SUFFIXES[described.kind]
    }


def panels() -> list[dict[str, Any]]:
    """The panels of the dashboard, without the headings between them."""
    found = json.loads(DASHBOARD.read_text())["panels"]
    return [panel for panel in found if panel["type"] != "row"]


def dashboard_queries() -> Iterator[str]:
    """What the panels ask for, as Prometheus gets it."""
    for panel in panels():
        for target in panel["targets"]:
            yield target["expr"].replace("$__rate_interval", "5m")


class NamesTest(SynchronousTestCase):
    def test_metrics(self) -> None:
        """Rules, dashboard and page name metrics and labels that exist."""
        known = labels_of_samples()
        for query in (RULES.read_text(), PAGE.read_text(), *dashboard_queries()):
            for name, selector in re.findall(r"\b(dangad_\w+)(?:\{(.*?)\})?", query):
                self.assertIn(name, known)
                self.assertLessEqual(set(re.findall(r'(\w+)[=!]~?"', selector)), known[name], name)

    def test_label_values(self) -> None:
        """Outcomes and causes are spelt as the server spells them."""
        known = {"outcome": set(OUTCOMES), "cause": {cause.value for cause in Cause}}
        text = "\n".join((RULES.read_text(), *dashboard_queries()))
        used = re.findall(r'\b(outcome|cause)[=!]~?"([^"]+)"', text)
        self.assertGreater(len(used), 5)
        for label, values in used:
            self.assertLessEqual(set(values.split("|")), known[label])

    def test_what_to_do(self) -> None:
        """Each alert names a heading of the page that says what to do."""
        page = PAGE.read_text()
        named = re.findall(r"^ +what_to_do: (.+)$", RULES.read_text(), re.MULTILINE)
        self.assertEqual(len(named), RULES.read_text().count("alert: "))
        self.assertLessEqual(set(named), set(re.findall(r"^## (.+)$", page, re.MULTILINE)))

    def test_alerts_on_page(self) -> None:
        """The page says of each alert in which case it fires."""
        page = PAGE.read_text()
        alerts = re.findall(r"alert: (\w+)", RULES.read_text())
        heading = re.findall(r"^ +what_to_do: (.+)$", RULES.read_text(), re.MULTILINE)
        for alert, of in zip(alerts, heading, strict=True):
            _, _, part = page.partition(f"## {of}\n")
            self.assertIn(f"`{alert}`", part.partition("\n## ")[0])


class DashboardTest(SynchronousTestCase):
    def test_import(self) -> None:
        """Grafana can import it: it asks for the source of the data, and all panels use it."""
        dashboard = json.loads(DASHBOARD.read_text())
        self.assertNotIn("uid", dashboard)
        self.assertGreaterEqual(dashboard["schemaVersion"], 36)
        variables = {each["name"]: each for each in dashboard["templating"]["list"]}
        self.assertEqual(variables["datasource"]["type"], "datasource")
        source = {"type": "prometheus", "uid": "${datasource}"}
        for panel in panels():
            self.assertEqual([source], [panel["datasource"]], panel["title"])
            self.assertTrue(panel["targets"], panel["title"])
            for variable in re.findall(r'"\$(\w+)"', json.dumps(panel).replace('\\"', '"')):
                self.assertIn(variable, variables)

    def test_layout(self) -> None:
        """No panel covers another one, and each has a number of its own."""
        dashboard = json.loads(DASHBOARD.read_text())
        numbers = [panel["id"] for panel in dashboard["panels"]]
        self.assertEqual(len(numbers), len(set(numbers)))
        taken: set[tuple[int, int]] = set()
        for panel in dashboard["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            self.assertFalse(cells & taken, panel["title"])
            self.assertLess(max(x for x, _ in cells), 24, panel["title"])
            taken |= cells


@unittest.skipIf(PROMTOOL is None, "promtool is in Debian's package prometheus")
class PromtoolTest(SynchronousTestCase):
    def run_promtool(self, *words: str | Path) -> None:
        """Run it with these words; it must be content."""
        assert PROMTOOL is not None
        done = subprocess.run([PROMTOOL, *words], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_rules(self) -> None:
        """Prometheus takes the rules."""
        self.run_promtool("check", "rules", RULES)

    def test_alerts(self) -> None:
        """The alerts fire when they should, and not before; each is tried."""
        self.run_promtool("test", "rules", ALERTS)
        tried = set(re.findall(r"alertname: (\w+)", ALERTS.read_text()))
        self.assertEqual(tried, set(re.findall(r"alert: (\w+)", RULES.read_text())))

    def test_queries(self) -> None:
        """Prometheus can read what the panels of the dashboard ask for."""
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:  # JSON is YAML, too
            rules = [
                {"record": f"query:{number}", "expr": query}
                for number, query in enumerate(dashboard_queries())
            ]
            json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, file)
            file.flush()
            self.run_promtool("check", "rules", file.name)
