"""A server that is started with a configuration file, and the commands that print and check one."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import tomllib
from typing import Any

from dangad.cli.checking import PATIENCE
from dangad.host.capacity import WORKERS_PER_CORE, cores
from tests.real.test_twistd import GOOD_JOBS, TwistdCase
from tests.twistdserver import wait_for

DANGAD = [sys.executable, "-m", "dangad"]
FILE = """\
# The server of the naps.
jobs = ["naps"]
listen = ["dangad.sock"]  # for this machine
worker-env = ["SECRET=dream"]
max-workers = 1
max-payload = "1M"
drain = 2.5
start = "fresh"
worker-umask = "027"
"""


class ConfigCase(TwistdCase):
    def setUp(self) -> None:
        """Write the file and its jobs."""
        super().setUp()
        self.write_jobs("naps", GOOD_JOBS)
        self.write("dangad.toml", FILE)

    def write(self, name: str, text: str) -> None:
        """Put a file into the folder."""
        (self.folder / name).write_text(text)

    def dangad(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        return self.run_program([*DANGAD, *words])

    def output(self, *words: str) -> str:
        """What the command prints, successfully and without complaint."""
        done = self.dangad(*words)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def stop(self, server: subprocess.Popen[str]) -> None:
        """End the server in good order."""
        server.send_signal(signal.SIGTERM)
        server.wait()
        self.assertNotIn("Traceback", self.log())
        os.remove(self.folder / "log")

    def options(self) -> dict[str, Any]:
        """The options of the server that runs."""
        options: dict[str, Any] = json.loads(self.output("config", "--json"))["options"]
        return options


class RunningTest(ConfigCase):
    def test_start(self) -> None:
        """A server has the options of its file, but for those of the command line."""
        server = self.start_twistd("--config", "dangad.toml", "--max-workers", "2")
        wait_for(lambda: "serves 1 command with 1 to 2 workers" in self.log())
        self.assertEqual(self.output("config"), FILE.replace("workers = 1", "workers = 2"))
        [pid] = self.ready_workers()
        with open(f"/proc/{pid}/environ") as environment:
            self.assertIn("SECRET=dream", environment.read().split("\0"))
        self.stop(server)

    def test_round_trip(self) -> None:
        """What `dangad config` prints starts a server with the same options, `scale` included."""
        for words in (["--config", "dangad.toml"], ["--jobs=naps", "--listen=dangad.sock"]):
            server = self.start_twistd(*words, "--recycle-jobs=7", "--start=fresh")
            self.output("scale", "1", "3")
            self.write("printed.toml", self.output("config"))
            before = self.options()
            self.assertEqual((before["max-workers"], before["recycle-jobs"]), (3, 7))
            self.stop(server)
            server = self.start_twistd("--config=printed.toml")
            self.assertEqual(self.options(), before)
            self.assertEqual(self.output("config"), (self.folder / "printed.toml").read_text())
            self.stop(server)

    def test_scaled(self) -> None:
        """A start takes what `scale` took: a forced number, and one less than the spare workers."""
        many = WORKERS_PER_CORE * cores() + 1
        server = self.start_twistd("--config=dangad.toml", "--max-workers=2", "--spare-workers=2")
        for numbers, expected in (
            (["0", str(many), "--force"], {"max-workers": many, "force": True}),
            (["1"], {"max-workers": 1, "spare-workers": 1}),
        ):
            self.output("scale", *numbers)
            printed = tomllib.loads(self.output("config"))
            self.assertLessEqual(expected.items(), printed.items())
            self.write("printed.toml", self.output("config"))
            self.output("check", "printed.toml")
        self.stop(server)

    def test_daemon(self) -> None:
        """A file that is not valid ends the start in one line, as any wrong option does."""
        for text, says in (
            ("max-wokers = 2", "bad.toml: max-wokers: there is no such option; did you mean max-"),
            ("jobs = 'naps'", 'bad.toml: jobs = "naps": it must be an array of texts in quotes; '),
        ):
            self.write("bad.toml", text)
            for words in (["-n"], []):
                result = self.run_twistd(*words, "dangad", "--config", "bad.toml")
                self.assertEqual((result.returncode, result.stdout), (1, ""))
                self.assertTrue(result.stderr.startswith(f"twistd dangad: {says}"), result.stderr)
                self.assertEqual(result.stderr.count("\n"), 1)
        result = self.run_twistd("-n", "dangad", "--config", "none.toml")
        says = "twistd dangad: --config none.toml: No such file or directory\n"
        self.assertEqual((result.returncode, result.stderr), (1, says))


class CheckTest(ConfigCase):
    def test_valid(self) -> None:
        """`check` says what would be served; a server may run already."""
        expected = {
            "file": str(self.folder / "dangad.toml"),
            "listen": ["dangad.sock"],
            "control": "unix:dangad.control",
            "web": None,
            "workers": {"min": 1, "max": 1, "spare": 0, "start": "fresh"},
            "jobs": ["naps"],
            "commands": ["Nap"],
        }
        server = self.start_twistd("--config", "dangad.toml")
        self.assertEqual(json.loads(self.output("check", "--json", "dangad.toml")), expected)
        self.stop(server)
        lines = self.output("check", "dangad.toml").splitlines()
        self.assertEqual(lines[0], f"file        {expected['file']} is valid")
        self.assertIn("workers     1 to 1, 0 spare, fresh", lines)
        self.assertIn("serves      1 command: Nap", lines)

    def test_systemd(self) -> None:
        """The sockets of systemd, which only the server gets, are no reason to complain."""
        name = "systemd:domain=UNIX:name=dangad"
        self.write("unit.toml", f"listen = ['{name}']\njobs = ['naps']\n")
        self.assertIn(f"listens on  {name}\n", self.output("check", "unit.toml"))

    def test_page(self) -> None:
        """`check` says where the page would be, and what it could do."""
        page = "web = 'page.sock'\nweb-prefix = '/jobs'\nweb-actions = true\n"
        self.write("page.toml", f"{page}jobs = ['naps']\n")
        expected = "page        page.sock, behind /jobs, with actions\n"
        self.assertIn(expected, self.output("check", "page.toml"))

    def test_no_file(self) -> None:
        """A file that is not there is named as it was typed."""
        done = self.dangad("check", "nope.toml")
        self.assertEqual(done.stderr, "dangad: nope.toml: No such file or directory\n")

    def test_slow(self) -> None:
        """On a terminal `check` says what takes so long."""
        self.write_jobs("slow", f"import time; time.sleep({PATIENCE + 1})\nfrom naps import *\n")
        self.write("slow.toml", "jobs = ['slow']\n")
        main, terminal = pty.openpty()
        words = [*DANGAD, "check", "slow.toml"]
        with subprocess.Popen(
            words, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=terminal
        ) as program:
            os.close(terminal)
            said = os.read(main, 1000).decode()
            os.close(main)
        self.assertEqual(said.strip(), "dangad: checking the job modules: their import takes long")
        self.assertEqual(program.returncode, 0)

    def test_not_valid(self) -> None:
        """`check` fails with the line in which a start would fail, for a module after its error."""
        self.write_jobs("broken", "import nowhere_to_be_found\n")
        for text, says in (
            ("max-wokers = 2", "bad.toml: max-wokers: there is no such option; did you mean max-"),
            ("max-payload = '3Q'", "bad.toml: max-payload 3Q: not a number of bytes"),
            ("listen = ['tcp:7003']", "bad.toml: cannot listen on tcp:7003: anybody who can "),
            ("listen = ['tcp:x']", "bad.toml: listen tcp:x: 'x' is not a number"),
            ("listen = ['tcp:99999']", "bad.toml: listen tcp:99999: 99999 is not a port: it must"),
            (
                "web = 'tcp:port=70000:interface=127.0.0.1'",
                "bad.toml: web tcp:port=70000:interface=127.0.0.1: 70000 is not a port",
            ),
            (
                "control = 'no/where.sock'",
                "bad.toml: cannot listen on no/where.sock: No such file or directory; make the",
            ),
            (
                "listen = ['haproxy:unix:bad.toml']",
                "bad.toml: cannot listen on haproxy:unix:bad.toml: there is something else of",
            ),
            (f"listen = ['{'x' * 108}']", f"bad.toml: cannot listen on {'x' * 108}: AF_UNIX path"),
            ("jobs = ['broken']", "the job modules cannot be served: ModuleNotFoundError: "),
        ):
            self.write("bad.toml", text)
            done = self.dangad("check", "bad.toml")
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertTrue(done.stderr.splitlines()[-1].startswith(f"dangad: {says}"), done.stderr)
            self.assertEqual("Traceback" in done.stderr, "broken" in text)
