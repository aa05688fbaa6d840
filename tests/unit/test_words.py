"""Each thing has one name, that of the glossary: names that were given up do not come back."""

from __future__ import annotations

import re
import subprocess

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.reader import ROOT

RETIRED = {
    r"ahead": "prefetched",
    r"\b(take|taken|takes|took|taking) (it |them |something |anything |nothing )?back\b": "reclaim",
    r"take_back|taken_back|\brecall|give_way|catch_up\b|drain_answers": "reclaim",
    r"\bdeck\b": "prefetched",
    r"\bstaff": "idle workers",
    r"workforce": "supervisor",
    r"hatch(?!ling)": "spawner, start",
    r"repertoire|programme|\bschema": "catalogue, registry",
    r"verdict": "reasons",
    r"\btall(y|ies)\b": "counters",
    r"receipt": "resource usage",
    r"\b(wear|wears|worn|wearing)\b": "recycling",
    r"\bworkers?( that)? (is|are) due\b|is \*due\*": "to be recycled",
    r"\bunfit\b|\bfit=": "reusable",
    r"\bstrays?(?![a-z])": "orphans",
    r"prompt_?writer": "eager writer",
    r"\bvitals\b": "procfs",
    r"surroundings": "process state",
    r"rehears": "job runner",
    r"\ba_story\b|\bOffice\b": "RecordingDispatcher",
}
"""Patterns, in any case, and the words instead. *Quarantine* and *lane* are words of today."""

ALLOWED = {
    ("dangad/testing/__init__.py", "rehears"): "users have imported `Rehearsal`",
    ("tests/real/test_testing.py", "rehears"): "the test of it",
    ("pyproject.toml", "hatch(?!ling)"): "the tool that builds the wheel",
    ("docs/reference/command-line.md", "ahead"): "spare workers, ahead of demand",
    ("docs/how-to/web/grafana.json", r"repertoire|programme|\bschema"): "Grafana's own word",
    ("tests/docs/test_prometheus.py", r"repertoire|programme|\bschema"): "Grafana's own word",
}
"""Files in which a retired word is right, and why."""

PICTURES = (".png",)
"""Ends of the names of files that are no text."""
SKIPPED = (
    "docs/changes/",
    "CHANGELOG.md",
    "docs/explanation/performance/",
    "tests/unit/test_words.py",
)
"""What was said at its time, what is measured, and the list itself."""


def files() -> list[str]:
    """The files of the repository, and the new ones in its folders.

    What lies beside them at the top, such as a virtual environment, is somebody's own.
    """
    tracked = _listed("--cached")
    folders = {f"{name.partition('/')[0]}/" for name in tracked if "/" in name}
    return tracked + _listed("--others", "--exclude-standard", "--", *sorted(folders))


def _listed(*options: str) -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        raise SkipTest("this is no checkout")
    return [name for name in listed.stdout.split("\0") if name]


class WordsTest(SynchronousTestCase):
    def test_retired(self) -> None:
        """No file of the repository has a word that was given up."""
        words = [re.compile(old.lower()) for old in RETIRED]  # in any case takes twice as long
        found = []
        for name in files():
            if name.startswith(SKIPPED) or name.endswith(PICTURES) or not (ROOT / name).is_file():
                continue
            try:
                text = (ROOT / name).read_text("utf-8")
            except UnicodeDecodeError as error:
                self.fail(f"{name} is no text in UTF-8: {error}")
            text = f"{name}\n{text}"
            low = text.lower()
            if any(word.search(low) for word in words):
                found += [
                    f"{name}:{number}: {word[0]!r} is called: {new}"
                    for number, line in enumerate(text.splitlines())
                    for old, new in RETIRED.items()
                    for word in re.finditer(old, line, re.IGNORECASE)
                    if (name, old) not in ALLOWED
                ]
        self.assertEqual(found, [], "\n" + "\n".join(found))
