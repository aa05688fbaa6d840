"""Who is killed as a orphan, and who is not: with real processes, far from the tests' own."""

import json
import subprocess
import sys
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

PRELUDE = """
import json, os, signal, subprocess, sys, time
from dangad.host import descent
from dangad.host.descent import MARK_VARIABLE, children
from dangad.pool.orphans import Orphans, kill_group

def until(condition):
    deadline = time.monotonic() + 60
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return value

def alive(pid):
    return os.path.exists(f"/proc/{pid}")

def worker(program):
    "A leader of a process group that runs the program, prints an id, and waits for its end."
    process = subprocess.Popen(
        [sys.executable, "-c", "import os, subprocess, time\\n" + program + "\\nos.read(0, 1)"],
        env={**os.environ, MARK_VARIABLE: "mark"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0)
    return process, int(process.stdout.readline())

DAEMON = '''
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        time.sleep(600)
    os._exit(0)
os.wait()
'''

def tell(**facts):
    print(json.dumps(facts))

orphans = Orphans("mark")
"""


def run(program: str) -> dict[str, Any]:
    """What the program tells, run in a process that may kill all its children."""
    output = subprocess.run(
        [sys.executable, "-c", PRELUDE + program],
        capture_output=True,
        check=False,
        text=True,
        timeout=90,
    )
    if output.returncode:
        raise AssertionError(output.stderr)
    told: dict[str, Any] = json.loads(output.stdout)
    return told


class OrphansTests(SynchronousTestCase):
    """Plays the parent, in a process of its own."""

    def test_daemon(self) -> None:
        """A daemon whose worker is dead is killed, reaped, and named, once."""
        told = run("""
orphans.adopt()
dead, daemon = worker(DAEMON)
dead.kill()
dead.wait()
killed = orphans.sweep([])
until(lambda: orphans.sweep([]) == [] and not orphans.dying)
tell(killed=killed, daemon=daemon, alive=alive(daemon))
""")
        self.assertEqual(told["killed"], [told["daemon"]])
        self.assertFalse(told["alive"])

    def test_no_descriptors(self) -> None:
        """A look for which no descriptor is free is put off, and nobody is taken for a orphan."""
        told = run("""
import resource
elder = subprocess.Popen(["sleep", "600"])
orphans.adopt()
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
without = orphans.sweep([])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
after = orphans.sweep([])
tell(without=without, after=after, status=elder.poll())
elder.kill()
""")
        self.assertEqual(told, {"without": [], "after": [], "status": None})

    def test_family(self) -> None:
        """What a daemon has started goes too, one generation after the other."""
        told = run("""
orphans.adopt()
dead, grandchild = worker('''
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        subprocess.Popen(["sh", "-c", "echo $$; exec sleep 600"], process_group=0)
        time.sleep(600)
    os._exit(0)
os.wait()
''')
dead.kill()
dead.wait()
killed = []
def gone():
    killed.extend(orphans.sweep([]))
    return not orphans.dying and not alive(grandchild)
until(gone)
tell(killed=len(killed), last=killed[-1] == grandchild)
""")
        self.assertEqual(told, {"killed": 2, "last": True})

    def test_last_of_a_family(self) -> None:
        """When the server stops, it waits for the youngest generation, too."""
        told = run("""
from twisted.internet import defer, task
orphans.adopt()
dead, grandchild = worker('''
if os.fork() == 0:
    os.setsid()
    subprocess.Popen(["sh", "-c", "echo $$; exec sleep 600"], process_group=0)
    time.sleep(600)
os.read(0, 1)
''')
dead.kill()
dead.wait()
killed = []
async def stop(reactor):
    killed.extend(await orphans.sweep_out(reactor))
    tell(killed=len(killed), last=killed[-1] == grandchild, alive=alive(grandchild))
task.react(lambda reactor: defer.ensureDeferred(stop(reactor)))
""")
        self.assertEqual(told, {"killed": 2, "last": True, "alive": False})

    def test_own(self) -> None:
        """The parent's own children stay, dead or alive, and their status is theirs to tell."""
        told = run("""
orphans.adopt()
living = subprocess.Popen(["sleep", "600"])
dead = subprocess.Popen(["sh", "-c", "exit 7"])
os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
killed = orphans.sweep([living.pid, dead.pid])
tell(killed=killed, alive=living.poll(), status=dead.wait())
living.kill()
living.wait()
""")
        self.assertEqual(told, {"killed": [], "alive": None, "status": 7})

    def test_group_of_a_living_worker(self) -> None:
        """A process in the background of a living worker stays, though it has no other parent."""
        told = run("""
orphans.adopt()
living, background = worker('subprocess.run(["sh", "-c", "sleep 600 & echo $!"])')
until(lambda: background in children())
killed = orphans.sweep([living.pid])
tell(killed=killed, alive=alive(background))
os.killpg(living.pid, signal.SIGKILL)
living.wait()
until(lambda: orphans.sweep([]) == [] and not alive(background))
""")
        self.assertEqual(told, {"killed": [], "alive": True})

    def test_zombie(self) -> None:
        """One that is dead already is reaped, and not said to have been killed."""
        told = run("""
orphans.adopt()
dead, child = worker('subprocess.run(["sh", "-c", "sleep 600 & echo $!"])')
dead.kill()
dead.wait()
until(lambda: child in children())
os.kill(child, signal.SIGKILL)
os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
tell(killed=orphans.sweep([]), alive=alive(child))
""")
        self.assertEqual(told, {"killed": [], "alive": False})

    def test_children_from_before(self) -> None:
        """Children that the process had before it adopted any are not dangad's to kill."""
        told = run("""
elder = subprocess.Popen(["sleep", "600"])
orphans.adopt()
tell(killed=orphans.sweep([]), alive=elder.poll())
elder.kill()
elder.wait()
""")
        self.assertEqual(told, {"killed": [], "alive": None})

    def test_of_others(self) -> None:
        """What others have put in the background beside the server, as in a container, stays.

        When it has ended, it is reaped.
        """
        told = run("""
orphans.adopt()
other = int(subprocess.check_output("sleep 600 >/dev/null & echo $!", shell=True))
until(lambda: other in children())
dead, daemon = worker(DAEMON)
dead.kill()
dead.wait()
killed = orphans.sweep([])
until(lambda: orphans.sweep([]) == [] and not alive(daemon))
state = alive(other)
os.kill(other, signal.SIGKILL)
until(lambda: orphans.sweep([]) == [] and not alive(other))
tell(killed=killed == [daemon], alive=state)
""")
        self.assertEqual(told, {"killed": True, "alive": True})

    def test_clean_environment(self) -> None:
        """A daemon without any environment is known by the score that a worker hands down."""
        told = run("""
orphans.adopt()
dead, daemon = worker('''
open("/proc/self/oom_score_adj", "w").write("500")
print(subprocess.Popen(["sleep", "600"], env={}, start_new_session=True).pid, flush=True)
''')
dead.kill()
dead.wait()
killed = orphans.sweep([])
until(lambda: orphans.sweep([]) == [] and not orphans.dying)
tell(killed=killed == [daemon])
""")
        self.assertEqual(told, {"killed": True})

    def test_shared_memory(self) -> None:
        """What a killed worker and its pool have shared is removed, by a tracker that then ends."""
        told = run("""
orphans.adopt()
dead, pool = worker('''
import multiprocessing
from multiprocessing import shared_memory
memory = shared_memory.SharedMemory(create=True, size=100)
os.symlink(f"/dev/shm{memory._name}", f"/dev/shm/dangad-test-{os.getpid()}")
process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
process.start()
print(process.pid, flush=True)
''')
link = f"/dev/shm/dangad-test-{dead.pid}"
memory = os.readlink(link)
os.unlink(link)
before = os.path.exists(memory)
dead.kill()
dead.wait()
kill_group(dead.pid)
killed = []
def done():
    killed.extend(set(orphans.sweep([])) - {pool})  # which may not be dead yet
    return not orphans.dying and not os.path.exists(memory)
until(done)
tell(before=before, killed=killed, alive=alive(pool), children=list(children()))
""")
        self.assertEqual(told, {"before": True, "killed": [], "alive": False, "children": []})

    def test_where_nothing_is_known(self) -> None:
        """Nobody is killed before `adopt`, nor where the kernel does not tell who is a child."""
        told = run("""
child = subprocess.Popen(["sleep", "600"])
killed = orphans.sweep([])
child.kill()
child.wait()
orphans.adopt()
child = subprocess.Popen(["sleep", "600"])
descent.PROC = "/nowhere"
tell(killed=killed + orphans.sweep([]), alive=child.poll())
child.kill()
child.wait()
""")
        self.assertEqual(told, {"killed": [], "alive": None})
