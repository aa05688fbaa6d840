"""``twistd dangad`` as those know it who look after it: ``dangad``, signals, and what is left."""

import grp
import os
import pwd
import subprocess
import sys

from tests.real.test_twistd import PING, PONG, TwistdCase, nap
from tests.twistdserver import PATIENCE, ROOT, wait_for

NAPS = """
import os, sys, time
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
    where = f"{os.getcwd()} {os.environ.get('COLOUR')} {sys.path}"
    return {"seen": f"nice {os.nice(0)} umask {umask:o} ids {ids} in {where} names {names}"}
"""


class OperatingTests(TwistdCase):
    """A server with its two sockets in the directory."""

    def serve(self, *options: str) -> subprocess.Popen[str]:
        """Start it with one module of jobs."""
        self.write_jobs("naps", NAPS)
        return self.start_twistd("--listen", "unix:dangad.sock", "--jobs", "naps", *options)

    def dangad(self, *words: str) -> subprocess.Popen[str]:
        """The ``dangad`` command, running."""
        process = subprocess.Popen(
            [sys.executable, "-m", "dangad.cli", *words],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.kill)
        return process

    def test_drain(self) -> None:
        """`dangad drain` waits for the last job, prints the counters, and the server ends well."""
        process = self.serve()
        client = self.connect()
        client.sendall(nap(600) + nap(600, b"2") + PING)
        self.assertEqual(client.recv(len(PONG)), PONG)
        drain = self.dangad("drain")
        wait_for(lambda: "stopping: " in self.log())
        status, _ = self.dangad("status").communicate(timeout=PATIENCE)
        self.assertRegex(status, "state +draining")
        for order in (("scale", "2"), ("reload",)):
            refused = self.dangad(*order)
            self.assertEqual(refused.communicate(timeout=PATIENCE)[0], "")
            self.assertEqual(refused.returncode, 1)
        client.sendall(nap(0, b"3"))
        self.assertIn(b"SHUTTING_DOWN", client.recv(1000))
        client.close()
        output, _ = drain.communicate(timeout=PATIENCE)
        self.assertEqual(output, "drained: 0 done, 0 failed, 2 cancelled, 0 timed out, 0 lost\n")
        self.assertEqual((drain.returncode, process.wait(PATIENCE)), (0, 0))
        ends = "0 done, 0 failed, 0 lost, 2 cancelled, 0 timed out"
        self.assertIn(f"stopped: 2 jobs accepted: {ends}; 1 refused", self.log())

    def seen(self, *options: str) -> str:
        """What a job sees of its process."""
        self.serve(*options)
        answer = self.ask(b"\0\4_ask\0\0011\0\x08_command\0\4Look\0\0")
        return answer.partition(b"seen")[2][2:].rstrip(b"\0").decode()

    def test_worker_settings(self) -> None:
        """Niceness, umask, directory, path, and an environment of what is kept and set."""
        elsewhere, library = self.folder / "elsewhere", self.folder / "library"
        elsewhere.mkdir()
        library.mkdir()
        self.environment["SECRET"] = "token"
        seen = self.seen(
            *("--worker-nice", "3", "--worker-umask", "027", "--worker-directory", "elsewhere"),
            *("--worker-keep-env", "PATH", "--worker-keep-env", "PYTHONPATH"),
            *("--worker-env", "COLOUR=light=blue", "--worker-path", "library"),
        )
        what, _, names = seen.partition(" names ")
        nice = min(os.nice(0) + 3, 19)
        self.assertRegex(
            what, rf"^nice {nice} umask 27 ids \S+ in {elsewhere.resolve()} light=blue"
        )
        self.assertIn(str(library), what)
        marks = {"DANGAD_WORKER_OF", "LC_CTYPE"}  # the server's, and Python's own
        self.assertEqual(set(names.split()) - marks, {"COLOUR", "PATH", "PYTHONPATH"})

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
