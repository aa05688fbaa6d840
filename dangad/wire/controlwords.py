"""The words and limits of the control endpoint that both of its ends know.

:mod:`dangad.operators` checks them, and :mod:`dangad.cli` offers them.
"""

from __future__ import annotations

MOST = 1000
"""The most entries of one document, and the most jobs of one order."""
FARTHEST = 10_000
"""The most entries of a list that can be passed over; to see others, use a filter."""

LIVE_STATES = ("queued", "running", "paused")
"""The states by which jobs that have not ended are chosen: those that are queued may be paused."""
ENDED_STATES = ("done", "failed", "cancelled", "timed out", "lost")
"""The states of jobs that have ended."""

JOB_ORDERS = ("state", "age", "wait", "runtime", "priority", "command", "client")
"""The sort orders of jobs that wait or run. By `state`, those that run come first, then those that
wait, and in both the oldest first."""
RECENT_ORDERS = (
    "ended",
    "wait",
    "runtime",
    "cpu",
    "peak_memory",
    "state",
    "command",
    "client",
    "error",
)
"""The sort orders of jobs that have ended: keys of their entries."""
CLIENT_ORDERS = ("client", "peer", "since", "idle", "waiting", "running", "held", "bytes")
"""The sort orders of clients: keys of their entries."""

EVENTS = (
    "accepted",
    "started",
    "retried",
    "ended",
    "refused",
    "worker started",
    "worker ready",
    "worker gone",
    "paused",
    "resumed",
    "reload",
    "scaled",
    "draining",
)
"""The kinds of events that operators can watch."""
