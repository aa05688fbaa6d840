"""The README's example, as it stands there: tested, served, and called."""

from __future__ import annotations

import re
import signal
import subprocess
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.reader import PATIENCE, ROOT, commands_of, environment_variables, pattern_of

README = ROOT / "README.md"


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
        for code in blocks("python"):
            name = code.partition("\n")[0].removeprefix("# ")
            self.assertRegex(name, r"^\w+\.py$", "a block without a file name")
            (self.folder / name).write_text(code)
        self.environment = environment_variables()

    def run_command(self, *command: str) -> str:
        """The output of a command, run in the directory; it must succeed."""
        done = subprocess.run(
            ["/usr/bin/env", *command],
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
        """The test of the example is run, and passes: as the page says, by pytest and by trial."""
        [said] = (
            line for block in blocks("console") for line in block.splitlines() if "test_" in line
        )
        for command, output in (
            (said.removeprefix("$ "), "Ran 1 test"),
            ("pytest -q -p no:cacheprovider test_diffs.py", "1 passed"),
            ("python -m twisted.trial test_diffs", "PASSED (successes=1)"),
        ):
            self.assertIn(output, self.run_command(*command.split()))

    def test_while_it_is_written(self) -> None:
        """`dangad dev` shows what the page shows; the line that it prints calls the example."""
        [(command, output)] = (
            each
            for block in blocks("console")
            for each in commands_of(block)
            if each[0].startswith("dangad dev")
        )
        lines = [re.sub(r"^\d\d:\d\d:\d\d", "...", line) for line in output.splitlines()]
        pattern = re.compile(pattern_of("\n".join(lines)))
        server = subprocess.Popen(
            ["/usr/bin/env", *command.split()],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert server.stdout is not None
        self.addCleanup(server.stdout.close)
        self.addCleanup(server.wait)
        self.addCleanup(server.send_signal, signal.SIGINT)
        said = ""
        while not pattern.match(said):
            line = server.stdout.readline()
            self.assertTrue(line, said)
            said += line
        [call] = re.findall(r"^ +dangad (call .*)$", said, re.MULTILINE)
        self.assertIn("-hello+world", self.run_command("dangad", *call.split()))

    def test_served_and_called(self) -> None:
        """The example is served, and gives its answer to stock Twisted and to the command."""
        served, called = (
            line.removeprefix("$ ").split()
            for line in "".join(blocks("console")).splitlines()
            if "--jobs" in line or "call Diff" in line
        )
        self.assertEqual(served, ["twistd", "--nodaemon", "dangad", "--jobs", "diffs"])
        server = subprocess.Popen(
            ["/usr/bin/env", *served, "--listen", "unix:dangad.sock:mode=600"],  # one may run here
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
        self.assertIn("-two\n+three\n", self.run_command("python", "client.py"))

        self.assertIn("-root:", self.run_command(*called))

    def test_links(self) -> None:
        """Every page that the README names is there."""
        for target in re.findall(r"\]\((?!http)([^)#]+)", README.read_text()):
            self.assertTrue((ROOT / target).exists(), target)
