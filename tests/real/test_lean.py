"""Nobody imports TLS without a need, and who imports it later has it."""

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
from dangad.host.lean import {function}
{function}()
import {module}
assert "OpenSSL" not in sys.modules
from twisted.internet import reactor, ssl
print(ssl.CertificateOptions().getContext())
"""
ALREADY = """
import sys, OpenSSL
from dangad.host.lean import import_amp
import_amp()
from twisted.protocols import amp
assert sys.modules["OpenSSL"] is OpenSSL and amp.ssl
"""


class LeanTests(SynchronousTestCase):
    def test_later(self) -> None:
        """TLS can be imported afterwards, and works."""
        for function, module in (
            ("import_amp", "dangad.worker.child"),
            ("import_network", "dangad.client"),
            ("import_network", "dangad.service"),
        ):
            program = LATER.format(function=function, module=module)
            self.assertIn("Context", self.output(program), module)

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
