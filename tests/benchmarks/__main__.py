"""``python -m tests.benchmarks [QUESTION ...] [--quick]``: ask, print, and write a result file.

``make bench`` calls it. The exit status is 1 if anything has failed, whether or not targets are
met: a slow machine is no error.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks import machine, table
from tests.benchmarks.harness import Bench
from tests.benchmarks.targets import judge_all

QUESTIONS = (
    "echo",
    "cpu_bound",
    "connections",
    "backlog",
    "payload",
    "startup",
    "starts",
    "recycling",
    "stalls",
    "operators",
    "pagecost",
    "reactors",
    "models",
)
"""Each a module of this package, in the order in which they are asked."""

RESULTS = Path(__file__).parent / "results"


def main(arguments: list[str] | None = None) -> int:
    """Ask the questions that the command line names, or all; return the exit status."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what was started, as Ctrl-C
    machine.allow_many_files()
    options.output.mkdir(parents=True, exist_ok=True)
    asked = datetime.datetime.now(datetime.UTC)
    path = options.output / f"{asked:%Y-%m-%dT%H%M%SZ}.json"
    result: dict[str, Any] = {}
    failed = False
    for question in options.questions or QUESTIONS:
        found = ask(question, options.quick)
        failed = failed or bool(found["failed"])
        result[question] = found
        path.write_text(json.dumps({"questions": result}, indent=1) + "\n")
    (options.output / "latest.json").write_text(path.read_text())
    print(f"\n{path}")
    return int(failed)


def ask(question: str, quick: bool) -> dict[str, Any]:
    """Ask one question and print what came of it; return that, as it stands in a result file."""
    module = importlib.import_module(f"tests.benchmarks.{question}")
    print(f"\n== {question}: {(module.__doc__ or '').splitlines()[0]}", flush=True)
    bench = Bench(module.MEASURES, quick, lambda line: print(line, flush=True))
    about = {
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        "command": shlex.join(["python", "-m", "benchmarks", question, *["--quick"] * quick]),
        "quick": quick,
        "machine": machine.describe(),
    }
    module.run(bench)
    if bench.findings.series:
        print(f"\n{table.for_terminal(table.narrower(table.figures(bench.findings)))}")
    if judged := judge_all(question, bench.findings):
        print(f"\n{table.for_terminal(table.judgements(judged))}")
    return {**about, **bench.findings.as_json()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help=", ".join(QUESTIONS))
    parser.add_argument("--quick", action="store_true", help="small sizes: a trial, no figures")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the result files")
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(
            "interrupted; what was started is ended, and the questions answered so far are kept"
        )
