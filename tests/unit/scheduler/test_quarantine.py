from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dangad.scheduler.quarantine import Quarantine

BAD, GOOD = b"Bad", b"Good"


class QuarantineTests(SynchronousTestCase):
    def test_threshold(self) -> None:
        """A command is kept away from its third loss in a row on, and no other is."""
        quarantine = Quarantine(3, 30.0)
        self.assertEqual([quarantine.worker_lost(BAD, 100) for _ in range(3)], [False, False, True])
        self.assertEqual(quarantine.seconds_left(BAD, 100), 30)
        self.assertEqual(quarantine.seconds_left(GOOD, 100), 0)

    def test_time(self) -> None:
        """A quarantine lasts its time, and not a moment longer."""
        quarantine = Quarantine(1, 30.0)
        quarantine.worker_lost(BAD, 100)
        self.assertEqual(
            [quarantine.seconds_left(BAD, now) for now in (101, 129.5, 130, 131)], [29, 0.5, 0, 0]
        )

    def test_one_loss_afterwards(self) -> None:
        """After its quarantine one more loss sends a command back, again and again."""
        quarantine = Quarantine(3, 30.0)
        sent_back = [quarantine.worker_lost(BAD, now) for now in (100, 100, 100, 131, 162, 193)]
        self.assertEqual(sent_back, [False, False, True, True, True, True])
        self.assertEqual(quarantine.seconds_left(BAD, 193), 30)

    def test_success(self) -> None:
        """A success begins the count anew, and lifts a quarantine."""
        quarantine = Quarantine(2, 30.0)
        quarantine.worker_lost(BAD, 100)
        quarantine.succeeded(BAD)
        self.assertFalse(quarantine.worker_lost(BAD, 100))
        self.assertTrue(quarantine.worker_lost(BAD, 100))
        quarantine.succeeded(BAD)
        self.assertEqual(quarantine.seconds_left(BAD, 100), 0)
        self.assertFalse(quarantine.worker_lost(BAD, 100))

    def test_rare_losses(self) -> None:
        """Losses that are far apart are no row."""
        quarantine = Quarantine(3, 30.0)
        self.assertFalse(any(quarantine.worker_lost(BAD, now) for now in range(0, 5000, 50)))

    def test_off(self) -> None:
        """With a threshold of 0 nothing is kept away."""
        quarantine = Quarantine(0, 30.0)
        self.assertFalse(any(quarantine.worker_lost(BAD, 100) for _ in range(1000)))
        self.assertEqual(quarantine.seconds_left(BAD, 100), 0)

    @given(
        threshold=st.integers(0, 4),
        events=st.lists(st.tuples(st.sampled_from([BAD, GOOD]), st.booleans(), st.integers(0, 40))),
    )
    def test_never_without_enough_losses(
        self, threshold: int, events: list[tuple[bytes, bool, int]]
    ) -> None:
        """Whatever happens, only a command with that many losses and no success is kept away."""
        quarantine, now = Quarantine(threshold, 30.0), 100
        losses = {BAD: 0, GOOD: 0}
        for command, success, seconds in events:
            now += seconds
            if success:
                quarantine.succeeded(command)
                losses[command] = 0
            else:
                losses[command] += 1
                kept_away = quarantine.worker_lost(command, now)
                self.assertEqual(kept_away, quarantine.seconds_left(command, now) == 30)
            for name in (BAD, GOOD):
                left = quarantine.seconds_left(name, now)
                self.assertTrue(0 <= left <= 30)
                if left:
                    self.assertTrue(0 < threshold <= losses[name])
