"""When the server says that it is not well."""

from __future__ import annotations

from dangad.web.settings import WebSettings
from tests.unit.web.visits import VisitCase


class HealthTests(VisitCase):
    settings = WebSettings("unix:web.sock", health_oldest=60.0)

    def assert_says(self, path: str, status: int, line: str) -> None:
        """The answer has this status, and begins with this line."""
        answer = self.get(path)
        self.assertEqual((answer.status, answer.text), (status, f"{line}\n"))

    def test_well(self) -> None:
        """A server that works says so."""
        self.assert_says("/health", 200, "ok")
        self.assert_says("/ready", 200, "ok")

    def test_no_workers(self) -> None:
        """If workers cannot be started, the reason is told."""
        self.operations.status_document["no_workers"] = "jobs.py cannot be imported"
        self.assert_says("/health", 503, "cannot start workers: jobs.py cannot be imported")

    def test_draining(self) -> None:
        """A server that stops is neither healthy nor ready."""
        self.operations.status_document["state"] = "draining"
        for path in ("/health", "/ready"):
            self.assert_says(path, 503, "draining: the server takes no new jobs")

    def test_old_job(self) -> None:
        """A job that waits for too long makes the server unhealthy, though it is ready."""
        self.operations.status_document["oldest_wait"] = 90.0
        self.assert_says(
            "/health", 503, "the oldest job has waited for 1.5 min, longer than 1.0 min"
        )
        self.assert_says("/ready", 200, "ok")

    def test_any_age(self) -> None:
        """Without the option a job may wait for any time."""
        self.site = self.make_site(WebSettings("unix:web.sock"))
        self.operations.status_document["oldest_wait"] = 1e6
        self.assert_says("/health", 200, "ok")

    def test_no_job_waits(self) -> None:
        """Where no job waits, none is too old."""
        self.operations.status_document["oldest_wait"] = None
        self.assert_says("/health", 200, "ok")

    def test_before_first_worker(self) -> None:
        """Until the first worker has started, the server is not ready."""
        workers = {**self.operations.status_document["workers"], "idle": 0, "busy": 0}
        self.operations.status_document["workers"] = workers
        self.assert_says("/ready", 503, "no worker is ready: none has started, or all have died")
        self.operations.status_document["no_workers"] = "no such module"
        self.assert_says("/ready", 503, "no such module")

    def test_without_workers(self) -> None:
        """A server that keeps no worker while there is nothing to do is ready."""
        workers = {**self.operations.status_document["workers"], "idle": 0, "busy": 0, "min": 0}
        self.operations.status_document["workers"] = workers
        self.assert_says("/ready", 200, "ok")
