"""Traces of a real server, as a collector gets them. Skipped without the extra ``dangad[otel]``."""

from __future__ import annotations

import http.server
import os
import signal
import sys
import threading
import time
from typing import Any

import pytest

from tests.blockingpeer import BlockingPeer, code_of
from tests.real.test_twistd import TwistdCase
from tests.twistdserver import PATIENCE, wait_for

pytest.importorskip("opentelemetry.exporter.otlp.proto.http")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01".encode()
OPTIONS = ("--listen=unix:dangad.sock", "--max-workers=1", "--log-format=json")
WITHOUT = """
import sys
from importlib.abc import MetaPathFinder

class Hide(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.startswith("opentelemetry"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hide())
from twisted.scripts.twistd import run
run()
"""
"""A program like twistd, where OpenTelemetry is not installed."""


class Collector(http.server.ThreadingHTTPServer):
    """Gets spans over HTTP."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        #: The spans that came.
        self.spans: list[Any] = []
        #: The resources that they belong to.
        self.resources: list[dict[str, str]] = []
        #: Cleared to let exports wait.
        self.answers = threading.Event()
        self.answers.set()
        #: Whether an export has come.
        self.asked = threading.Event()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        """Take spans."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.set()
        self.server.answers.wait(PATIENCE)
        request = ExportTraceServiceRequest.FromString(body)
        for of_resource in request.resource_spans:
            attributes = of_resource.resource.attributes
            self.server.resources.append({a.key: a.value.string_value for a in attributes})
            for of_scope in of_resource.scope_spans:
                self.server.spans += of_scope.spans
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class TraceTests(TwistdCase):
    def setUp(self) -> None:
        """A collector."""
        super().setUp()
        self.collector = Collector()
        thread = threading.Thread(target=self.collector.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        self.addCleanup(self.collector.server_close)
        self.addCleanup(self.collector.shutdown)
        self.addCleanup(self.collector.answers.set)
        self.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = self.collector.url
        self.environment["OTEL_BSP_SCHEDULE_DELAY"] = "50"

    def peer(self) -> BlockingPeer:
        """A client, until the end of the test."""
        peer = BlockingPeer(str(self.folder / "dangad.sock"))
        self.addCleanup(peer.close)
        return peer

    def test_foreground(self) -> None:
        """A traced job has two spans, children of the client's; a job without a trace has none."""
        words = [*self.twistd, "-n", "dangad", *OPTIONS, "--traces"]
        server = self.start_program(words)
        wait_for(lambda: "serves" in self.log() or server.poll() is not None)
        peer = self.peer()
        for options in ({}, {"_traceparent": TRACEPARENT}, {"_traceparent": b"nonsense"}):
            tag = peer.ask(b"Sleep", seconds=b"0.2", **options)
            self.assertEqual(code_of(peer.answer(tag)), "ok")
        wait_for(lambda: len(self.collector.spans) == 2)
        waits, runs = self.collector.spans
        self.assertEqual([waits.name, runs.name], ["wait Sleep", "process Sleep"])
        for span in (waits, runs):
            self.assertEqual((span.trace_id.hex(), span.parent_span_id.hex()), (TRACE, SPAN))
        self.assertGreater(runs.end_time_unix_nano - runs.start_time_unix_nano, 0.2e9)
        self.assertLess(abs(runs.end_time_unix_nano / 1e9 - time.time()), PATIENCE)
        self.assertEqual(self.collector.resources[0]["service.name"], "dangad")
        server.send_signal(signal.SIGTERM)
        server.wait(PATIENCE)

    def test_daemon_and_stop(self) -> None:
        """A daemon exports, too: the last spans before it ends."""
        self.environment |= {"OTEL_BSP_SCHEDULE_DELAY": "600000", "OTEL_SERVICE_NAME": "reports"}
        done = self.run_twistd("--logfile=log", "dangad", *OPTIONS, "--control=unix:c", "--traces")
        self.assertEqual(done.returncode, 0, done.stderr)
        pid = int((self.folder / "twistd.pid").read_text())
        self.addCleanup(_kill, pid)
        wait_for(lambda: "serves" in self.log())
        peer = self.peer()
        tag = peer.ask(b"Echo", data=b"x", _traceparent=TRACEPARENT)
        self.assertEqual(code_of(peer.answer(tag)), "ok")
        self.assertEqual(self.collector.spans, [])
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: "Server Shut Down" in self.log())
        self.assertEqual(len(self.collector.spans), 2, self.log())
        self.assertEqual(self.collector.resources[0]["service.name"], "reports")

    def test_stuck_collector(self) -> None:
        """A collector that does not answer slows no job, and holds up the stop for a moment."""
        words = [*self.twistd, "-n", "dangad", *OPTIONS, "--traces"]
        self.collector.answers.clear()
        server = self.start_program(words)
        wait_for(lambda: "serves" in self.log() or server.poll() is not None)
        peer = self.peer()
        for _ in range(600):
            tag = peer.ask(b"Echo", data=b"x", _traceparent=TRACEPARENT)
            self.assertEqual(code_of(peer.answer(tag)), "ok")
        self.assertTrue(self.collector.asked.wait(PATIENCE))
        server.send_signal(signal.SIGTERM)
        self.assertEqual(server.wait(PATIENCE / 2), -signal.SIGTERM)
        self.assertIn("Server Shut Down", self.log())

    def test_not_installed(self) -> None:
        """Without the extra the option is refused in one line, and nothing else needs it."""
        self.twistd = [sys.executable, "-c", WITHOUT]
        done = self.run_twistd("-n", "dangad", *OPTIONS, "--control=unix:c", "--traces")
        self.assertIn("twistd dangad: --traces: No module named 'opentelemetry", done.stderr)
        self.assertIn("pip install 'dangad[otel]'", done.stderr)
        server = self.start_program([*self.twistd, "-n", "dangad", *OPTIONS])
        wait_for(lambda: "serves" in self.log() or server.poll() is not None)
        peer = self.peer()
        tag = peer.ask(b"Echo", data=b"x", _traceparent=TRACEPARENT)
        self.assertEqual(code_of(peer.answer(tag)), "ok")


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
