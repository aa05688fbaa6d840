from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dangad.scheduler.quarantine import Quarantine

BAD, GOOD = b"Bad", b"Good"


ROWS: tuple[tuple[int, str], ...] = (
    # Threshold, and what happens: "-" is a loss, "x" one that sends the command into quarantine,
    # "+" a success, "@130" the time, ">29" how long the command is kept away.
    (3, "@100 - - x >30"),
    # A quarantine lasts its time, and not a moment longer; then one more loss sends it back.
    (1, "@100 x @101 >29 @129.5 >0.5 @130 >0 @131 >0"),
    (3, "@100 - - x @131 x @162 x @193 x >30"),
    # A success begins the count anew, and lifts a quarantine.
    (2, "@100 - + - x + >0 -"),
    # Losses that are far apart are no row.
    (3, "@0 - @50 - @100 - @150 - @200 - @250 - @300 - @350 - @400 - @450 - >0"),
    (0, "@100 - - - - - - - - - - >0"),
)


class QuarantineTests(SynchronousTestCase):
    def test_rows(self) -> None:
        """A command is kept away after so many losses in a row, and no other is."""
        for threshold, row in ROWS:
            quarantine, now = Quarantine(threshold, 30.0), 0.0
            for word in row.split():
                with self.subTest(row=row, word=word):
                    if word[0] == "@":
                        now = float(word[1:])
                    elif word[0] == ">":
                        self.assertEqual(quarantine.seconds_left(BAD, now), float(word[1:]))
                    elif word == "+":
                        quarantine.succeeded(BAD)
                    else:
                        self.assertEqual(quarantine.worker_lost(BAD, now), word == "x")
                    self.assertEqual(quarantine.seconds_left(GOOD, now), 0)

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
