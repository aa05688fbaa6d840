"""The house stays as it was built: short modules, short events, small interfaces, whole maps."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import dangad
from dangad.scheduler.interfaces import IWorker

ROOT = Path(dangad.__file__).parent
MODULE_LINES = 400
EVENT_LINES = 25
WORKER_MEMBERS = 8


def lines_of_code(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many lines a function has from its `def` on, its docstring not counted."""
    assert function.end_lineno is not None
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        assert docstring.end_lineno is not None
        lines -= docstring.end_lineno - docstring.lineno + 1
    return lines


class ShapeTests(SynchronousTestCase):
    def test_modules(self) -> None:
        """No module is longer than can be read at one sitting."""
        lengths = {
            str(path.relative_to(ROOT)): len(path.read_text().splitlines())
            for path in ROOT.rglob("*.py")
        }
        self.assertGreater(len(lengths), 100)
        too_long = {name: length for name, length in lengths.items() if length > MODULE_LINES}
        self.assertEqual(too_long, {})

    def test_events(self) -> None:
        """Every event of the dispatcher can be seen at a glance."""
        [dispatcher] = [
            node
            for node in ast.parse((ROOT / "scheduler" / "dispatcher.py").read_text()).body
            if isinstance(node, ast.ClassDef) and node.name == "Dispatcher"
        ]
        events = {
            node.name: lines_of_code(node)
            for node in dispatcher.body
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
        }
        self.assertGreater(len(events), 20)
        too_long = {name: length for name, length in events.items() if length > EVENT_LINES}
        self.assertEqual(too_long, {})

    def test_worker(self) -> None:
        """A worker elsewhere has little to promise."""
        self.assertLessEqual(len(list(IWorker.names(all=True))), WORKER_MEMBERS)

    def test_maps(self) -> None:
        """The docstring of each room names all modules in it."""
        for room in sorted(path.parent for path in ROOT.glob("*/__init__.py")):
            docstring = ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or ""
            named = set(re.findall(r":mod:`~?[\w.]*?(\w+)`", docstring))
            modules = {path.stem for path in room.glob("*.py")} - {"__init__", "__main__"}
            with self.subTest(room=room.name):
                self.assertEqual(modules - named, set())
