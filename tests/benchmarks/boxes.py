"""AMP boxes for the lean clients and workers: made and checked with the standard library alone.

Used by the drivers and servers here, instead of :mod:`dangad.wire.boxes`, so that a client's own
work costs as little as it can. The pairs of a request always come in this order: its tag, its
command, its data, anything else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

END = b"\0\0"
MAX_VALUE = 65535


def pair(key: bytes, value: bytes) -> bytes:
    """A key and its value."""
    return b"\0%c%b%b%b" % (len(key), key, len(value).to_bytes(2, "big"), value)


def blob(key: bytes, value: bytes) -> bytes:
    """A key and a value of any size, laid over several keys as :class:`dangad.Blob` does."""
    pairs = [pair(key, value[:MAX_VALUE])]
    for number, start in enumerate(range(MAX_VALUE, len(value), MAX_VALUE), 1):
        pairs.append(pair(b"%b.%d" % (key, number), value[start : start + MAX_VALUE]))
    return b"".join(pairs)


def tag_of(number: int) -> bytes:
    """A tag; all are of one length, so that all boxes of a run are, too."""
    return b"%08d" % number


def request(number: int, command: bytes, data: bytes, others: Mapping[bytes, bytes]) -> bytes:
    """The box of a job."""
    rest = b"".join(pair(key, value) for key, value in others.items())
    return (
        pair(b"_ask", tag_of(number))
        + pair(b"_command", command)
        + blob(b"data", data)
        + rest
        + END
    )


def answer(number: int, data: bytes) -> bytes:
    """The box that answers it."""
    return pair(b"_answer", tag_of(number)) + blob(b"data", data) + END


def end_of(buffer: bytes | bytearray, start: int = 0) -> int:
    """Where the box ends that begins at `start`; 0 if the buffer does not hold all of it."""
    length = len(buffer)
    while start + 2 <= length:
        key_end = start + 2 + buffer[start + 1]
        if key_end == start + 2:
            return key_end
        if key_end + 2 > length:
            return 0
        start = key_end + 2 + (buffer[key_end] << 8 | buffer[key_end + 1])
    return 0


def pairs_of(box: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a whole box."""
    start = 0
    while (key_end := start + 2 + box[start + 1]) > start + 2:
        end = key_end + 2 + (box[key_end] << 8 | box[key_end + 1])
        yield box[start + 2 : key_end], box[key_end + 2 : end]
        start = end


def echo(box: bytes) -> bytes:
    """The answer to a box that :func:`request` made without others."""
    tag_end = 16  # 2 + len("_ask") + 2 + 8
    command_end = tag_end + 12 + box[tag_end + 11]  # 2 + len("_command") + 2, and the command
    return pair(b"_answer", box[8:tag_end]) + box[command_end:]
