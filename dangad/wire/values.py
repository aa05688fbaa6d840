"""Values in AMP boxes: arguments larger than AMP allows, priorities, and numbers.

Used where AMP commands are declared, at both ends of every connection. :mod:`dangad.wire.boxes`
knows how values lie in a box's bytes.
"""

from __future__ import annotations

import enum
import math
import re
from functools import lru_cache
from typing import Any

from twisted.protocols import amp

from dangad.wire.boxes import MAX_KEY, MAX_VALUE

MAX_LARGE_KEY = MAX_KEY - len(".99999")
"""The most bytes in the name of a :class:`Large` argument: its further keys are longer."""
_TRACEPARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
"""A traceparent of version 00; a later version may have more behind it, which is not taken."""
_SECONDS = re.compile(rb"[0-9]{1,20}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?")


def read_seconds(text: bytes) -> float:
    """Seconds, written as a decimal number: ``5``, ``0.25`` or ``1e-3``.

    :raises ValueError: the text is not a number of this form, or is negative or too large.
    """
    if _SECONDS.fullmatch(text) is None or not math.isfinite(seconds := float(text)):
        raise ValueError(text)
    return seconds


def read_traceparent(text: bytes) -> str | None:
    """The trace that a request belongs to, as W3C Trace Context writes it; None if not valid."""
    found = _TRACEPARENT.fullmatch(text)
    return found[0].decode() if found else None


@lru_cache(maxsize=1000)
def python_name(wire_name: bytes) -> str:
    """The keyword under which AMP passes the argument `wire_name` to Python code.

    AMP's rule: dashes become underscores, and a Python keyword gets a capital. AMP's list of
    keywords dates from Python 2, so ``print`` is on it and ``async`` is not.
    """
    name = wire_name.replace(b"-", b"_").decode("ascii")
    return name.title() if name in amp.PYTHON_KEYWORDS else name


class Priority(enum.IntEnum):
    """How urgent a job is; a smaller number goes first."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


class Large(amp.Argument):
    """Any AMP argument, without AMP's limit of 65,535 bytes for one value.

    A short value goes under the argument's own key and looks like any other. A longer value is
    spread over the keys ``name``, ``name.1``, ``name.2``, ... in this order; all but the last are
    full. A peer that does not know `Large` sees a few more keys.
    """

    def __init__(self, argument: amp.Argument, optional: bool = False) -> None:
        """Carry what `argument` carries.

        :param argument: turns the value into bytes and back.
        :param optional: whether the value may be left out (it is then None).
        """
        super().__init__(optional)
        self.argument = argument

    def toBox(
        self, name: bytes, strings: dict[bytes, bytes], objects: dict[str, Any], proto: object
    ) -> None:
        """Put the value into `strings`, over as many keys as it needs."""
        value = self.retrieve(objects, python_name(name), proto)
        if self.optional and value is None:
            return
        whole = self.argument.toStringProto(value, proto)
        strings[name] = bytes(whole[:MAX_VALUE])
        if len(whole) > MAX_VALUE:
            for number, start in enumerate(range(MAX_VALUE, len(whole), MAX_VALUE), 1):
                strings[b"%b.%d" % (name, number)] = bytes(whole[start : start + MAX_VALUE])

    def fromBox(
        self, name: bytes, strings: dict[bytes, bytes], objects: dict[str, Any], proto: object
    ) -> None:
        """Take the value out of `strings`, from all keys over which it is spread."""
        first = self.retrieve(strings, name, proto)
        if self.optional and first is None:
            objects[python_name(name)] = None
            return
        parts = [first]
        while (part := strings.pop(b"%b.%d" % (name, len(parts)), None)) is not None:
            parts.append(part)
        whole = first if len(parts) == 1 else b"".join(parts)
        objects[python_name(name)] = self.argument.fromStringProto(whole, proto)


class Blob(Large):
    """An AMP argument for bytes of any size: ``Large(amp.String())``."""

    def __init__(self, optional: bool = False) -> None:
        super().__init__(amp.String(), optional)
