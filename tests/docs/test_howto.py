"""The how-to pages about jobs are true: their files are written, their commands run.

A block that begins with ``# some_file.py`` is that file; in a ``console`` block each line that
begins with ``$ `` is run by a shell, and has to print the lines that follow, where ``...`` stands
for anything. Each page has a directory and a server of its own. What only looks at the server is
asked again until it shows what the page shows: a job in the background may not have come yet.
"""

import importlib
import os
import re
import signal
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from unittest import skipIf

from twisted.trial.unittest import SynchronousTestCase

from dangad import tap
from tests.reader import (
    BLOCK,
    PATIENCE,
    ROOT,
    commands_of,
    environment_variables,
    pattern_of,
)

PAGES = ROOT / "docs" / "how-to"
LOOKS = ("dangad status", "dangad workers", "dangad stack")
NUMBERS = {"two": 2, "each": 1}
UNITS = {"MiB": 2**20}


class HowToTest(SynchronousTestCase):
    """One reader a page, from its first line to its last."""

    def setUp(self) -> None:
        """An empty directory, and a shell in which dangad is installed."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name, "project")
        self.folder.mkdir()
        self.environment = environment_variables()

    def read(self, page: str) -> None:
        """Do what the page says."""
        for block in BLOCK.finditer((PAGES / page).read_text()):
            if block["kind"] == "console":
                for command, output in commands_of(block["body"]):
                    self.run_command(command, output)
            elif block["kind"] == "python":
                name = block["body"].partition("\n")[0].removeprefix("# ")
                self.assertRegex(name, r"^\w+\.py$", "a block without a file name")
                self.folder.joinpath(name).write_text(block["body"])

    def run_command(self, command: str, expected: str) -> None:
        """Run it, and compare what it prints with what is expected."""
        pattern = re.compile(pattern_of(expected))
        deadline = time.monotonic() + PATIENCE
        printed = self.output_of(command, pattern, deadline)
        while (
            command.startswith(LOOKS)
            and not pattern.fullmatch(printed)
            and time.monotonic() < deadline
        ):
            printed = self.output_of(command, pattern, deadline)
        self.assertIsNotNone(pattern.fullmatch(printed), f"{command}\n{printed}")

    def output_of(self, command: str, pattern: re.Pattern[str], deadline: float) -> str:
        """What it prints until it ends; or, if it stays, until that is what the page shows."""
        number, path = tempfile.mkstemp(dir=self.folder.parent)
        process = subprocess.Popen(
            ["/bin/sh", "-c", command if "|" in command else f"exec {command}"],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=number,
            stderr=subprocess.STDOUT,
        )
        os.close(number)
        self.addCleanup(self.end, process)
        printed = Path(path).read_text
        stays = command.startswith("twistd ")
        while process.poll() is None and time.monotonic() < deadline:
            if stays and (begun := pattern.match(printed())):
                return begun[0]
            time.sleep(0.01)
        self.assertIsNotNone(process.returncode, f"{command} has not ended\n{printed()}")
        return printed()

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Press Ctrl-C, if there is anybody to hear it."""
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE)

    def test_writing_job_types(self) -> None:
        """Arguments, errors, asynchronous jobs, threads and processes are as the page shows."""
        self.read("writing-job-types.md")

    def test_priorities(self) -> None:
        """Priorities, turns and deadlines are as the page shows."""
        self.read("priorities.md")

    def test_cancelling(self) -> None:
        """What is cancelled or takes too long is stopped, and cleans up."""
        self.read("cancelling.md")

    def test_retries(self) -> None:
        """Jobs are tried again, and their command is quarantined, as the page shows."""
        self.read("retries.md")

    def test_progress(self) -> None:
        """Progress and partial results come as the page shows."""
        self.read("progress.md")

    def test_calling(self) -> None:
        """Programs that call jobs meet the errors that the page shows, and connect again."""
        self.read("calling.md")

    def test_testing(self) -> None:
        """Tests of job types and of programs pass as the page shows."""
        self.read("testing.md")

    def test_operating(self) -> None:
        """A day of an operator's is as the page shows."""
        self.read("operating.md")

    @skipIf(find_spec("sklearn") is None, "scikit-learn is not installed")
    def test_heavy_modules(self) -> None:
        """Workers share a model, as the page shows."""
        self.read("heavy-modules.md")

    def test_memory(self) -> None:
        """A worker that takes more memory than it may is ended, as the page shows."""
        self.read("memory.md")


class FormTest(SynchronousTestCase):
    def test_links(self) -> None:
        """Every link is one, with a text, wherever Markdown is shown."""
        for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
            text = page.read_text()
            self.assertEqual(re.findall(r"\{(?:doc|ref|term)\}`|\[\]\(\S+", text), [], page)


class FiguresTest(SynchronousTestCase):
    def test_constants(self) -> None:
        """Where a page names a constant, the figure before it is there, and is the code's."""
        checked = 0
        for page in PAGES.glob("*.md"):
            text = " ".join(page.read_text().split())
            figures = re.findall(
                r"([\w.,]+) (seconds?|lines|MiB)[^.({]* \(\{py:attr\}`([\w.]+)\.(\w+)`\)", text
            )
            for said, unit, module, name in figures:
                number = NUMBERS[said] if said in NUMBERS else float(said.replace(",", ""))
                value = getattr(importlib.import_module(module), name)
                self.assertEqual(number * UNITS.get(unit, 1), value, (page.name, name))
            self.assertEqual(len(figures), text.count("{py:attr}"), page.name)
            checked += len(figures)
        self.assertGreater(checked, 10)

    def test_quarantine_options(self) -> None:
        """The options of the quarantine have the defaults that the page gives."""
        defaults = {option[0]: option[2] for option in tap.Options.optParameters}
        rows = re.findall(
            r"^\| `--([\w-]+) \w+` \| (\d+) \|", (PAGES / "retries.md").read_text(), re.MULTILINE
        )
        self.assertEqual(
            {name: float(default) for name, default in rows},
            {name: defaults[name] for name in ("quarantine-after", "quarantine-time")},
        )

    def test_option_table(self) -> None:
        """The reference has a row for each option of ``twistd dangad``, and for no others."""
        page = (ROOT / "docs" / "reference" / "command-line.md").read_text()
        table, _, _ = page[page.index("| `--listen") :].partition("\n\n")
        names = [row.split("|")[1] for row in table.splitlines()]
        self.assertEqual(
            set(re.findall(r"`--([\w-]+)", "".join(names))),
            {name.rstrip("=") for name in tap.Options().longOpt},
        )

    def test_worker_options(self) -> None:
        """The numbers that bound workers have the defaults that both tables give."""
        defaults = {option[0]: option[2] for option in tap.Options.optParameters}
        names = "max-memory recycle-memory recycle-jobs recycle-age spare-workers worker-nice"
        for page in (PAGES / "memory.md", ROOT / "docs" / "reference" / "command-line.md"):
            rows = dict(
                re.findall(r"^\| `--([\w-]+) \w+` \| (\d+) \|", page.read_text(), re.MULTILINE)
            )
            for name in names.split():
                self.assertEqual(float(rows[name]), defaults[name], name)
