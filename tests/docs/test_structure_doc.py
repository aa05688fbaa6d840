"""The pages that show contributors around name what is there, and all of it."""

from __future__ import annotations

import re
import tomllib

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.interface import InterfaceClass

from dangad.operators import interfaces as for_operators
from dangad.scheduler import interfaces
from tests.reader import ROOT

EXPLANATION = ROOT / "docs" / "explanation"
ARCHITECTURE = (EXPLANATION / "architecture.md").read_text()


def rooms() -> set[str]:
    """What `ls dangad` shows, without the files that every package may have."""
    return {
        path.stem
        for path in (ROOT / "dangad").iterdir()
        if not path.name.startswith("_")
        and (path.suffix == ".py" or (path / "__init__.py").exists())
    }


class ArchitectureTest(SynchronousTestCase):
    def test_layers(self) -> None:
        """The picture has the rooms of `ls dangad`, in the layers by which imports are checked."""
        [picture] = re.findall(r":alt: The layers.*?\n(.*?)```", ARCHITECTURE, re.DOTALL)
        drawn = [set(row.split(" · ")) for row in re.findall(r"│ (.*?) *│\n", picture)]
        self.assertEqual(set().union(*drawn), rooms())
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())
        [layers] = (
            contract["layers"]
            for contract in project["tool"]["importlinter"]["contracts"]
            if contract["type"] == "layers"
        )
        checked = [set(re.findall(r"\w+", layer)) - {"__main__"} for layer in layers]
        self.assertEqual(drawn, checked)

    def test_rooms(self) -> None:
        """The table has each room once."""
        table = re.findall(r"^\| \{py:mod\}`dangad\.(\w+)` \|", ARCHITECTURE, re.MULTILINE)
        self.assertEqual(sorted(table), sorted(rooms()))

    def test_interfaces(self) -> None:
        """The table of who talks to whom has each interface of the scheduler."""
        table = set(re.findall(r"interfaces\.(I\w+)`", ARCHITECTURE))
        declared = {
            name
            for name, value in {**vars(interfaces), **vars(for_operators)}.items()
            if isinstance(value, InterfaceClass)
        }
        self.assertEqual(table, declared - {"Interface"})


class PlacesTest(SynchronousTestCase):
    def test_files(self) -> None:
        """Each file that the pages for contributors name is there, and named with its folder."""
        for page in (EXPLANATION / "where-things-are.md", ROOT / "CONTRIBUTING.md"):
            text = page.read_text()
            for path in re.findall(r"`((?:dangad|docs|tests|tools)/[\w/.-]+\.\w+)`", text):
                self.assertTrue((ROOT / path).is_file(), f"{page.name}: {path}")
            self.assertEqual(re.findall(r"`([a-z]\w*\.py)`", text), [], page.name)

    def test_all_files(self) -> None:
        """The page of places has each file of the product, but for those that map a room."""
        text = (EXPLANATION / "where-things-are.md").read_text()
        named = set(re.findall(r"`(dangad/[\w/]+\.py)`", text))
        there = {str(path.relative_to(ROOT)) for path in (ROOT / "dangad").rglob("[!_]*.py")}
        self.assertEqual(there - named, set())

    def test_links(self) -> None:
        """Each page that CONTRIBUTING.md leads to is there."""
        text = (ROOT / "CONTRIBUTING.md").read_text()
        for target in re.findall(r"\]\((?!http)([^)#]+)", text):
            self.assertTrue((ROOT / target).exists(), target)

    def test_limits(self) -> None:
        """Each test that the table of limits names is there."""
        text = (ROOT / "docs" / "reference" / "limits.md").read_text()
        tests = {path.stem: path.read_text() for path in ROOT.glob("tests/**/test_*.py")}
        classes = set(re.findall(r"^class (\w+)", "".join(tests.values()), re.MULTILINE))
        for cell in re.findall(r"\| ([^|]*) \|$", text, re.MULTILINE):
            self.assertLessEqual(set(re.findall(r"`(test_\w+)", cell)), set(tests))
            self.assertLessEqual(set(re.findall(r"[`.]([A-Z]\w+)`", cell)), classes)
