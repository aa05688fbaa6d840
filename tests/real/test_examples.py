"""The job types that ship with dangad: called directly, and through AMP where types matter."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import math
import os
import re
import shutil
import signal
import socket
import stat
import tempfile
import time
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase

from dangad import examples
from dangad.examples import (
    BadPath,
    BadRange,
    Checksum,
    CountPrimes,
    Echo,
    ListDirectory,
    Missing,
    NotADirectory,
    NotAFile,
    OutOfBounds,
    OutsideRoot,
    PermissionRefused,
    ReadFile,
    Sleep,
    Unreadable,
    confined,
)
from dangad.worker import context
from dangad.worker.context import NO_JOB, RunningJob, set_current_job
from dangad.worker.jobtypes import find_job_types

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PERFORMED = {
    job_type.command: job_type for job_type in find_job_types(["dangad.examples"]).values()
}
ABOUT_PATHS = [ListDirectory, ReadFile, Checksum]
NOBODY = 65534
LINKS = {
    "up": "..",
    "here": ".",
    "into": "docs/",
    "file": "docs/a.txt",
    "back": "docs/../docs/../top",
    "whole": "{root}/docs",
    "out": "../outside",
    "round": "round",
}
"""Symlinks in the root, and where they lead."""


def run(command: type[amp.Command], **arguments: Any) -> dict[str, Any]:
    """The command's answer as a client gets it, after both ways through AMP's boxes."""
    request = through_the_wire(command.makeArguments(arguments, None))
    answer = PERFORMED[command].function(**command.parseArguments(request, None))
    response: dict[str, Any] = command.parseResponse(
        through_the_wire(command.makeResponse(answer, None)), None
    )
    return response


def through_the_wire(box: amp.AmpBox) -> amp.AmpBox:
    """The box, written and read."""
    (read,) = amp.parseString(box.serialize()) if box else [box]
    return read


def open_descriptors() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


class ExamplesCase(SynchronousTestCase):
    """A root with a few files in it, something secret outside, and a watch for left descriptors."""

    def setUp(self) -> None:
        """Make the files."""
        self.base = tempfile.mkdtemp(prefix="dangad-examples-")
        self.addCleanup(shutil.rmtree, self.base)
        self.root = os.path.join(self.base, "root")
        os.makedirs(os.path.join(self.root, "docs", "deep"))
        self.write("root/docs/a.txt", b"hello, world")
        self.write("root/top", b"top")
        os.mkdir(os.path.join(self.base, "outside"))
        self.write("outside/secret", b"secret")
        self.set_root(self.root)
        before = open_descriptors()
        self.addCleanup(lambda: self.assertEqual(open_descriptors(), before, "descriptors leak"))

    def set_root(self, root: str) -> None:
        """Make the examples see what is below `root`, until the end of the test."""
        self.patch(os, "environb", os.environb | {b"DANGAD_EXAMPLES_ROOT": os.fsencode(root)})

    def path(self, *parts: str) -> str:
        """A path in the root."""
        return os.path.join(self.root, *parts)

    def write(self, path: str, content: bytes) -> None:
        """Make a file; the path begins at the directory that has the root in it."""
        with open(os.path.join(self.base, path), "wb") as file:
            file.write(content)

    def link(self, target: str, path: str) -> None:
        """Make a symlink in the root."""
        os.symlink(target, self.path(path))

    def read(self, path: str, **range_: int) -> Any:
        """What ReadFile reads."""
        return run(ReadFile, path=path, **range_)["data"]

    def names(self, path: str) -> list[bytes]:
        """The names that ListDirectory lists."""
        return [entry["name"] for entry in run(ListDirectory, path=path)["entries"]]

    def refused(self, error: type[Exception], command: type[amp.Command], **arguments: Any) -> str:
        """Check that the command answers with this declared error, and give its text."""
        raised = self.assertRaises(error, run, command, **arguments)
        self.assertIn(type(raised), command.allErrors)  # type: ignore[attr-defined]
        text = str(raised)
        self.assertTrue(text.isprintable() and 0 < len(text) < 400, text)
        return text

    @contextlib.contextmanager
    def alarm(self, seconds: int) -> Iterator[None]:
        """Fail what takes longer, even in a system call that would never return."""

        def rang(number: int, frame: object) -> None:
            raise AssertionError(f"still at it after {seconds} s")

        before = signal.signal(signal.SIGALRM, rang)
        signal.alarm(seconds)
        try:
            yield
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)

    def swapped(self, name: bytes, swap: Callable[[], None], looks: int = 1) -> None:
        """Do `swap` at the worst moment: just after `name` was looked at so many times."""
        look = os.stat
        left = looks

        def stat_then_swap(path: Any, **options: Any) -> os.stat_result:
            nonlocal left
            status = look(path, **options)
            if path == name:
                left -= 1
                if left == 0:
                    swap()
            return status

        self.patch(os, "stat", stat_then_swap)


class JobTypes(SynchronousTestCase):
    def test_all_are_found(self) -> None:
        """``--jobs dangad.examples`` serves all of them, each with a line on what it does."""
        self.assertEqual(
            sorted(find_job_types(["dangad.examples"])),
            [b"Checksum", b"CountPrimes", b"Echo", b"ListDirectory", b"ReadFile", b"Sleep"],
        )
        for command in PERFORMED:
            first = (command.__doc__ or "").splitlines()[0]
            self.assertTrue(first.endswith(".") and len(first) < 96, first)

    def test_errors_have_codes_of_their_own(self) -> None:
        """A client in any language can tell the errors apart, and rebuild them from their text."""
        for command in PERFORMED:
            errors: dict[type[Exception], bytes] = command.allErrors  # type: ignore[attr-defined]
            self.assertEqual(len(set(errors.values())), len(errors))
            for error in errors:
                self.assertEqual(str(error("what happened")), "what happened")


class Listing(ExamplesCase):
    def test_entries(self) -> None:
        """Each entry has name, kind, size and modification time, in the order of the names.

        What is none of the seven kinds that POSIX knows is "other".
        """
        self.assertEqual(confined.kind_of(os.stat("/dev/null").st_mode), "character device")
        self.assertEqual(confined.kind_of(stat.S_IFBLK), "block device")
        self.assertEqual(confined.kind_of(0), "other")
        os.mkfifo(self.path("fifo"))
        self.link("no/where", "broken")
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind(self.path("socket"))
        os.utime(self.path("top"), ns=(0, 1_700_000_000_123_456_789))
        entries = run(ListDirectory, path="")["entries"]
        self.assertEqual(
            [(entry["name"], entry["kind"]) for entry in entries],
            [
                (b"broken", "symlink"),
                (b"docs", "directory"),
                (b"fifo", "fifo"),
                (b"socket", "socket"),
                (b"top", "file"),
            ],
        )
        self.assertEqual(entries[-1]["size"], 3)
        self.assertEqual(
            entries[-1]["modified"],
            datetime.datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=datetime.UTC),
        )

    def test_names_that_are_not_utf8(self) -> None:
        """Such names survive, and the file of that name can be asked for."""
        names = [b"\xff\xfe", b"caf\xc3\xa9", b"caf\xe9", b"new\nline"]
        for name in names:
            with open(os.path.join(os.fsencode(self.root), b"docs/deep", name), "wb") as file:
                file.write(name)
        self.assertEqual(self.names("docs/deep"), sorted(names))
        for name in names:
            path = b"docs/deep/" + name
            self.assertEqual(self.read(path.decode("utf-8", "surrogateescape")), name)

    def test_a_path_is_plain_unicode_to_others(self) -> None:
        """A client that declares the path as ``amp.Unicode`` sends and reads the same bytes."""
        for path in ("docs", "Kärnten/übermäßig", "\N{SNOWMAN}"):
            sent = amp.Unicode().toString(path)
            self.assertEqual(examples.PathText().toString(path), sent)
            self.assertEqual(examples.PathText().fromString(sent), path)

    def test_ten_thousand_files(self) -> None:
        """A directory of 10,000 files is listed whole, in far more than 65,535 bytes."""
        many = self.path("many")
        os.mkdir(many)
        directory = os.open(many, os.O_RDONLY)
        expected = [b"file %05d" % number for number in range(10_000)]
        for name in reversed(expected):
            os.mknod(name, dir_fd=directory)
        os.close(directory)
        answer = examples.list_directory("many")
        entries: Any = answer["entries"]
        self.assertEqual([entry["name"] for entry in entries], expected)
        box = through_the_wire(ListDirectory.makeResponse(answer, None))
        whole = b"".join(
            box[key] for key in sorted(box, key=lambda key: int(key.partition(b".")[2] or 0))
        )
        self.assertEqual(re.findall(rb"\x00\x04name\x00\x0a(file \d{5})", whole), expected)

    def test_vanishing_entry(self) -> None:
        """An entry that is deleted while the directory is being listed is left out."""
        scan = os.scandir

        @contextlib.contextmanager
        def scan_then_delete(directory: int) -> Iterator[list[os.DirEntry[str]]]:
            with scan(directory) as found:
                entries = list(found)
            os.unlink(self.path("top"))
            yield entries

        self.patch(os, "scandir", scan_then_delete)
        self.assertEqual(self.names(""), [b"docs"])

    def test_times_beyond_the_calendar(self) -> None:
        """A file's time that no datetime can hold is shown as the nearest one that can."""
        for nanoseconds, year in ((2**63 * 1000, 9999), (-(2**63) * 1000, 1)):
            moment = examples._time(nanoseconds)
            self.assertEqual(moment.year, year)
            wire = amp.DateTime()
            self.assertEqual(wire.fromString(wire.toString(moment)), moment)

    def test_not_a_directory(self) -> None:
        """Listing something else, or through something else, is ``NOT_A_DIRECTORY``."""
        os.mkfifo(self.path("fifo"))
        self.link("top", "to-top")
        with self.alarm(5):
            for path in ("top", "top/", "top/.", "top/..", "top/x", "fifo", "fifo/x", "to-top"):
                self.refused(NotADirectory, ListDirectory, path=path)
        for path in ("top/", "top/.", "top/..", "top/x", "to-top/"):
            self.refused(NotADirectory, ReadFile, path=path)


class Reading(ExamplesCase):
    def test_ranges(self) -> None:
        """A range gives its bytes; what is beyond the end of the file is left out.

        Without a range, the answer is the whole file and its size. Negative numbers are
        ``BAD_RANGE``, not Python's counting from the end.
        """
        content = os.urandom(1_000_000)
        self.write("root/big", content)
        self.assertEqual(run(ReadFile, path="big"), {"data": content, "size": 1_000_000})
        self.assertIn("-1", self.refused(BadRange, ReadFile, path="top", offset=-1))
        self.assertIn("-2", self.refused(BadRange, ReadFile, path="top", length=-2))
        for offset, length in ((0, 5), (7, None), (7, 3), (None, 4), (7, 99), (0, 0), (12, 1)):
            arguments = {"offset": offset, "length": length}
            start = offset or 0
            stop = 12 if length is None else start + length
            self.assertEqual(
                self.read("docs/a.txt", **{k: v for k, v in arguments.items() if v is not None}),
                b"hello, world"[start:stop],
            )
        self.assertEqual(
            run(ReadFile, path="docs/a.txt", offset=2**70, length=2**70), {"data": b"", "size": 12}
        )

    def test_more_than_an_answer_holds(self) -> None:
        """A huge file is not read into memory: the client is told to ask for ranges of it."""
        with open(self.path("huge"), "wb") as file:
            file.truncate(2**40)
        for arguments in ({}, {"length": examples.READ_AT_MOST + 1}):
            self.assertIn("66,060,288", self.refused(BadRange, ReadFile, path="huge", **arguments))
        answer = run(ReadFile, path="huge", offset=2**40 - 4)
        self.assertEqual(answer, {"data": b"\0\0\0\0", "size": 2**40})

    def test_in_parts(self) -> None:
        """To who wants partial results, a file of any size comes as these, and no data after."""
        parts: list[int] = []
        with open(self.path("huge"), "wb") as file:
            file.truncate(examples.READ_AT_MOST + 10)
        set_current_job(RunningJob(7, "ReadFile", 1, part=lambda part: parts.append(len(part))))
        self.addCleanup(set_current_job, NO_JOB)
        answer = run(ReadFile, path="huge", offset=3)
        self.assertEqual(answer, {"data": b"", "size": examples.READ_AT_MOST + 10})
        self.assertEqual(
            parts, [examples.READ_CHUNK] * (examples.READ_AT_MOST // examples.READ_CHUNK) + [7]
        )
        self.assertIn("-1", self.refused(BadRange, ReadFile, path="huge", offset=-1))

    def test_file_shrinks(self) -> None:
        """A file that is cut while it is read gives what there was."""
        self.write("root/big", bytes(examples.READ_CHUNK * 3))

        def cut(part: bytes) -> None:
            os.truncate(self.path("big"), examples.READ_CHUNK + 1)
            parts.append(part)

        parts: list[bytes] = []
        set_current_job(RunningJob(7, "ReadFile", 1, part=cut))
        self.addCleanup(set_current_job, NO_JOB)
        self.assertEqual(run(ReadFile, path="big")["size"], examples.READ_CHUNK * 3)
        self.assertLess(sum(map(len, parts)), examples.READ_CHUNK * 3)

    def test_not_a_file(self) -> None:
        """Reading a directory, a fifo or a socket is ``NOT_A_FILE``, and is over at once."""
        os.mkfifo(self.path("fifo"))
        self.link("fifo", "to-fifo")
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind(self.path("socket"))
        with self.alarm(5):
            for command in (ReadFile, Checksum):
                for path in ("", ".", "docs", "docs/..", "fifo", "to-fifo", "socket"):
                    self.refused(NotAFile, command, path=path)
        self.assertIn("a fifo", self.refused(NotAFile, ReadFile, path="fifo"))

    def test_failing_disk(self) -> None:
        """What the system says while reading reaches the client as ``UNREADABLE``."""

        def fail(descriptor: int) -> None:
            raise OSError(5, "Input/output error")

        self.patch(os, "scandir", fail)
        text = self.refused(Unreadable, ListDirectory, path="docs")
        self.assertEqual(text, "'docs' cannot be read: Input/output error")


class Confinement(ExamplesCase):
    def test_inside(self) -> None:
        """Whatever stays inside the root is reached, however it is spelled."""
        self.link("docs", "to-docs")
        self.link(f"{self.root}/docs/", "to-docs-absolutely")
        self.link("to-docs", "to-to-docs")
        self.link("../docs/../docs", "docs/round")
        self.link("docs/a.txt", "to-a")
        self.link(f"{self.root}/docs", "docs/deep/to-docs-absolutely")
        for directory in (
            *("docs", "./docs//", "docs/deep/..", "docs/deep/../../docs/."),
            *(f"{self.root}/docs", f"//{self.root}//./docs"),
            *("to-docs", "to-docs-absolutely", "to-to-docs", "docs/round", "to-docs/round/round"),
            "docs/deep/to-docs-absolutely",
        ):
            self.assertEqual(self.names(directory)[0], b"a.txt", directory)
            self.assertEqual(self.read(f"{directory}/a.txt"), b"hello, world")
        self.assertEqual(self.read("to-a"), b"hello, world")
        self.assertEqual(run(Checksum, path="to-a")["size"], 12)
        for root in ("", ".", "docs/..", self.root, f"{self.root}/"):
            self.assertIn(b"top", self.names(root))

    def test_root_behind_a_symlink(self) -> None:
        """The root may itself be named by a symlink, and absolute paths by either of its names."""
        os.symlink("root", os.path.join(self.base, "alias"))
        self.set_root(os.path.join(self.base, "alias"))
        for path in ("top", f"{self.base}/alias/top", f"{os.path.realpath(self.root)}/top"):
            self.assertEqual(self.read(path), b"top")

    def test_default_root(self) -> None:
        """Without ``DANGAD_EXAMPLES_ROOT``, or with an empty one, it is the working directory."""
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.root)
        self.set_root("")
        self.assertEqual(self.read("top"), b"top")
        self.assertEqual(self.read(f"{os.getcwd()}/top"), b"top")
        self.refused(OutsideRoot, ReadFile, path="../outside/secret")
        self.patch(os, "environb", {})
        self.assertEqual(self.read("top"), b"top")

    def test_root_missing(self) -> None:
        """A root that is not there is told as such: it is not the client's path that is wrong."""
        self.set_root(os.path.join(self.base, "nowhere"))
        text = self.refused(Unreadable, ListDirectory, path="docs")
        self.assertIn("the examples may see cannot be opened: No such file", text)

    def test_whole_file_system_as_root(self) -> None:
        """With the root at ``/``, absolute and relative paths are the same."""
        self.set_root("/")
        for path in (f"{self.root}/top", f"{self.root}/top"[1:]):
            self.assertEqual(self.read(path), b"top")
        self.refused(OutsideRoot, ListDirectory, path="/..")

    def test_escapes(self) -> None:
        """No way of writing a path, and no symlink, leads out of the root."""
        outside = f"{self.base}/outside"
        os.mkdir(f"{self.root}-evil")
        self.link(outside, "absolute")
        self.link("../outside", "relative")
        self.link("../outside/secret", "file")
        self.link("relative", "chain")
        self.link("chain", "docs/deep/chain")
        self.link("../../../chain/secret", "docs/deep/up-chain")
        self.link("../..", "docs/parent")
        self.link("docs/../../outside", "there-and-out")
        self.link("/", "slash")
        self.link("/proc/self/root", "magic")
        self.link(f"/proc/self/cwd/{os.path.relpath(self.root)}", "magic-inside")
        self.link("..", "up")
        for path in (
            *("..", "../", "../outside", "../outside/secret", "docs/../../outside", "/.."),
            *("../root", "../root/top", "docs/deep/../../..", "./.././root/docs/a.txt"),
            *("/", "/etc/passwd", outside, f"{outside}/secret", f"{self.root}/../outside/secret"),
            *(f"{self.root}-evil", f"{self.base}/outside/../root/top", self.base),
            *("absolute", "absolute/secret", "relative", "relative/secret", "file", "chain/secret"),
            *("docs/deep/up-chain", "docs/parent", "docs/parent/outside/secret", "up/outside"),
            *("there-and-out/secret", "slash", f"slash{outside}/secret", "magic/etc", "up/up"),
            *("magic", "magic-inside", "up/root/top", "../outside/nothing", "/nowhere"),
        ):
            for command in ABOUT_PATHS:
                self.assertNotIn(
                    "secret", self.refused(OutsideRoot, command, path=path)[len(path) + 2 :]
                )

    @given(st.lists(st.sampled_from(["", ".", "..", "docs", "top", "a.txt", *LINKS, "none"])))
    @settings(max_examples=300, deadline=None)
    def test_any_path(self, parts: list[str]) -> None:
        """A path is refused as leading outside, or leads to where the system finds it leads."""
        for name, target in LINKS.items():
            if not os.path.lexists(self.path(name)):
                self.link(target.format(root=self.root), name)
        path = "/".join(["docs", *parts])
        try:
            with confined.Confined(os.fsencode(self.root)).file(path) as file:
                found = os.fstat(file.fileno())
        except OutsideRoot:
            return
        except confined.PathError as error:
            try:
                with open(self.path(path), "rb"):
                    self.fail(f"{path} was not opened: {error!r}")
            except OSError as system_error:
                kind, _ = confined._DECLARED[system_error.errno or 0]
                # The system calls a file with a slash behind it a directory, or not one.
                self.assertIn(type(error), {kind, NotADirectory})
            return
        real = os.path.realpath(self.path(path), strict=True)
        self.assertTrue(os.path.samestat(found, os.stat(real)), real)
        self.assertTrue(real.startswith(f"{self.root}/"), real)

    def test_outside_is_not_even_looked_at(self) -> None:
        """The answer tells nothing about what is outside: there or not, the text is the same."""
        texts = {
            self.refused(OutsideRoot, ReadFile, path=f"../{name}").replace(name, "")
            for name in ("outside/secret", "outside/nothing", "nothing/at/all")
        }
        self.assertEqual(len(texts), 1)

    def test_broken_paths(self) -> None:
        """Paths that no file system takes, and symlinks in a circle, are ``BAD_PATH``."""
        self.link("round", "round")
        self.link("pong", "ping")
        self.link("ping", "pong")
        self.link("deeper/deeper", "deeper")
        for path in (
            *("\0", "top\0", "docs/\0/a.txt", "x" * 256, f"docs/{'x' * 5000}", "ü" * 128),
            *("docs/../" * 1000, "./" * 2049, "round", "round/x", "ping", "deeper", "\0" * 60_000),
        ):
            for command in ABOUT_PATHS:
                self.refused(BadPath, command, path=path)

    def test_depth(self) -> None:
        """Directories are entered to a bounded depth, so that a walk cannot use up descriptors."""
        deep = "/".join(["d"] * confined.DEPTH_AT_MOST)
        os.makedirs(self.path(deep, "d"))
        self.write(f"root/{deep}/file", b"deep")
        self.assertEqual(self.read(f"{deep}/file"), b"deep")
        self.assertEqual(self.names(f"{deep}/d"), [])
        self.refused(BadPath, ListDirectory, path=f"{deep}/d/d")

    def test_missing(self) -> None:
        """What is not there is ``NOT_FOUND``, be it the last part of the path or one before."""
        self.link("gone/away", "broken")
        for command in ABOUT_PATHS:
            for path in ("none", "none/x", "docs/none", "none/..", "broken", "docs/a.tx", "\udcff"):
                self.refused(Missing, command, path=path)

    def test_permission(self) -> None:
        """What the worker's user may not read is ``PERMISSION_DENIED``, wherever on the way."""
        for path in ("locked", "locked/in", "passable", "listable"):
            os.mkdir(self.path(path))
        for path in ("locked/file", "passable/file", "listable/file", "private"):
            self.write(f"root/{path}", b"content")
        modes = {"locked": 0, "passable": 0o711, "listable": 0o744, "private": 0, "": 0o755}
        for path, mode in modes.items():
            os.chmod(self.path(path), mode)
            self.addCleanup(os.chmod, self.path(path), 0o755)
        if os.geteuid():  # its owner: the bits for others do not count
            os.chmod(self.path("passable"), 0o311)
            os.chmod(self.path("listable"), 0o644)
        # By its relative name the root is found even where the way to it is closed to others.
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.root)
        self.set_root(".")
        with self.unprivileged():
            for command, path in (
                (ListDirectory, "locked"),
                (ListDirectory, "locked/in"),
                (ListDirectory, "passable"),
                (ListDirectory, "listable"),
                (ReadFile, "private"),
                (ReadFile, "locked/file"),
                (Checksum, "private"),
                (Checksum, "listable/file"),
            ):
                self.refused(PermissionRefused, command, path=path)
            self.assertEqual(self.read("passable/file"), b"content")

    @contextlib.contextmanager
    def unprivileged(self) -> Iterator[None]:
        """Be a user whom permissions bind: nobody, if these tests are run by root."""
        if os.geteuid():
            yield
            return
        os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(0)


class Races(ExamplesCase):
    """Somebody changes the tree while it is being walked."""

    def replace(self, path: str, target: str) -> None:
        """Put a symlink in the place of what is at `path`."""
        os.rename(self.path(path), os.path.join(self.base, "taken"))
        self.link(target, path)

    def test_directory_becomes_a_symlink(self) -> None:
        """A directory that is swapped for a symlink after a look is not entered, nor listed."""
        self.write("outside/a.txt", b"secret")
        for command, path in (
            *((each, "docs/a.txt") for each in ABOUT_PATHS),
            (ListDirectory, "docs"),
        ):
            self.swapped(b"docs", lambda: self.replace("docs", "../outside"))
            self.refused(NotADirectory, command, path=path)
            os.unlink(self.path("docs"))
            os.rename(os.path.join(self.base, "taken"), self.path("docs"))

    def test_file_becomes_a_symlink(self) -> None:
        """A file that is swapped for a symlink, after it was looked at, is not opened."""
        for looks, error in ((1, NotAFile), (2, BadPath)):
            self.swapped(b"top", lambda: self.replace("top", "../outside/secret"), looks)
            self.refused(error, ReadFile, path="top")
            os.rename(os.path.join(self.base, "taken"), self.path("top"))

    def test_file_becomes_something_else(self) -> None:
        """A file that is swapped for a fifo or a directory is not read, nor waited for."""
        top, old = self.path("top"), os.path.join(self.base, "old")
        for make, remove in ((os.mkfifo, os.unlink), (os.mkdir, os.rmdir)):
            for looks in (1, 2):

                def swap(make: Callable[[str], None] = make) -> None:
                    os.rename(top, old)
                    make(top)

                self.swapped(b"top", swap, looks)
                with self.alarm(5):
                    self.refused(NotAFile, ReadFile, path="top")
                remove(top)
                os.rename(old, top)

    def test_symlink_becomes_a_file(self) -> None:
        """A symlink that is gone when it is to be read gives a declared error."""
        self.link("top", "to-top")

        def swap() -> None:
            os.unlink(self.path("to-top"))
            self.write("root/to-top", b"")

        self.swapped(b"to-top", swap)
        self.refused(Unreadable, ReadFile, path="to-top")


class WithProgress(ExamplesCase):
    """Jobs that tell how far they are."""

    def setUp(self) -> None:
        """Be in a job whose client asked for progress."""
        super().setUp()
        self.told: list[tuple[int, int]] = []
        self.patch(context, "REPORT_INTERVAL", 0.0)
        set_current_job(RunningJob(7, "Test", 1, report=self.report))
        self.addCleanup(set_current_job, NO_JOB)

    def report(self, done: int, total: int, message: str) -> None:
        """What the worker would send to the client."""
        self.told.append((done, total))

    def check_told(self, total: int) -> None:
        """Check that progress only rose, ended at the total, and was not chatter."""
        done = [each for each, _ in self.told]
        self.assertEqual(done, sorted(set(done)))
        self.assertEqual({each for _, each in self.told}, {total})
        self.assertEqual(done[-1], total)
        self.assertTrue(1 < len(done) <= 100, len(done))

    def test_checksum(self) -> None:
        """The checksum is the file's SHA-256, of an empty file, too; progress is told in bytes."""
        self.write("root/empty", b"")
        answer = run(Checksum, path="empty")
        self.assertEqual(answer, {"sha256": hashlib.sha256().hexdigest(), "size": 0})
        self.assertEqual(self.told, [])
        content = os.urandom(2**20) * 5 + b"rest"
        self.write("root/big", content)
        self.assertEqual(
            run(Checksum, path="big"),
            {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)},
        )
        self.check_told(len(content))

    def test_reading_in_parts(self) -> None:
        """A file that is sent in parts is told of in bytes, counted from where it begins."""
        self.write("root/big", bytes(5_000_000))
        set_current_job(RunningJob(7, "ReadFile", 1, report=self.report, part=lambda _: None))
        run(ReadFile, path="big", offset=1_000_000)
        self.check_told(4_000_000)

    def test_file_grows(self) -> None:
        """A file that grows while it is summed has a growing total, never more done than that."""
        self.patch(examples, "CHECKSUM_BLOCK", 4)
        self.patch(os, "fstat", lambda descriptor: os.stat(self.root + "/docs/a.txt"))
        self.write("root/log", b"x" * 20)
        self.assertEqual(run(Checksum, path="log")["size"], 20)
        self.assertEqual(self.told, [(4, 12), (8, 12), (12, 12)])

    def test_primes_are_counted(self) -> None:
        """The counts are those that mathematicians know."""
        for below, count in ((0, 0), (2, 0), (3, 1), (10, 4), (10**6, 78498), (10**7, 664579)):
            self.assertEqual(run(CountPrimes, below=below), {"count": count})

    def test_primes_at_the_edges(self) -> None:
        """The counts are right for every small number, wherever the segments begin."""
        primes = [n for n in range(2, 600) if all(n % d for d in range(2, math.isqrt(n) + 1))]
        for segment in (1, 2, 7, 64, 2**18):
            self.patch(examples, "PRIMES_SEGMENT", segment)
            for below in range(600):
                expected = sum(prime < below for prime in primes)
                self.assertEqual(examples.count_primes(below), {"count": expected})

    def test_primes_progress(self) -> None:
        """Counting tells its progress at every percent, or at every segment if those are few."""
        examples.count_primes(3_000_000)
        self.check_told(1_500_000)
        self.assertEqual(len(self.told), 6)
        self.told.clear()
        self.patch(examples, "PRIMES_SEGMENT", 1000)
        examples.count_primes(3_000_000)
        self.check_told(1_500_000)
        self.assertEqual(len(self.told), 100)


class SmallOnes(ExamplesCase):
    def test_sleep(self) -> None:
        """Sleep sleeps, and tells how long."""
        start = time.monotonic()
        slept = run(Sleep, seconds=0.05)["slept"]
        self.assertTrue(0.05 <= slept <= time.monotonic() - start, slept)
        self.assertLess(run(Sleep, seconds=0.0)["slept"], 1)

    def test_out_of_bounds(self) -> None:
        """Nobody sleeps for less than nothing, for more than a day, or for no number at all.

        Nor are primes counted below negative or astronomic numbers.
        """
        for seconds in (-0.1, 86400.1, math.inf, -math.inf, math.nan):
            self.refused(OutOfBounds, Sleep, seconds=seconds)
        for below in (-1, 10**10 + 1, 10**100):
            self.refused(OutOfBounds, CountPrimes, below=below)

    def test_echo(self) -> None:
        """Echo gives back the same bytes, few or many."""
        for data in (b"", b"\0", bytes(range(256)), os.urandom(300_000)):
            self.assertEqual(run(Echo, data=data), {"data": data})
