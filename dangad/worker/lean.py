"""AMP without TLS, which no worker needs: its imports are half of a worker's start.

The first thing that a worker imports, see :data:`dangad.pool.launch.BOOTSTRAP`. Twisted's AMP
imports all of TLS, if it is installed, so that the command ``StartTLS`` can switch a connection to
it. Here it does not find TLS. Nothing else is kept away: a job that imports
:mod:`twisted.internet.ssl`, or connects with TLS from the start, gets TLS then.
"""

from __future__ import annotations

import importlib
import sys

_TLS = "OpenSSL"
"""The package without which Twisted has no TLS."""


def import_amp() -> None:
    """Import :mod:`twisted.protocols.amp` without TLS, for everybody who imports it later."""
    if _TLS in sys.modules:
        return
    sys.modules[_TLS] = None  # type: ignore[assignment]  # says that there is none
    try:
        importlib.import_module("twisted.protocols.amp")
    finally:
        del sys.modules[_TLS]
