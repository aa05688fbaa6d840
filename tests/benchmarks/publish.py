"""``python -m tests.benchmarks.publish [FILE]``: put the findings of a file into the docs.

The questions in the file replace those in ``docs/explanation/performance/results.json``, so that
one may be asked again without the others. From that, the charts are drawn anew, and in the two
pages about performance all that stands between ``<!-- results: NAME -->`` and ``<!-- end -->`` is
written anew; the rest of the pages is written by hand.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks import models, table
from tests.benchmarks.__main__ import QUESTIONS, RESULTS
from tests.benchmarks.harness import Findings, Series, Spread
from tests.benchmarks.processes import ROOT
from tests.benchmarks.targets import judge_all

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.benchmarks.targets import Judgement

EXPLANATION = ROOT / "docs" / "explanation"
PAGES = ("performance.md", "why-workers.md")
PUBLISHED = "performance"
"""The folder beside the pages with the charts and the results."""

QUIET = 0.1
"""The share of the cores that others may use on a quiet machine."""

_REGION = re.compile(r"(<!-- results: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

Result = dict[str, Any]


def main() -> None:
    """Publish the file that the command line names, or the latest."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.publish", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=RESULTS / "latest.json")
    publish(json.loads(parser.parse_args().file.read_text())["questions"])


def publish(asked: Mapping[str, Result], explanation: Path = EXPLANATION) -> None:
    """Merge the questions that were asked into the published ones, and write all anew."""
    folder = explanation / PUBLISHED
    folder.mkdir(exist_ok=True)
    store = folder / "results.json"
    published = json.loads(store.read_text())["questions"] if store.exists() else {}
    merged = {**published, **asked}
    questions = {name: merged[name] for name in QUESTIONS if name in merged}
    store.write_text(json.dumps({"questions": questions}, indent=1) + "\n")
    draw(questions, folder)
    for page in PAGES:
        path = explanation / page
        path.write_text(fill(path.read_text(), questions))


def fill(page: str, questions: Mapping[str, Result]) -> str:
    """The page with its regions written anew."""

    def region(match: re.Match[str]) -> str:
        text = REGIONS[match[2]](questions)
        return f"{match[1]}\n{text}\n\n{match[3]}"

    return _REGION.sub(region, page)


def draw(questions: Mapping[str, Result], folder: Path) -> None:
    """Draw all charts for which there are findings; this alone needs matplotlib."""
    from tests.benchmarks import charts

    if "echo" in questions:
        found = findings(questions["echo"])
        for name, title, measure, descending in (
            ("throughput", "Echo jobs a second, 100 in flight", "throughput", True),
            ("latency", "One echo job after the other: median", "serial", False),
        ):
            series = charts.ordered(found, measure, descending=descending)
            charts.dots(folder / f"{name}.svg", title, series)
    if "models" in questions:
        found = findings(questions["models"])
        for name, title, measure, unit in (
            ("memory", "Memory of the server, all processes", "memory", "B"),
            ("listing", "Directory listings a second, 4 active", "listing_throughput", "1/s"),
            ("listing-p99", "A listing: 99th percentile", "listing_p99", "s"),
        ):
            curves = over_clients(found, measure)
            charts.lines(
                folder / f"models-{name}.svg",
                title,
                "idle clients",
                curves,
                unit,
                logarithmic=measure == "memory",
            )


def over_clients(found: Findings, measure: str) -> dict[str, dict[int, float]]:
    """The medians of one quantity for each number of idle clients, by contender."""
    names = dict.fromkeys(series.contender for series in found.series)
    return {
        name: {
            clients: Spread.of(values).median
            for clients in models.CLIENTS
            if (values := found.values(name, f"{clients}_{measure}"))
        }
        for name in names
    }


def findings(result: Result) -> Findings:
    """What a result file says of one question."""
    series = [Series(**each) for each in result["series"]]
    return Findings(series, result["skipped"], result["failed"])


def machine_text(questions: Mapping[str, Result]) -> str:
    """The machine, as a table; that of the first question, with a word on any other."""
    result = next(iter(questions.values()))
    machine = result["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    rows = [
        ("", ""),
        ("processor", f"{machine['cpu']}, {machine['cores']} cores"),
        ("memory", table.quantity(machine["memory"], "B")),
        ("kernel", machine["kernel"]),
        ("Python", machine["python"]),
        ("packages", packages),
        ("measured", " to ".join(_first_and_last(each["date"] for each in questions.values()))),
        ("command", f"`{result['command']}`, and so on; or all together, `make bench`"),
    ]
    if any(each["quick"] for each in questions.values()):
        rows.append(("**note**", "a trial with small sizes: these figures say nothing"))
    busiest = max(each["machine"]["busy"] for each in questions.values())
    if busiest > QUIET:
        note = f"others used {busiest:.0%} of the cores meanwhile: these figures say little"
        rows.append(("**note**", note))
    return table.for_markdown(rows)


def targets_text(questions: Mapping[str, Result]) -> str:
    """All targets, and how they fared."""
    judged: list[Judgement] = []
    for name, result in questions.items():
        judged += judge_all(name, findings(result))
    return table.for_markdown(table.judgements(judged))


def question_text(name: str, *measures: str) -> Callable[[Mapping[str, Result]], str]:
    """What writes one question's figures, or some of them."""

    def text(questions: Mapping[str, Result]) -> str:
        if name not in questions:
            return "Not measured yet."
        found = findings(questions[name])
        rows = table.figures(found, measures or None)
        parts = [table.for_markdown(table.narrower(rows))]
        parts += [f"{skipped} was not installed." for skipped in found.skipped]
        parts += [f"{failed} has failed." for failed in found.failed]
        return "\n\n".join(parts)

    return text


def clients_text(questions: Mapping[str, Result]) -> str:
    """The founding question, by number of idle clients."""
    if "models" not in questions:
        return "Not measured yet."
    found = findings(questions["models"])
    rows: list[table.Row] = [
        (
            *("server", "idle clients", "memory", "listings a second"),
            *("a listing, median", "99th percentile", "20 ms jobs a second"),
        )
    ]
    columns = (
        ("memory", "B"),
        ("listing_throughput", "1/s"),
        ("listing_median", "s"),
        ("listing_p99", "s"),
        ("cpu_throughput", "1/s"),
    )
    for name in over_clients(found, "memory"):
        for clients in models.CLIENTS:
            cells = [
                table.quantity(Spread.of(values).median, unit) if values else table.MISSING
                for measure, unit in columns
                for values in [found.values(name, f"{clients}_{measure}")]
            ]
            if cells[0] == table.MISSING:
                cells[0] = _why_not(found, name, clients)
            rows.append((name, f"{clients:,}", *cells))
    return table.for_markdown(rows)


def short_text(questions: Mapping[str, Result]) -> str:
    """The founding question where a process for each connection is at its best."""
    measures = [
        f"short_{job}_{each}" for job in models.SHORT_JOBS for each in ("throughput", "median")
    ]
    return question_text("models", *measures)(questions)


def _why_not(found: Findings, name: str, clients: int) -> str:
    """Why a server was not measured with so many clients."""
    starved = found.values(name, "starves_at")
    too_large = found.values(name, "too_large_at")
    if starved and clients >= max(starved):
        return "active clients are not served"
    if too_large and clients >= max(too_large):
        return "does not fit the machine"
    return "has failed" if name in found.failed else table.MISSING


def _first_and_last(dates: Any) -> list[str]:
    ordered = sorted(dates)
    return [ordered[0]] if ordered[0] == ordered[-1] else [ordered[0], ordered[-1]]


REGIONS: dict[str, Callable[[Mapping[str, Result]], str]] = {
    "machine": machine_text,
    "targets": targets_text,
    **{name: question_text(name) for name in QUESTIONS},
    "models-clients": clients_text,
    "models-short": short_text,
}
"""What writes each region of the pages."""

if __name__ == "__main__":
    main()
