"""What a worker may say, and in which form; whatever else it writes to its pipe is garbage.

Asked by :mod:`dangad.pool.link` for each box of its worker's, in which the code of a job may have
written anything. Whether the worker may say it now is for the link to know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dangad.scheduler.registry import Offer
from dangad.wire import boxes, commands, workerboxes

if TYPE_CHECKING:
    from dangad.scheduler.record import Job
    from dangad.wire.boxes import Raw

ANSWERS = frozenset({workerboxes.DONE, workerboxes.FAILED})
"""What a worker says at the end of a job."""
NEWS = frozenset({workerboxes.REPORT, workerboxes.PART})
"""What a worker may say of its job before the answer."""
MAX_LAST_WORDS = 2000
"""Bytes of its last words that are read."""
REPORTS_A_SECOND = 20
"""Reports of one job's progress, on an average, beyond which it has written them itself ..."""
REPORTS_AT_ONCE = 2000
"""... and so many more, which is what its pipe holds when it is not read for a time."""


def read(box: boxes.Box) -> tuple[bytes, bytes, Raw]:
    """What kind of box that is, by the key of its head; the value of its head; and what follows.

    The kinds are those of :mod:`~dangad.wire.workerboxes` that a worker writes, and
    ``boxes.COMMAND``, of which the whole box is returned.

    :raises Garbage: it has not the form of its kind, or is of none.
    """
    raw = box.raw
    if raw is None:
        raise boxes.Garbage(f"a box of {box.size} bytes, more than any answer may have")
    head = raw if isinstance(raw, bytes) else bytes(raw[: workerboxes.MAX_HEAD])
    key, value, start = workerboxes.split(head)
    if key == workerboxes.DONE:
        if box.keys:
            raise boxes.Garbage("a result with reserved keys in it")
        return key, value, raw[start:]
    if key == workerboxes.FAILED:
        if box.keys.keys() != workerboxes.ERROR_KEYS or box.size > workerboxes.MAX_ERROR:
            raise boxes.Garbage("an error that is none of AMP's")
        return key, value, bytes(raw[start:])
    if key == boxes.COMMAND:
        return key, value, bytes(raw)
    if box.keys:
        raise boxes.Garbage("a box with reserved keys in it")
    if key not in NEWS and raw != workerboxes.PONG_BOX:
        raise boxes.Garbage("a box that is neither an answer nor a command")
    return key, value, raw[start:]


def read_hello(raw: bytes) -> tuple[str, int]:
    """The catalogue in a Hello, and the microseconds of CPU time that the worker has taken so far.

    :raises Garbage: it cannot be read.
    """
    try:
        hello = commands.Hello.parseArguments(boxes.unpack(raw), None)
        Offer(hello["catalogue"])
    except (KeyError, ValueError) as error:
        raise boxes.Garbage(f"a Hello that cannot be read: {error}") from None
    return hello["catalogue"], hello["cpu"]


def read_last_words(raw: bytes) -> str:
    """Why a worker is about to exit, in its own words."""
    reason = boxes.unpack(raw).get(b"reason", b"")
    return reason[:MAX_LAST_WORDS].decode("utf-8", "replace")


class News:
    """What the jobs of one worker have told of themselves before they were answered."""

    __slots__ = ("_job", "_reports")

    def __init__(self) -> None:
        #: The job that has told its progress last.
        self._job: Job | None = None
        #: How often that job has told it.
        self._reports = 0

    def check(self, job: Job | None, now: float, key: bytes, job_id: bytes, body: Raw) -> None:
        """See that a `REPORT` or a `PART` may be told to the client of `job`, which runs.

        :raises Garbage: it is of another job, or nobody has asked for it; it is not what it says
            that it is; or there is more than ``progress()`` sends.
        """
        if job is None or job_id != b"%d" % job.id:
            raise boxes.Garbage(f"news of job {job_id[:20]!r}, which it was not given")
        if not (job.wants_progress if key == workerboxes.REPORT else job.wants_chunks):
            raise boxes.Garbage("news that nobody has asked for")
        if key == workerboxes.REPORT:
            self._count(job, now)
            workerboxes.check_report(body, 0)
        else:
            workerboxes.check_part(body, 0)

    def _count(self, job: Job, now: float) -> None:
        if job is not self._job:
            self._job, self._reports = job, 0
        self._reports += 1
        if self._reports > REPORTS_AT_ONCE + (now - job.started_at) * REPORTS_A_SECOND:
            raise boxes.Garbage("more progress than a job tells")
