"""Real workers whose pipes are closed, or read by what should not."""

import re
from pathlib import Path

from tests.blockingpeer import code_of, text_of
from tests.twistdserver import TextServer, text_server

server = text_server("function")


AT_EXIT = """\
import atexit, time
def flush():
    time.sleep(0.5)
    open({path!r}, "w").close()
atexit.register(flush)
"""
IN_THREAD = """\
from twisted.internet.threads import deferToThread
async def main():
    return await deferToThread(int, "42")
"""


def test_exits_in_peace(server: TextServer, tmp_path: Path) -> None:
    """A worker has time to exit, and does, whatever its jobs have left: nothing is killed."""
    mark = tmp_path / "mark"
    peer = server.connect()
    answer = peer.call(b"Python", code=AT_EXIT.format(path=str(mark)).encode())
    assert code_of(answer) == "ok", text_of(answer)
    answer = peer.call(b"Asynchronous", code=IN_THREAD.encode())
    assert answer[b"out"] == b"42", text_of(answer)
    peer.close()
    server.stop()
    assert mark.exists()
    assert re.search(r"worker \d+ exited \(status 0\); it had done 2 jobs", server.log())
    assert "killed" not in server.log()


ASYNC = """\
import fcntl, os, signal
for fd in range(300):
    try:
        fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
    except OSError:
        pass
signal.signal(signal.SIGIO, lambda *_: 1 / 0)
out = os.getpid()
"""


def test_signals_of_pipes(server: TextServer) -> None:
    """Pipes that a job has made to send signals kill, and disturb, no later job."""
    peer = server.connect()
    pid = peer.call(b"Python", code=ASYNC.encode())[b"out"]
    for _ in range(3):
        answer = peer.call(b"Python", code=b"import os; out = os.getpid(), len('x' * 100_000)")
        assert answer[b"out"] == b"(%s, 100000)" % pid, text_of(answer)
    peer.close()


READ_ALL = """\
import fcntl, os, stat, termios, threading
def is_for_jobs(fd):
    try:
        return stat.S_ISFIFO(os.fstat(fd).st_mode) and not fcntl.fcntl(fd, fcntl.F_GETFL) & 3
    except OSError:
        return False
def read(fd):
    while os.read(fd, 65536):
        pass
for fd in filter(is_for_jobs, range(3, 300)):
    if os.get_blocking(fd):
        threading.Thread(target=read, args=(fd,), daemon=True).start()
        out = True
"""


def test_read_by_a_job(server: TextServer) -> None:
    """What a job leaves behind may read the jobs after it, which end soon, and then no more."""
    peer = server.connect()
    assert peer.call(b"Python", code=READ_ALL.encode())[b"out"] == b"True"
    tags = [peer.ask(b"Python", code=b"out = 42") for _ in range(20)]
    ends = [peer.answer(tag) for tag in tags]
    lost = [text_of(end) for end in ends if code_of(end) != "ok"]
    assert lost
    assert all(re.search("that something else had read|wrote garbage", text) for text in lost)
    assert [end[b"out"] for end in ends if code_of(end) == "ok"] == [b"42"] * (20 - len(lost))
    assert peer.call(b"Python", code=b"out = 42")[b"out"] == b"42"
    peer.close()
