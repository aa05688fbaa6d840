"""Whether the server can do its work, for load balancers and for people who are on call."""

from __future__ import annotations

from typing import Any

from dangad.text import show_seconds


def illness(status: dict[str, Any], oldest: float = 0.0) -> str:
    """Why the server is not healthy, in one line; empty if it is.

    :param status: what ``IOperations.status`` tells.
    :param oldest: seconds that the oldest job may wait; 0 for any time.
    """
    if status["no_workers"]:
        return f"cannot start workers: {status['no_workers']}"
    if status["state"] != "running":
        return "draining: the server takes no new jobs"
    wait = status["oldest_wait"]
    if oldest and wait is not None and wait > oldest:
        limit = show_seconds(oldest)
        return f"the oldest job has waited for {show_seconds(wait)}, longer than {limit}"
    return ""


def fullness(status: dict[str, Any]) -> str:
    """In one line that the queue is full, and refuses requests; empty if it is not."""
    waiting, most = status["jobs"]["waiting"], status["jobs"]["max_queued"]
    return f"the queue is full: {waiting:,} of {most:,} jobs wait" if waiting >= most else ""


def unreadiness(status: dict[str, Any]) -> str:
    """Why the server should not be sent jobs now, in one line; empty if it may."""
    if status["state"] != "running":
        return "draining: the server takes no new jobs"
    workers = status["workers"]
    if not workers["idle"] and not workers["busy"] and workers["min"]:
        return status["no_workers"] or "no worker is ready: none has started, or all have died"
    return ""
