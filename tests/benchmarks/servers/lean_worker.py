"""A worker without rules: reads an Echo's box from its stdin, writes the answer to its stdout."""

from __future__ import annotations

import os

from tests.benchmarks.boxes import echo, end_of

READ = 2**18


def main() -> None:
    """Answer until stdin ends."""
    while True:
        box = os.read(0, READ)
        if not box:
            return
        if not end_of(box):
            box = _rest(box)
        view = memoryview(echo(box))
        while view:
            view = view[os.write(1, view) :]


def _rest(beginning: bytes) -> bytes:
    """The whole of a large box."""
    box = bytearray(beginning)
    start = 0
    while not end_of(box, start):
        start = _last_pair(box, start)
        box += os.read(0, READ)
    return bytes(box)


def _last_pair(box: bytearray, start: int) -> int:
    """Where the last pair begins that has not come whole, so that no pair is looked at twice."""
    while True:
        key_end = start + 2 + box[start + 1] if start + 2 <= len(box) else len(box)
        if key_end + 2 > len(box):
            return start
        end = key_end + 2 + (box[key_end] << 8 | box[key_end + 1])
        if end > len(box):
            return start
        start = end


if __name__ == "__main__":
    main()
