"""Changed files are told: real files, and a clock of the test's own."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dangad.cli import filewatch
from dangad.cli.filewatch import INTERVAL, SETTLE, SHARE, SLOW_INTERVAL, FileWatch, Notices, look_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class FolderTest(SynchronousTestCase):
    def setUp(self) -> None:
        """Make a folder with a file of jobs."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.write("jobs.py")

    def write(self, name: str, text: str = "") -> str:
        """Write a file; its path."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    def found(self, *files: str) -> list[str]:
        """The names of the files that a look finds."""
        look = look_at([str(self.folder)], files)
        return sorted(os.path.relpath(path, self.folder) for path in look.files)


class LookTests(FolderTest):
    def test_python_alone(self) -> None:
        """Python files are looked at, in all folders, and no others."""
        self.write("README.md")
        self.write("more/rules.py")
        self.assertEqual(self.found(), ["jobs.py", "more/rules.py"])

    def test_not_searched(self) -> None:
        """Hidden folders, virtual environments and caches have no code that jobs import."""
        self.write(".git/hook.py")
        self.write("__pycache__/jobs.py")
        self.write("node_modules/gyp/gyp.py")
        self.write("venv/pyvenv.cfg")
        self.write("venv/lib/site.py")
        self.assertEqual(self.found(), ["jobs.py"])

    def test_links(self) -> None:
        """A link to a folder is followed, but not around in a circle."""
        (self.folder / "again").symlink_to(self.folder)
        elsewhere = tempfile.TemporaryDirectory()
        self.addCleanup(elsewhere.cleanup)
        Path(elsewhere.name, "rules.py").write_text("")
        (self.folder / "linked").symlink_to(elsewhere.name)
        (self.folder / "twice").symlink_to("linked")
        found = self.found()
        self.assertIn("jobs.py", found)
        self.assertIn(found, (["jobs.py", f"{name}/rules.py"] for name in ("linked", "twice")))

    def test_bounded(self) -> None:
        """Of very many files only the nearest are watched, and the job files in any case."""
        self.patch(filewatch, "MOST_ENTRIES", 2)
        self.write("a/far.py")
        self.write("a/b/farther.py")
        farthest = self.write("a/b/c/farthest.py")
        look = look_at([str(self.folder)], [farthest])
        self.assertFalse(look.is_whole)
        self.assertEqual(
            [os.path.relpath(path, self.folder) for path in sorted(look.files)],
            ["a/b/c/farthest.py", "jobs.py"],
        )

    def test_gone(self) -> None:
        """A folder that is gone has no files."""
        self.assertEqual(look_at([str(self.folder / "gone")], ["/gone/jobs.py"]).files, {})


class WatchTests(FolderTest):
    def setUp(self) -> None:
        """Watch the folder."""
        super().setUp()
        self.clock = Clock()
        self.told: list[list[str]] = []
        self.watch = FileWatch(self.clock, [str(self.folder)], (), self.tell)
        self.watch.start()
        self.addCleanup(self.watch.stop)

    def tell(self, paths: list[str]) -> None:
        """Note what is told."""
        self.told.append([os.path.relpath(path, self.folder) for path in paths])

    def test_nothing(self) -> None:
        """Without a change nothing is told."""
        self.clock.pump([INTERVAL] * 10)
        self.assertEqual(self.told, [])

    def test_changed(self) -> None:
        """A change is told once it has settled."""
        self.write("jobs.py", "x = 1")
        self.clock.advance(INTERVAL)
        self.assertEqual(self.told, [])
        self.clock.advance(SETTLE)
        self.assertEqual(self.told, [["jobs.py"]])
        self.clock.pump([INTERVAL] * 5)
        self.assertEqual(len(self.told), 1)

    def test_same_size(self) -> None:
        """A change of a letter, saved at the same time, is a change if the file is another."""
        before = os.stat(self.folder / "jobs.py")
        new = Path(self.write("new"))
        os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
        new.rename(self.folder / "jobs.py")  # as many editors save
        self.clock.pump([INTERVAL, SETTLE])
        self.assertEqual(self.told, [["jobs.py"]])

    def test_several_steps(self) -> None:
        """What is written in several steps is told when the last one is done."""
        self.write("jobs.py", "x")
        self.clock.advance(INTERVAL)
        self.write("jobs.py", "x = 1")
        self.write("rules.py")
        self.clock.advance(SETTLE)
        self.assertEqual(self.told, [])
        self.clock.advance(SETTLE)
        self.assertEqual(self.told, [["jobs.py", "rules.py"]])

    def test_come_and_gone(self) -> None:
        """Files that come and go are changes, too, in new folders as well."""
        self.write("new/rules.py")
        self.clock.pump([INTERVAL, SETTLE])
        (self.folder / "jobs.py").unlink()
        self.clock.pump([INTERVAL, SETTLE])
        self.assertEqual(self.told, [["new/rules.py"], ["jobs.py"]])

    def test_slow(self) -> None:
        """Where a look takes long, the next one comes later: it has a twentieth of the time."""
        times = iter(range(0, 100, 2))
        watch = FileWatch(self.clock, [str(self.folder)], (), self.tell, None, lambda: next(times))
        self.watch.stop()
        watch.start()
        self.addCleanup(watch.stop)
        self.write("jobs.py", "x = 1")
        self.clock.advance(2 * SHARE - 0.1)
        self.clock.advance(SETTLE)
        self.assertEqual(self.told, [])
        self.clock.advance(SETTLE)
        self.assertEqual(self.told, [["jobs.py"]])

    def test_stopped(self) -> None:
        """After the stop nothing is told, and nothing is left to do."""
        self.watch.stop()
        self.write("jobs.py", "x = 1")
        self.watch.look()
        self.assertEqual((self.told, self.clock.getDelayedCalls()), ([], []))


class FakeNotices:
    """Remembers the folders that it is to tell of."""

    def __init__(self) -> None:
        self.works = True
        self.folders: list[str] = []

    def watch(self, folders: Sequence[str]) -> None:
        """Remember them."""
        self.folders = list(folders)

    def stop(self) -> None:
        """Forget them."""
        self.folders = []


class NoticedTests(FolderTest):
    def setUp(self) -> None:
        """Watch the folder with the kernel's help."""
        super().setUp()
        self.clock = Clock()
        self.told: list[list[str]] = []
        self.notices = FakeNotices()
        self.watch = FileWatch(
            self.clock, [str(self.folder)], (), self.told.append, notices=self.notices
        )
        self.watch.start()

    def test_noticed(self) -> None:
        """A change that is noticed is told without waiting for the next look."""
        path = self.write("jobs.py", "x = 1")
        self.watch.look()
        self.clock.advance(SETTLE)
        self.assertEqual(self.told, [[path]])

    def test_new_folder(self) -> None:
        """A new folder is watched, too."""
        self.assertEqual(self.notices.folders, [str(self.folder)])
        self.write("new/rules.py")
        self.watch.look()
        self.assertEqual(self.notices.folders, [str(self.folder), str(self.folder / "new")])

    def test_forgotten(self) -> None:
        """A change that was not noticed is found after some seconds, or soon if none can be."""
        self.write("jobs.py", "x = 1")
        self.clock.advance(INTERVAL)
        self.clock.advance(SETTLE)
        self.assertEqual(self.told, [])
        self.clock.pump([SLOW_INTERVAL - INTERVAL - SETTLE, SETTLE])
        self.assertEqual(len(self.told), 1)
        self.notices.works = False
        self.clock.advance(SLOW_INTERVAL)
        self.write("jobs.py", "x = 10")
        self.clock.pump([INTERVAL, SETTLE])
        self.assertEqual(len(self.told), 2)

    def test_stopped(self) -> None:
        """The stop ends the notices."""
        self.watch.stop()
        self.assertEqual(self.notices.folders, [])


class ThreadTests(SynchronousTestCase):
    """The thread that waits for the kernel."""

    def test_told(self) -> None:
        """Each piece of news leads to a look in the reactor's thread; an error to the last one."""
        calls: list[Any] = []

        class Reactor:
            """Takes calls from threads."""

            def callFromThread(self, call: Any) -> None:
                """Note it."""
                calls.append(call)

        def news(*folders: str, **_: Any) -> Iterator[object]:
            self.assertEqual(folders, ("/a",))
            yield {"a change"}
            raise FileNotFoundError

        notices = Notices(Reactor(), news)
        notices.watch(["/a"])
        assert notices.thread is not None
        notices.thread.join()
        self.assertEqual(calls, [notices.told] * 2)
        self.assertFalse(notices.works)
