"""The boxes between the parent and a worker that are not AMP commands: their heads.

Each begins with one pair of dangad's own, the head. After it comes a client's request or a job's
answer, byte for byte as it came. Only its place makes a pair the head: a later pair belongs to a
client or a job, whatever its name. Both ends of the pipes, :mod:`dangad.pool.link` and
:mod:`dangad.worker`, write and read heads with the functions here.
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
"""Parent to worker, on its stdin, a whole box: "<job id> <why>"; a signal follows."""
PING = b"_ping"
"""Parent to worker, a whole box without a value: give a sign of life."""
PONG = b"_pong"
"""Worker to parent, a whole box without a value: a sign of life."""
DONE = b"_done"
"""Worker to parent, before a result: "<job id> <usage>".

The usage is "<microseconds of CPU> <KiB of peak memory> <microseconds of CPU in all> <marks>". The
memory is without that which the worker shares with others. The marks are one digit, the sum of
`PRINTED` and `NOT_REUSABLE`.
"""
FAILED = b"_failed"
"""Worker to parent, before an error: "<job id> <usage>", as for `DONE`."""
REPORT = b"_report"
"""Worker to parent, before a :class:`.commands.Progress` without its tag: the job id."""
PART = b"_part"
"""Worker to parent, before a :class:`~dangad.wire.commands.Chunk` without its tag: the job id."""
PRINTED = 1
"""The job has printed something that the parent may not have read yet."""
NOT_REUSABLE = 2
"""The worker must not be given another job."""

AMP_KEYS = frozenset({ASK, COMMAND, ANSWER, ERROR, ERROR_CODE, ERROR_DESCRIPTION})
"""Keys that an AMP peer takes for the frame of a box, wherever in the box they are."""
MAX_HEAD = 1024
"""More bytes than any head has, together with the lengths and marks around it."""
MAX_ERROR = 3 * MAX_VALUE
"""The most bytes of an error: a head, and two values of AMP."""

ERROR_KEYS = frozenset({ERROR_CODE, ERROR_DESCRIPTION})
"""The keys of AMP's frame that the body of an error has; the body of a result has none of them."""

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
    """The head before a client's request."""
    limit = b"" if seconds is None else b" %.6f" % seconds
    return pair(RUN, b"%d %d%b" % (job_id, attempt, limit))


def read_job(box: bytes) -> tuple[int, int, float | None, int]:
    """The head of a job, and where in the box the client's request begins.

    The head has the job's id, the attempt, and the seconds within which the job must end, or None.

    :raises Garbage: the box is not a job.
    """
    key, value, start = split(box)
    try:
        if key != RUN or value.strip(b"0123456789. "):
            raise ValueError(value)
        job_id, attempt, *seconds = value.split(b" ", 2)
        return int(job_id), int(attempt), float(seconds[0]) if seconds else None, start
    except ValueError:
        raise Garbage(f"a box that is not a job: {quote(box)}") from None


def stop(job_id: int, why: bytes) -> bytes:
    """A whole box that orders a job to stop."""
    return pair(STOP, b"%d %b" % (job_id, why)) + END


def read_stop(box: bytes) -> tuple[int, bytes]:
    """The id of the job that a box orders to stop, and why.

    :raises Garbage: the box is not an order to stop.
    """
    key, value, start = split(box)
    match = _STOP.fullmatch(value)
    if key != STOP or match is None or box[start:] != END:
        raise Garbage(f"a box that stops no job: {quote(box)}")
    return int(match[1]), match[2]


# From worker to parent.


def answer_head(job_id: int, failed: bool, usage: bytes, marks: int) -> bytes:
    """The head before a job's result, or before its error if `failed`."""
    return pair(FAILED if failed else DONE, b"%d %b %d" % (job_id, usage, marks))


def read_answer(value: bytes) -> tuple[bytes, bytes]:
    """The id and the usage in the head of a `DONE` or a `FAILED`.

    :raises Garbage: the head has no usage.
    """
    match = _ANSWER.fullmatch(value)
    if match is None:
        raise Garbage("an answer without a usage")
    return match[1], match[2]


def report_head(job_id: int) -> bytes:
    """The head before a job's progress."""
    return pair(REPORT, b"%d" % job_id)


def part_head(job_id: int) -> bytes:
    """The head before a part of a job's result."""
    return pair(PART, b"%d" % job_id)


def check_report(box: Raw, start: int) -> None:
    """Check that the head of a `REPORT` is followed by a progress, and by nothing else.

    :raises Garbage: something else follows. The client might fail on it, or misread it.
    """
    if len(box) > LARGE:
        raise Garbage(f"a report of {len(box)} bytes")
    box = bytes(box)
    pairs = list(_pairs(box, start))
    if [key for key, _, _ in pairs] == [b"done", b"total", b"message"]:
        done, total, message = (box[begin:end] for _, begin, end in pairs)
        if _NUMBER.fullmatch(done) and _NUMBER.fullmatch(total) and _is_text(message):
            return
    raise Garbage("a report that is not progress")


def check_part(box: Raw, start: int) -> None:
    """Check that the head of a `PART` is followed by one value, over as many keys as it needs.

    :raises Garbage: something else follows.
    """
    begin, end = 0, MAX_VALUE
    for number, (key, following, its_end) in enumerate(_pairs(box, start)):
        if key != (b"data.%d" % number if number else b"data") or end - begin != MAX_VALUE:
            raise Garbage("a part of a result that is none")
        begin, end = following, its_end  # a value before another one must be full
    if box[start:] == END:
        raise Garbage("a part of a result that has no data")


def _pairs(box: Raw, start: int) -> Iterator[tuple[bytes, int, int]]:
    """The keys of a box from `start` on, each with the places where its value begins and ends."""
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
