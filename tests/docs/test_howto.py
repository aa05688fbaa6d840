"""The how-to pages and the tutorial are true: their files are written, their commands run.

A block that begins with ``# some_file.py`` is that file; a ``diff`` block changes one; in a
``console`` block each line that begins with ``$ `` is run by a shell, and has to print the lines
that follow, where ``...`` stands for anything. Each page has a directory and a server of its own.
What only looks at the server is asked again until it shows what the page shows: a job in the
background may not have come yet.
"""

import importlib
import os
import re
import signal
import subprocess
import tempfile
import time
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import pytest
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
LOOKS = tuple(
    f"dangad {word}"
    for word in ("status", "workers", "stack", "job", "recent", "deaths", "clients", "rates")
)
NUMBERS = {"two": 2, "each": 1}
UNITS = {"MiB": 2**20}


class Reader:
    """Has an empty directory, and a shell in which dangad is installed."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        """What runs at the end of the page is ended when the `stack` is left."""
        self.folder = folder / "project"
        self.folder.mkdir()
        self._stack = stack
        self._environment = environment_variables()

    def read(self, page: Path, *files: str) -> set[str]:
        """Do what the page says, where blocks of these kinds are files; the kinds of its blocks."""
        kinds = set()
        for block in BLOCK.finditer(page.read_text()):
            kind, body = block["kind"], block["body"]
            kinds.add(kind)
            if kind == "console":
                for command, output in commands_of(body):
                    self._run_command(command, output)
            elif kind == "diff":
                self._change_file(body)
            elif kind in files:
                self._write_file(body)
        return kinds

    def _write_file(self, body: str) -> None:
        """Write the file that the first line names; if that is no comment in it, without."""
        first, _, rest = body.partition("\n")
        name = first.removeprefix("# ")
        assert re.fullmatch(r"[\w/]+\.\w+", name), f"a block without a file name: {name}"
        self.folder.joinpath(name).write_text(body if name.endswith(".py") else rest)

    def _change_file(self, body: str) -> None:
        """Replace the lines with a minus by those with a plus."""
        first, _, rest = body.partition("\n")
        path = self.folder / first.removeprefix("# ")
        old, new = (
            "".join(line[1:] for line in rest.splitlines(keepends=True) if line[0] in signs)
            for signs in ("- ", "+ ")
        )
        text = path.read_text()
        assert text.count(old) == 1, old
        path.write_text(text.replace(old, new))

    def _run_command(self, command: str, expected: str) -> None:
        """Run it, and compare what it prints with what is expected."""
        pattern = re.compile(pattern_of(expected))
        deadline = time.monotonic() + PATIENCE
        printed = self._output_of(command, pattern, deadline)
        while (
            command.startswith(LOOKS)
            and not pattern.fullmatch(printed)
            and time.monotonic() < deadline
        ):
            printed = self._output_of(command, pattern, deadline)
        assert pattern.fullmatch(printed), f"{command}\n{printed}"

    def _output_of(self, command: str, pattern: re.Pattern[str], deadline: float) -> str:
        """What it prints until it ends; or, if it stays, until that is what the page shows."""
        number, path = tempfile.mkstemp(dir=self.folder.parent)
        process = subprocess.Popen(
            ["/bin/sh", "-c", command if "|" in command else f"exec {command}"],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=number,
            stderr=subprocess.STDOUT,
        )
        os.close(number)
        self._stack.callback(end, process)
        printed = Path(path).read_text
        stays = command.startswith(("twistd ", "dangad dev "))
        while process.poll() is None and time.monotonic() < deadline:
            if stays and (begun := pattern.match(printed())):
                return begun[0]
            time.sleep(0.01)
        assert process.returncode is not None, f"{command} has not ended\n{printed()}"
        return printed()


def end(process: subprocess.Popen[bytes]) -> None:
    """Press Ctrl-C, if there is anybody to hear it."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)


@pytest.mark.parametrize(
    "page",
    [
        "writing-job-types",
        "priorities",
        "cancelling",
        "retries",
        "progress",
        "calling",
        "testing",
        "operating",
        "troubleshooting",
        "memory",
        pytest.param(
            "heavy-modules",
            marks=pytest.mark.skipif(
                find_spec("sklearn") is None, reason="scikit-learn is not installed"
            ),
        ),
    ],
)
def test_page(tmp_path: Path, page: str) -> None:
    """All is as a how-to page shows."""
    with ExitStack() as stack:
        Reader(tmp_path, stack).read(PAGES / f"{page}.md", "python")


def test_tutorial(tmp_path: Path) -> None:
    """Everything in the tutorial works as it says, and its server leaves no socket."""
    with ExitStack() as stack:
        reader = Reader(tmp_path, stack)
        package = reader.folder / "wordcount"
        package.mkdir()
        (package / "__init__.py").touch()
        kinds = reader.read(PAGES.parent / "tutorial.md", "python", "text")
    assert "dangad.sock" not in os.listdir(reader.folder)
    assert kinds == {"console", "diff", "python", "sh", "text"}


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
