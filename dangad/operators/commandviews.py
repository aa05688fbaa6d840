"""The document about commands: how many jobs of each wait, run, and fail, and how long they take.

A part of :class:`dangad.operators.view.Operations`.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Any

from dangad.scheduler.metrics import EDGES, OTHER

if TYPE_CHECKING:
    from collections.abc import Generator

    from twisted.internet.defer import Deferred

    from dangad.operators.parts import Parts
    from dangad.operators.rates import Rates
    from dangad.scheduler.dispatcher import Dispatcher
    from dangad.scheduler.metrics import CommandMetrics, Histogram

    Document = dict[str, Any]

LONGEST_DOC = 200
"""The most characters of a command's description: of its first line."""
OTHER_SUM = "other (sum)"
"""The name of the sum of all other commands if one command is called like the sum."""
AT_ONCE = 20
"""The most commands that are looked at in one part: their percentiles take time."""


class CommandViews:
    """What operators see of commands."""

    def __init__(self, dispatcher: Dispatcher, rates: Rates, parts: Parts) -> None:
        self._dispatcher = dispatcher
        self._rates = rates
        self._parts = parts

    def commands(self) -> Deferred[list[Document]]:
        """See :meth:`IOperations.commands`."""
        return self._parts.do(self._list())

    def histograms(self) -> Document:
        """See :meth:`IOperations.histograms`."""
        metrics = self._dispatcher.counters.metrics
        named = {name.decode("ascii", "replace"): each for name, each in metrics.by_command.items()}
        return {
            "edges": list(EDGES),
            "commands": {
                name: {"wait": _histogram(each.waits), "runtime": _histogram(each.runtimes)}
                for name, each in [*named.items(), (self._sum(), metrics.others)]
            },
        }

    def _list(self) -> Generator[None, None, list[Document]]:
        dispatcher = self._dispatcher
        metrics = dispatcher.counters.metrics
        docs = dispatcher.state.registry.docs()
        counted = sorted(metrics.by_command.items())
        yield
        entries = []
        for start in range(0, len(counted), AT_ONCE):
            running = Counter(job.command for job in dispatcher.jobs_running())
            away = dispatcher.kept_away()
            for command, numbers in counted[start : start + AT_ONCE]:
                runs = running[command]
                entries.append(
                    {
                        "command": command.decode("ascii", "replace"),
                        "doc": docs.get(command, "").partition("\n")[0][:LONGEST_DOC],
                        "running": runs,
                        "waiting": max(0, metrics.present.get(command, 0) - runs),
                        **_counts(numbers),
                        "last": self._rates.of(command),
                        "policy": dataclasses.asdict(dispatcher.state.registry.policy(command)),
                        "quarantine": away.get(command),
                        "paused": dispatcher.paused.holds(command),
                    }
                )
            yield
        others = metrics.others
        shown = others.refused or sum(others.ended.values())
        if shown or not metrics.present.keys() <= metrics.by_command.keys():
            entries.append(self._others(others))
        return entries

    def _sum(self) -> str:
        """The name of the sum of all commands that are not counted one by one."""
        known = self._dispatcher.counters.metrics.by_command
        return OTHER if OTHER.encode() not in known else OTHER_SUM

    def _others(self, numbers: CommandMetrics) -> Document:
        """The entry of all commands that are not counted one by one."""
        known = self._dispatcher.counters.metrics.by_command
        present = self._dispatcher.counters.metrics.present
        running = sum(job.command not in known for job in self._dispatcher.jobs_running())
        waiting = sum(number for name, number in present.items() if name not in known) - running
        return {
            "command": self._sum(),
            "doc": "",
            "running": running,
            "waiting": max(0, waiting),
            **_counts(numbers),
            "last": self._rates.of(b""),
            "policy": {},
            "quarantine": None,
            "paused": False,
        }


def _histogram(times: Histogram) -> Document:
    return {"counts": list(times.counts), "sum": times.sum}


def _counts(numbers: CommandMetrics) -> Document:
    """How many jobs of a command there were since the server started, by how they ended."""
    ended = {state.value.replace(" ", "_"): number for state, number in numbers.ended.items()}
    return {**ended, "refused": numbers.refused, "errors": dict(numbers.codes)}
