"""What must hold of the scheduler's state whenever somebody else gets to see it.

That is between two events, and whenever a client is told of an outcome: it may submit, cancel and
leave then, and must find nothing half changed.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from dangad.scheduler.record import JobState
from dangad.wire.values import Priority

if TYPE_CHECKING:
    from dangad.scheduler.dispatcher import Dispatcher


def assert_whole(dispatcher: Dispatcher) -> None:
    """Each accepted job is in one place, the counters say so, and nobody is idle in vain."""
    state = dispatcher.state
    assignments, queue = state.assignments, state.queue
    queued = list(queue)
    places = queued.copy()
    prefetched = size = 0
    for worker, row in assignments.jobs.items():
        assert worker not in assignments.idle, worker
        assert row[0].state is JobState.RUNNING, row
        assert row[0].worker is worker, row
        for job in row[1:]:
            assert job.state is JobState.PREFETCHED, row
            assert job.worker is worker, row
            prefetched += 1
            size += job.size
        places += row
    assert len(set(places)) == len(places), places
    for job in queued:
        assert job.state is JobState.QUEUED, job
        assert job.worker is None, job
    assert queue.count == len(queued)
    assert queue.size == sum(job.size for job in queued)
    assert {*queue.jobs()} == {*queued}
    assert queue.count_by_priority() == {
        priority: sum(job.priority is priority for job in queued) for priority in Priority
    }
    assert queue.oldest() == min((job.accepted_at for job in queued), default=None)
    assert (assignments.prefetched, assignments.size) == (prefetched, size)
    counters = dispatcher.counters
    assert counters.accepted == sum(counters.ended.values()) + len(places)
    metrics = counters.metrics
    assert metrics.present == Counter(job.command for job in places)
    each = [*metrics.by_command.values(), metrics.others]
    assert counters.ended == {
        s: sum(measured.ended[s] for measured in each) for s in counters.ended
    }
    assert not (assignments.idle and queue.has_turn()), "an idle worker, and a job that may start"
