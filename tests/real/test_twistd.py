"""``twistd dangad`` as a user runs it: in the foreground, as a daemon, and with mistakes."""

import contextlib
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from twisted.python.usage import UsageError

from dangad import tap
from dangad.pool.launch import BrokenJobs, WorkerSettings, default_path
from dangad.pool.preflight import JobsCheck
from tests.realserver import alive
from tests.twistdserver import PATIENCE, ROOT, wait_for

TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]


class TwistdCase(unittest.TestCase):
    """Runs twistd in a directory of its own, with nothing in the environment but paths."""

    twistd = TWISTD

    def setUp(self) -> None:
        """Make the directory."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}

    def run_twistd(
        self, *arguments: str, stdin: int = subprocess.DEVNULL
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return self.run_program([*self.twistd, *arguments], stdin)

    def run_program(
        self, words: list[str], stdin: int = subprocess.DEVNULL
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        return subprocess.run(
            words,
            cwd=self.folder,
            env=self.environment,
            stdin=stdin,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def start_twistd(
        self, *arguments: str, stdin: int = subprocess.DEVNULL
    ) -> subprocess.Popen[str]:
        """Start it in the foreground, and wait until a worker is ready."""
        words = [*self.twistd, "-n", "--logfile", "-", "dangad", *arguments]
        process = self.start_program(words, stdin)
        wait_for(lambda: self.ready_workers() or process.poll() is not None)
        self.assertIsNone(process.poll(), self.log())
        return process

    def start_program(
        self, words: list[str], stdin: int = subprocess.DEVNULL
    ) -> subprocess.Popen[str]:
        """Start a program, whose output is the log, to be killed at the end of the test."""
        with open(self.folder / "log", "w") as log:
            process = subprocess.Popen(
                words,
                cwd=self.folder,
                env=self.environment,
                stdin=stdin,
                stdout=log,
                stderr=log,
                text=True,
            )

        def end() -> None:
            process.kill()
            process.wait()

        self.addCleanup(end)
        return process

    def log(self, name: str = "log") -> str:
        """What the server has logged."""
        path = self.folder / name
        return path.read_text() if path.exists() else ""

    def ready_workers(self, name: str = "log") -> list[int]:
        """The pids of the workers that have said Hello."""
        return [int(pid) for pid in re.findall(r"worker (\d+) is ready", self.log(name))]

    def connect(self, path: str = "dangad.sock") -> socket.socket:
        """A client of the UNIX socket, until the end of the test."""
        client = socket.socket(socket.AF_UNIX)
        self.addCleanup(client.close)
        client.connect(str(self.folder / path))  # waits while the backlog is full
        client.settimeout(PATIENCE)
        return client

    def ask(self, request: bytes, path: str = "dangad.sock") -> bytes:
        """Send a box to the UNIX socket, and give the beginning of the answer."""
        with self.connect(path) as client:
            client.sendall(request)
            return client.recv(1000)

    def write_jobs(self, name: str, text: str) -> None:
        """Put a module of jobs into the directory."""
        (self.folder / f"{name}.py").write_text(text)


PING = b"\0\4_ask\0\0017\0\x08_command\0\x0bdangad.Ping\0\0"
PONG = b"\0\7_answer\0\0017\0\0"

GOOD_JOBS = """
from twisted.protocols import amp
from dangad import job
import time

class Nap(amp.Command):
    arguments = [(b"seconds", amp.Float())]

@job(Nap)
def nap(seconds):
    time.sleep(seconds)
    return {}
"""


CHILD = """
    import os, re, signal, subprocess
    signal.pthread_sigmask(signal.SIG_SETMASK, range(1, signal.NSIG))
    child = subprocess.Popen(["sleep", "600"])
    with open("child.new", "w") as file:
        file.write(str(child.pid))
    os.rename("child.new", "child")
    re.match(r"(a+)+$", "a" * 60 + "b")
"""
"""What a job does that blocks all signals, has a process, and calls C that never returns."""

DAEMON = """
    import os, subprocess
    command = "echo $$ > child.new; mv child.new child; sleep 600 & wait"
    if os.fork() == 0:
        os.setsid()
        subprocess.Popen(["sh", "-c", command])
        os._exit(0)
    os.wait()
    while not os.path.exists("child"):
        time.sleep(0.005)
    time.sleep(seconds)
"""
"""What a job does that leaves a daemon, which has a child of its own."""


def command_line(pid: int) -> bytes:
    """A process's program and arguments."""
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def children(pid: int) -> set[int]:
    """The living children of a process."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as file:
                state, parent = file.read().rpartition(")")[2].split()[:2]
                if int(parent) == pid and state != "Z":
                    found.add(int(name))
    return found


def nap(seconds: float, tag: bytes = b"1") -> bytes:
    """A request for the job type of `GOOD_JOBS`."""
    text = str(seconds).encode()
    return b"\0\4_ask\0\1%b\0\x08_command\0\3Nap\0\7seconds\0%c%b\0\0" % (tag, len(text), text)


class RunTests(TwistdCase):
    """It starts, serves and stops."""

    def start_naps(self, deed: str = "", *options: str) -> subprocess.Popen[str]:
        """A server whose jobs sleep, or do a deed."""
        self.write_jobs(
            "naps", GOOD_JOBS.replace("time.sleep(seconds)", deed or "time.sleep(seconds)")
        )
        return self.start_twistd("--listen", "unix:dangad.sock", "--jobs", "naps", *options)

    def test_is_listed(self) -> None:
        """``twistd --help`` lists dangad, and ``twistd dangad --help`` its options."""
        self.assertIn("dangad", self.run_twistd("--help").stdout)
        text = self.run_twistd("dangad", "--help").stdout
        options = "listen jobs min-workers max-workers max-queued max-in-flight max-payload drain"
        for option in [*options.split(), "max-connections"]:
            self.assertIn(f"--{option}=", text)
        self.assertNotRegex(text, r"\.\.|\. \[default|\S  +\[default|likewise")

    def test_foreground(self) -> None:
        """With several endpoints and modules in the foreground; SIGTERM ends it, workers too."""
        self.write_jobs("naps", GOOD_JOBS)
        process = self.start_twistd(
            *("--listen", "unix:one.sock", "--listen", "unix:two.sock"),
            *("--jobs", "naps", "--jobs", "dangad.examples"),
        )
        self.assertEqual(self.ask(PING, "one.sock"), PONG)
        self.assertEqual(self.ask(PING, "two.sock"), PONG)
        loaded = Path(f"/proc/{process.pid}/maps").read_text()
        self.assertIn("libc.so", loaded)
        self.assertNotIn("cryptography", loaded)  # nothing needs TLS
        self.assertEqual(self.ask(nap(0), "one.sock"), b"\0\7_answer\0\0011\0\0")
        process.terminate()
        process.wait(PATIENCE)
        self.assertEqual(process.returncode, -signal.SIGTERM)
        self.assertFalse([pid for pid in self.ready_workers() if alive(pid)])
        self.assertEqual(sorted(os.listdir(self.folder)), ["__pycache__", "log", "naps.py"])

    def test_daemon(self) -> None:
        """As a daemon with the defaults it serves its UNIX socket, and cleans up behind itself.

        SIGUSR1 rotates its log, and SIGHUP reloads, whether or not it was started in a terminal.
        """
        ours, theirs = os.openpty()
        self.addCleanup(os.close, ours)
        result = self.run_twistd("dangad", stdin=theirs)
        os.close(theirs)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        pid = int((self.folder / "twistd.pid").read_text())
        try:
            wait_for(lambda: self.ready_workers("twistd.log"))
            self.assertEqual(os.stat(self.folder / "dangad.sock").st_mode & 0o777, 0o600)
            self.assertEqual(self.ask(PING), PONG)
            with socket.create_connection(("127.0.0.1", 7003), PATIENCE) as client:
                client.sendall(PING)
                self.assertEqual(client.recv(100), PONG)
            os.kill(pid, signal.SIGUSR1)
            wait_for((self.folder / "twistd.log.1").exists)
            self.assertEqual(self.ask(PING), PONG)
            os.kill(pid, signal.SIGHUP)
            log = self.folder / "twistd.log"
            wait_for(lambda: "reloaded: all workers are of generation 2" in log.read_text())
        finally:
            os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not alive(pid))
        self.assertEqual(sorted(os.listdir(self.folder)), ["twistd.log", "twistd.log.1"])

    def test_terminal(self) -> None:
        """In a terminal SIGHUP reloads, until the terminal is gone: then it stops."""
        ours, theirs = os.openpty()
        process = self.start_twistd("--listen", "unix:dangad.sock", stdin=theirs)
        os.close(theirs)
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: "reloaded: all workers are of generation 2" in self.log())
        os.close(ours)
        process.send_signal(signal.SIGHUP)
        process.wait(PATIENCE)
        self.assertIn("the terminal of the server is gone", self.log())

    def test_second_signal(self) -> None:
        """A second SIGTERM ends the drain: the job is told so, and nothing is left."""
        process = self.start_naps()
        client = self.connect()
        client.sendall(nap(600) + PING)
        self.assertEqual(client.recv(len(PONG)), PONG)
        process.terminate()
        wait_for(lambda: "stopping: 1 job running" in self.log())
        process.terminate()
        self.assertIn(b"SHUTTING_DOWN", client.recv(1000))
        process.wait(PATIENCE)
        self.assertIn(
            "1 job accepted: 0 done, 0 failed, 0 lost, 1 cancelled, 0 timed out; 0 refused",
            self.log(),
        )
        self.assertFalse([pid for pid in self.ready_workers() if alive(pid)])

    def test_orphans_of_a_job(self) -> None:
        """When the server was killed, so are its worker, the job's child, guardian and template."""
        process = self.start_naps(CHILD)
        [worker] = self.ready_workers()
        helpers = children(process.pid) - {worker}
        self.connect().sendall(nap(600))
        wait_for((self.folder / "child").exists)
        child = int((self.folder / "child").read_text())
        self.assertTrue(alive(child))
        process.kill()
        process.wait()
        wait_for(lambda: not any(map(alive, (worker, child, *helpers))))
        self.assertEqual(len(helpers), 2)

    def start_daemon(self) -> list[int]:
        """The ids of a running job's daemon, and of its child."""
        (self.folder / "child").unlink(missing_ok=True)
        self.connect().sendall(nap(600))
        wait_for((self.folder / "child").exists)
        daemon = int((self.folder / "child").read_text())
        [child] = wait_for(lambda: children(daemon))
        return [daemon, child]

    def test_daemons(self) -> None:
        """A job's daemon is killed when its worker is dead, and the log says so.

        So it is, with what it has started, when the server has stopped, or was killed.
        """
        process = self.start_naps(DAEMON, "--drain", "0.2")
        orphans = self.start_daemon()
        self.assertTrue(all(map(alive, orphans)))
        os.kill(self.ready_workers()[0], signal.SIGKILL)
        wait_for(lambda: not any(map(alive, orphans)))
        wait_for(lambda: f"killed processes that jobs had left behind: [{orphans[0]}" in self.log())
        others = self.start_daemon()
        process.kill()
        process.wait(PATIENCE)
        wait_for(lambda: not any(map(alive, others)))
        process = self.start_naps(DAEMON, "--drain", "0.2")
        others = self.start_daemon()
        process.terminate()
        process.wait(PATIENCE)
        wait_for(lambda: not any(map(alive, others)))

    def test_signals_to_it_and_its_guardian(self) -> None:
        """A guardian that is killed is replaced; signals that mean nothing here are harmless.

        SIGUSR1, by which twistd rotates a log file, does nothing where there is none.
        """
        process = self.start_twistd("--listen", "unix:dangad.sock")
        workers = set(self.ready_workers())
        helpers = children(process.pid) - workers
        [guardian] = [pid for pid in helpers if b"dangad-guardian" in command_line(pid)]
        os.kill(guardian, signal.SIGKILL)
        wait_for(lambda: children(process.pid) - workers - helpers)
        self.assertIn("the guardian was killed by SIGKILL, and is replaced", self.log())
        process.send_signal(signal.SIGUSR1)
        wait_for(lambda: "SIGUSR1 rotates the log, and there is no log file" in self.log())
        process.send_signal(signal.SIGUSR2)
        wait_for(lambda: "SIGUSR2 means nothing" in self.log())
        self.assertEqual(self.ask(PING), PONG)

    def test_interrupt(self) -> None:
        """Ctrl-C in a terminal lets the running job end, and answers it."""
        process = self.start_naps()
        client = self.connect()
        client.sendall(nap(0.5) + PING)
        self.assertEqual(client.recv(len(PONG)), PONG)
        process.send_signal(signal.SIGINT)
        self.assertEqual(client.recv(100), b"\0\7_answer\0\0011\0\0")
        self.assertEqual(client.recv(100), b"")
        process.wait(PATIENCE)
        self.assertIn("serves 1 command with", self.log())
        self.assertIn("stopped: 1 job accepted: 1 done", self.log())
        self.assertNotIn("ampoule", self.log())


class MistakeTests(TwistdCase):
    """What cannot work is said in one line on stderr, with an exit status that is not 0."""

    def check(self, *arguments: str, says: str) -> None:
        """Run it in the foreground, and look at what it says."""
        result = self.run_twistd("-n", "dangad", *arguments)
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, rf"\A.*{says}.*\n\Z")
        self.assertNotIn("Traceback", result.stdout)
        self.assertNotIn("twistd.pid", os.listdir(self.folder))

    def test_options(self) -> None:
        """Options that do not exist, or have no sensible value."""
        for arguments, says in (
            ("--max-workers 0", "--max-workers 0: not a whole number from 1"),
            (
                "--listen unix:s --control ./s",
                "--listen unix:s and --control ./s name the same socket",
            ),
            ("--control nothing:x", "--control nothing:x: Unknown endpoint type.* ./nothing:x"),
            ("--listen localhost:7003", "; write tcp:7003:interface=127.0.0.1$"),
            ("--listen 10.0.0.1:7003", "; write tcp:7003:interface=10.0.0.1$"),
            ("--control=", "--control '': it is empty"),
            (
                "--listen tcp:http",
                "--listen tcp:http: 'http' is not a number; write tcp:PORT:interface=127.0.0.1",
            ),
        ):
            self.check(*arguments.split(), says=says)
        for arguments, says in (
            ("--nope", "there is no option --nope; see"),
            ("--worker-pth x", r"no option --worker-pth; did you mean --worker-path\?"),
            ("--min-workers x", "--min-workers x: not a whole number from 0"),
            ("--min-workers 3 --max-workers 2", "--min-workers 3 is more than --max-workers 2"),
            ("--max-workers 1000000", "--max-workers: 1000000 workers are too many for this mach"),
            ("--max-payload 1T", "--max-payload 1T: not a number of bytes"),
            ("--drain soon", "--drain soon: not a number of seconds, 0 or more"),
            ("--drain -1", "--drain -1: not a number of seconds, 0 or more"),
            ("--start-timeout 0", "--start-timeout 0: not a number of seconds, above 0"),
            ("--spare-workers 3 --max-workers 2", "--spare-workers 3 is more than --max-workers 2"),
            ("--start lazy", "--start lazy: it must be one of fresh, lean, preloaded"),
            ("--preload --start lean", "--preload contradicts --start lean"),
            ("--start fresh --preload", "--preload contradicts --start fresh"),
            ("--quar 1", "--quar is not unique: it may be --quarantine-after, --quarantine-time;"),
            ("--drain nan", "--drain nan: not a number of seconds"),
            ("--worker-env X", "--worker-env X: write NAME=VALUE"),
            ("--worker-directory nowhere", "--worker-directory nowhere: no such directory"),
            ("--worker-umask 9", "--worker-umask 9: not an octal number from 0 to 777"),
            ("--worker-nice -1", "--worker-nice -1: not a whole number from 0 to 19"),
            ("--worker-nice 30", "--worker-nice 30: not a whole number from 0 to 19"),
            ("--worker-uid nobody-at-all", "--worker-uid"),
            ("--worker-path nowhere", "--worker-path nowhere: no such directory"),
            ("--max-payload 0", "--max-payload 0: not a number of bytes from 1, or one with k,"),
            ("--jobs one,two", "--jobs one,two: repeat the option, as in --jobs one --jobs two;"),
            ("--jobs=", "--jobs names no module"),
            ("--jobs group:x.jobs", "--jobs group:x.jobs: the only group is group:dangad.jobs"),
            ("--max-memory much", "--max-memory much: not a number of bytes"),
            ("--recycle-age old", "--recycle-age old: not a number of seconds"),
            ("--recycle-jobs x", "--recycle-jobs x: not a whole number from 0"),
            ("--jobs mine.py", "write --jobs mine;"),
            ("--jobs ./thumbs/jobs.py", "write --jobs thumbs.jobs;"),
            ("--jobs ../thumbs/jobs.py", r"write --worker-path \.\./thumbs --jobs jobs;"),
            ("--jobs /srv/jobs.py", "write --worker-path /srv --jobs jobs;"),
            ("extra", "'extra' is one; to serve the module extra, write --jobs extra; see"),
            ("./x", "there are no arguments, but './x' is one; see"),
        ):
            with self.subTest(arguments), self.assertRaisesRegex((SystemExit, UsageError), says):
                tap.Options().parseOptions(arguments.split())

    def test_ways_to_start(self) -> None:
        """Workers are forks of a lean template; ``--preload`` is short for one of the ways."""
        for arguments, start in (
            ("", "lean"),
            ("--start fresh", "fresh"),
            ("--preload", "preloaded"),
            ("--preload --start preloaded", "preloaded"),
        ):
            options = tap.Options()
            options.parseOptions(arguments.split())
            self.assertEqual(options["start"], start)

    def test_reader_of_help_leaves(self) -> None:
        """It ends without a word, as programs do."""
        reader, writer = os.pipe()
        os.close(reader)
        words = [*self.twistd, "dangad", "--help"]
        with open(writer, "wb") as output:
            result = subprocess.run(
                words, cwd=self.folder, stdout=output, stderr=subprocess.PIPE, check=False
            )
        self.assertEqual((result.returncode, result.stderr), (-signal.SIGPIPE, b""))

    def test_reason_comes_last(self) -> None:
        """What was logged until then is shown before the reason, though a thread writes it."""
        main, terminal = pty.openpty()
        with subprocess.Popen(
            [*self.twistd, "-n", "dangad", "--listen", "unix:s", "--control", "unix:/nowhere/c"],
            cwd=self.folder,
            env=self.environment,
            stdout=terminal,
            stderr=terminal,
        ):
            os.close(terminal)
            shown = b""
            with contextlib.suppress(OSError):  # how Linux tells that the terminal was closed
                while piece := os.read(main, 65_536):
                    shown += piece
        os.close(main)
        lines = shown.decode().splitlines()
        self.assertEqual(lines[0], "twistd dangad: checking the job modules: dangad.examples")
        self.assertIn("(UNIX Port s Closed)", lines[-2])
        self.assertRegex(lines[-1], "^twistd dangad: cannot listen on unix:/nowhere/c")

    def test_job_modules(self) -> None:
        """Modules that are not there, do not import, or have nothing to serve."""
        self.write_jobs("leaves", "raise SystemExit(0)\n")
        self.write_jobs("empty", "")
        self.write_jobs("bare", "import dangad\n@dangad.job\ndef nap(): pass\n")
        self.write_jobs("bad", GOOD_JOBS.replace("nap(seconds)", "nap(minutes)"))
        for module, says, traceback in (
            ("nowhere", "No module named 'nowhere'; start the server in .* --worker-path", False),
            ("leaves", "SystemExit", True),
            ("empty", "empty has no job types", False),
            ("bad", r"bad.nap cannot take the arguments of Nap .* \(.*bad\.py, line \d+\)", False),
            ("bare", r"@job takes a subclass .* \(.*bare\.py, line 2\)", False),
        ):
            settings = WorkerSettings((module,), path=(str(self.folder), *default_path()))
            with (
                self.subTest(module),
                JobsCheck(settings, PATIENCE) as check,
                self.assertRaisesRegex(BrokenJobs, says) as broken,
            ):
                check.wait()
            self.assertEqual("Traceback" in broken.exception.traceback, traceback)

    def test_traceback(self) -> None:
        """The traceback of a module begins in the module, not in what imports it."""
        self.write_jobs("broken", "import os\nimport nowhere_to_be_found\n")
        result = self.run_twistd("-n", "dangad", "--jobs", "broken")
        said = "twistd dangad: checking the job modules: broken\n"
        self.assertEqual((result.returncode, result.stdout), (1, said))
        self.assertEqual(result.stderr.count("File "), 1)
        self.assertRegex(result.stderr, r'File ".*broken\.py", line 2, in <module>')
        says = r"No module named 'nowhere_to_be_found' \(.*broken\.py, line 2\)"
        self.assertRegex(result.stderr.splitlines()[-1], says)
        self.write_jobs("wrong", "import os\ndef f(:\n")
        text = self.run_twistd("-n", "dangad", "--jobs", "wrong").stderr
        self.assertRegex(text, r'\A  File "/.*/wrong\.py", line 2\n +def f\(:\n')
        self.assertRegex(text, r"SyntaxError: invalid syntax \(/.*/wrong\.py, line 2\)\n\Z")

    def test_daemon(self) -> None:
        """A daemon says it in one line on the terminal, and in its log; nothing is left running."""
        result = self.run_twistd("dangad", "--listen", "unix:/nowhere/s")
        reason = "cannot listen on unix:/nowhere/s: No such file or directory"
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, rf"\Atwistd dangad: {reason}.*\n\Z")
        wait_for(lambda: f"the server does not start: {reason}" in self.log("twistd.log"))
        result = self.run_twistd("dangad", "--jobs", "nowhere")
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, r"\Atwistd dangad: .*No module named 'nowhere'.*\n\Z")
        self.assertRegex(self.log("twistd.log"), "the server does not start: .*'nowhere'")
        result = self.run_twistd("--rundir=nowhere", "dangad")  # where there is no daemon yet
        self.assertRegex(result.stderr, r"\Atwistd dangad: cannot start: .*'nowhere'.*\n\Z")
        self.assertNotIn("twistd.pid", os.listdir(self.folder))

    def test_log_file(self) -> None:
        """A log that is a file has it, too, in the foreground."""
        result = self.run_twistd("-n", "--logfile", "log", "dangad", "--listen", "unix:/nowhere/s")
        self.assertEqual(len(result.stderr.splitlines()), 1)
        self.assertIn("the server does not start: cannot listen on unix:/nowhere/s", self.log())
