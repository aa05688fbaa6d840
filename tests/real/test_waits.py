"""Wherever a job waits, its time limit, its deadline and its client's cancel reach it there.

Each once in the suite. For as often as is wanted, in all ways, since what goes wrong here does so
now and then: ``DANGAD_WAITS=200 pytest -o faulthandler_timeout=0 tests/real/test_waits.py``.
"""

import os
from pathlib import Path

import pytest

from tests.blockingpeer import BlockingPeer, code_of
from tests.twistdserver import TextServer, text_server, wait_for

TIMES = int(os.environ.get("DANGAD_WAITS", "0"))
"""How often each is to happen in each way; 0 for once, in one."""

WAITS = {
    "sleep": "import time; time.sleep(60)",
    "lock": "import threading; lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "condition": "import threading\nwith (c := threading.Condition()): c.wait()",
    "semaphore": "import threading; threading.Semaphore(0).acquire()",
    "queue": "import queue; queue.Queue().get()",
    "simple queue": "import queue; queue.SimpleQueue().get()",
    "future": "import concurrent.futures; concurrent.futures.Future().result()",
    "join": """\
import threading, time
thread = threading.Thread(target=time.sleep, args=(60,), daemon=True)
thread.start()
thread.join()""",
    "select": "import os, select; r, w = os.pipe(); select.select([r], [], [])",
    "select that is retried": """\
import os, select
r, w = os.pipe()
while True:
    try:
        select.select([r], [], [])
    except InterruptedError:
        pass""",
    "read": "import os; r, w = os.pipe(); os.read(r, 1)",
    "recv": "import socket; a, b = socket.socketpair(); a.recv(1)",
    "child": "import subprocess; subprocess.run(['sleep', '60'])",
    "waitpid": """\
import os, time
child = os.fork()
if not child:
    time.sleep(60)
    os._exit(0)
os.waitpid(child, 0)""",
    "file lock": """\
import fcntl, tempfile
with tempfile.NamedTemporaryFile() as file, open(file.name) as other:
    fcntl.flock(file, fcntl.LOCK_EX)
    fcntl.flock(other, fcntl.LOCK_EX)""",
    "C, which comes back on a signal": "import ctypes\nwhile True: ctypes.CDLL(None).pause()",
    "asyncio": "import asyncio; asyncio.run(asyncio.sleep(60))",
    "loop": "n = 0\nwhile True: n += 1",
}
"""What a job does for ever, or for a minute.

A loop may not come first after a ``try``: CPython 3.11 takes an exception that is raised at its
jump back for one that was raised before the loop, and then before the ``try``.
"""

WAYS = {"limit": "TIMED_OUT", "deadline": "DEADLINE_PASSED", "cancel": "CANCELLED"}
"""How it is stopped, and what its client is told then."""

STORY = """\
try:
    open({path!r} + ".begun", "w").close()
{wait}
finally:
    open({path!r} + ".ended", "w").close()
"""


server = text_server(workers=3, grace=0.5)


def asked(peer: BlockingPeer, way: str, path: Path, wait: str) -> bytes:
    """Have a job begin to wait, and to be stopped; the tag of the request."""
    wait = "\n".join(f"    {line}" for line in wait.splitlines())
    code = STORY.format(path=str(path), wait=wait).encode()
    if way == "limit":
        return peer.ask(b"Limited", code=code)
    if way == "deadline":
        return peer.ask(b"Python", code=code, _deadline=b"1")
    tag = peer.ask(b"Python", code=code)
    wait_for(path.with_suffix(".begun").exists)
    peer.ask(b"dangad.Cancel", tag=tag)
    return tag


CASES = [
    (name, way)
    for number, name in enumerate(WAITS)
    for way in (WAYS if TIMES else [("limit", "limit", "cancel", "deadline")[number % 4]])
]


@pytest.mark.parametrize(("name", "way"), CASES)
def test_wait(server: TextServer, tmp_path: Path, name: str, way: str) -> None:
    """The job is interrupted where it waits, and may clean up; then its client is told."""
    peer = server.connect()
    missed = []
    for number in range(TIMES or 1):
        path = tmp_path / str(number)
        answer = peer.answer(asked(peer, way, path, WAITS[name]))
        if code_of(answer) == "DEADLINE_PASSED" and not path.with_suffix(".begun").exists():
            continue  # on a machine that is busy it may not even have begun
        if code_of(answer) != WAYS[way] or not path.with_suffix(".ended").exists():
            missed.append((number, answer))
    peer.close()
    assert not missed, f"{len(missed)} of {TIMES or 1}"


def test_where_nothing_reaches_it(server: TextServer) -> None:
    """Where no signal gets through, in C that does not come back, the worker is killed for it."""
    peer = server.connect()
    code = b"""\
import ctypes
mutex, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
while True:
    libc.pthread_mutex_lock(mutex)"""
    assert code_of(peer.call(b"Limited", code=code)) == "TIMED_OUT"
    assert code_of(peer.call(b"Python", code=b"out = 1")) == "ok"
    peer.close()
