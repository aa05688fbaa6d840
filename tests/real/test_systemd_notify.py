from __future__ import annotations

import os
import socket
import tempfile

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dangad.operators.systemd import Notifier


class NotifierTests(SynchronousTestCase):
    """What the service manager reads, on a socket that stands for its own."""

    def setUp(self) -> None:
        """Listen where the environment says that the service manager does."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.clock = Clock()
        self.path = f"{folder.name}/notify"
        self.manager = self.listen(self.path)
        self.environment = {"NOTIFY_SOCKET": self.path}

    def listen(self, address: str) -> socket.socket:
        """A socket of the manager's."""
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(manager.close)
        manager.bind(address)
        manager.setblocking(False)
        return manager

    def notifier(self) -> Notifier:
        """A notifier that goes by the environment."""
        notifier = Notifier(self.clock, self.environment)
        self.addCleanup(notifier.stop)
        return notifier

    def heard(self) -> list[bytes]:
        """What came since the last call."""
        messages = []
        while True:
            try:
                messages.append(self.manager.recv(1000))
            except BlockingIOError:
                return messages

    def test_states(self) -> None:
        """Ready, reloading and stopping are told as systemd reads them."""
        notifier = self.notifier()
        notifier.ready("2 workers")
        notifier.reloading()
        notifier.stopping()
        ready, reloading, stopping = self.heard()
        self.assertEqual(ready, b"READY=1\nSTATUS=2 workers")
        self.assertRegex(reloading, rb"^RELOADING=1\nMONOTONIC_USEC=[0-9]+\n")
        self.assertEqual(stopping.splitlines()[0], b"STOPPING=1")

    def test_watchdog(self) -> None:
        """With a watchdog, signs of life come twice in its time, until the end."""
        self.environment |= {"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid())}
        notifier = self.notifier()
        self.clock.advance(60)
        self.assertEqual(self.heard(), [])
        notifier.start()
        self.assertEqual(self.heard(), [b"WATCHDOG=1"])
        for _ in range(4):
            self.clock.advance(5)
        self.assertEqual(self.heard(), [b"WATCHDOG=1"] * 4)
        notifier.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_watchdog(self) -> None:
        """Without one, or with one for another process, or nonsense, none comes."""
        for variables in ({}, {"WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "x"}):
            self.environment |= variables
            self.notifier().start()
            self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.heard(), [])

    def test_abstract_address(self) -> None:
        """An address that begins with @ is one without a file."""
        name = f"dangad-test-{os.getpid()}"
        self.manager = self.listen(f"\0{name}")
        self.environment = {"NOTIFY_SOCKET": f"@{name}"}
        self.notifier().stopping()
        self.assertEqual(len(self.heard()), 1)

    def test_nobody(self) -> None:
        """Where nobody wants to know, or listens, nothing happens."""
        for environment in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nowhere/at/all"}):
            self.environment = environment
            self.notifier().ready("1 worker")

    def test_manager_does_not_read(self) -> None:
        """A manager that does not read does not stop the server."""
        notifier = self.notifier()
        for _ in range(10_000):
            notifier.stopping()
        self.assertLess(len(self.heard()), 10_000)
