"""Short runs of the load of `tests.historyload`: the history is sound, and nothing leaks.

``python -m tests.soak_history`` is the long run, with other seeds.
"""

import shutil
import tempfile

from twisted.trial.unittest import TestCase

from tests.history import Noticed, Reconciliation
from tests.historyload import PATIENCE, Load, summary
from tests.loadedserver import MIN_WORKERS
from tests.realserver import reactor
from tests.test_workers import a_story

ROUNDS = (3.0, 2.0, 2.0)
"""Seconds of each; the first is the warm-up."""
SEED = 3


class HistoryTests(TestCase):
    """What clients and workers wrote down fits together, under kills, cancels, disconnects."""

    timeout = 3 * PATIENCE

    @a_story
    async def test_reconciles(self) -> None:
        """No job is lost, doubled, or run after it was let go, and nothing is left behind."""
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        load = Load(reactor, folder, SEED, MIN_WORKERS)
        await load.run(*ROUNDS)
        history = load.history()
        record = Reconciliation(history)
        found = list(record.contradictions())
        shown = [
            f"{text}\n" + "\n".join(history.about(name) if name else ()) for name, text in found[:3]
        ]
        self.assertEqual(found, [], f"seed {SEED}: {summary(load, history)}\n" + "\n".join(shown))
        stories = record.stories.values()
        self.assertGreater(len(stories), 100)
        self.assertGreater(load.counts["kills"], 2)
        self.assertTrue(any(len(story.attempts) > 1 for story in stories))
        self.assertTrue(any(story.code == "CANCELLED" for story in stories))
        self.assertTrue(any(isinstance(event, Noticed) for event in history.events))
