"""The picture of `dangad top` in the reference: ``python -m tests.topscreenshot`` draws it anew.

The server in it is made up, so that the picture is the same each time.
"""

from __future__ import annotations

import asyncio
import copy
import math
import re
from typing import Any

from dangad.cli.top.app import Top
from tests.fakeoperations import STATUS
from tests.reader import ROOT

PICTURE = ROOT / "docs" / "reference" / "top.svg"
SIZE = (100, 24)
LOOKS = 320
"""How many seconds the operator in the picture has looked on."""
_RUNNING = (
    (4711, 73411, "Thumbnail", 2.14),
    (4712, 73430, "Render", 48.3),
    (4713, 73478, "Thumbnail", 0.41),
)
_WAITING = (
    (73480, "Render", "high", 44.1, "process 5120 of user 1000"),
    (73485, "Render", "normal", 31.7, "127.0.0.1:51966"),
    (73491, "Rotate", "normal", 12.2, "127.0.0.1:51966"),
    (73502, "Rotate", "normal", 9.8, "127.0.0.1:51970"),
    (73515, "Thumbnail", "normal", 3.05, "process 5120 of user 1000"),
    (73516, "Thumbnail", "normal", 3.01, "process 5120 of user 1000"),
    (73522, "Thumbnail", "low", 2.87, "process 5120 of user 1000"),
    (73540, "Thumbnail", "low", 1.2, "process 5133 of user 1000"),
)


def _job(number: int, command: str, **facts: Any) -> dict[str, Any]:
    return {
        "id": number,
        "command": command,
        "client": "process 5120 of user 1000",
        "priority": "normal",
        "state": "running",
        "wait": 0.0,
        "runtime": None,
        "attempt": 1,
        "deadline_left": None,
        "worker": None,
        "paused": False,
        **facts,
    }


def _jobs() -> list[dict[str, Any]]:
    running = [
        _job(number, command, runtime=runtime, worker=worker, wait=0.21)
        for worker, number, command, runtime in _RUNNING
    ]
    waiting = [
        _job(
            number,
            command,
            state="queued",
            priority=priority,
            wait=wait,
            client=client,
            attempt=0,
            paused=command == "Rotate",
        )
        for number, command, priority, wait, client in _WAITING
    ]
    return sorted(running + waiting, key=lambda job: -(job["wait"] + (job["runtime"] or 0)))


def _workers() -> list[dict[str, Any]]:
    return [
        {
            "pid": worker,
            "state": "busy",
            "job": {"id": number, "command": command, "runtime": runtime},
        }
        for worker, number, command, runtime in _RUNNING
    ] + [{"pid": 4709, "state": "idle", "job": None}]


class MadeUpServer:
    """A server whose time goes on with each look at it."""

    def __init__(self, looks: int) -> None:
        """:param looks: how often it can be looked at."""
        self._most = looks
        #: How often it was looked at.
        self.looks = 0
        #: Set when it was looked at often enough, and all of that is shown.
        self.seen = asyncio.Event()

    def clock(self) -> float:
        """The time in its world."""
        return float(self.looks)

    async def ask(self, name: str, **_: Any) -> Any:
        """See :class:`dangad.cli.top.server.Ask`."""
        jobs = _jobs()
        if name == "Jobs":
            return {"total": len(jobs), "jobs": jobs}
        if name == "Workers":
            return _workers()
        if self.looks == self._most:
            self.seen.set()
            await asyncio.Event().wait()  # the picture is taken now
        self.looks += 1
        second = self.looks
        status = copy.deepcopy(STATUS)
        status["jobs"]["done"] = sum(int(70 + 50 * math.sin(step / 40)) for step in range(second))
        waiting = 8 + int(30 * max(0.0, math.sin((self._most - second) / 50)))
        status["jobs"].update(waiting=waiting, running=3, refused=0)
        status.update(backlog={"high": 1, "normal": 5, "low": 2}, oldest_wait=44.1, quarantine=[])
        status["last"]["1m"] = {"rate": 78.4, "failed": 2, "p50": 0.21, "p90": 0.9, "p99": 4.6}
        return status


async def draw(looks: int = LOOKS) -> str:
    """The picture, as SVG that needs nothing from elsewhere."""
    server = MadeUpServer(looks)
    app = Top(server.ask, server.clock, period=0.001)
    async with app.run_test(size=SIZE) as pilot:
        await server.seen.wait()
        await pilot.press("down", "down")
        drawn = app.export_screenshot(title="dangad top", simplify=True)
    alone = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)
    return re.sub(r"terminal-\d+-", "terminal-", alone)


def texts(picture: str) -> list[str]:
    """The texts in a picture."""
    return [text.strip() for text in re.findall(r"<text[^>]*>([^<]*)</text>", picture)]


if __name__ == "__main__":
    PICTURE.write_text(asyncio.run(draw()))
    print(f"{PICTURE}: {PICTURE.stat().st_size} bytes")
