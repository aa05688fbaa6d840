"""Nobody imports TLS without a need, and who imports it later has it."""

import subprocess
import sys

import pytest

LATER = """
import sys
from dangad.host.lean import {function}
{function}()
import {module}
assert "OpenSSL" not in sys.modules
from twisted.internet import reactor, ssl
assert "Context" in str(ssl.CertificateOptions().getContext())
"""
ALREADY = """
import sys, OpenSSL
from dangad.host.lean import import_amp
import_amp()
from twisted.protocols import amp
assert sys.modules["OpenSSL"] is OpenSSL and amp.ssl
"""


@pytest.mark.parametrize(
    "program",
    [
        LATER.format(function="import_amp", module="dangad.worker.child"),
        LATER.format(function="import_network", module="dangad.client"),
        LATER.format(function="import_network", module="dangad.service"),
        ALREADY,
    ],
    ids=("worker", "client", "server", "imported already"),
)
def test_lean(program: str) -> None:
    """TLS can be imported afterwards, and works; where it was imported already, all stays so."""
    subprocess.run([sys.executable, "-c", program], check=True)
