"""Numbers for people, as :mod:`dangad.text` shows them."""

from twisted.trial.unittest import SynchronousTestCase

from dangad.text import show_bytes, show_seconds


class ShowTests(SynchronousTestCase):
    def test_bytes(self) -> None:
        """A number of bytes has two or three digits and a unit."""
        for number, text in (
            (0, "0 bytes"),
            (999, "999 bytes"),
            (1023, "1.0 KiB"),
            (10_200, "10 KiB"),
            (34 * 2**20, "34 MiB"),
            (3.14 * 2**30, "3.1 GiB"),
            (5000 * 2**40, "5000 TiB"),
        ):
            self.assertEqual(show_bytes(number), text)

    def test_seconds(self) -> None:
        """A time has the unit that suits it."""
        for seconds, text in (
            (0, "0 ms"),
            (0.0123, "12 ms"),
            (0.9996, "1.0 s"),
            (2.14, "2.1 s"),
            (59.97, "1.0 min"),
            (90, "1.5 min"),
            (7512.9, "2.1 h"),
            (3 * 86_400 + 43_200, "3.5 d"),
        ):
            self.assertEqual(show_seconds(seconds), text)
