from __future__ import annotations

import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from dangad.host import memory
from dangad.host.memory import KernelKills, Memory, memory_of

MIB = 2**20


def run(program: str) -> int:
    """Have a child run that Python program to its end; its process id."""
    child = subprocess.Popen([sys.executable, "-S", "-c", program])
    child.wait()
    return child.pid


class MemoryTests(SynchronousTestCase):
    def test_of_this_process(self) -> None:
        """A living process has memory, and had at least as much before."""
        own = memory_of(os.getpid())
        self.assertGreater(own.resident, MIB)
        self.assertGreaterEqual(own.peak, own.resident)

    def test_of_the_dead(self) -> None:
        """Of a process that is gone nothing is known."""
        self.assertEqual(memory_of(run("")), Memory())


class KernelKillsTests(SynchronousTestCase):
    def test_noticed(self) -> None:
        """A process that the kernel killed for want of memory is noticed once."""
        counts = iter([3, 3, 4, 4])
        self.patch(memory, "_killed_for_memory", lambda: next(counts))
        kills = KernelKills()
        found = [kills.are_more() for _ in range(3)]
        self.assertEqual(found, [False, True, False])
