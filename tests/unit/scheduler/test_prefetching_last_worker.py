"""What is prefetched leaves the last worker to the others, as what starts does."""

from __future__ import annotations

from dangad.scheduler.prefetch import CAUTION, LONG, LOOK_INTERVAL
from tests.fakes import catalogue
from tests.unit.scheduler.test_dispatcher_prefetching import PrefetchTestCase

STORIES = {
    "a client of long jobs has one of two workers, and one of many short ones the other": """
        ready x, ann: a, bob: b1-5/Report, x runs a, w runs b1, ann: a1-15
        15x x works 0.01, x ran a1-15, done a1-14, queued b2-5
    """,
    "behind its own client's it goes: that has the worker as it is": """
        somebody: o, bob: b1-3/Report, w answers, w has b2-3
    """,
    "it goes behind nothing of its own client's that is behind another's": """
        somebody: o, bob: b, ann: a, bob: b1-2/Report, w answers, w runs b, w has a
    """,
    "behind another client's goes nothing of which none has ended": """
        goes_behind Report no
    """,
    "behind another client's goes what is known to be short": """
        15x w practises Sum 0.001, goes_behind Sum yes
    """,
    "one hiccup does no harm": """
        w practises Echo 0.03, 5x w practises Sum 0, goes_behind Echo yes
    """,
    "what has become long does not go, and what is short again does": """
        5x w practises Echo 0.05, 15x w practises Sum 0, goes_behind Echo no
        15x w practises Echo 0, goes_behind Echo yes
    """,
    "after a long job the type counts as long for so many times as long": f"""
        w practises Echo 1, 15x w practises Echo 0, goes_behind Echo no, wait {CAUTION}
        w practises Echo 0, goes_behind Echo yes
    """,
    "so it does while a long job of the type still runs": f"""
        somebody: o, ready x, bob: long, x runs long, wait {LONG + LOOK_INTERVAL}, w answers
        15x w practises Sum 0, somebody: s/Sum, ann: a/Sum, bob: b1-4, w answers, w runs a, w has
    """,
}


class LastWorkerTests(PrefetchTestCase):
    performs = catalogue("Echo", "Sum", "Report")
    practised = ("Echo",)  # of the others none was ever run

    def do_practises(self, worker: object, command: str, seconds: str) -> None:
        """The worker does one job of a type, for so long."""
        self.practise(1, command, seconds=float(seconds))

    def do_goes_behind(self, command: str, yes: str) -> None:
        """See whether a job of Bob's is prefetched behind one of Ann's; all end."""
        self.play(f"somebody: o, ann: a, bob: b/{command}, w answers, w runs a")
        self.assertEqual(self.worker.prefetched == [self.jobs["b"]], yes == "yes")
        self.play("finish, done b")

    def test_stories(self) -> None:
        """Which jobs are prefetched behind another client's."""
        self.tell(STORIES)
