"""Notifications to a service manager: the protocol of systemd's sd_notify(3), in a few lines.

Used by :mod:`dangad.service`. Each message is one datagram to the socket that the environment
variable NOTIFY_SOCKET names. Without this variable nothing is sent.
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


class Notifier:
    """Tells the service manager the state of the server."""

    def __init__(self, clock: IReactorTime, environment: Mapping[str, str]) -> None:
        """Read the address of the service manager from `environment`; nothing is sent yet."""
        self._clock = clock
        #: The call that sends the next sign of life; None if there is none.
        self._barking: IDelayedCall | None = None
        #: The sending socket; None if there is nobody to tell.
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
        """Begin to send signs of life if asked for, twice as often as WATCHDOG_USEC demands."""
        if self._interval:
            self._bark()

    def ready(self, status: str) -> None:
        """Say that clients are served: after the start, or after a reload.

        :param status: one line about the state of the server, for people.
        """
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """Say that a reload has begun. The next `ready` says that it has ended."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now}\nSTATUS=reloading")

    def stopping(self) -> None:
        """Say that the server has begun to stop; signs of life go on until `stop`."""
        self._send("STOPPING=1\nSTATUS=stopping")

    def stop(self) -> None:
        """Send nothing more."""
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
        """Send a message, or lose it: the server does not depend on being heard."""
        if self._socket is None:
            return
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        with contextlib.suppress(OSError):  # nobody listens, or the listener does not keep up
            self._socket.sendto(message.encode(), address)


def _interval(environment: Mapping[str, str]) -> float:
    """Seconds between two signs of life; 0 for none."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    microseconds = environment.get("WATCHDOG_USEC", "")
    return int(microseconds) / 2e6 if microseconds.isascii() and microseconds.isdigit() else 0.0
