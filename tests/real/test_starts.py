"""Starts of a server that fail, or are made hard: each ends in time, with one line that helps.

The tables grew from what operators of servers like this one have reported. A new situation is a
row: what the modules are like or how the program is started, and what is said.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field

from twisted.trial.unittest import SynchronousTestCase

from dangad.server import acceptgate
from dangad.server.acceptgate import Descriptors
from tests.real.test_twistd import GOOD_JOBS, TWISTD, TwistdCase, nap
from tests.realserver import alive
from tests.twistdserver import PATIENCE, wait_for

NOTE = """
import os
with open("pids", "a") as file:
    file.write(f"{os.getpid()}\\n")
"""
"""How a module begins that tells which processes import it."""

AT_EXIT = "import atexit, time; atexit.register(time.sleep, 600)"
THREAD = "import threading, time; threading.Thread(target=time.sleep, args=(600,)).start()"
BACKGROUND = """
import subprocess
for command in (["sleep", "600"], ["setsid", "-f", "sleep", "600"]):
    subprocess.Popen(command)
"""


@dataclass(frozen=True)
class Start:
    """A situation in which the server is started.

    :ivar says: a pattern of the one line that it says instead of starting.
    :ivar jobs: what stands before a good module of jobs.
    :ivar options: options of ``twistd dangad``.
    :ivar before: Python code that runs before twistd does.
    :ivar shell: shell commands that go before that.
    :ivar variables: of the environment.
    :ivar prints: what is printed before the line; nothing by default.
    """

    says: str = ""
    jobs: str = ""
    options: tuple[str, ...] = ()
    before: str = ""
    shell: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    prints: str = ""


FAILS = {
    "a module that never ends": Start(
        r"the job modules \(odd\) were not imported within 3 s; .*--start-timeout",
        jobs="import time\ntime.sleep(600)",
        options=("--start-timeout", "3"),
        prints=r'File ".*odd\.py", line \d+ in <module>',
    ),
    "a module that ends its process": Start(
        r"the job modules \(odd\) could not be checked: .* with status 0", jobs="os._exit(0)"
    ),
    "a module that crashes": Start(
        r"the job modules \(odd\) could not be checked: .* in SIGSEGV",
        jobs="os.kill(os.getpid(), 11)",
        prints="Segmentation fault",
    ),
    "a module that prints much, leaves a thread, and fails": Start(
        r"cannot be served: ValueError: enough \(.*odd\.py, line \d+\)",
        jobs=f"{THREAD}\nprint('x' * 10**6)\nraise ValueError('enough')",
        prints=r"ValueError: enough",
    ),
    "a module that reads from the terminal, and PYTHONINSPECT": Start(
        "cannot be served: EOFError: EOF when reading a line",
        jobs="input()",
        variables={"PYTHONINSPECT": "1"},
        prints="EOFError",
    ),
    "a limit of memory that is less than a worker has": Start(
        r"a worker has \d+ MiB of memory before its first job, where --max-memory is 10 MiB: raise",
        options=("--max-memory", "10M"),
    ),
    "a limit of memory that is less than the import needs": Start(
        r"cannot be served: MemoryError, where --max-memory is 1\.0 KiB: raise it",
        jobs="bytearray(2**23)",
        options=("--max-memory", "1k"),
        prints="MemoryError",
    ),
    "a worker that would be replaced for ever": Start(
        r"a worker has \d+ MiB of memory before its first job, where --recycle-memory is 10 MiB",
        options=("--recycle-memory", "10M"),
    ),
    "an interpreter that cannot be run": Start(
        r"no worker can be started: .*/python: Permission denied",
        before=(
            "import os, sys\n"
            "open('python', 'w').close()\n"
            "sys.executable = os.path.abspath('python')"
        ),
    ),
    "a working directory that is gone": Start(
        "the working directory cannot be used: No such file or directory; start from one that",
        shell="mkdir gone; cd gone; rmdir ../gone",
    ),
    "few open files": Start(
        r"the hard limit of 100 open files is too low: 112 are the least .*\(ulimit -Hn, LimitNO",
        shell="ulimit -n 100",
    ),
    "what nobody has thought of": Start(
        "cannot start: RuntimeError: a defect; see --traceback",
        before=(
            "from dangad.pool.guardian import Guardian\n"
            "def start(self): raise RuntimeError('a defect')\n"
            "Guardian.start = start"
        ),
    ),
}

SERVES = {
    "a module that leaves a thread, and programs in the background": Start(
        jobs=f"{THREAD}\n{BACKGROUND}"
    ),
    "a module with much to do at exit, PYTHONINSPECT, and a long PYTHONPATH": Start(
        jobs=AT_EXIT,
        variables={
            "PYTHONINSPECT": "1",
            "PYTHONPATH": ":".join(["/nowhere/" + "x" * 900] * 100),
        },
    ),
    "a limit of memory that is less than the modules that workers share": Start(
        jobs="data = bytearray(2**26)", options=("--preload", "--max-memory", "40M")
    ),
    "a soft limit of few open files": Start(shell="ulimit -Sn 60"),
    "a hard limit of few open files": Start(shell="ulimit -n 150"),
    "a file beyond the limit": Start(
        before=(
            "import os, resource\n"
            "os.dup2(os.open(os.devnull, 0), 400)\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))"
        )
    ),
}


class StartCase(TwistdCase):
    """Starts a server in a situation."""

    def prepare(self, start: Start) -> list[str]:
        """Make the situation; gives the command line."""
        self.write_jobs("odd", f"{NOTE}\n{start.jobs}\n{GOOD_JOBS}")
        own = self.environment["PYTHONPATH"]
        self.environment.update(start.variables)
        if "PYTHONPATH" in start.variables:
            self.environment["PYTHONPATH"] = f"{own}:{start.variables['PYTHONPATH']}"
        program = f"{start.before}\n{TWISTD[-1]}" if start.before else TWISTD[-1]
        options = ("--pidfile=", "dangad", "--jobs", "odd", "--listen", f"unix:{self.folder}/s")
        control = ("--control", f"unix:{self.folder}/c")
        words = [sys.executable, "-P", "-c", program, "-n", *options, *control, *start.options]
        if not start.shell:
            return words
        return ["sh", "-c", f'{start.shell}; exec "$@"', "sh", *words]

    def importers(self) -> list[int]:
        """The processes that have imported the module, in order."""
        path = self.folder / "pids"
        return [int(line) for line in path.read_text().split()] if path.exists() else []


class FailingTests(StartCase):
    """Starts that fail."""

    def test_table(self) -> None:
        """Each ends with status 1 and one line that names what to change, and leaves nothing."""
        for title, start in FAILS.items():
            with self.subTest(title):
                self.setUp()
                result = self.run_program(self.prepare(start))
                *before, line = result.stderr.splitlines()
                self.assertEqual(result.returncode, 1, result.stderr)
                self.assertRegex(line, f"^twistd dangad: .*{start.says}")
                self.assertRegex("\n".join(before), start.prints or "^$")
                self.assertNotIn("twisted/scripts", result.stderr)
                self.assertFalse([pid for pid in self.importers() if alive(pid)])

    def test_ended_meanwhile(self) -> None:
        """A signal in the middle of the check ends the server and the check, with one line.

        If it is SIGKILL there is none, but the check is gone, too.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL):
            with self.subTest(number):
                self.setUp()
                process = self.start_program(self.prepare(Start(jobs=f"{THREAD}\ntime.sleep(600)")))
                (checking,) = wait_for(self.importers)
                process.send_signal(number)
                self.assertEqual(process.wait(PATIENCE), -number)
                says = rf"twistd dangad: ended by {number.name} while the job modules \(odd\) .*\n"
                says = "" if number == signal.SIGKILL else says
                self.assertRegex(
                    self.log(), f"^twistd dangad: checking the job modules: odd\n{says}$"
                )
                wait_for(lambda checking=checking: not alive(checking))


class ServingTests(StartCase):
    """Starts that are made hard, and do not fail."""

    def test_table(self) -> None:
        """The server serves in each of these situations, and nothing of its check is left."""
        for title, start in SERVES.items():
            with self.subTest(title):
                self.setUp()
                process = self.start_program(self.prepare(start))
                wait_for(lambda process=process: self.ready_workers() or process.poll() is not None)
                self.assertEqual(self.ask(nap(0), "s"), b"\0\7_answer\0\0011\0\0", self.log())
                checking, *_ = self.importers()
                self.assertFalse(alive(checking))
                self.assertNotIn("Traceback", self.log())

    def test_programs_of_the_check(self) -> None:
        """What the modules start in the background is gone with the check."""
        note = "\nwith open('programs', 'a') as file:\n    print(program.pid, file=file)\n"
        jobs = "import subprocess\nprogram = subprocess.Popen(['sleep', '600'])" + note
        self.start_program(self.prepare(Start(jobs=jobs)))
        wait_for(self.ready_workers)
        of_check, of_worker = (self.folder / "programs").read_text().split()
        self.assertEqual((alive(int(of_check)), alive(int(of_worker))), (False, True))

    def test_daemon_without_standard_streams(self) -> None:
        """A daemon starts where descriptors 0 to 2 are closed, and tells by its status."""
        command = 'exec "$@" <&- >&- 2>&-'
        words = ["sh", "-c", command, "sh", *TWISTD, "dangad", "--listen", "unix:s"]
        for arguments, status in ((), 0), (("--jobs", "nowhere"), 1):
            done = subprocess.run(
                [*words, "--control", "unix:c", *arguments],
                cwd=self.folder,
                env=self.environment,
                timeout=PATIENCE,
                check=False,
            )
            self.assertEqual(done.returncode, status)
            if not status:
                pid = int((self.folder / "twistd.pid").read_text())
                try:
                    wait_for(lambda: self.ready_workers("twistd.log"))
                finally:
                    os.kill(pid, signal.SIGTERM)
                wait_for(lambda pid=pid: not alive(pid))


class WorkerTests(StartCase):
    """Workers that cannot start any more, in a server that runs."""

    def lose(self, says: str) -> None:
        """Kill the worker, and wait for the reason why there is no other."""
        os.kill(self.ready_workers()[-1], signal.SIGKILL)
        wait_for(lambda: re.search(f"in a row failed: .*{says}; next try ", self.log()))

    def test_directory(self) -> None:
        """While the working directory is gone the reason names it; it may be made anew."""
        home = self.folder / "home"
        home.mkdir()
        variables = {"PYTHONPATH": str(self.folder)}
        self.start_program(self.prepare(Start(shell="cd home", variables=variables)))
        wait_for(self.ready_workers)
        shutil.rmtree(home)
        home.mkdir()
        os.kill(self.ready_workers()[0], signal.SIGKILL)
        wait_for(lambda: len(self.ready_workers()) == 2)
        shutil.rmtree(home)
        self.lose(
            "could not start: the working directory .*/home cannot be used: No such file or dir.*"
        )
        home.mkdir()
        wait_for(lambda: len(self.ready_workers()) == 3)

    def test_interpreter(self) -> None:
        """If the interpreter is gone the reason names it."""
        link = "os.symlink(sys.executable, 'python'); sys.executable = os.path.abspath('python')"
        options = ("--start", "fresh")
        self.start_program(self.prepare(Start(before=f"import sys, os; {link}", options=options)))
        wait_for(self.ready_workers)
        (self.folder / "python").unlink()
        self.lose("no process can be started: No such file or directory: .*/python")

    def test_ends_without_a_word(self) -> None:
        """If a module ends its process the reason is what it has printed last."""
        self.start_program(self.prepare(Start()))
        wait_for(self.ready_workers)
        self.write_jobs("odd", "import os\nprint('no licence', flush=True)\nos._exit(3)")
        shutil.rmtree(self.folder / "__pycache__", ignore_errors=True)
        self.lose(r"exited \(status 3\) before it was ready; it printed last: no licence")


class DescriptorsTests(SynchronousTestCase):
    """The open files of this process."""

    def test_without_proc(self) -> None:
        """Where the system does not list them, they are counted by their numbers."""
        self.patch(acceptgate, "OPEN_FILES", "/nowhere")
        last = max(map(int, os.listdir("/proc/self/fd")))
        while (filler := os.open(os.devnull, os.O_RDONLY)) < last:  # no number is left out
            self.addCleanup(os.close, filler)
        self.addCleanup(os.close, filler)
        descriptors = Descriptors()
        before = descriptors.open_now()
        with open(os.devnull):
            self.assertEqual(descriptors.open_now(), before + 1)
