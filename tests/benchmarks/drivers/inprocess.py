"""What a worker does with a job, in this process and without a pipe, to be profiled.

``python -m cProfile -s tottime -m tests.benchmarks.drivers.inprocess JOBS``.
"""

from __future__ import annotations

import sys

from tests.benchmarks import boxes
from tests.benchmarks.drivers import check, payload
from tests.benchmarks.servers.conversation import Conversations


def main(jobs: int) -> None:
    """Perform so many echo jobs, each with data of its own."""
    conversations = Conversations()
    for number in range(jobs):
        data = payload(number, 32)
        answer = conversations.answer(boxes.request(number, b"Echo", data, {}))
        check(answer, boxes.answer(number, data))


if __name__ == "__main__":
    main(int(sys.argv[1]))
