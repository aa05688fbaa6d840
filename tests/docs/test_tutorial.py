"""The tutorial is true: its files are written, its commands run, its output compared.

A block that begins with ``# some/file.py`` is that file; a ``diff`` block changes one; in a
``console`` block each line that begins with ``$ `` is run by a shell, and has to print the lines
that follow, where ``...`` stands for anything. ``twistd`` goes on until the end.
"""

import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.reader import (
    BLOCK,
    PATIENCE,
    ROOT,
    commands_of,
    environment_variables,
    pattern_of,
)

TUTORIAL = ROOT / "docs" / "tutorial.md"


class TutorialTest(SynchronousTestCase):
    """One reader, from the first line to the last."""

    def setUp(self) -> None:
        """An empty directory, and a shell in which dangad is installed."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name, "project")
        self.folder.joinpath("wordcount").mkdir(parents=True)
        self.folder.joinpath("wordcount/__init__.py").touch()
        self.environment = environment_variables()

    def test_tutorial(self) -> None:
        """Everything in it works as it says."""
        kinds = set()
        for block in BLOCK.finditer(TUTORIAL.read_text()):
            kind, body = block["kind"], block["body"]
            kinds.add(kind)
            if kind == "console":
                for command, output in commands_of(body):
                    self.run_command(command, output)
            elif kind == "diff":
                self.change_file(body)
            elif kind != "sh":
                self.write_file(body)
        self.end(self.server)
        self.assertNotIn("dangad.sock", os.listdir(self.folder))
        self.assertEqual(kinds, {"console", "diff", "python", "sh", "text"})

    def write_file(self, body: str) -> None:
        """Write the file that the first line names; if that is no comment in it, without."""
        first, _, rest = body.partition("\n")
        name = first.removeprefix("# ")
        self.assertRegex(name, r"^[\w/]+\.\w+$", "a block without a file name")
        self.folder.joinpath(name).write_text(body if name.endswith(".py") else rest)

    def change_file(self, body: str) -> None:
        """Replace the lines with a minus by those with a plus."""
        first, _, rest = body.partition("\n")
        path = self.folder / first.removeprefix("# ")
        old, new = (
            "".join(line[1:] for line in rest.splitlines(keepends=True) if line[0] in signs)
            for signs in ("- ", "+ ")
        )
        text = path.read_text()
        self.assertEqual(text.count(old), 1, old)
        path.write_text(text.replace(old, new))

    def run_command(self, command: str, expected: str) -> None:
        """Run it, and compare what it prints with what is expected."""
        stays = command.startswith("twistd ")
        name = "server" if stays else "log"  # for what stays goes on writing
        log = open(self.folder.parent / name, "w+")  # noqa: SIM115 - closed by the cleanup
        self.addCleanup(log.close)
        process = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {command}"],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        self.addCleanup(self.end, process)
        pattern = re.compile(pattern_of(expected))
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None and time.monotonic() < deadline:
            if stays and pattern.match(self.printed(log)):
                self.server = process
                return
            time.sleep(0.01)
        self.assertIsNotNone(
            pattern.fullmatch(self.printed(log)), f"{command}\n{self.printed(log)}"
        )
        self.assertIsNotNone(process.returncode, f"{command} has not ended")

    def printed(self, log: Any) -> str:
        """What a command has printed so far."""
        return Path(log.name).read_text()

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Press Ctrl-C, if there is anybody to hear it."""
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE)
