"""The work that all contenders do, whoever has it done: nothing, computing, or waiting.

Imported by the workers of every contender, so it needs the standard library alone. Each function
gives its data back, so that every answer can be checked.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def echo(data: bytes, _amount: int = 0) -> bytes:
    """The data, at once."""
    return data


def spin(data: bytes, microseconds: int) -> bytes:
    """The data, after so much CPU time."""
    end = time.process_time_ns() + microseconds * 1000
    while time.process_time_ns() < end:
        pass
    return data


def nap(data: bytes, microseconds: int) -> bytes:
    """The data, after so long."""
    time.sleep(microseconds / 1e6)
    return data


WORK: dict[str, Callable[[bytes, int], bytes]] = {"echo": echo, "spin": spin, "nap": nap}
"""By the name that drivers are given."""
