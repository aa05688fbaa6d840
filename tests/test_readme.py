"""The README's example, as it stands there: tested, served, and called."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

REPOSITORY = Path(__file__).parent.parent
README = REPOSITORY / "README.md"
PATIENCE = 60.0
"""Seconds after which something that should have happened is taken for hung."""

TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]


def blocks(language: str) -> list[str]:
    """The README's blocks of code in that language."""
    found: list[str] = re.findall(
        rf"^```{language}\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL
    )
    return found


class ReadmeTest(SynchronousTestCase):
    def setUp(self) -> None:
        """Write the example's files into a directory of their own."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        for name, code in zip(("diffs", "client", "test_diffs"), blocks("python"), strict=True):
            (self.folder / f"{name}.py").write_text(code)
        path = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}

    def run_python(self, *arguments: str) -> str:
        """The output of Python, run in the directory; it must succeed."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stdout)
        return done.stdout

    def test_tested(self) -> None:
        """The test of the example passes, under pytest."""
        output = self.run_python("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_diffs.py")
        self.assertIn("1 passed", output)

    def test_served_and_called(self) -> None:
        """The example is served, and gives its answer to stock Twisted and to the command."""
        served, called = (
            line.removeprefix("$ ").split()
            for line in "".join(blocks("console")).splitlines()
            if "--jobs" in line or "call Diff" in line
        )
        self.assertEqual(served, ["twistd", "--nodaemon", "dangad", "--jobs", "diffs"])
        server = subprocess.Popen(
            [*TWISTD, *served[1:], "--listen", "unix:dangad.sock:mode=600"],  # one may run here
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert server.stdout is not None
        self.addCleanup(server.stdout.close)
        self.addCleanup(server.wait)
        self.addCleanup(server.terminate)
        said = []
        for line in server.stdout:
            said.append(line)
            if "is ready" in line:
                break
        else:
            self.fail("".join(said))
        self.assertIn("-two\n+three\n", self.run_python("client.py"))

        self.assertEqual(called[:3], ["dangad", "call", "Diff"])
        for argument in called[3:]:
            name = argument.partition("=@")[2]
            (self.folder / name).write_bytes((REPOSITORY / name).read_bytes())
        self.assertIn("-# dangad", self.run_python("-m", "dangad.cli", *called[1:]))

    def test_links(self) -> None:
        """Every page that the README names is there."""
        for target in re.findall(r"\]\((?!http)([^)#]+)", README.read_text()):
            self.assertTrue((REPOSITORY / target).exists(), target)
