"""The boxes between the parent and a worker that are no AMP commands: what they begin with.

Each begins with one pair of dangad's own, the head; what follows is a client's request or a
job's answer, byte for byte as it came. So the head is known by its place, and by nothing else: a
pair further on is a client's or a job's, whatever it is called. Both ends of the pipes,
:mod:`dangad.pool.link` and :mod:`dangad.worker`, write and read heads with what is here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dangad.text import quote
from dangad.wire.boxes import (
    ANSWER,
    ASK,
    COMMAND,
    END,
    ERROR,
    ERROR_CODE,
    ERROR_DESCRIPTION,
    LARGE,
    MAX_VALUE,
    Garbage,
    Raw,
    pair,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

RUN = b"_run"
"""Parent to worker, before a client's request: "<job id> <attempt> [<seconds left>]"."""
STOP = b"_stop"
"""Parent to worker, on its stdin, the whole of a box: "<job id> <why>"; then a signal."""
PING = b"_ping"
"""Parent to worker, the whole of a box, with no value: give a sign of life."""
PONG = b"_pong"
"""Worker to parent, the whole of a box, with no value: a sign of life."""
DONE = b"_done"
"""Worker to parent, before a result: "<job id> <usage>".

The usage is "<microseconds of CPU> <KiB of peak memory> <microseconds of CPU in all> <marks>",
the marks are one digit, the sum of `PRINTED` and `NOT_REUSABLE`.
"""
FAILED = b"_failed"
"""Worker to parent, before an error: the same."""
REPORT = b"_report"
"""Worker to parent, before a :class:`.commands.Progress` without its tag: the job id."""
PART = b"_part"
"""Worker to parent, before a :class:`~dangad.wire.commands.Chunk` without its tag: the job id."""
PRINTED = 1
"""The job has printed something that the parent may not have read yet."""
NOT_REUSABLE = 2
"""The worker must not be given another job."""

AMP_KEYS = frozenset({ASK, COMMAND, ANSWER, ERROR, ERROR_CODE, ERROR_DESCRIPTION})
"""What an AMP peer takes for the frame of a box, wherever in the box it finds it."""
MAX_HEAD = 1024
"""More bytes than any head has, with what is before and after it."""
MAX_ERROR = 3 * MAX_VALUE
"""Bytes of an error: a head, and two values of AMP's."""

ERROR_KEYS = frozenset({ERROR_CODE, ERROR_DESCRIPTION})
"""Those that stand in the body of an error; in that of a result there are none."""

PING_BOX = pair(PING, b"") + END
PONG_BOX = pair(PONG, b"") + END

_ANSWER = re.compile(rb"(\d{1,18}) (\d{1,18} \d{1,18} \d{1,18} [0-3])")
_STOP = re.compile(rb"(\d{1,18}) ([a-z]{1,20})")
_NUMBER = re.compile(rb"-?\d{1,1000}")


def split(box: bytes) -> tuple[bytes, bytes, int]:
    """The key and the value of a box's head, and where the pair after it begins.

    Trusts the lengths: the box comes from a :class:`~dangad.wire.boxes.BoxReader`.
    """
    key_end = 2 + box[1]
    end = key_end + 2 + (box[key_end] << 8 | box[key_end + 1])
    return box[2:key_end], box[key_end + 2 : end], end


# From parent to worker.


def job_head(job_id: int, attempt: int, seconds: float | None) -> bytes:
    """What is put before a client's request."""
    limit = b"" if seconds is None else b" %.6f" % seconds
    return pair(RUN, b"%d %d%b" % (job_id, attempt, limit))


def read_job(box: bytes) -> tuple[int, int, float | None, int]:
    """What a worker is told of a job, and where in the box the client's request begins.

    The former is the job's id, which attempt it is, and in how many seconds it is to end; None
    for whenever it does.

    :raises Garbage: the box is no job.
    """
    key, value, start = split(box)
    try:
        if key != RUN or value.strip(b"0123456789. "):
            raise ValueError(value)
        job_id, attempt, *seconds = value.split(b" ", 2)
        return int(job_id), int(attempt), float(seconds[0]) if seconds else None, start
    except ValueError:
        raise Garbage(f"a box that is no job: {quote(box)}") from None


def stop(job_id: int, why: bytes) -> bytes:
    """The whole of a box that has a job stopped."""
    return pair(STOP, b"%d %b" % (job_id, why)) + END


def read_stop(box: bytes) -> tuple[int, bytes]:
    """Which job a box is to stop, and why.

    :raises Garbage: it is none to stop a job.
    """
    key, value, start = split(box)
    match = _STOP.fullmatch(value)
    if key != STOP or match is None or box[start:] != END:
        raise Garbage(f"a box that stops no job: {quote(box)}")
    return int(match[1]), match[2]


# From worker to parent.


def answer_head(job_id: int, failed: bool, usage: bytes, marks: int) -> bytes:
    """What is put before a job's result, or before its error if `failed`."""
    return pair(FAILED if failed else DONE, b"%d %b %d" % (job_id, usage, marks))


def read_answer(value: bytes) -> tuple[bytes, bytes]:
    """The id and the usage in the head of a `DONE` or a `FAILED`.

    :raises Garbage: it holds no such.
    """
    match = _ANSWER.fullmatch(value)
    if match is None:
        raise Garbage("an answer without a usage")
    return match[1], match[2]


def report_head(job_id: int) -> bytes:
    """What is put before a job's progress."""
    return pair(REPORT, b"%d" % job_id)


def part_head(job_id: int) -> bytes:
    """What is put before a part of a job's result."""
    return pair(PART, b"%d" % job_id)


def check_report(box: Raw, start: int) -> None:
    """See that what follows the head of a `REPORT` is a progress and nothing else.

    :raises Garbage: it is not: the client would choke on it, or take it for something else.
    """
    if len(box) > LARGE:
        raise Garbage(f"a report of {len(box)} bytes")
    box = bytes(box)
    pairs = list(_pairs(box, start))
    if [key for key, _, _ in pairs] == [b"done", b"total", b"message"]:
        done, total, message = (box[begin:end] for _, begin, end in pairs)
        if _NUMBER.fullmatch(done) and _NUMBER.fullmatch(total) and _is_text(message):
            return
    raise Garbage("a report that is no progress")


def check_part(box: Raw, start: int) -> None:
    """See that what follows the head of a `PART` is one value, over as many keys as it needs.

    :raises Garbage: it is not.
    """
    begin, end = 0, MAX_VALUE
    for number, (key, following, its_end) in enumerate(_pairs(box, start)):
        if key != (b"data.%d" % number if number else b"data") or end - begin != MAX_VALUE:
            raise Garbage("a part of a result that is none")
        begin, end = following, its_end  # the value must be full if there is another
    if box[start:] == END:
        raise Garbage("a part of a result that has no data")


def _pairs(box: Raw, start: int) -> Iterator[tuple[bytes, int, int]]:
    """The keys of a box from `start` on, each with where its value begins and ends."""
    while length := box[start + 1]:
        key_end = start + 2 + length
        end = key_end + 2 + (box[key_end] << 8 | box[key_end + 1])
        yield bytes(box[start + 2 : key_end]), key_end + 2, end
        start = end


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
