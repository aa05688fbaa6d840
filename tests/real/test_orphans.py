"""Who is killed as an orphan, and who is not: with real processes, far from the tests' own."""

import subprocess
import sys

import pytest

from tests.twistdserver import PATIENCE

PRELUDE = """
import atexit, os, signal, subprocess, sys, time
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

def kill_children():
    descent.PROC = "/proc"
    for pid in children():
        os.kill(pid, signal.SIGKILL)

atexit.register(kill_children)
orphans = Orphans("mark")
"""

PROGRAMS = {
    # A daemon whose worker is dead is killed, reaped, and named, once.
    "daemon": """
orphans.adopt()
dead, daemon = worker(DAEMON)
dead.kill()
dead.wait()
killed = orphans.sweep([])
until(lambda: orphans.sweep([]) == [] and not orphans.dying)
assert killed == [daemon]
assert not alive(daemon)
""",
    # A look for which no descriptor is free is put off, and nobody is taken for an orphan.
    "no descriptors": """
import resource
elder = subprocess.Popen(["sleep", "600"])
orphans.adopt()
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
without = orphans.sweep([])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
after = orphans.sweep([])
assert (without, after, elder.poll()) == ([], [], None)
""",
    # What a daemon has started goes too, one generation after the other.
    "family": """
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
assert (len(killed), killed[-1]) == (2, grandchild)
""",
    # When the server stops, it waits for the youngest generation, too.
    "last of a family": """
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
    assert (len(killed), killed[-1], alive(grandchild)) == (2, grandchild, False)
task.react(lambda reactor: defer.ensureDeferred(stop(reactor)))
""",
    # The parent's own children stay, dead or alive, and their status is theirs to tell.
    "own": """
orphans.adopt()
living = subprocess.Popen(["sleep", "600"])
dead = subprocess.Popen(["sh", "-c", "exit 7"])
os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
killed = orphans.sweep([living.pid, dead.pid])
assert (killed, living.poll(), dead.wait()) == ([], None, 7)
""",
    # A process in the background of a living worker stays, though it has no other parent.
    "group of a living worker": """
orphans.adopt()
living, background = worker('subprocess.run(["sh", "-c", "sleep 600 & echo $!"])')
until(lambda: background in children())
killed = orphans.sweep([living.pid])
assert killed == []
assert alive(background)
os.killpg(living.pid, signal.SIGKILL)
living.wait()
until(lambda: orphans.sweep([]) == [] and not alive(background))
""",
    # One that is dead already is reaped, and not said to have been killed.
    "zombie": """
orphans.adopt()
dead, child = worker('subprocess.run(["sh", "-c", "sleep 600 & echo $!"])')
dead.kill()
dead.wait()
until(lambda: child in children())
os.kill(child, signal.SIGKILL)
os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
assert orphans.sweep([]) == []
assert not alive(child)
""",
    # Children that the process had before it adopted any are not dangad's to kill.
    "children from before": """
elder = subprocess.Popen(["sleep", "600"])
orphans.adopt()
assert (orphans.sweep([]), elder.poll()) == ([], None)
""",
    # What others have put in the background beside the server, as in a container, stays.
    # When it has ended, it is reaped.
    "of others": """
orphans.adopt()
other = int(subprocess.check_output("sleep 600 >/dev/null & echo $!", shell=True))
until(lambda: other in children())
dead, daemon = worker(DAEMON)
dead.kill()
dead.wait()
killed = orphans.sweep([])
until(lambda: orphans.sweep([]) == [] and not alive(daemon))
assert killed == [daemon]
assert alive(other)
os.kill(other, signal.SIGKILL)
until(lambda: orphans.sweep([]) == [] and not alive(other))
""",
    # A daemon without any environment is known by the score that a worker hands down.
    "clean environment": """
orphans.adopt()
dead, daemon = worker('''
open("/proc/self/oom_score_adj", "w").write("500")
print(subprocess.Popen(["sleep", "600"], env={}, start_new_session=True).pid, flush=True)
''')
dead.kill()
dead.wait()
killed = orphans.sweep([])
until(lambda: orphans.sweep([]) == [] and not orphans.dying)
assert killed == [daemon]
""",
    # What a killed worker and its pool have shared is removed, by a tracker that then ends.
    "shared memory": """
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
assert os.path.exists(memory)
dead.kill()
dead.wait()
kill_group(dead.pid)
killed = []
def done():
    killed.extend(set(orphans.sweep([])) - {pool})  # which may not be dead yet
    return not orphans.dying and not os.path.exists(memory)
until(done)
assert (killed, alive(pool), list(children())) == ([], False, [])
""",
    # Nobody is killed before `adopt`, nor where the kernel does not tell who is a child.
    "where nothing is known": """
child = subprocess.Popen(["sleep", "600"])
killed = orphans.sweep([])
child.kill()
child.wait()
orphans.adopt()
child = subprocess.Popen(["sleep", "600"])
descent.PROC = "/nowhere"
assert (killed, orphans.sweep([]), child.poll()) == ([], [], None)
""",
}
"""What plays the parent, in a process of its own, which may kill all its children."""


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_orphans(program: str) -> None:
    """Who is killed, reaped and named is as the program says."""
    subprocess.run([sys.executable, "-c", PRELUDE + program], check=True, timeout=PATIENCE)
