"""The boxes that a worker may write, and their forms; everything else in its pipe is garbage.

:mod:`dangad.pool.link` lets this module check each box of its worker, because the code of a job can
write anything to the pipe. The link itself knows which boxes are allowed at the moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dangad.scheduler.registry import Offer
from dangad.wire import boxes, commands, workerboxes

if TYPE_CHECKING:
    from dangad.scheduler.record import Job
    from dangad.wire.boxes import Raw

ANSWERS = frozenset({workerboxes.DONE, workerboxes.FAILED})
"""The keys of boxes at the end of a job."""
NEWS = frozenset({workerboxes.REPORT, workerboxes.PART})
"""The keys of boxes about a job before its answer."""
MAX_LAST_WORDS = 2000
"""The most bytes of a worker's last words that are read."""
REPORTS_A_SECOND = 20
"""The most progress reports a second that one job may send. ``progress()`` sends fewer: a job that
exceeds this rate has written to the pipe itself."""
REPORTS_AT_ONCE = 2000
"""Progress reports beyond `REPORTS_A_SECOND` that may come at once: a pipe that was not read for a
time holds as many."""


def read(box: boxes.Box) -> tuple[bytes, bytes, Raw]:
    """The kind of a box, which is the key of its head; the value of the head; and the rest.

    The kinds are those that a worker writes, see :mod:`~dangad.wire.workerboxes`, and
    ``boxes.COMMAND``. For a command the rest is the whole box.

    :raises Garbage: the box is of no kind, or does not have the form of its kind.
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


def read_hello(raw: bytes) -> tuple[str, int, int]:
    """The catalogue in a Hello, and the worker's `cpu` and `shared` in it.

    :raises Garbage: the Hello cannot be read.
    """
    try:
        hello = commands.Hello.parseArguments(boxes.unpack(raw), None)
        Offer(hello["catalogue"])
    except (KeyError, ValueError) as error:
        raise boxes.Garbage(f"a Hello that cannot be read: {error}") from None
    return hello["catalogue"], hello["cpu"], hello.get("shared") or 0


def read_last_words(raw: bytes) -> str:
    """The reason that a worker gives for its exit."""
    reason = boxes.unpack(raw).get(b"reason", b"")
    return reason[:MAX_LAST_WORDS].decode("utf-8", "replace")


class News:
    """Checks the progress reports and partial results of one worker's jobs."""

    __slots__ = ("_job", "_reports")

    def __init__(self) -> None:
        #: The job that sent the last progress report.
        self._job: Job | None = None
        #: How many reports this job has sent.
        self._reports = 0

    def check(self, job: Job | None, now: float, key: bytes, job_id: bytes, body: Raw) -> None:
        """Check that a `REPORT` or a `PART` may go to the client of the running `job`.

        :raises Garbage: the box belongs to another job; the client has not asked for it; it cannot
            be read; or there are more reports than ``progress()`` sends.
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
