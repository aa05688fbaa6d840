"""What the workers perform, as the parent knows it: job types by name, and their policies.

Filled by the workers' Hello, kept by :mod:`dangad.scheduler.dispatcher`, asked by clients
(``Describe``). Usually all workers perform the same commands. During a reload they may differ. Then
a command can be called if any worker performs it, the latest description of it counts, and a job
goes only to a worker that performs its command.
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

        :raises ValueError: it is not in the form of :mod:`dangad.wire.catalogue`.
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
        #: The workers that said it, and live.
        self.workers: set[IWorker] = set()


class Registry:
    """The job types that can be performed.

    The latest offer stays when its last worker dies, since others like it follow.
    """

    def __init__(self) -> None:
        #: The commands that some workers perform and some do not.
        self.partial: frozenset[bytes] = frozenset()
        #: The commands whose jobs go only to workers that have done nothing yet.
        self.isolated: frozenset[bytes] = frozenset()
        #: The commands that not every idle worker can start: `partial` and `isolated` together.
        self.choosy: frozenset[bytes] = frozenset()
        #: What the workers offer, by the text of its catalogue, the latest last.
        self._offers: dict[str, Offer] = {}
        #: The policy of each command that any worker performs.
        self.policies: dict[bytes, Policy] = {}
        #: Whether any worker has told what it performs.
        self.known = False
        #: The JSON document that tells of all commands.
        self._catalogue = ""
        #: Who asked for that document before there was one.
        self._waiters: Waiters[str] = Waiters()

    @property
    def waiting(self) -> int:
        """How many wait to be told."""
        return len(self._waiters)

    def lacks(self, command: bytes) -> bool:
        """Whether it is known that no worker performs `command`."""
        return self.known and command not in self.policies

    def policy(self, command: bytes) -> Policy:
        """The policy of a job type; one that asks for nothing if it is not known."""
        return self.policies.get(command, NO_POLICY)

    def performs(self, worker: IWorker, command: bytes) -> bool:
        """Whether `worker` performs `command`."""
        return any(
            worker in offer.workers and command in offer.commands for offer in self._offers.values()
        )

    def join(self, worker: IWorker, catalogue: str) -> bool:
        """Take in a new `worker` that performs what `catalogue` says; whether that is news."""
        known = self._offers.pop(catalogue, None)
        news = known is None or bool(self._offers)
        offer = self._offers[catalogue] = known or Offer(catalogue)
        offer.workers.add(worker)
        if news:
            self._review()
        return news

    def leave(self, worker: IWorker) -> bool:
        """Forget a `worker` that is dead; whether that changes what can be performed."""
        for offer in self._offers.values():
            offer.workers.discard(worker)
        before = len(self._offers)
        if before > 1:
            self._review()
        return len(self._offers) < before

    def outdated(self) -> set[IWorker]:
        """The workers that perform other commands than the latest to say Hello."""
        *others, latest = self._offers.values()
        return {
            worker
            for other in others
            if other.commands != latest.commands
            for worker in other.workers
        }

    def catalogue(self) -> Deferred[str]:
        """The JSON document of :mod:`dangad.wire.catalogue`.

        Fires once it is known and `tell` is called; fails as that is told. Cancelling it ends
        the wait.
        """
        return defer.succeed(self._catalogue) if self.known else self._waiters.wait()

    def tell(self, most: int, error: DangadError) -> bool:
        """Tell as many of those who wait the catalogue, or `error` as long as it is not known.

        Whether others wait still.
        """
        if self.known:
            self._waiters.tell(self._catalogue, most)
        else:
            self._waiters.fail(error, most)
        return bool(self._waiters)

    def _review(self) -> None:
        """Work out again what can be performed."""
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
