"""What the workers perform, as the parent knows it: job types by name, and their policies.

Filled by the workers' Hello, kept by :mod:`dangad.scheduler.dispatcher`, asked by clients
(``Describe``). Usually all workers perform the same commands. During a reload they may differ. Then
a command can be called if any worker performs it. Its latest description counts, and its jobs go
only to workers that perform it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from twisted.internet import defer

from dangad.waiters import Waiters
from dangad.wire.catalogue import NO_POLICY, Policy, write_catalogue

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from dangad.errors import DangadError
    from dangad.scheduler.interfaces import IWorker


class Offer:
    """The job types of one Hello."""

    def __init__(self, catalogue: str) -> None:
        """Read the catalogue.

        :raises ValueError: the catalogue is not in the form of :mod:`dangad.wire.catalogue`.
        """
        try:
            entries = {
                entry["name"].encode("ascii"): entry for entry in json.loads(catalogue)["commands"]
            }
            self.policies = {name: Policy(**entry["policy"]) for name, entry in entries.items()}
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"a catalogue that cannot be read: {error!r}") from None
        self.entries: dict[bytes, dict[str, Any]] = entries
        self.commands = frozenset(entries)
        #: The living workers that said this Hello.
        self.workers: set[IWorker] = set()


class Registry:
    """The job types that can be performed.

    The latest offer stays when its last worker dies: workers with the same offer follow.
    """

    def __init__(self) -> None:
        #: The commands that some workers perform and some do not.
        self.partial: frozenset[bytes] = frozenset()
        #: The commands whose jobs go only to workers that have not had a job yet.
        self.isolated: frozenset[bytes] = frozenset()
        #: The commands that not every idle worker can start: `partial` and `isolated` together.
        self.choosy: frozenset[bytes] = frozenset()
        #: The offers of the workers by the text of the catalogue, the latest offer last.
        self._offers: dict[str, Offer] = {}
        #: The policy of each command that any worker performs.
        self.policies: dict[bytes, Policy] = {}
        #: Whether any worker has sent a catalogue.
        self.known = False
        #: The JSON document that describes all commands.
        self._catalogue = ""
        #: The Deferreds that fire with the first such document.
        self._waiters: Waiters[str] = Waiters()

    @property
    def waiting(self) -> int:
        """How many callers of `catalogue` wait for it."""
        return len(self._waiters)

    def lacks(self, command: bytes) -> bool:
        """Whether it is known that no worker performs `command`."""
        return self.known and command not in self.policies

    def policy(self, command: bytes) -> Policy:
        """The policy of a job type; an empty policy if the type is not known."""
        return self.policies.get(command, NO_POLICY)

    def docs(self) -> dict[bytes, str]:
        """What each command is for, as far as its author says so."""
        offers = self._offers.values()
        return {
            name: str(entry.get("doc", ""))
            for each in offers
            for name, entry in each.entries.items()
        }

    def entry(self, command: bytes) -> dict[str, Any] | None:
        """The catalogue's entry of `command`; None if no worker performs it, as far as is known."""
        for offer in reversed(self._offers.values()):
            if command in offer.entries:
                return offer.entries[command]
        return None

    def performs(self, worker: IWorker, command: bytes) -> bool:
        """Whether `worker` performs `command`."""
        return any(
            worker in offer.workers and command in offer.commands for offer in self._offers.values()
        )

    def join(self, worker: IWorker, catalogue: str) -> bool:
        """Take in a new `worker` with its `catalogue`; whether the catalogue is new."""
        known = self._offers.pop(catalogue, None)
        news = known is None or bool(self._offers)
        offer = self._offers[catalogue] = known or Offer(catalogue)
        offer.workers.add(worker)
        if news:
            self._review()
        return news

    def leave(self, worker: IWorker) -> bool:
        """Forget `worker`, which is dead; whether the commands that can be called change."""
        for offer in self._offers.values():
            offer.workers.discard(worker)
        before = len(self._offers)
        if before > 1:
            self._review()
        return len(self._offers) < before

    def outdated(self) -> set[IWorker]:
        """The workers that perform other commands than the worker that said Hello last."""
        *others, latest = self._offers.values()
        return {
            worker
            for other in others
            if other.commands != latest.commands
            for worker in other.workers
        }

    def catalogue(self) -> Deferred[str]:
        """The JSON document of :mod:`dangad.wire.catalogue`.

        Fires at once if it is known, else when `tell` is called. Fails with the error that `tell`
        is given. Cancelling it ends the wait.
        """
        return defer.succeed(self._catalogue) if self.known else self._waiters.wait()

    def tell(self, most: int, error: DangadError) -> bool:
        """Tell at most so many of the waiting callers the catalogue, or `error` if it is not known.

        Returns whether others still wait.
        """
        if self.known:
            self._waiters.tell(self._catalogue, most)
        else:
            self._waiters.fail(error, most)
        return bool(self._waiters)

    def _review(self) -> None:
        """Work out anew which commands can be called, from the offers of the living workers."""
        latest = next(reversed(self._offers))
        self._offers = {
            text: offer for text, offer in self._offers.items() if offer.workers or text == latest
        }
        offers = list(self._offers.values())
        entries = {name: entry for each in offers for name, entry in each.entries.items()}
        self.known = True
        self.policies = {name: policy for each in offers for name, policy in each.policies.items()}
        self._catalogue = latest if len(offers) == 1 else write_catalogue(entries.values())
        self.partial = frozenset(entries) - frozenset.intersection(
            *(offer.commands for offer in offers)
        )
        self.isolated = frozenset(name for name, policy in self.policies.items() if policy.isolate)
        self.choosy = self.partial | self.isolated
