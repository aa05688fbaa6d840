"""The configuration file: read, merged with the command line, printed again, and its errors."""

from __future__ import annotations

import contextlib
import io
import os
import re
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dangad.cli.configtext import show_config
from dangad.host.logformat import FORMATS, LEVELS
from dangad.limits import LOG_JOBS, STARTS
from dangad.options.commandline import Options
from dangad.options.configfile import MAX_FILE, Kind, kinds_of, read
from dangad.options.configuration import configuration_of, values_of
from dangad.options.values import MAX_NUMBER
from tests.reader import ROOT

KINDS = kinds_of(Options())
REFERENCE = ROOT / "docs" / "reference" / "command-line.md"

words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
names = st.from_regex(r"[a-z][a-z.]{0,8}", fullmatch=True)
counts = st.integers(0, 10**6)
times = st.floats(0, 10**9) | st.integers(0, 10**6)

VALUES: dict[str, st.SearchStrategy[Any]] = {
    **{name: st.booleans() for name, kind in KINDS.items() if kind is Kind.FLAG},
    **{name: st.integers(1, 10**6) for name, kind in KINDS.items() if kind is Kind.NUMBER},
    **dict.fromkeys(
        ("drain", "health-oldest", "quarantine-time", "recycle-age", "relief-after", "log-stalls"),
        times,
    ),
    "start-timeout": st.floats(0.001, 10**9),
    "min-workers": st.just(0),
    "max-workers": st.just(1),
    "spare-workers": st.just(0),
    "max-payload": st.integers(1, 2**30),
    "max-buffered": st.integers(2**31, 2**40),
    "worker-nice": st.integers(0, 19),
    "log-format": st.sampled_from(FORMATS),
    "log-level": st.sampled_from(LEVELS),
    "log-jobs": st.sampled_from(LOG_JOBS),
    "worker-umask": st.integers(0, 0o777).map("{:03o}".format),
    "worker-directory": st.just(os.path.abspath("/")),
    "control": words,
    "listen": st.lists(words, min_size=1),
    "jobs": st.lists(names, min_size=1),
    "allow-users": st.lists(words.filter(lambda word: "," not in word)),
    "allow-groups": st.lists(words.filter(lambda word: "," not in word)),
    "worker-path": st.lists(st.sampled_from(["/", os.path.abspath("/usr")])),
    "worker-env": st.dictionaries(words.filter(lambda word: "=" not in word), words).map(
        lambda pairs: [f"{name}={value}" for name, value in pairs.items()]
    ),
    "worker-keep-env": st.lists(words),
    "web": words,
    "web-host": st.lists(names),
    "web-prefix": st.sampled_from(["", "/dangad", "/ops/jobs.dangad"]),
}
START: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{"start": start} for start in STARTS]
    + [{"preload": True}, {"preload": True, "start": "preloaded"}, {}]
)
ONLY_ROOT = {"worker-uid", "worker-gid"}


@st.composite
def some_options(draw: st.DrawFn) -> dict[str, Any]:
    """Values for some options, which a server could have been started with."""
    chosen = draw(st.sets(st.sampled_from(sorted(VALUES.keys() - {"preload", "start"}))))
    values = {name: draw(VALUES[name]) for name in sorted(chosen)}
    return {**values, **draw(START)}


def command_line(values: dict[str, Any]) -> list[str]:
    """The words that give these options to the server."""
    found = []
    for name, value in values.items():
        if isinstance(value, bool):
            found += [f"--{name}"] * value
        else:
            each = value if isinstance(value, list) else [value]
            found += [f"--{name}={text}" for text in each]
    return found


class ConfigCase(SynchronousTestCase):
    def setUp(self) -> None:
        """Make a folder for the file."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name, "dangad.toml")

    def parse(self, text: str, *line: str) -> Options:
        """The options of a file with this text, and of these words of the command line."""
        self.path.write_text(text)
        options = Options()
        options.parseOptions([f"--config={self.path}", *line])
        return options

    def error(self, text: str, *line: str) -> str:
        """The one line in which the start fails, without the program's name and the folder."""
        with self.assertRaises(SystemExit) as ended:
            self.parse(text, *line)
        said = str(ended.exception)
        self.assertTrue(said.isprintable(), said)
        return said.removeprefix("twistd dangad: ").replace(str(self.path), "dangad.toml")


class RoundTripTest(ConfigCase):
    def test_strategies(self) -> None:
        """The properties are about each option, but for those that only root may use."""
        self.assertEqual(VALUES.keys() | {"start"}, KINDS.keys() - ONLY_ROOT)

    @settings(deadline=None, max_examples=50)
    @given(some_options())
    def test_without_file(self, values: dict[str, Any]) -> None:
        """What `dangad config` prints starts a server with the same options."""
        options = Options()
        options.parseOptions(command_line(values))
        document = configuration_of(options).document({})
        again = self.parse("\n".join(show_config(document)))
        self.assertEqual(values_of(again), values_of(options))

    @settings(deadline=None, max_examples=50)
    @given(some_options(), some_options())
    def test_with_file(self, in_file: dict[str, Any], on_line: dict[str, Any]) -> None:
        """So it is with a file and a command line, and options as in the file stay as they are."""
        options = Options()
        options.parseOptions(command_line(in_file))
        text = "\n".join(show_config(configuration_of(options).document({})))
        both = self.parse(text, *command_line(on_line))
        printed = "\n".join(show_config(configuration_of(both).document({})))
        again = self.parse(printed)
        self.assertEqual(values_of(again), values_of(both))
        self.assertEqual("\n".join(show_config(configuration_of(again).document({}))), printed)
        if not on_line:
            self.assertEqual(printed, text)

    def test_comments(self) -> None:
        """Comments, order and notation of the file stay; what differs is changed or added."""
        text = (
            "# Reports\nmax-payload = '32M'  # large\n\nworker-env = [\n  'A=1',  # a\n]\n"
            "spare-workers = 1\nmax-workers = 1 # one"
        )
        document = configuration_of(self.parse(text, "--drain=7")).document({})
        self.assertEqual(document["changed"], ["drain"])
        added = "\n\n# These are not in the file that the server was started with.\ndrain = 7"
        self.assertEqual("\n".join(show_config(document)), text + added)
        document = configuration_of(self.parse(text)).document({"max-workers": 3})
        self.assertEqual(
            "\n".join(show_config(document)), text.replace("workers = 1 #", "workers = 3 #")
        )

    def test_not_utf8(self) -> None:
        """A path that is not UTF-8 cannot be in a TOML file, and that is said."""
        options = Options()
        options.parseOptions(["--control=\udcff"])
        with self.assertRaisesRegex(ValueError, "control is not UTF-8"):
            show_config(configuration_of(options).document({}))


class MergeTest(ConfigCase):
    def test_defaults(self) -> None:
        """An empty file changes nothing, and an empty array is a key left out."""
        options = Options()
        options.parseOptions([])
        for text in ("", "# nothing\r\n", "jobs = []\nlisten = []\nallow-users = []"):
            self.assertEqual(values_of(self.parse(text)), values_of(options))

    def test_line_wins(self) -> None:
        """An option of the command line replaces the file's, which may be a whole list."""
        text = 'drain = 5\njobs = ["a", "b"]\nallow-users = [0, "1,2"]\nforce = true\n'
        options = self.parse(text, "--jobs=c", "--drain", "6")
        self.assertEqual((options["jobs"], options["drain"]), (["c"], 6.0))
        self.assertEqual((options["allow-users"], options["force"]), (["0", "1", "2"], 1))
        self.assertEqual(self.parse("start = 'fresh'", "--preload")["start"], "preloaded")
        self.assertEqual(self.parse("preload = true", "--start", "fresh")["start"], "fresh")

    def test_notations(self) -> None:
        """Sizes and times are numbers, or texts as on the command line."""
        for text in ("max-payload = 2048\ndrain = 1.5", "max-payload = '2k'\ndrain = '1.5'"):
            options = self.parse(text)
            self.assertEqual((options["max-payload"], options["drain"]), (2048, 1.5))


class ErrorTest(ConfigCase):
    def test_errors(self) -> None:
        """An error names the file, the key and what is wrong with it, and says what to write."""
        for text, says in (
            ("max_wokers = 3", "max_wokers: there is no such option; did you mean max-workers?"),
            ("x = 1", "x: there is no such option; twistd dangad --help lists all"),
            ('"\\u001b\\u202e" = 1', r"\x1b\u202e: there is no such option; twistd"),
            ("[dangad]\ndrain = 1", "dangad: there is no such option; options are keys at the to"),
            ("config = 'x'", "config: a file cannot name another file"),
            ("help = true", "help: there is no such option"),
            (
                "jobs = 'x'",
                'jobs = "x": it must be an array of texts in quotes; write jobs = ["x"]',
            ),
            (
                "jobs = [1]",
                'jobs = [1]: it must be an array of texts in quotes; write jobs = ["1"]',
            ),
            ("worker-env = {A = 'b'}", 'write worker-env = ["NAME=VALUE"]'),
            ("force = 'no'", 'force = "no": it must be a flag, true or false; write force = fal'),
            ("force = 'no'", "write force = false"),
            ("force = 1", "write force = true"),
            ("log-jobs = true", 'it must be a text in quotes; write log-jobs = "all"'),
            ("log-jobs = false", 'write log-jobs = "failed"'),
            ("log-jobs = 'some'", "log-jobs some: it must be one of none, failed, all"),
            (
                "worker-umask = 0o22",
                "worker-umask = 18: it must be a text in quotes; write worker-",
            ),
            ("drain = true", "drain = true: it must be a number; write drain = 1"),
            ("drain = 1979-05-27", 'drain = "1979-05-27": it must be a number'),
            ("control = 5", 'control = 5: it must be a text in quotes; write control = "5"'),
            ("control = '" + "x" * 99 + "'\nstart = true", "start = true: it must be a text"),
            ('jobs = ["a\\u0000"]', r'jobs = ["a\u0000"]: it has a NUL character'),
            ("max-payload = '3Q'", "max-payload 3Q: not a number of bytes from 1, or one with k,"),
            ("min-workers = 2.0", "min-workers 2.0: not a whole number from 0"),
            ("drain = nan", "drain nan: not a number of seconds"),
            ("start = 'slow'", "start slow: it "),
            ("worker-path = ['nowhere']", "worker-path nowhere: no such directory"),
            ("jobs = ['']", "jobs names no module"),
            ("min-workers = 9\nmax-workers = 1", "min-workers 9 is more than --max-workers 1"),
            ("preload = true\nstart = 'fresh'", "preload"),
            ("drain = ", "it is not TOML: Invalid value (at end of document)"),
            ("drain = 1\ndrain = 2", "it is not TOML: Cannot overwrite a value"),
            ("drain = 0x" + "f" * 5000, "drain: the number is too large"),
            ("drain = " + "9" * 5000, "it is not TOML: "),
            ("force = 0x" + "f" * 5000, "force = ...: it must be a flag"),
            ("x = " + "[" * 5000, "it is not TOML: "),
            ("#" * (MAX_FILE + 1), f"--config dangad.toml: it has more than {MAX_FILE:,} bytes"),
        ):
            with self.subTest(text[:60]):
                start = says if says.startswith("--") else "dangad.toml: "
                said = self.error(text)
                self.assertTrue(said.startswith(start), said)
                self.assertIn(says, said)

    def test_line(self) -> None:
        """An error of the command line is not blamed on the file, even if they are alike."""
        for text, line, says in (
            ("drain = 1", "--drain=12x", "--drain 12x: not a number of seconds"),
            ("drain = 1", "--nope", "--nope"),
            ("jobs = ['a']", "--jobs=a,b", "--jobs a,b: repeat the option"),
        ):
            said = self.error(text, line)
            self.assertIn(says, said)
            self.assertNotIn("dangad.toml", said)

    def test_too_large(self) -> None:
        """The command line has no numbers that the file cannot have: `dangad config` writes it."""
        largest = MAX_NUMBER // 2**30
        options = self.parse("", f"--max-queued={MAX_NUMBER}", f"--recycle-memory={largest}G")
        for line in show_config(configuration_of(options).document({})):
            self.path.write_text(line)
            read(str(self.path), KINDS)
        for option, number in (
            ("max-queued", MAX_NUMBER + 1),
            ("max-queued", "9" * 5000),
            ("recycle-memory", MAX_NUMBER + 1),
            ("recycle-memory", f"{largest + 1}G"),
            ("recycle-memory", "9" * 5000),
        ):
            said = self.error("", f"--{option}={number}")
            self.assertIn(f"--{option} {number}: the number is too large", said)

    def test_unreadable(self) -> None:
        """A file that cannot be read is one line with the system's reason."""
        for path, says in (
            ("/nowhere/dangad.toml", "No such file or directory"),
            ("/", "Is a directory"),
            ("a\0", "embedded null byte"),
        ):
            with self.assertRaises(SystemExit) as ended:
                Options().parseOptions(["--config", path])
            self.assertIn(says, str(ended.exception))
        self.path.write_bytes(b"drain = 1 # \xff")
        with self.assertRaises(SystemExit) as ended:
            Options().parseOptions(["--config", str(self.path)])
        self.assertIn("it is not UTF-8 (at byte 12)", str(ended.exception))

    def test_help(self) -> None:
        """The help of twistd has the option."""
        output = io.StringIO()
        with contextlib.redirect_stdout(output), self.assertRaises(SystemExit):
            Options().parseOptions(["--help"])
        self.assertIn("--config=", output.getvalue())


class PageTest(ConfigCase):
    def test_example(self) -> None:
        """The reference shows a file with every option, with its default if it has one."""
        page = REFERENCE.read_text()
        self.assertIn(f"{MAX_FILE:,} bytes", page)
        text = page[page.index("```toml\n") + 8 :].partition("```")[0]
        shown = tomllib.loads(re.sub("\n# (worker-|web )", r"\n\1", text))
        self.assertEqual(list(shown), list(KINDS))
        options = Options()
        options.parseOptions(["--max-workers=4"])
        self.assertEqual(values_of(self.parse(text)), values_of(options))
        self.path.write_text(tomlkit.dumps(shown))
        read(str(self.path), KINDS)
