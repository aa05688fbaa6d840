"""``make demo``: the story is told as it happened, and nothing is left behind however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parent.parent.parent
PATIENCE = 90
"""Seconds; the demo itself gives up before."""


class Demo(subprocess.Popen[str]):
    """The demo as on a fresh machine: PATH is set, HOME is empty, and nothing else is known."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.home = home
        super().__init__(
            [sys.executable, "-m", "dangad.examples.demo"],
            cwd=REPOSITORY,
            env={"PATH": os.environ["PATH"], "HOME": str(home), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def read_to(self, pattern: str) -> re.Match[str]:
        """The next line of output that matches; there has to be one."""
        assert self.stdout is not None
        for line in self.stdout:
            if match := re.search(pattern, line):
                return match
        raise AssertionError(f"the demo ended without a line like {pattern!r}")

    def descendants(self) -> Iterator[str]:
        """The processes that inherited the demo's HOME, which is its alone."""
        mark = f"HOME={self.home}".encode()
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (path / "environ").read_bytes().split(b"\0"):
                    yield (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # it ended while we looked
                continue


class DemoTest(SynchronousTestCase):
    def setUp(self) -> None:
        """Make an empty home, by which the demo's processes can be told from others."""
        self.home = self.make_directory()

    def make_directory(self) -> Path:
        """An empty directory, removed after the test."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        return Path(directory.name)

    def start(self, **environment: str) -> Demo:
        """A running demo, which ends with the test."""
        demo = Demo(self.home, **environment)
        self.addCleanup(demo.wait)
        self.addCleanup(demo.kill)
        return demo

    def assert_nothing_left(self, demo: Demo, directory: str) -> None:
        """No process of the demo runs, its directory is gone, and its home is as it was."""
        self.assertEqual(list(demo.descendants()), [])
        self.assertFalse(os.path.exists(directory), directory)
        self.assertEqual(list(self.home.iterdir()), [])

    def test_the_story(self) -> None:
        """A quick job is answered before the slow one that came before it, by another worker."""
        demo = self.start()
        story, _ = demo.communicate(timeout=PATIENCE)
        self.assertEqual(demo.returncode, 0, story)

        order = re.findall(r"^ +[\d.]+  client (\d)  (asks|has)", story, re.MULTILINE)
        self.assertEqual(
            sorted(order), [(client, event) for client in "257" for event in ("asks", "has")]
        )
        asked = [client for client, event in order if event == "asks"]
        self.assertEqual(asked, ["2", "5", "7"])
        self.assertLess(order.index(("7", "has")), order.index(("5", "has")))

        jobs = re.findall(
            r"^  (\d) +(UNIX|TCP) +\d+  (\w+) +(\d+) +[\d.]+ s +[\d.]+ s$", story, re.MULTILINE
        )
        self.assertEqual(
            {(client, transport, command) for client, transport, command, _ in jobs},
            {("2", "UNIX", "ListDirectory"), ("5", "TCP", "CountPrimes"), ("7", "UNIX", "Echo")},
        )
        workers = {client: worker for client, _, _, worker in jobs}
        self.assertNotEqual(workers["5"], workers["7"])
        self.assertEqual(len(set(workers.values())), 2)

        size = (REPOSITORY / "docs/conf.py").stat().st_size
        self.assertRegex(story, rf"(?m)^  conf\.py +file +{size:,}  \d{{4}}-\d\d-\d\d ")
        self.assertIn("11,078,937 primes", story)
        self.assertIn("No process, no socket and no pid file is left behind.", story)
        self.assertLessEqual(max(map(len, story.splitlines())), 100)

        directory = re.search(r"unix:(.*)/dangad\.sock", story)
        assert directory is not None
        self.assert_nothing_left(demo, directory[1])

    def test_interrupted(self) -> None:
        """Ctrl-C in the middle of the story leaves nothing behind."""
        demo = self.start()
        directory = demo.read_to(r"unix:(.*)/dangad\.sock$")[1]
        demo.read_to("are ready")
        self.assertGreater(len(list(demo.descendants())), 3)
        demo.send_signal(signal.SIGINT)
        output, _ = demo.communicate(timeout=PATIENCE)
        self.assertEqual(demo.returncode, -signal.SIGINT)
        self.assertEqual(output, "The demo was stopped by SIGINT.\n")
        self.assert_nothing_left(demo, directory)

    def test_reader_leaves(self) -> None:
        """It is the same if nobody reads the story to its end."""
        demo = self.start()
        directory = demo.read_to(r"unix:(.*)/dangad\.sock$")[1]
        assert demo.stdout is not None
        demo.stdout.close()
        self.assertEqual(demo.wait(PATIENCE), -signal.SIGPIPE)
        self.assert_nothing_left(demo, directory)

    def test_server_dies(self) -> None:
        """A server that dies ends the demo with what its log said last, and nothing is left."""
        demo = self.start()
        server = demo.read_to(r"Server (\d+)")[1]
        directory = demo.read_to(r"unix:(.*)/dangad\.sock$")[1]
        demo.read_to("are ready")
        os.kill(int(server), signal.SIGKILL)
        output, _ = demo.communicate(timeout=PATIENCE)
        self.assertEqual(demo.returncode, 1)
        self.assertIn("The demo failed: ", output)
        self.assertRegex(output, r"worker \d+ is ready")
        self.assert_nothing_left(demo, directory)

    def test_cannot_listen(self) -> None:
        """A server that cannot start ends the demo with its own reason."""
        directory = self.make_directory() / ("long" * 30)
        directory.mkdir()
        demo = self.start(TMPDIR=str(directory))
        output, _ = demo.communicate(timeout=PATIENCE)
        self.assertEqual(demo.returncode, 1)
        self.assertIn("The demo failed: the server ended before", output)
        self.assertIn("AF_UNIX path too long", output)
        self.assertEqual(list(directory.iterdir()), [])
        self.assertEqual(list(demo.descendants()), [])
