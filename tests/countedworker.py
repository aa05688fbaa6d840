"""Counts what an echo costs a worker in its own code, from the pipe and back to it.

``python -m tests.countedworker`` prints the number of opcodes. It is a process of its own, since a
worker takes on its whole process.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from dangad.wire import boxes, workerboxes
from dangad.worker.child import _serve
from dangad.worker.jobtypes import find_job_types
from dangad.worker.offspring import Offspring
from dangad.worker.perform import Performer
from dangad.worker.pipe import WorkerPipe, put_out_of_reach
from dangad.worker.processstate import ProcessState
from dangad.worker.usage import Meter

if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

SAMPLE = 20
REQUEST = boxes.pack([(boxes.ASK, b"1"), (boxes.COMMAND, b"Echo"), (b"data", bytes(32))])


class Counter:
    """Counts the opcodes of Python that are executed while it is the trace function."""

    def __init__(self) -> None:
        self.count = 0

    def trace(self, frame: FrameType, what: str, _: object) -> Any:
        """See :func:`sys.settrace`."""
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        self.count += what == "opcode"
        return self.trace


def main() -> None:
    """Print what an echo costs."""
    read_jobs, write_jobs = os.pipe()
    read_answers, write_answers = os.pipe()
    wishes, _ = os.pipe()
    pipe = WorkerPipe(read_jobs, write_answers, wishes, 2**20)
    performer = Performer(find_job_types(["dangad.examples"]), 2**20, lambda _: None)
    meter, offspring = Meter(), Offspring(put_out_of_reach)
    counter = Counter()
    sys.settrace(counter.trace)
    process_state = ProcessState()  # to which the trace function belongs
    counter.count = 0
    for number in range(SAMPLE):
        os.write(write_jobs, workerboxes.job_head(number, 1, None) + REQUEST)
        raw = pipe.next_job()
        if raw is None or not _serve(pipe, performer, meter, process_state, offspring, raw):
            sys.exit("an echo has left the worker not_reusable")
        os.read(read_answers, 2**16)
    sys.settrace(None)
    print(counter.count // SAMPLE)


if __name__ == "__main__":
    main()
