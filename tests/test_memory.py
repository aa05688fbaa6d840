from __future__ import annotations

import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from dangad.host import memory
from dangad.host.memory import Deaths, Memory, memory_of

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


class DeathsTests(SynchronousTestCase):
    def test_what_the_last_took(self) -> None:
        """The CPU time and the peak memory of a dead child are its own."""
        own = memory_of(os.getpid()).peak
        deaths = Deaths()
        run(f"x = bytearray({own + 300 * MIB}); x[::4096] = x[::4096]")
        cpu, peak = deaths.take_last()
        self.assertGreater(cpu, 0)
        self.assertGreater(peak, own + 300 * MIB)
        run("")
        small_cpu, nothing = deaths.take_last()
        self.assertLess(small_cpu, cpu + 10)
        self.assertEqual(nothing, 0)

    def test_nobody_died(self) -> None:
        """Where nobody died, nothing was taken."""
        deaths = Deaths()
        self.assertEqual(deaths.take_last(), (0.0, 0))

    def test_kernel(self) -> None:
        """A process that the kernel killed for want of memory is noticed once."""
        counts = iter([3, 3, 4, 4])
        self.patch(memory, "_killed_for_memory", lambda: next(counts))
        deaths = Deaths()
        found = [deaths.kernel_killed_some() for _ in range(3)]
        self.assertEqual(found, [False, True, False])
