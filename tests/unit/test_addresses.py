"""Addresses that people write."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from dangad.addresses import client_form


class ClientFormTests(SynchronousTestCase):
    def test_forms(self) -> None:
        """Each endpoint of a server has a form for its clients, if that can be known."""
        for server, client in (
            ("unix:dangad.sock", "unix:dangad.sock"),
            ("/run/my:sock", r"unix:/run/my\:sock"),
            ("unix:/run/dangad.sock:mode=660:auth=none", "unix:/run/dangad.sock"),
            (r"unix:a\:b:mode=660", r"unix:a\:b"),
            ("tcp:7003", "tcp:localhost:7003"),
            ("tcp:7003:interface=0.0.0.0", "tcp:localhost:7003"),
            (r"tcp:7003:interface=\:\:", "tcp:localhost:7003"),
            (r"tcp:7003:interface=\:\:1", r"tcp:\:\:1:7003"),
            ("tcp:7003:interface=127.0.0.1", "tcp:127.0.0.1:7003"),
            ("tcp:0", ""),
            ("unix:", ""),
            ("systemd:domain=UNIX:index=0", ""),
        ):
            with self.subTest(server):
                self.assertEqual(client_form(server), client)
