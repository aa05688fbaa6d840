"""The jobs that a worker was given, in order, and the packets that still lie in its pipe.

Kept by :mod:`dangad.pool.link`. The worker runs the first job of the row. The others are
prefetched: each is one packet in the worker's pipe (:mod:`dangad.pool.jobpipe`). The worker takes
the next packet out when it has answered the job before; until then the parent can take it out.
"""

from __future__ import annotations

import select
from collections import deque
from typing import TYPE_CHECKING

from dangad.wire import workerboxes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dangad.pool.jobpipe import JobPipe
    from dangad.scheduler.record import Job
    from dangad.wire.boxes import Raw

ROOM = 8
"""The most jobs that are prefetched for a worker; a pipe of Linux holds 16 packets."""


class GivenJobs:
    """The row of jobs. Always true: each job in the row but the first has its packet here."""

    __slots__ = ("_pipe", "_taken", "may_follow", "packets", "row")

    def __init__(self, pipe: JobPipe) -> None:
        """Begin with no jobs, for the worker at the other end of `pipe`."""
        self._pipe = pipe
        #: The jobs; the worker runs the first.
        self.row: deque[Job] = deque()
        #: The packets of the other jobs, by job id.
        self.packets: dict[int, bytes] = {}
        #: Whether another job may be written behind the last: the pipe holds packets, no stream.
        self.may_follow = False
        #: Packets that were taken out of the pipe and are not sorted yet.
        self._taken: list[bytes] = []

    @property
    def running(self) -> Job | None:
        """The job that the worker runs; None if it has none."""
        return self.row[0] if self.row else None

    @property
    def running_id(self) -> int | None:
        """The id of the job that the worker runs; None if it has none."""
        return self.row[0].id if self.row else None

    def run(self, job: Job) -> None:
        """Give `job` to a worker that has no job."""
        self.row.append(job)
        head = workerboxes.job_head(job.id, job.attempt, job.seconds)
        self.may_follow = self._pipe.write(head, job.box)

    def follow(self, job: Job) -> bool:
        """Write `job` to the pipe behind the worker's other jobs; False if there is no room.

        If this raises, the job counts as given: it may have been written.
        """
        packet = workerboxes.job_head(job.id, job.attempt + 1, job.seconds) + job.box
        if not self.may_follow or len(packet) > select.PIPE_BUF:
            return False
        self.row.append(job)
        self.packets[job.id] = packet
        if self._pipe.write_packet(packet):
            return True
        self.row.pop()
        del self.packets[job.id]
        return False

    def take_out(self) -> None:
        """Take all unread packets out of the pipe.

        :raises OSError: the system fails; what is left in the pipe is not known.
        """
        self._pipe.reclaim(self._taken)

    def reclaim(self) -> tuple[list[int], list[bytes]]:
        """Remove the jobs that were taken out from the row.

        :return: the ids of these jobs, and the packets that belong to none of them.
        """
        taken, self._taken = self._taken, []
        ids = {packet: job_id for job_id, packet in self.packets.items()}
        back = [ids[packet] for packet in taken if packet in ids]
        for job_id in back:
            self.packets.pop(job_id, None)
        if back:
            self.row = deque(job for job in self.row if job.id not in back)
        return back, [packet for packet in taken if packet not in ids]

    def put_back(self, packets: Iterable[bytes]) -> bool:
        """Write packets back to the pipe that lay there before the reclaimed jobs.

        False if the parent has not written one of them.

        :raises OSError: the pipe does not take a packet that it held before.
        """
        current = self._head(self.row[0]) if self.row else b""
        for packet in packets:
            if packet != workerboxes.PING_BOX and not (current and packet.startswith(current)):
                return False
            if not self._pipe.write_packet(packet):
                raise OSError("the pipe does not take the packets that it held")
        return True

    def unread_request(self) -> Raw:
        """The request of the job that a dead worker was to run, if the worker had not read it.

        The jobs that it had not begun can be reclaimed afterwards.

        :raises OSError: the system fails; what is left in the pipe is not known.
        """
        if not self.row:
            return b""
        self.take_out()
        job, head = self.row[0], self._head(self.row[0])
        if not self.may_follow:  # the request is a stream: it may have read a part of it
            return self._pipe.unread_request(head, job.size, self._taken)
        for packet in self._taken:
            if packet.startswith(head):
                return packet[len(head) :]
        return b""

    @staticmethod
    def _head(job: Job) -> bytes:
        """The head that was written before the request of the running `job`."""
        return workerboxes.job_head(job.id, job.attempt, job.seconds)
