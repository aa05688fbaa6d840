"""The words of ``dangad dev``: which modules they name, and what is said if they name none."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from dangad.cli.jobfiles import find_jobs
from dangad.cli.outcome import WrongUsage


class JobFilesTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Work in a folder of the test's own."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(folder.name)
        self.folder = os.getcwd()

    def write(self, *names: str) -> None:
        """Write empty files."""
        for name in names:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).touch()

    def refused(self, *words: str, paths: tuple[str, ...] = ()) -> str:
        """What is said of these words."""
        return str(self.assertRaises(WrongUsage, find_jobs, words, paths))

    def test_file(self) -> None:
        """A file here is a module here, where workers look anyway."""
        self.write("jobs.py")
        code = find_jobs(["./jobs.py"])
        self.assertEqual((code.modules, code.paths), (("jobs",), ()))
        self.assertEqual(code.folders, (self.folder,))
        self.assertEqual(code.files, (f"{self.folder}/jobs.py",))
        self.assertEqual(find_jobs(["jobs"]), code)

    def test_file_elsewhere(self) -> None:
        """A file in another folder is imported from there."""
        self.write("work/jobs.py")
        code = find_jobs(["work/jobs.py"])
        self.assertEqual(code.options, ["--worker-path", f"{self.folder}/work", "--jobs", "jobs"])
        self.assertEqual(code.folders, (f"{self.folder}/work",))

    def test_known_name(self) -> None:
        """A file with the name of an installed module is imported before that."""
        self.write("hypothesis.py")
        self.assertEqual(find_jobs(["hypothesis.py"]).paths, (self.folder,))

    def test_package(self) -> None:
        """A file in a package has a dotted name, and is imported from where the package is."""
        self.write("src/app/__init__.py", "src/app/jobs/__init__.py", "src/app/jobs/images.py")
        code = find_jobs(["src/app/jobs/images.py"])
        self.assertEqual(code.modules, ("app.jobs.images",))
        self.assertEqual((code.paths, code.folders), ((f"{self.folder}/src",),) * 2)
        self.assertEqual(find_jobs(["src/app/jobs"]).modules, ("app.jobs",))
        self.assertEqual(find_jobs(["src/app/jobs/__init__.py"]).modules, ("app.jobs",))

    def test_dotted(self) -> None:
        """A module is named by its dotted name, too, here or in a given folder."""
        self.write("app/__init__.py", "app/jobs.py", "more/rules.py")
        self.assertEqual(find_jobs(["app.jobs"]).options, ["--jobs", "app.jobs"])
        code = find_jobs(["app.jobs", "rules"], ["more"])
        self.assertEqual(code.modules, ("app.jobs", "rules"))
        self.assertEqual(code.paths, (f"{self.folder}/more",))
        self.assertEqual(code.folders, (f"{self.folder}/more", self.folder))

    def test_installed(self) -> None:
        """Of an installed module its own package is watched, and not all that is installed."""
        [folder] = find_jobs(["dangad.examples"]).folders
        self.assertEqual(os.path.basename(folder), "dangad")

    def test_no_file(self) -> None:
        """A file that is not there is named, and the file that may be meant."""
        self.write("jobs.py")
        self.assertEqual(
            self.refused("jobz.py"), "jobz.py: there is no such file; did you mean jobs.py?"
        )
        self.assertEqual(self.refused("far/jobs.py"), "far/jobs.py: there is no such file")

    def test_no_module(self) -> None:
        """A module that is not there is named."""
        self.write("app/__init__.py")
        self.assertEqual(self.refused("nonsuch"), "there is no module 'nonsuch'")
        self.assertEqual(self.refused("app.jobs"), "there is no module 'jobs' in app")
        self.assertEqual(
            self.refused("no such"), "no such is neither a file nor the name of a module"
        )

    def test_not_python(self) -> None:
        """What is no Python file, or cannot be imported, is refused."""
        self.write("README.md", "my-jobs.py", "queue.py", "twisted.py")
        Path("folder").mkdir()
        self.assertIn("README.md is not a Python file", self.refused("README.md"))
        self.assertIn("rename the file to my_jobs.py", self.refused("my-jobs.py"))
        self.assertIn("would hide the module queue that Python has", self.refused("queue.py"))
        self.assertIn("the module twisted that dangad needs", self.refused("twisted.py"))
        self.assertIn("folder is a directory, and no package", self.refused("folder"))
        self.assertIn("no such directory", self.refused("jobs", paths=("none",)))

    def test_same_name(self) -> None:
        """Two files cannot be the same module."""
        self.write("a/jobs.py", "b/jobs.py")
        self.assertIn("would both be the module jobs", self.refused("a/jobs.py", "b/jobs.py"))
        self.assertEqual(find_jobs(["a/jobs.py", "a/../a/jobs.py"]).modules, ("jobs",))

    def test_hiding(self) -> None:
        """Files beside the job files that hide modules of Python are found."""
        self.write("work/jobs.py", "work/calendar.py", "calendar.py", "jobs.py")
        self.assertEqual(find_jobs(["work/jobs.py"]).hiding, (f"{self.folder}/work/calendar.py",))
        self.assertEqual(find_jobs(["jobs.py"]).hiding, ())
