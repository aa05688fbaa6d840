"""What a service manager is told of the server: systemd's sd_notify(3), in a few lines.

Used by :mod:`dangad.service`. Each message is one datagram to the socket that the environment
names. Where it names none, nothing is sent.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

VARIABLES = frozenset({"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"})
"""The variables of the environment that are meant for the server alone."""


class Notifier:
    """Tells the service manager how the server is.

    All mutable state: `_socket`, None where nobody is to be told; `_barking`, the call that
    sends the next sign of life.
    """

    def __init__(self, clock: IReactorTime, environment: Mapping[str, str]) -> None:
        """Read from `environment` whom to tell; nothing is sent yet."""
        self._clock = clock
        self._barking: IDelayedCall | None = None
        self._socket: socket.socket | None = None
        self._address = environment.get("NOTIFY_SOCKET", "")
        if self._address.startswith(("/", "@")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
        self._interval = _interval(environment)

    @property
    def wanted(self) -> bool:
        """Whether there is anybody to tell."""
        return self._socket is not None

    def start(self) -> None:
        """Give a sign of life from now on, twice as often as asked for, if asked for."""
        if self._interval:
            self._bark()

    def ready(self, status: str) -> None:
        """Say that clients are served now: after the start, and after a reload."""
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """Say that a reload has begun, which `ready` ends."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now}\nSTATUS=reloading")

    def stopping(self) -> None:
        """Say that the end has begun; signs of life go on until `stop`."""
        self._send("STOPPING=1\nSTATUS=stopping")

    def stop(self) -> None:
        """Say nothing any more."""
        if self._barking is not None:
            self._barking.cancel()
            self._barking = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _bark(self) -> None:
        self._barking = self._clock.callLater(self._interval, self._bark)
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        """Send a message, or lose it: the server goes on without being heard."""
        if self._socket is None:
            return
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        with contextlib.suppress(OSError):  # nobody listens, or does not keep up
            self._socket.sendto(message.encode(), address)


def _interval(environment: Mapping[str, str]) -> float:
    """Seconds between two signs of life; 0 for none."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    microseconds = environment.get("WATCHDOG_USEC", "")
    return int(microseconds) / 2e6 if microseconds.isascii() and microseconds.isdigit() else 0.0
