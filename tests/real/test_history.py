"""Short runs of the load of `tests.historyload`: the history is sound, and nothing leaks.

``make soak`` is the long run, with other seeds.
"""

import shutil
import tempfile
from collections.abc import Collection

from twisted.trial.unittest import TestCase

from dangad.limits import PRELOADED
from tests.history import History, Noticed, Reconciliation, Story
from tests.historyload import PATIENCE, Load, summary
from tests.loadedserver import MIN_WORKERS, RECYCLE_JOBS
from tests.realserver import reactor

SEED = 3


class HistoryTests(TestCase):
    """Under cancels, disconnects, kills, freezes, reloads, recycling and garbage, all at once."""

    timeout = 3 * PATIENCE

    def setUp(self) -> None:
        """Make an empty folder, and prepare the load."""
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.load = Load(reactor, self.folder, SEED, MIN_WORKERS)

    def reconcile(self, load: Load, history: History) -> Collection[Story]:
        """All jobs; nothing contradicts in what is known of them."""
        record = Reconciliation(history)
        found = list(record.contradictions())
        shown = [
            f"{text}\n" + "\n".join(history.about(name) if name else ()) for name, text in found[:3]
        ]
        self.assertEqual(found, [], f"seed {SEED}: {summary(load, history)}\n" + "\n".join(shown))
        return record.stories.values()

    async def test_reconciles(self) -> None:
        """No job is lost, doubled, or run after it was let go, and nothing is left behind.

        And round after round, the server holds no more than after the first, in whatever it has.
        """
        load = self.load
        await load.run(2.5, 1.5, 1.5)
        self.assertEqual(len(load.footprints), 3)
        self.assertLess(load.footprints[0].memory, 100 * 2**20)
        history = load.history()
        stories = self.reconcile(load, history)
        self.assertGreater(len(stories), 100)
        for what in ("kills", "reloads", "garbled connections"):
            self.assertGreater(load.counts[what], 1, what)
        self.assertTrue(any(len(story.attempts) > 1 for story in stories))
        self.assertTrue(any(story.code == "CANCELLED" for story in stories))
        self.assertTrue(any(isinstance(event, Noticed) for event in history.events))
        self.assertIn(f"it has done {RECYCLE_JOBS} jobs", load.server.log.read_text())

    async def test_reconciles_beside_hostile_clients(self) -> None:
        """Nor is it when others send what they should not, and have jobs that harm their worker.

        And the server is left with nothing of all that.
        """
        load = Load(reactor, self.folder, SEED, MIN_WORKERS, hostile=True, start=PRELOADED)
        await load.run(1.0, 2.5, clients=3)
        self.assertGreater(len(self.reconcile(load, load.history())), 50)
        harm = {name for name in load.counts if name.startswith("hostile ")}
        self.assertGreater(len(harm), 5, harm)
