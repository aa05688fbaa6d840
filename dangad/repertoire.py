"""What the workers perform, as the parent knows it: job types by name, and their policies.

Told by the workers' Hello, kept by :mod:`dangad.dispatcher`, asked by clients (``Describe``).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from dangad.jobrecord import Policy

if TYPE_CHECKING:
    from dangad.errors import DangadError

_NO_POLICY = Policy()


class Repertoire:
    """The job types that can be performed.

    All mutable state: `_catalogue`, the JSON document that told them, and `_policies`, what it
    says of each; None before the first worker has said Hello. `_waiting`, who asked for the
    catalogue before that.
    """

    def __init__(self) -> None:
        self._catalogue = ""
        self._policies: dict[bytes, Policy] | None = None
        self._waiting: list[Deferred[str]] = []

    @property
    def known(self) -> bool:
        """Whether any worker has told what it performs."""
        return self._policies is not None

    @property
    def waiting(self) -> int:
        """How many wait to be told."""
        return len(self._waiting)

    def lacks(self, command: bytes) -> bool:
        """Whether it is known that no worker performs `command`."""
        return self._policies is not None and command not in self._policies

    def policy(self, command: bytes) -> Policy:
        """The policy of a job type; one that asks for nothing if it is not known."""
        return _NO_POLICY if self._policies is None else self._policies.get(command, _NO_POLICY)

    def adopt(self, catalogue: str) -> bool:
        """Take `catalogue` for what the workers perform; whether that is news."""
        if catalogue == self._catalogue:
            return False
        self._policies = {
            entry["name"].encode("ascii"): Policy(**entry["policy"])
            for entry in json.loads(catalogue)["commands"]
        }
        self._catalogue = catalogue
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(catalogue)
        return True

    def catalogue(self) -> Deferred[str]:
        """The JSON document of :mod:`dangad.schema`.

        Fires once it is known; fails as `give_up` is told. Cancelling it ends the wait.
        """
        waiter: Deferred[str] = Deferred(self._waiting.remove)
        if self._policies is not None:
            waiter.callback(self._catalogue)
        else:
            self._waiting.append(waiter)
        return waiter

    def give_up(self, error: DangadError) -> None:
        """Tell those who wait that there is nothing to tell them, with `error`."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.errback(error)
