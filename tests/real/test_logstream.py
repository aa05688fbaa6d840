"""The log goes on when its reader does not, and says what is missing."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import tempfile
import threading
import tty
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from dangad.host.logstream import MAX_WAITING, LogStream
from tests.blockingpeer import BlockingPeer, code_of

INTERRUPTED = """
import os, signal, sys, time, tty
from dangad.host.logstream import LogStream
reading, writing = os.pipe() if sys.argv[1] == "pipe" else os.openpty()
if sys.argv[1] == "terminal":
    tty.setraw(writing)
stream, lines, interruptions, read = LogStream(writing), 0, 0, b""

def interrupt(*_):
    global interruptions
    stream.write("signal\\n")
    interruptions += 1

os.set_blocking(reading, False)
signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
end = time.monotonic() + 1.0
while time.monotonic() < end:
    stream.write("line\\n")
    lines += 1
    if lines % 100 == 0:
        try:
            read += os.read(reading, 2**16)
        except BlockingIOError:
            pass
signal.setitimer(signal.ITIMER_REAL, 0)
while len(read) < 5 * lines + 7 * interruptions:
    try:
        read += os.read(reading, 2**16)
    except BlockingIOError:
        time.sleep(0.001)
print(read.decode(), f"{lines}/{interruptions}")
"""
"""A program that writes, and whose handler of a signal that comes all the time writes, too."""
PATIENCE = 60
"""Seconds after which the thread is taken for hung."""


class LogStreamTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A pipe of one page."""
        self.reading, self.writing = os.pipe()
        fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, 4096)
        self.addCleanup(os.close, self.reading)

    def read(self, size: int) -> bytes:
        """So many bytes from the pipe, or what there is before its end."""
        data = b""
        while len(data) < size and (more := os.read(self.reading, size - len(data))):
            data += more
        return data

    def test_at_once(self) -> None:
        """What the reader has room for is written before `write` returns, and by no thread."""
        stream = LogStream(self.writing)
        self.assertEqual(stream.write("eins\n"), 5)
        self.assertEqual(os.read(self.reading, 100), b"eins\n")
        self.assertIsNone(stream._thread)
        os.close(self.writing)

    def test_reader_that_stops(self) -> None:
        """What a reader does not read waits, in order, and is there once it reads again."""
        stream = LogStream(self.writing)
        lines = [f"line {number}\n" for number in range(5000)]
        for line in lines:
            stream.write(line)
        whole = "".join(lines).encode()
        self.assertEqual(self.read(len(whole)), whole)
        os.close(self.writing)

    def test_handlers_of_signals(self) -> None:
        """A handler may write in the middle of a write, wherever: nothing hangs or is lost."""
        for how in ("pipe", "terminal"):
            with self.subTest(how):
                done = subprocess.run(
                    [sys.executable, "-c", INTERRUPTED, how],
                    check=True,
                    stdout=subprocess.PIPE,
                    timeout=PATIENCE,
                )
                *numbers, counts = done.stdout.split()
                lines, interruptions = map(int, counts.split(b"/"))
                self.assertGreater(interruptions, 10)
                self.assertEqual(sum(each == b"line" for each in numbers), lines)
                self.assertEqual(sum(each == b"signal" for each in numbers), interruptions)

    def test_bound(self) -> None:
        """Beyond the bound events are dropped, and the log says how many when it goes on."""
        stream = LogStream(self.writing)
        big = "x" * (MAX_WAITING // 8)
        for _ in range(20):
            stream.write(big)
        self.assertLessEqual(stream._held, MAX_WAITING)
        thread = stream._thread
        assert thread is not None
        note = b"log events were dropped: nobody read the log)\n"
        data = b""
        while not data.endswith(note):
            data += os.read(self.reading, 2**16)
        kept = data.count(b"x") // len(big)
        self.assertTrue(data.endswith(b"(%d " % (20 - kept) + note), data[-80:])
        thread.join(PATIENCE)
        stream.write("on\n")
        self.assertEqual(os.read(self.reading, 100), b"on\n")
        os.close(self.writing)

    def test_reader_that_is_gone(self) -> None:
        """A log that nobody can read any more is no error."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, writing)
        stream = LogStream(writing)
        os.close(reading)
        self.assertEqual(stream.write("anybody?\n"), 9)

    def test_odd_characters(self) -> None:
        """What no encoding has is written as an escape."""
        stream = LogStream(self.writing)
        stream.write("\udc80é\n")
        self.assertEqual(os.read(self.reading, 100), "\\udc80é\n".encode())
        os.close(self.writing)

    def test_terminal(self) -> None:
        """To a terminal, too, nothing waits; what is written comes."""
        leader, follower = pty.openpty()
        self.addCleanup(os.close, leader)
        self.addCleanup(os.close, follower)
        tty.setraw(follower)
        stream = LogStream(follower)
        for number in range(1000):
            stream.write(f"line {number:4}\n")
        data = b""
        while data.count(b"\n") < 1000:
            data += os.read(leader, 4096)
        self.assertEqual(data, b"".join(b"line %4d\n" % number for number in range(1000)))


class ServerTests(SynchronousTestCase):
    def test_last_lines(self) -> None:
        """Near the end of the process each line is on the terminal when it has been written."""
        leader, follower = pty.openpty()
        self.addCleanup(os.close, leader)
        self.addCleanup(os.close, follower)
        stream = LogStream(follower)
        threads = threading.active_count()
        stream.write("first\n")
        stream.end()
        stream.write("last\n")
        self.assertEqual(threading.active_count(), threads)
        lines = b""
        while len(lines) < 13:  # the kernel hands them on a little later
            lines += os.read(leader, 100)
        self.assertEqual(lines, b"first\r\nlast\r\n")

    def test_stuck_reader(self) -> None:
        """A server whose log nobody reads serves on, and ends when it is told to."""
        with tempfile.TemporaryDirectory() as folder:
            options = (
                f"--listen=unix:{folder}/s:mode=600",
                f"--control=unix:{folder}/c:mode=600",
                "--log-jobs=all",
            )
            twistd = Path(sys.executable).with_name("twistd")
            server = subprocess.Popen(
                [twistd, "-n", "--pidfile=", "dangad", *options],
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            self.addCleanup(server.kill)
            assert server.stdout is not None
            self.addCleanup(server.stdout.close)
            while b"is ready" not in server.stdout.readline():
                self.assertIsNone(server.poll())
            peer = BlockingPeer(f"{folder}/s")
            self.addCleanup(peer.close)
            tags = [peer.ask(b"Echo", data=b"x") for _ in range(900)]  # some 130 KiB of log
            self.assertEqual({code_of(peer.answer(tag)) for tag in tags}, {"ok"})
            server.send_signal(signal.SIGTERM)
            self.assertEqual(server.wait(PATIENCE), -signal.SIGTERM)
