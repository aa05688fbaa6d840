"""AMP boxes as bytes: reading them within bounds, and writing them.

Used at both ends of every socket and pipe: by :mod:`dangad.server.factory` and :mod:`dangad.client`
towards each other, by :mod:`dangad.pool.processes` and :mod:`dangad.worker` towards each other.
Boxes that are only passed on are never decoded. The reader finds the end of each box, notes the few
reserved keys that it was asked for, and hands over the bytes.

The format is that of AMP (Twisted's :mod:`twisted.protocols.amp`): a box is a row of pairs,
each a key and a value preceded by their lengths (two bytes, big-endian; keys 1 to 255 bytes,
values 0 to 65,535 bytes), closed by an empty key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.protocols import amp

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

ASK = b"_ask"
COMMAND = b"_command"
ANSWER = b"_answer"
ERROR = b"_error"
ERROR_CODE = b"_error_code"
ERROR_DESCRIPTION = b"_error_description"
PRIORITY = b"_priority"
DEADLINE = b"_deadline"
PROGRESS = b"_progress"
CHUNKS = b"_chunks"
TRACEPARENT = b"_traceparent"

REQUEST_KEYS = frozenset(
    {ASK, COMMAND, ANSWER, ERROR, PRIORITY, DEADLINE, PROGRESS, CHUNKS, TRACEPARENT}
)
"""The reserved keys that a server reads in a client's boxes."""

MAX_KEY = 255
MAX_VALUE = 65535
END = b"\0\0"

_RESERVED_MARK = ord("_")
_OTHERS = {
    "HTTP": (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"HTTP/", b"PRI *"),
    "TLS": (b"\x16\x03",),
    "SSH": (b"SSH-",),
}
"""Other protocols, and how their streams begin."""


class Garbage(Exception):
    """The bytes are not AMP, and nobody can tell where the next box begins.

    The connection can only be closed; the text says what was found.
    """


Raw = bytes | memoryview
"""The bytes of a box, or a read-only view of them."""

LARGE = 2**16
"""Bytes beyond which a box can be handed over as a view: copying 60 MiB takes 40 ms."""


class Box:
    """One box as it came: its bytes, and the reserved keys that the reader was asked for.

    :ivar raw: the whole box, including its end mark; a view if it is large and its reader gives
        views; None if it was larger than the reader's limit and was thrown away as it came.
    :ivar keys: the wanted reserved keys, in the order of the box. The last value of a repeated key
        counts.
    :ivar size: the box's length in bytes.
    """

    __slots__ = ("keys", "raw", "size")

    def __init__(self, raw: Raw | None, keys: dict[bytes, bytes], size: int) -> None:
        self.raw = raw
        self.keys = keys
        self.size = size


class BoxReader:
    """Cuts a stream of bytes into boxes; its limit bounds memory and time.

    Feed it bytes as they come, and take boxes until there is none. How the bytes are split makes no
    difference. The work is linear in the bytes fed: if a pair has not come whole, only its two
    lengths are read again.

    Always true: the buffer never holds more than the limit, one pair, and the bytes fed last.
    """

    __slots__ = (
        "_buffer",
        "_dropped",
        "_keys",
        "_limit",
        "_max_size",
        "_position",
        "_start",
        "_views",
        "_wanted",
        "is_empty",
        "scanned",
        "taken",
    )

    def __init__(self, max_size: int, wanted: Collection[bytes], views: bool = False) -> None:
        """Begin before the first byte.

        :param max_size: the size in bytes above which a box is thrown away.
        :param wanted: the reserved keys to note; all begin with an underscore.
        :param views: whether a box of more than :data:`LARGE` bytes is handed over as a view, and
            not as a copy.
        """
        #: How many boxes were handed over.
        self.taken = 0
        #: Whether the buffer is empty.
        self.is_empty = True
        #: How many bytes of the buffer were scanned when `next` last found no whole box.
        self.scanned = 0
        self._max_size = max_size
        #: The size above which the current box is thrown away.
        self._limit = max_size
        self._wanted = frozenset(wanted)
        self._views = views
        #: The bytes that were not handed over.
        self._buffer: bytes | bytearray = b""
        #: Where in the buffer the current box begins; if the box is oversized, where its first pair
        #: begins that is not thrown away.
        self._start = 0
        #: Where in the buffer the next pair to be scanned begins.
        self._position = 0
        #: The wanted keys of the current box so far.
        self._keys: dict[bytes, bytes] = {}
        #: The bytes of the current box that were thrown away.
        self._dropped = 0

    @property
    def held(self) -> int:
        """How many bytes wait in the reader."""
        return len(self._buffer) - self._start

    @property
    def begun(self) -> int:
        """How many bytes have come since the last box that was handed over."""
        return self._dropped + len(self._buffer) - self._start

    @property
    def noted(self) -> dict[bytes, bytes]:
        """The wanted keys of the current box that have come."""
        return self._keys

    def discard(self) -> None:
        """Throw away the current box, including the bytes to come, except its wanted keys.

        It is handed over like a box that is larger than the limit.
        """
        self._limit = 0
        self._dropped += self._position - self._start
        self._buffer = bytearray(memoryview(self._buffer)[self._position :])
        self._start = self._position = 0
        self.is_empty = not self._buffer

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        self.is_empty = False
        if self._start == len(self._buffer):
            self._buffer = data
            self._start = self._position = 0
            return
        if isinstance(self._buffer, bytes):
            self._buffer = bytearray(memoryview(self._buffer)[self._start :])
        else:
            del self._buffer[: self._start]
        self._position -= self._start
        self._start = 0
        self._buffer += data

    def next(self) -> Box | None:
        """The next whole box, or None until more bytes are fed.

        :raises Garbage: the stream cannot be read any further; the reader must not be used
            afterwards.
        """
        buffer = self._buffer
        position = self._position
        end = len(buffer)
        if position == end:
            return None
        wanted, keys = self._wanted, self._keys
        mark = _RESERVED_MARK if wanted else -1
        try:
            while True:
                if buffer[position]:
                    raise Garbage(
                        f"a key of {buffer[position] << 8 | buffer[position + 1]} bytes where AMP "
                        f"allows {MAX_KEY}: the peer does not speak AMP"
                        + _other_protocol(bytes(buffer[position : position + 5]))
                    )
                key_start = position + 2
                key_end = key_start + buffer[position + 1]
                if key_end == key_start:
                    return self._take(key_start)
                value_end = key_end + 2 + (buffer[key_end] << 8 | buffer[key_end + 1])
                if value_end > end:
                    break
                if buffer[key_start] == mark:
                    key = bytes(buffer[key_start:key_end])
                    if key in wanted:
                        keys[key] = bytes(buffer[key_end + 2 : value_end])
                position = value_end
        except IndexError:
            pass  # the next two lengths have not come whole
        if position - self._start > self._limit - self._dropped:
            self._dropped += position - self._start
            self._start = position
        self.scanned = position - self._position
        self._position = position
        return None

    def _take(self, end: int) -> Box:
        """Hand over the current box, which ends at `end`, and begin the next."""
        buffer, start, keys = self._buffer, self._start, self._keys
        size = self._dropped + end - start
        raw: Raw | None = None
        if size > LARGE and self._views and size <= self._limit:
            view = memoryview(buffer)
            raw = view[start:end].toreadonly()
            self._buffer = buffer = bytes(
                view[end:]
            )  # the handed-over buffer must not change any more
            end = 0
        elif size <= self._limit:
            raw = bytes(
                buffer[start:end] if type(buffer) is bytes else memoryview(buffer)[start:end]
            )
        if size == len(END):
            raise Garbage("an empty box: the peer does not speak AMP")
        if end == len(buffer):
            self._buffer = b""
            self._start = self._position = 0
            self.is_empty = True
        else:
            self._start = self._position = end
        self._keys = {}
        self._dropped = 0
        self._limit = self._max_size
        self.taken += 1
        return Box(raw, keys, size)


def pair(key: bytes, value: bytes) -> bytes:
    """One key and its value in AMP's form; both must be within AMP's bounds."""
    return b"\0%c%b%b%b" % (len(key), key, len(value).to_bytes(2, "big"), value)


def pack(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A whole box, or the rest of one: the pairs in AMP's form and the end mark.

    :raises amp.TooLong: a key or a value is out of AMP's bounds.
    """
    parts: list[bytes] = []
    for key, value in pairs:
        if not 0 < len(key) <= MAX_KEY:
            raise amp.TooLong(True, True, key, None)
        if len(value) > MAX_VALUE:
            raise amp.TooLong(False, True, value, key)
        parts += (len(key).to_bytes(2, "big"), key, len(value).to_bytes(2, "big"), value)
    parts.append(END)
    return b"".join(parts)


def unpack(raw: bytes, start: int = 0) -> dict[bytes, bytes]:
    """The pairs of a whole box, from `start`, which must be the beginning of a pair.

    Trusts the lengths: `raw` comes from a :class:`BoxReader` or from :func:`pack`.
    """
    pairs: dict[bytes, bytes] = {}
    while length := raw[start + 1]:
        key_start = start + 2
        key_end = key_start + length
        value_start = key_end + 2
        start = value_start + (raw[key_end] << 8 | raw[key_end + 1])
        pairs[raw[key_start:key_end]] = raw[value_start:start]
    return pairs


def error_pairs(code: bytes, text: str) -> list[tuple[bytes, bytes]]:
    """The pairs of an AMP error; the text is cut to what one value can hold."""
    description = text.encode("utf-8", "backslashreplace")
    if len(description) > MAX_VALUE:
        description = description[: MAX_VALUE - 3].decode("utf-8", "ignore").encode() + b"..."
    return [(ERROR_CODE, code[:MAX_VALUE]), (ERROR_DESCRIPTION, description)]


def _other_protocol(beginning: bytes) -> str:
    """Words that name the other protocol that begins so; empty if none is known."""
    for name, starts in _OTHERS.items():
        if beginning.startswith(starts):
            return f", but what looks like {name}"
    return ""
