"""Twisted without TLS, where nothing needs it: its imports are a third of a start and more.

Twisted's modules import all of TLS, if it is installed, and do without if it is not. What is
imported here does not find it. Nothing else is kept away: who imports :mod:`twisted.internet.ssl`
later gets TLS then.

- The first thing that a worker imports is AMP, see :data:`dangad.pool.launch.BOOTSTRAP`; only its
  command ``StartTLS`` is amiss.
- The server and the command ``dangad`` import the reactor so, unless an endpoint may need TLS.
"""

from __future__ import annotations

import importlib
import sys

_TLS = "OpenSSL"
"""The package without which Twisted has no TLS."""
WITHOUT_TLS = ("unix:", "tcp:")
"""How the endpoints begin that are known to need none."""


def import_without_tls(*names: str) -> None:
    """Import these modules without TLS, for everybody who imports them later."""
    if _TLS in sys.modules:
        return
    sys.modules[_TLS] = None  # type: ignore[assignment]  # says that there is none
    try:
        for name in names:
            importlib.import_module(name)
    finally:
        del sys.modules[_TLS]


def import_amp() -> None:
    """Import AMP, and no reactor."""
    import_without_tls("twisted.protocols.amp")


def import_network() -> None:
    """Import AMP, endpoints and the reactor; if there is none yet, it is Twisted's default one."""
    import_without_tls(
        "twisted.protocols.amp", "twisted.internet.endpoints", "twisted.internet.reactor"
    )
