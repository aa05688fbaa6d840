"""``twistd dangad`` as those know it who look after it: ``dangad``, signals, and what is left."""

import grp
import json
import os
import pwd
import re
import signal
import socket
import subprocess
import sys

from dangad import tap
from tests.real.test_twistd import PATIENCE, PING, PONG, ROOT, TwistdCase, children, nap, wait_for
from tests.realserver import alive

NAPS = """
import os, re, signal, subprocess, sys, time
from twisted.protocols import amp
from dangad import job

class Nap(amp.Command):
    arguments = [(b"seconds", amp.Float())]

class Look(amp.Command):
    response = [(b"seen", amp.Unicode())]

@job(Nap)
def nap(seconds):
    time.sleep(seconds)
    return {}

@job(Look)
def look():
    umask = os.umask(0)
    os.umask(umask)
    names = " ".join(sorted(os.environ))
    ids = f"{os.getuid()}:{os.getgid()}:{','.join(map(str, os.getgroups()))}"
    return {"seen": f"nice {os.nice(0)} umask {umask:o} ids {ids} names {names}"}
"""

IN_C = """
    child = subprocess.Popen(["sleep", "600"])
    with open("child.new", "w") as file:
        file.write(str(child.pid))
    os.rename("child.new", "child")
    re.match(r"(a+)+$", "a" * 60 + "b")
"""
"""A deed that starts a process and then calls a function in C that never returns."""

DAEMON = """
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            with open("child.new", "w") as file:
                file.write(str(os.getpid()))
            os.rename("child.new", "child")
            os.closerange(0, 64)
            time.sleep(600)
        os._exit(0)
    os.wait()
"""
"""A deed that starts a daemon as daemons are started."""


class OperatingCase(TwistdCase):
    """A server with its two sockets in the directory, and the ``dangad`` command."""

    def setUp(self) -> None:
        """Make the directory; without .pyc, to tell fast changes of a module apart."""
        super().setUp()
        self.environment["PYTHONDONTWRITEBYTECODE"] = "1"

    def serve(self, *options: str, deed: str = "") -> subprocess.Popen[str]:
        """Start it with one module of jobs."""
        self.write_jobs("naps", NAPS.replace("(seconds):", f"(seconds):{deed}"))
        return self.start_twistd("--listen", "unix:dangad.sock", "--jobs", "naps", *options)

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """Start the ``dangad`` command."""
        process = subprocess.Popen(
            [sys.executable, "-m", "dangad.cli", *words],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

        def end() -> None:
            if process.poll() is None:
                process.kill()
            process.communicate()

        self.addCleanup(end)
        return process

    def dangad(self, *words: str, status: int = 0) -> str:
        """What the ``dangad`` command prints, which has to end with that status."""
        process = self.begin(*words)
        output, _ = process.communicate(timeout=PATIENCE)
        self.assertEqual(process.returncode, status, output)
        return output

    def connect(self) -> socket.socket:
        """A client."""
        client = socket.socket(socket.AF_UNIX)
        self.addCleanup(client.close)
        client.settimeout(PATIENCE)
        client.connect(str(self.folder / "dangad.sock"))
        return client

    def child(self) -> int:
        """The pid of the process that a job has started."""
        wait_for((self.folder / "child").exists)
        return int((self.folder / "child").read_text())


class DayTests(OperatingCase):
    """What operators do."""

    def test_look(self) -> None:
        """They see workers, running jobs and where these are, and jobs that have ended."""
        self.serve("--log-jobs")
        self.assertEqual(os.stat(self.folder / "dangad.control").st_mode & 0o777, 0o600)
        client = self.connect()
        client.sendall(nap(0) + nap(600, b"2") + PING)
        received = b""
        while not (PONG in received and b"\0\7_answer\0\0011\0\0" in received):
            received += client.recv(1000)  # in whichever order they come
        self.assertRegex(self.dangad("status"), r"jobs +0 waiting, 1 running\naccepted +2: 1 done")
        [worker] = [each for each in json.loads(self.dangad("workers", "--json")) if each["job"]]
        self.assertEqual((worker["job"]["id"], worker["job"]["command"]), (2, "Nap"))
        stack = self.dangad("stack", "2")
        self.assertRegex(stack, r'File ".*naps\.py", line \d+ in nap\n')
        self.assertIn(f"worker {worker['pid']} job 2: {stack.splitlines()[0]}", self.log())
        self.assertEqual(
            self.dangad("stack", "1", status=1), "dangad: NOT_RUNNING: no job 1 is running\n"
        )
        [usage] = json.loads(self.dangad("recent", "--json"))
        self.assertIn(
            f"job 1 Nap done worker={usage['worker']} wait={usage['wait']:.6f} "
            f"runtime={usage['runtime']:.6f} cpu={usage['cpu']:.6f} "
            f"peak_memory={usage['peak_memory']}\n",
            self.log(),
        )

    def test_scale(self) -> None:
        """They have more workers at once, and are told what makes no sense."""
        self.serve()
        self.assertEqual(self.dangad("scale", "3", "4"), "from now on 3 to 4 workers\n")
        wait_for(lambda: len(self.ready_workers()) == 3)
        self.assertIn("BAD_ARGUMENTS: 3 to 2 workers", self.dangad("scale", "3", "2", status=2))
        refusal = self.dangad("scale", "1", "1000000", status=2)
        self.assertIn("BAD_ARGUMENTS: 1000000 workers are too many for this machine", refusal)
        self.assertIn("from now on 1 to", self.dangad("scale", "1", "1000", "--force"))
        self.assertEqual(self.dangad("scale", "1"), "from now on 1 workers\n")

    def test_reload(self) -> None:
        """New code is served after a reload, by command or SIGHUP; broken code is refused."""
        process = self.serve()
        [old] = self.ready_workers()
        self.write_jobs("naps", NAPS.replace("Nap", "Sleep"))
        self.assertIn("reloaded: generation 2, workers: 1 idle", self.dangad("reload"))
        self.assertFalse(alive(old))
        self.assertNotIn("Nap", self.dangad("commands"))
        self.write_jobs("naps", "import nowhere_to_be_found\n")
        text = self.dangad("reload", status=1)
        self.assertIn("RELOAD_FAILED", text)
        self.assertIn("No module named 'nowhere_to_be_found'", text)
        self.assertRegex(
            self.dangad("status"), r"generation +2 \(reload failed: .*nowhere_to_be_found"
        )
        self.assertIn("Sleep", self.dangad("commands"))
        self.write_jobs("naps", NAPS)
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: "reloaded: all workers are of generation 3" in self.log())
        self.assertIn("Nap", self.dangad("commands"))

    def test_drain(self) -> None:
        """`dangad drain` waits for the last job, prints the counters, and the server ends well."""
        process = self.serve()
        client = self.connect()
        client.sendall(nap(600) + nap(600, b"2") + PING)
        self.assertEqual(client.recv(len(PONG)), PONG)
        drain = self.begin("drain")
        wait_for(lambda: "stopping: " in self.log())
        self.assertRegex(self.dangad("status"), "state +draining")
        client.sendall(nap(0, b"3"))
        self.assertIn(b"SHUTTING_DOWN", client.recv(1000))
        client.close()
        output, _ = drain.communicate(timeout=PATIENCE)
        self.assertEqual(output, "drained: 0 done, 0 failed, 2 cancelled, 0 timed out, 0 lost\n")
        self.assertEqual((drain.returncode, process.wait(PATIENCE)), (0, 0))
        self.assertIn(
            "stopped: 2 jobs accepted: 0 done, 0 failed, 0 lost, 2 cancelled, 0 timed out; "
            "1 refused",
            self.log(),
        )


class BrokenLaterTests(OperatingCase):
    """The job module breaks on disk while the server runs."""

    def test_rests(self) -> None:
        """Meanwhile the server hardly works, starts few workers, and recovers by itself."""
        process = self.serve()
        [pid] = self.ready_workers()
        self.write_jobs("naps", "import nowhere_to_be_found\n")
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: "start 3 in a row failed" in self.log())
        before = self.cpu(process.pid)
        wait_for(lambda: "start 5 in a row failed" in self.log())
        self.assertLess(self.cpu(process.pid) - before, 0.4)
        delays = re.findall(r"next try in ([\d.]+) s", self.log())
        self.assertEqual(delays[:5], ["0.0", "0.1", "0.2", "0.4", "0.8"])
        self.write_jobs("naps", NAPS)
        wait_for(lambda: len(self.ready_workers()) == 2)
        self.assertEqual(self.ask(nap(0)), b"\0\7_answer\0\0011\0\0")

    def cpu(self, pid: int) -> float:
        """Seconds of CPU time that the process has taken, without its children."""
        with open(f"/proc/{pid}/stat") as file:
            user, system = file.read().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


class LeftoverTests(OperatingCase):
    """Nothing stays that a job has started."""

    def test_call_in_c(self) -> None:
        """A job in a call that never returns, and its child, die with the server."""
        process = self.serve(deed=IN_C)
        client = self.connect()
        client.sendall(nap(0))
        child, [worker] = self.child(), self.ready_workers()
        process.kill()
        process.wait()
        wait_for(lambda: not alive(worker) and not alive(child))

    def test_daemon(self) -> None:
        """A daemon that a job has started is gone after the job, and another worker takes over."""
        process = self.serve(deed=DAEMON)
        self.assertEqual(self.ask(nap(0)), b"\0\7_answer\0\0011\0\0")
        daemon = self.child()
        wait_for(lambda: not alive(daemon))
        wait_for(lambda: str(daemon) in self.log())
        wait_for(lambda: len(self.ready_workers()) == 2)
        wait_for(lambda: len(children(process.pid)) == 2)


class WorkerOptionTests(OperatingCase):
    """Options say as what the workers run."""

    def seen(self, *options: str) -> str:
        """What a job sees of its process."""
        self.serve(*options)
        answer = self.ask(b"\0\4_ask\0\0011\0\x08_command\0\4Look\0\0")
        return answer.partition(b"seen")[2][2:].rstrip(b"\0").decode()

    def test_worker_settings(self) -> None:
        """Niceness, umask, and an environment of what is kept and set, and the server's mark."""
        self.environment["SECRET"] = "token"
        seen = self.seen(
            *("--worker-nice", "3", "--worker-umask", "027"),
            *("--worker-keep-env", "PATH", "--worker-keep-env", "PYTHONPATH"),
            *("--worker-env", "COLOUR=red"),
        )
        before = os.nice(0)
        self.assertRegex(seen, rf"^nice {min(before + 3, 19)} umask 27 ids .* names ")
        names = set(seen.partition(" names ")[2].split()) - {"LC_CTYPE"}  # Python's own
        self.assertEqual(names, {"COLOUR", "DANGAD_WORKER_OF", "PATH", "PYTHONPATH"})

    def test_user(self) -> None:
        """A server of root's has its workers run as somebody else; others may not."""
        somebody = pwd.getpwnam("nobody")
        group = grp.getgrgid(somebody.pw_gid).gr_name
        options = ["--worker-gid", group]
        if os.getuid() != 0:
            result = self.run_twistd("-n", "dangad", *options)
            self.assertEqual(result.returncode, 1)
            self.assertIn("only for a server run as root", result.stderr)
            return
        self.folder.chmod(0o755)
        uid = 0
        if self.can_read_the_code(somebody.pw_uid, somebody.pw_gid):
            options += ["--worker-uid", somebody.pw_name]
            uid = somebody.pw_uid
        self.assertIn(f" ids {uid}:{somebody.pw_gid}:", self.seen(*options))

    def can_read_the_code(self, uid: int, gid: int) -> bool:
        """Whether somebody could be a worker here at all."""
        command = [sys.executable, "-c", "import dangad"]
        environment = {"PYTHONPATH": str(ROOT)}
        try:
            return not subprocess.run(
                command, env=environment, cwd="/", user=uid, group=gid, check=False
            ).returncode
        except PermissionError:
            return False

    def test_nonsense(self) -> None:
        """What makes no sense is refused in one line."""
        for arguments, says in (
            ("--worker-umask 999", "--worker-umask 999: not an octal number from 0 to 777"),
            ("--worker-nice -1", "--worker-nice -1: not a whole number from 0"),
            ("--max-memory much", "--max-memory much: not a number of bytes"),
            ("--recycle-age old", "--recycle-age old: not a number of seconds"),
            ("--recycle-jobs x", "--recycle-jobs x: not a whole number from 0"),
            ("--worker-uid no-such-user", "--worker-uid"),
        ):
            with self.subTest(arguments):
                with self.assertRaises(SystemExit) as refused:
                    tap.Options().parseOptions(arguments.split())
                self.assertRegex(str(refused.exception), f"^twistd dangad: {says}.*$")
