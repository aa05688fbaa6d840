"""A job whose process traces its worker, see ptrace(2), ends in its time, and keeps no worker."""

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.blockingpeer import code_of
from tests.realserver import alive
from tests.twistdserver import TextServer, text_server, wait_for

SEIZE = """\
import ctypes, os, signal, time
libc = ctypes.CDLL(None, use_errno=True)
worker, any_may, trace_exit = os.getpid(), ctypes.c_ulong(-1), 0x40
libc.prctl(0x59616D61, any_may, 0, 0, 0)

def trace(pid, how, options=0):
    libc.ptrace.argtypes = [ctypes.c_long] * 4
    if libc.ptrace(how, pid, 0, options):
        os._exit(ctypes.get_errno())

def seize(pid, options=0):
    trace(pid, 0x4206, options)

def attach(pid):
    trace(pid, 16)
    os.waitpid(pid, 0x40000000)

def tell(path):
    with open(path, "a") as file:
        print(os.getpid(), file=file)

def tracer(pid):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("TracerPid:"))
"""
"""What tracers have in common. Their names are ptrace's own; each ends by itself in ten minutes."""
WAITS = """
while not tracer(worker):
    if os.waitpid(-1, os.WNOHANG)[0]:
        raise RuntimeError("the tracer has ended")
    time.sleep(0.01)
time.sleep(600)
"""
KINDS = {
    "in its group": """
if not os.fork():
    tell(PATH)
    attach(worker)
    time.sleep(600)
""",
    "in a session of its own, and keeps it from its exit": """
if not os.fork():
    os.setsid()
    tell(PATH)
    seize(worker, trace_exit)
    time.sleep(600)
""",
    "that hides where it comes from": """
if not os.fork():
    os.setsid()
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("0")
    tell(PATH)
    seize(worker)
    os.execve("/bin/sleep", ["sleep", "600"], {})
""",
    "that is traced itself": """
if not os.fork():
    os.setsid()
    me = os.getpid()
    libc.prctl(0x59616D61, any_may, 0, 0, 0)
    tell(PATH)
    if not os.fork():
        os.setsid()
        tell(PATH)
        seize(me, trace_exit)
        time.sleep(600)
    while not tracer(me):
        time.sleep(0.01)
    seize(worker, trace_exit)
    time.sleep(600)
""",
}
"""Processes that a job starts, which write their ids to a file and trace the worker."""


def is_allowed() -> bool:
    """Whether a process may trace the one that has started it, on this machine."""
    program = f"{SEIZE}\nchild = os.fork()\nif not child: seize(worker); os._exit(0)\n"
    program += "os._exit(os.waitpid(child, 0)[1] != 0)"
    return subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


server = text_server(grace=0.3)


def started(path: Path) -> list[int]:
    """The processes that have written their ids there."""
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def call(server: TextServer, command: bytes, code: str) -> str:
    """The code of the error with which a job ends that runs this Python, or "ok"."""
    with contextlib.closing(server.connect()) as peer:
        return code_of(peer.call(command, code=code.encode()))


@pytest.mark.skipif(not is_allowed(), reason="ptrace is forbidden on this machine")
@pytest.mark.parametrize("kind", KINDS)
def test_traced_by_its_own(server: TextServer, tmp_path: Path, kind: str) -> None:
    """A job with a tracer of its own making is over at its limit; another has its worker then."""
    path = tmp_path / "pids"
    code = f"PATH = {str(path)!r}\n{SEIZE}{KINDS[kind]}{WAITS}"
    assert call(server, b"Limited", code) == "TIMED_OUT"
    assert call(server, b"Python", "out = 42") == "ok"
    pids = started(path)
    assert pids
    wait_for(lambda: not any(map(alive, pids)))


@pytest.mark.skipif(not is_allowed(), reason="ptrace is forbidden on this machine")
def test_traced_by_an_operator(server: TextServer, tmp_path: Path) -> None:
    """An operator's debugger is left alone; the log tells who keeps the job from its end."""
    path = tmp_path / "pids"
    with contextlib.closing(server.connect()) as peer:
        code = f"{SEIZE}\ntell({str(path)!r})\ntime.sleep(600)"
        tag = peer.ask(b"Limited", code=code.encode())
        wait_for(lambda: started(path))
        (worker,) = started(path)
        program = f"{SEIZE}\nseize({worker})\nprint(flush=True)\ntime.sleep(600)"
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as debugger:
            assert debugger.stdout is not None
            debugger.stdout.readline()
            wait_for(lambda: f"[{debugger.pid}], which trace it" in server.log())
            assert debugger.poll() is None
            debugger.kill()
        assert code_of(peer.answer(tag)) == "TIMED_OUT"
