"""A worker imports no TLS, until a job does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.oddjobs import Odd
from tests.real.test_workers import async_test
from tests.realserver import RealServerCase

LATER = """
import sys
from dangad.worker.lean import import_amp
import_amp()
import dangad.worker.child
assert "OpenSSL" not in sys.modules
from twisted.internet import reactor, ssl
print(ssl.CertificateOptions().getContext())
"""
ALREADY = """
import sys, OpenSSL
from dangad.worker.lean import import_amp
import_amp()
from twisted.protocols import amp
assert sys.modules["OpenSSL"] is OpenSSL and amp.ssl
"""


class LeanTests(SynchronousTestCase):
    def test_later(self) -> None:
        """TLS can be imported afterwards, and works."""
        self.assertIn("Context", self.output(LATER))

    def test_already(self) -> None:
        """Where it is imported already, all stays as it is."""
        self.assertEqual(self.output(ALREADY), "")

    def output(self, program: str) -> str:
        """What the program prints."""
        return subprocess.run(
            [sys.executable, "-c", program], check=True, capture_output=True, text=True
        ).stdout


class WorkerTests(RealServerCase):
    @async_test
    async def test_worker(self) -> None:
        """A worker that serves jobs has not loaded OpenSSL."""
        client = await self.connect()
        pid = (await client.callRemote(Odd, what="nothing"))["pid"]
        loaded = Path(f"/proc/{pid}/maps").read_text()
        self.assertIn("libc.so", loaded)
        self.assertNotIn("cryptography", loaded)
