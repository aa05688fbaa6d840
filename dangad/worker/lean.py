"""AMP without TLS, which no worker needs: its imports are half of a worker's start.

The first thing that a worker imports, see :data:`dangad.pool.launch.BOOTSTRAP`. Twisted's AMP
imports all that it takes to switch a connection to TLS by the command ``StartTLS``, if that can be
had; here it cannot. Nothing else is kept away: a job that imports :mod:`twisted.internet.ssl`, or
connects with TLS from the start, gets it then.
"""

from __future__ import annotations

import importlib
import sys

_TLS = "OpenSSL"
"""The package without which Twisted has no TLS."""


def import_amp() -> None:
    """Import :mod:`twisted.protocols.amp`, for all that import it later."""
    if _TLS in sys.modules:
        return
    sys.modules[_TLS] = None  # type: ignore[assignment]  # the way to say that there is none
    try:
        importlib.import_module("twisted.protocols.amp")
    finally:
        del sys.modules[_TLS]
