"""Twisted without TLS where nothing needs it: importing TLS takes more than a third of a start.

Twisted's modules import TLS if it is installed, and work without it if it is not. Modules that are
imported by the functions here do not find TLS. A later import of :mod:`twisted.internet.ssl` does.

- A worker first imports AMP in this way, see :data:`dangad.pool.launch.BOOTSTRAP`. Only AMP's
  command ``StartTLS`` does not work.
- The server and the command ``dangad`` import the reactor in this way, unless an endpoint may need
  TLS.
"""

from __future__ import annotations

import importlib
import sys

_TLS = "OpenSSL"
"""The package without which Twisted has no TLS."""
WITHOUT_TLS = ("unix:", "tcp:")
"""The beginnings of endpoints that are known not to need TLS."""


def import_without_tls(*names: str) -> None:
    """Import these modules without TLS. Later imports of them get the same modules."""
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
    """Import AMP, endpoints and the reactor: the one that is installed, or Twisted's default."""
    import_without_tls(
        "twisted.protocols.amp", "twisted.internet.endpoints", "twisted.internet.reactor"
    )
