"""The processes that jobs start: they live and work as anywhere, and are gone when the job is."""

import ast
import os
import re
import tempfile
from collections.abc import Iterator

import pytest

from tests.blockingpeer import BlockingPeer, code_of, text_of
from tests.twistdserver import TextServer, text_server, wait_for

POOLS = {
    f"{kind} by {method}": f"""
import multiprocessing, concurrent.futures
by = multiprocessing.get_context({method!r})
{code}
"""
    for method in ("fork", "spawn", "forkserver")
    for kind, code in {
        "Process": """
process = by.Process(target=abs, args=(-1,))
process.start(); process.join(); out = process.exitcode, process.pid
""",
        "Pool": """
with by.Pool(2) as pool:
    out = sum(pool.map(abs, range(-9, 0))) - 45, *(process.pid for process in pool._pool)
""",
        "ProcessPoolExecutor": """
with concurrent.futures.ProcessPoolExecutor(2, by) as pool:
    out = sum(pool.map(abs, range(-9, 0))) - 45, *pool._processes
""",
        "Manager": """
with by.Manager() as manager:
    seen = manager.list([1]); seen.append(2)
    out = len(seen) - 2, manager._process.pid
""",
    }.items()
}
"""What is of use to a job in good order: `out` is 0 and the ids of the processes that it had."""

LEFT = {
    "a program": "import subprocess; out = [subprocess.Popen(['sleep', '600']).pid]",
    "a program in the background of a shell": """
import subprocess
out = [int(subprocess.check_output("sleep 600 >/dev/null 2>&1 & echo $!", shell=True))]
""",
    "a program in a session of its own": """
import subprocess
out = [subprocess.Popen(['sleep', '600'], start_new_session=True).pid]
""",
    "a daemon and what it has started": """
import os, subprocess
read, write = os.pipe()
if not os.fork():
    os.setsid()
    if not os.fork():
        program = subprocess.Popen(['sleep', '600'], start_new_session=True)
        os.write(write, b"%d, %d" % (os.getpid(), program.pid))
        os.execvp('sleep', ['sleep', '600'])
    os._exit(0)
os.wait()
out = list(eval(os.read(read, 100)))
""",
    "a process that ignores signals": """
import os, signal, time
read, write = os.pipe()
pid = os.fork()
if not pid:
    signal.pthread_sigmask(signal.SIG_SETMASK, range(1, signal.NSIG))
    os.write(write, b"!")
    time.sleep(600)
os.read(read, 1)
out = [pid]
""",
    "a pool that nobody has closed": """
import multiprocessing
kept['pool'] = multiprocessing.get_context('fork').Pool(2)
out = [process.pid for process in kept['pool']._pool]
""",
    "a process of the fork server": """
import multiprocessing, time
process = multiprocessing.get_context('forkserver').Process(target=time.sleep, args=(600,))
process.start()
out = [process.pid]
""",
    "a manager": """
import multiprocessing
kept['manager'] = multiprocessing.get_context('fork').Manager()
out = [kept['manager']._process.pid]
""",
}
"""What a job leaves running: `out` is their ids."""

DEAD = {
    "a child": "import os; out = [os.spawnlp(os.P_NOWAIT, 'true', 'true')]",
    "many in the background of a shell": """
import subprocess
out = subprocess.check_output("for i in 1 2 3; do true & echo $!; done", shell=True)
out = list(map(int, out.split()))
""",
    "one that nobody has joined": """
import multiprocessing
process = multiprocessing.get_context('fork').Process(target=abs, args=(1,))
process.start()
kept['process'] = process
out = [process.pid]
""",
}
"""What a job leaves that ends by itself, and for which it has not waited: `out` is their ids."""

ALONE = """
import multiprocessing, os
try:
    out = os.wait()
except ChildProcessError:
    out = multiprocessing.active_children()
"""
"""Says whether a job has any child."""


server = text_server()


@pytest.fixture
def peer(server: TextServer) -> Iterator[BlockingPeer]:
    """A client."""
    connected = server.connect()
    yield connected
    connected.close()


def ask(peer: BlockingPeer, code: str) -> list[int]:
    """What the job answers, numbers."""
    answer = peer.call(b"Python", code=code.encode())
    assert code_of(answer) == "ok", text_of(answer)
    return list(ast.literal_eval(answer[b"out"].decode()))


def gone(pids: list[int]) -> bool:
    """Whether there is none of these processes, not even as a zombie."""
    return not [pid for pid in pids if os.path.exists(f"/proc/{pid}")]


@pytest.mark.parametrize("code", POOLS.values(), ids=POOLS)
def test_in_good_order(server: TextServer, peer: BlockingPeer, code: str) -> None:
    """Pools and processes work in a job, which then has no processes, and costs no worker."""
    before = len(server.log())
    rest, *pids = ask(peer, code)
    assert rest == 0
    assert gone(pids)
    assert ask(peer, ALONE) == []
    assert "is replaced" not in server.log()[before:]


@pytest.mark.parametrize("code", LEFT.values(), ids=LEFT)
def test_left_running(server: TextServer, peer: BlockingPeer, code: str) -> None:
    """What a job has left running is gone when its client is told; the next job has a new worker.

    The log names them.
    """
    before = len(server.log())
    pids = ask(peer, code)
    assert pids
    assert gone(pids)
    assert ask(peer, ALONE) == []
    [named] = re.findall(r"has left processes running, .*: (\d.*);", server.log()[before:])
    assert set(pids) <= {int(each.split(" (")[0]) for each in named.split(", ")}
    assert "(python" in named or "(sleep)" in named or "(sh)" in named


@pytest.mark.parametrize("code", DEAD.values(), ids=DEAD)
def test_left_dead(server: TextServer, peer: BlockingPeer, code: str) -> None:
    """What ends by itself, and is not waited for, is reaped, and nobody is told."""
    before = len(server.log())
    pids = ask(peer, code)
    assert gone(pids)
    assert ask(peer, ALONE) == []
    assert "left processes running" not in server.log()[before:]


def test_shared_memory(server: TextServer, peer: BlockingPeer) -> None:
    """Shared memory that a job has left is removed, and the log says so; the worker stays."""
    answer = peer.call(
        b"Python",
        code=b"""
from multiprocessing import shared_memory
memory = kept['memory'] = shared_memory.SharedMemory(create=True, size=100)
out = memory._name
""",
    )
    assert code_of(answer) == "ok", text_of(answer)
    assert not os.path.exists("/dev/shm" + ast.literal_eval(answer[b"out"].decode()))
    assert ask(peer, "out = [len(kept['memory'].buf) >= 100]") == [True]
    assert "leaked shared_memory" in server.log()


def test_shared_memory_of_the_dead(peer: BlockingPeer) -> None:
    """That of a job whose worker is killed is removed, too."""
    answer = peer.call(
        b"Python",
        code=b"""
import os, signal
from multiprocessing import shared_memory
memory = shared_memory.SharedMemory(create=True, size=100)
print("shares", memory._name, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
""",
    )
    assert code_of(answer) == "WORKER_LOST"
    [name] = re.findall(r"shares (/\w+)", text_of(answer))
    wait_for(lambda: not os.path.exists("/dev/shm" + name))


def test_of_a_module() -> None:
    """A pool that a job module starts on import lives as long as its worker, and so does memory."""
    with tempfile.TemporaryDirectory() as folder:
        server = TextServer(folder, "tests.poolingjobs")
        peer = server.connect()
        first, second = (peer.call(b"Pooled") for _ in range(2))
        assert first[b"worker"] == second[b"worker"]
        assert first[b"pid"] == second[b"pid"]
        memory = "/dev/shm" + first[b"memory"].decode()
        assert os.path.exists(memory)
        peer.close()
        server.stop()
        assert not os.path.exists(memory)
        assert gone([int(first[b"pid"]), int(first[b"worker"])])
