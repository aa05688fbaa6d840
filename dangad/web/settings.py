"""The settings of the page, from the options of the server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WebSettings:
    """What the operator of the server has chosen."""

    endpoint: str
    """Where it is served, in a form of :func:`dangad.server.endpoints.read_endpoint`."""
    prefix: str = ""
    """The path of the page behind a proxy, without a slash at its end."""
    hosts: tuple[str, ...] = ()
    """Names by which browsers may know the page, besides ``localhost`` and addresses."""
    actions: bool = False
    """Whether the page may change things."""
    health_oldest: float = 0.0
    """Seconds that the oldest job may wait before ``/health`` fails; 0 for any time."""
