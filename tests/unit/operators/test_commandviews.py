"""The document about commands, of a dispatcher with clients and workers."""

from __future__ import annotations

import json
from typing import Any

from dangad.operators.commandviews import AT_ONCE, CommandViews
from dangad.operators.parts import Parts
from dangad.operators.rates import Rates
from dangad.scheduler.metrics import MOST_COMMANDS
from tests.fakes import catalogue
from tests.unit.host.test_turns import TurnClock
from tests.unit.scheduler.dispatching import DispatcherTestCase


class CommandViewsTests(DispatcherTestCase):
    performs = catalogue("Echo", Limited={"max_running": 1})

    def begin_anew(self) -> None:
        """Have views of a new dispatcher, whose clock has turns."""
        super().begin_anew()
        self.clock = self.turns = TurnClock()
        self.serve()
        rates = Rates(self.clock, self.dispatcher.counters)
        self.views = CommandViews(self.dispatcher, rates, Parts(self.clock))

    def document(self) -> Any:
        """The document, once it is there, by command."""
        results: list[Any] = []
        self.views.commands().addCallback(results.append)
        while not results:
            self.turns.turn()
        return {each["command"]: each for each in json.loads(json.dumps(results[0]))}

    def test_numbers(self) -> None:
        """Each command has its numbers, and those of all unknown ones are together."""
        client, worker = self.connect("client"), self.ready()
        worker.can_prefetch = False
        self.submit(client)
        self.clock.advance(2)
        self.answer(worker)
        self.submit(client)
        self.clock.advance(1)
        self.answer(worker, failed=True)
        for command in ("Echo", "Echo", "Echo", "Limited", "None"):
            self.submit(client, command)
        self.dispatcher.pause([b"Limited"])
        document = self.document()
        echo, limited, other = document["Echo"], document["Limited"], document["other"]
        counts = ("running", "waiting", "done", "failed", "refused", "paused")
        self.assertEqual([echo[name] for name in counts], [1, 2, 1, 1, 0, False])
        self.assertEqual([limited[name] for name in counts], [0, 1, 0, 0, 0, True])
        self.assertEqual([other[name] for name in counts], [0, 0, 0, 0, 1, False])
        self.assertEqual(echo["errors"], {"UNKNOWN": 1})
        self.assertEqual(limited["policy"]["max_running"], 1)
        self.assertIsNone(echo["quarantine"])
        last = echo["last"]["5m"]
        self.assertEqual((last["jobs"], last["failed"]), (2, 1))
        self.assertApproximates(last["runtime"]["p99"], 2, 0.5)
        self.assertIsNone(limited["last"]["5m"]["wait"]["p50"])

    def test_called_other(self) -> None:
        """A command that is called like the sum of all others is told apart from it."""
        client, worker = self.connect("client"), self.ready(catalogue("other"))
        self.submit(client, "other")
        self.answer(worker)
        self.submit(client, "None")
        document = self.document()
        counted = {name: (each["done"], each["refused"]) for name, each in document.items()}
        self.assertEqual((counted["other"], counted["other (sum)"]), ((1, 0), (0, 1)))
        waits = self.views.histograms()["commands"]
        self.assertEqual(
            [sum(waits[n]["wait"]["counts"]) for n in ("other", "other (sum)")], [1, 0]
        )

    def test_in_parts(self) -> None:
        """Very many commands are looked at in parts."""
        names = [f"C{number}" for number in range(3 * AT_ONCE)]
        self.ready(catalogue(*names))
        waiter = self.views.commands()
        for _ in range(4):
            self.turns.turn()
            self.assertNoResult(waiter)
        self.turns.turn()
        self.assertEqual(len(self.successResultOf(waiter)), len(names))

    def test_beyond(self) -> None:
        """Jobs of a command that is not counted by itself are told together with others, too."""
        names = [f"C{number}" for number in range(MOST_COMMANDS + 1)]
        self.ready(catalogue(*names))
        self.assertNotIn("other", self.document())
        beyond = names[-1].encode()
        self.dispatcher.pause([beyond])
        self.submit(self.connect("client"), names[-1])
        document = self.document()
        self.assertEqual(len(document), MOST_COMMANDS + 1)
        self.assertEqual(document["other"]["waiting"], 1)
