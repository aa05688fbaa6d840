"""What the machine has room for, as a container or a service manager may have bounded it."""

import os
import resource
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from dangad.host import capacity
from dangad.host.capacity import TooManyWorkers, check_workers

GIB = 2**30


class ControlGroupTests(SynchronousTestCase):
    """A process in a control group, whose files are a folder's."""

    def setUp(self) -> None:
        """Make a group within another, with nothing bounded."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        self.group = self.root / "system.slice" / "dangad.service"
        self.group.mkdir(parents=True)
        membership = self.root / "membership"
        membership.write_text("0::/system.slice/dangad.service\n")
        self.patch(capacity, "_MEMBERSHIP", str(membership))
        self.patch(capacity, "_GROUPS", str(self.root))

    def test_nothing_bounded(self) -> None:
        """Without bounds, or with the word for none, it is what the machine has."""
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        for _ in range(2):
            self.assertEqual(capacity.memory(), machine)
            self.assertEqual(capacity.cores(), len(os.sched_getaffinity(0)))
            (self.group / "memory.max").write_text("max\n")
            (self.group / "cpu.max").write_text("max 100000\n")

    def test_bounded(self) -> None:
        """The least counts of all groups around the process."""
        (self.group / "memory.max").write_text("300000000\n")
        (self.group.parent / "memory.max").write_text("200000000\n")
        (self.group.parent / "cpu.max").write_text("50000 100000\n")
        self.assertEqual((capacity.memory(), capacity.cores()), (200_000_000, 1))

    def test_no_control_groups(self) -> None:
        """Where there are none, as without /proc, it is what the machine has."""
        self.patch(capacity, "_MEMBERSHIP", "/nowhere")
        self.assertGreater(capacity.memory(), 0)


class WorkersTests(SynchronousTestCase):
    """How many workers somebody may want."""

    def setUp(self) -> None:
        """Have a machine of two cores."""
        self.patch(os, "cpu_count", lambda: 2)
        self.patch(capacity, "cores", lambda: 2)
        self.patch(capacity, "memory", lambda: 100 * GIB)
        self.patch(resource, "getrlimit", lambda _: (1024, 1_000_000))

    def refusal(self, count: int, memory_each: int = 0) -> str:
        """Why so many are refused."""
        error: TooManyWorkers = self.assertRaises(TooManyWorkers, check_workers, count, memory_each)
        return str(error)

    def test_cores(self) -> None:
        """Cores bound them; the reason says what there is room for, and how to have more."""
        check_workers(64)
        self.assertEqual(
            self.refusal(65),
            "65 workers are too many for this machine: there is room for 64, with 2 cores; "
            "use --force to have them anyway",
        )

    def test_memory(self) -> None:
        """So does memory, by what a worker takes here, but never below one for each core."""
        self.patch(capacity, "memory", lambda: GIB)
        check_workers(32)
        self.assertIn("room for 32, with 1.0 GiB of memory and 32 MiB for each", self.refusal(33))
        check_workers(2, GIB)
        self.assertIn("room for 1, with 1.0 GiB of memory and 1.0 GiB for", self.refusal(3, GIB))

    def test_files(self) -> None:
        """So does the hard limit of open files, if there is one."""
        self.patch(resource, "getrlimit", lambda _: (220, 220))
        check_workers(20)
        self.assertIn("room for 20, with a hard limit of 220 open files", self.refusal(21))
        self.patch(resource, "getrlimit", lambda _: (220, resource.RLIM_INFINITY))
        check_workers(64)
