"""Which entry of the catalogue counts, while workers differ."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from dangad.scheduler.registry import Registry
from tests.fakes import FakeWorker, catalogue


def described(name: str, doc: str) -> str:
    """The catalogue of a worker that performs a command with this description."""
    document: dict[str, Any] = json.loads(catalogue(name))
    document["commands"][0]["doc"] = doc
    return json.dumps(document)


class EntryTests(SynchronousTestCase):
    def test_latest(self) -> None:
        """The latest description counts, and what no worker performs has none."""
        registry = Registry()
        self.assertIsNone(registry.entry(b"Echo"))
        old, new, other = FakeWorker(), FakeWorker(), FakeWorker()
        registry.join(old, described("Echo", "old"))
        registry.join(new, described("Echo", "new"))
        registry.join(other, described("Other", "other"))
        entry, another = registry.entry(b"Echo"), registry.entry(b"Other")
        assert entry is not None
        assert another is not None
        self.assertEqual((entry["doc"], another["doc"]), ("new", "other"))
        self.assertIsNone(registry.entry(b"Echo\xff"))
        registry.leave(new)
        registry.leave(old)
        self.assertIsNone(registry.entry(b"Echo"))
