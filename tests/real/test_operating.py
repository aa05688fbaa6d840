"""``twistd dangad`` as those know it who look after it: ``dangad``, signals, and what is left."""

import grp
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
from typing import ClassVar

from tests.real.test_twistd import PATIENCE, PING, PONG, ROOT, TwistdCase, nap, wait_for
from tests.realserver import alive
from tests.warmcommand import WarmCommand

NAPS = """
import os, time
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


class OperatingCase(TwistdCase):
    """A server with its two sockets in the directory, and the ``dangad`` command."""

    warm: ClassVar[WarmCommand]

    @classmethod
    def setUpClass(cls) -> None:
        """Have a process for all runs of the command."""
        super().setUpClass()
        cls.warm = WarmCommand()
        cls.addClassCleanup(cls.warm.close)

    def setUp(self) -> None:
        """Make the directory; without .pyc, to tell fast changes of a module apart."""
        super().setUp()
        self.environment["PYTHONDONTWRITEBYTECODE"] = "1"

    def serve(self, *options: str) -> subprocess.Popen[str]:
        """Start it with one module of jobs."""
        self.write_jobs("naps", NAPS)
        return self.start_twistd("--listen", "unix:dangad.sock", "--jobs", "naps", *options)

    def dangad(self, *words: str, status: int = 0) -> str:
        """What the ``dangad`` command prints, which has to end with that status."""
        done = self.warm.run(*words, folder=self.folder, environment=self.environment)
        output = (done.stdout + done.stderr).decode()
        self.assertEqual(done.returncode, status, output)
        return output

    def connect(self) -> socket.socket:
        """A client."""
        client = socket.socket(socket.AF_UNIX)
        self.addCleanup(client.close)
        client.settimeout(PATIENCE)
        client.connect(str(self.folder / "dangad.sock"))
        return client


class DayTests(OperatingCase):
    """What operators do."""

    def test_look(self) -> None:
        """They see workers, jobs that run, where these are, and jobs that have ended.

        They have more workers at once, and are told what makes no sense.
        """
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
        drain = subprocess.Popen(
            [sys.executable, "-m", "dangad.cli", "drain"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(drain.kill)
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
