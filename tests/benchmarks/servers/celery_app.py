"""The work as Celery's tasks, with Redis as broker and as result backend.

Celery's worker loads `app` from here; the client makes its own. The Redis is named by
``$BENCH_REDIS``.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from tests.benchmarks.work import WORK


def make_app(redis: str) -> Any:
    """An app whose tasks take and give text, as JSON does."""
    made = Celery("bench", broker=redis, backend=redis)
    for name, function in WORK.items():
        made.task(name=f"bench.{name}")(_of_text(function))
    return made


def _of_text(function: Any) -> Any:
    def of_text(data: str, amount: int) -> str:
        answer: bytes = function(data.encode(), amount)
        return answer.decode()

    of_text.__name__ = function.__name__
    return of_text


app = make_app(os.environ.get("BENCH_REDIS", ""))
