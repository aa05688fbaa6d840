"""Calls by hand: the form made of a command's types, what is typed, and what comes of it."""

from __future__ import annotations

import ast
from datetime import datetime
from html import unescape
from typing import Any
from urllib.parse import quote, urlencode

from twisted.internet import defer
from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase

from dangad.errors import QueueFull
from dangad.web.callforms import MOST_FIELDS, Typed, read_typed, typed_before
from dangad.web.calllines import MAX_LINES, Lines
from dangad.web.callviews import PIECE
from dangad.wire.catalogue import NO_POLICY, describe_command
from dangad.wire.words import build_arguments
from tests.unit.web.busyoperations import HOSTILE, called, signature
from tests.unit.web.test_actions import HERE, ActionsCase
from tests.unit.web.test_pages import Outline
from tests.unit.web.visits import Answer, Visit, VisitCase

FORM = "/ops/commands/Thumbnail"


def area(text: str, name: str) -> str:
    """What is in a text area of a page."""
    start = text.index(">", text.index(f'name="{name}"')) + 1
    return unescape(text[start : text.index("</textarea>", start)]).removeprefix("\n")


class FormTests(ActionsCase):
    def call(self, **fields: Any) -> Answer:
        """Send the form of a command."""
        return self.post("call", **{"command": "Thumbnail", **fields})

    def test_fields(self) -> None:
        """Each argument has a field that suits its type, and the type in words."""
        answer = self.get(FORM)
        outline = Outline(answer.text)
        inputs = {each["name"]: each.get("type") for each in outline.all("input")}
        self.assertEqual(inputs["arg.size-of"], "number")
        self.assertEqual((inputs["arg.factor"], inputs["arg.since"]), ("text", "text"))
        areas = [each["name"] for each in outline.all("textarea")]
        self.assertEqual(areas, ["arg.title", "arg.raw", "arg.widths", "arg.rows"])
        selects = [each["name"] for each in outline.all("select")]
        self.assertEqual(selects, ["arg.bright", "priority"])
        for words in (
            "list of {name: text}, optional",
            "one element a line",
            "2026-11-23T14:30",
            "dangad call --connect unix:/run/dangad.sock Thumbnail title=hello",
        ):
            self.assertIn(words, answer.text)

    def test_call(self) -> None:
        """What was typed is called, and the browser goes to the page of the call."""
        answer = self.call(
            **{
                "arg.title": "two\r\nlines",
                "arg.size-of": "",
                "arg.bright": "true",
                "arg.widths": "1\r\n\r\n2\r\n",
                "arg.rows": '[{"name": "a"},\r\n {"name": "b"}]',
                "priority": "high",
                "deadline": "1.5m",
                "chunks": "on",
            }
        )
        self.assertEqual((answer.status, answer.headers["location"]), (303, "/ops/calls/120"))
        words = {
            "title": ["two\nlines"],
            "bright": ["true"],
            "widths": ["1", "2"],
            "rows": ['[{"name": "a"},\n {"name": "b"}]'],
        }
        options = {"priority": "high", "deadline": 90.0, "chunks": True}
        self.assertEqual(self.operations.called, [("Thumbnail", words, options)])

    def test_wrong(self) -> None:
        """What is wrong is said, and what was typed is still there."""
        for field, typed, wrong in (
            ("arg.size-of", "big", "argument 'size-of': 'big' is not a whole number"),
            ("arg.rows", "{}", "key 'name' (text) is missing"),
            ("arg.more", "1", "no argument 'more'"),
            ("deadline", HOSTILE, "is no time like 90"),
        ):
            with self.subTest(field):
                title = f"\n{HOSTILE}</textarea>"
                answer = self.call(**{"arg.title": title, "arg.widths": "[1,\n2]", field: typed})
                self.assertEqual(answer.status, 422)
                self.assertIn(wrong, unescape(answer.text))
                self.assertNotIn("<script>", answer.text)
                self.assertEqual(area(answer.text, "arg.title"), title)
                self.assertEqual(area(answer.text, "arg.widths"), "[1,\n2]")

    def test_marked(self) -> None:
        """The field that is wrong is marked."""
        text = self.call(**{"arg.title": "x", "arg.size-of": "big"}).text
        marked = [each["name"] for _, each in Outline(text).tags if "aria-invalid" in each]
        self.assertEqual(marked, ["arg.size-of"])

    def test_refused(self) -> None:
        """So it is with what the server refuses."""
        full = defer.fail(QueueFull("10 jobs that were called by hand have not ended"))
        self.operations.call = lambda *_, **__: full  # type: ignore[method-assign]
        answer = self.call(**{"arg.title": "a cat"})
        self.assertEqual(answer.status, 422)
        self.assertIn("10 jobs that were called by hand", answer.text)
        self.assertEqual(area(answer.text, "arg.title"), "a cat")

    def test_unknown(self) -> None:
        """A command that is not there is not called."""
        self.assertEqual(self.call(command="Nothing").status, 404)
        self.assertEqual(self.operations.called, [])
        self.assertEqual(self.get("/ops/commands/ListDirectory").status, 200)

    def test_forged(self) -> None:
        """Without the token, or from another site, nothing is called, and by GET neither."""
        fields = {"arg.title": "x"}
        self.assertEqual(self.call(**fields, token="x").status, 403)
        self.assertEqual(self.call(**fields, origin="http://evil.example").status, 403)
        query = urlencode({**fields, "command": "Thumbnail", "token": self.token()})
        self.assertEqual(self.get(f"/ops/do/call?{query}", f"Origin: {HERE}").status, 405)
        self.assertEqual(self.operations.called, [])

    def test_many_arguments(self) -> None:
        """A command with very many arguments has fields for some, and says so."""
        keys = [{**signature("x")["arguments"][0], "key": f"key{n}"} for n in range(1000)]
        self.operations.signatures["Thumbnail"]["arguments"] = keys
        answer = self.get(FORM)
        self.assertEqual(len(Outline(answer.text).all("textarea")), MOST_FIELDS)
        self.assertIn(f"Only the first {MOST_FIELDS} arguments", answer.text)
        self.assertLess(len(answer.body), 100_000)

    def test_hostile_command(self) -> None:
        """The form of a command that is named like markup calls it by this name."""
        self.get(f"/ops/commands/{quote(HOSTILE, safe='')}")
        self.assertEqual(self.call(command=HOSTILE, **{"arg.title": ""}).status, 303)
        self.assertEqual(self.operations.called[0][0], HOSTILE)


class CallTests(ActionsCase):
    def test_call(self) -> None:
        """A call is shown with its progress, its last parts, and a button that cancels it."""
        text = self.get("/calls/140").text
        for shown in ("25%, 3 of 12", "33 parts of the result, the last 2", "a part", "/jobs/140"):
            self.assertIn(shown, text)
        [bar] = Outline(text).all("progress")
        self.assertEqual((bar["value"], bar["max"]), ("3", "12"))
        self.assertIn(("hidden", "ids", "140"), _inputs(text))
        self.assertEqual(area(text, "arg.title"), HOSTILE)

    def test_ended(self) -> None:
        """An answer is shown as text, with what was typed and the same call elsewhere."""
        text = self.get("/calls/138").text
        self.assertIn("{&quot;image&quot;", text.replace('"', "&quot;"))
        self.assertNotIn(("hidden", "ids", "138"), _inputs(text))
        self.assertEqual(area(text, "arg.widths"), "1\n2")
        shown = unescape(text)
        self.assertIn("Thumbnail 'title=a cat' widths=1 widths=2", shown)
        self.assertIn("client.run(Thumbnail, title='a cat', widths=[1, 2])", shown)

    def test_again(self) -> None:
        """What another job was asked to do is not shown, but what came of it is."""
        text = self.get("/calls/139").text
        self.assertIn("as job 120 was", text)
        self.assertIn("it came from another client", text)
        self.assertIn("BAD_IMAGE", text)

    def test_gone(self) -> None:
        """A call that is forgotten, or never was, is not there."""
        for path in ("/calls/7", "/calls/x", f"/calls/{quote(HOSTILE, safe='')}"):
            self.assertEqual(self.get(path).status, 404)

    def test_list(self) -> None:
        """The list of calls has what came of each, in few words."""
        self.operations.calls_document = [
            called(number, "Thumbnail", answer="x" * 2**16, parts=["y" * 4096] * 20)
            for number in range(50)
        ]
        answer = self.get("/calls")
        self.assertEqual(len(Outline(answer.text).all("tr")), 51)
        self.assertLess(len(answer.body), 50_000)

    def test_turns(self) -> None:
        """A long answer, and each part, is written in turns of its own."""
        parts = ["\x1b" * 4096] * 20
        long = called(1, "Thumbnail", answer="\u202e" * 2**16, parts=parts, progress=None)
        self.operations.calls_document = [long]
        turns: list[float] = []
        later = self.clock.callLater

        def count(delay: float, *rest: Any, **more: Any) -> Any:
            turns.append(delay)
            return later(delay, *rest, **more)

        self.clock.callLater = count  # type: ignore[method-assign]
        text = self.get("/calls/1").text
        self.assertGreaterEqual(turns.count(0), 2**16 / PIECE - 1 + 19)
        self.assertEqual(text.count("\\u202e"), 2**16)

    def test_total(self) -> None:
        """Progress without a total, or that makes no sense, has no bar."""
        for done, total in ((5, 0), (9, 3), (-1, 3)):
            progress = {"done": done, "total": total, "message": ""}
            self.operations.calls_document = [called(1, "Thumbnail", progress=progress)]
            self.assertEqual(Outline(self.get("/calls/1").text).all("progress"), [])

    def test_live(self) -> None:
        """Updates have what has come of it, and not the form."""
        visit = Visit(self.site)
        visit.ask("GET /live/calls/140")
        for _ in range(20):
            self.clock.advance(0.1)
        shown = visit.transport.value().decode()
        self.assertIn("25%, 3 of 12", shown)
        self.assertNotIn("textarea", shown)


class AgainTests(ActionsCase):
    def test_held(self) -> None:
        """A job whose request is held has a button, which leads to the new call."""
        self.operations.can_run_again = True
        self.assertIn(("hidden", "job", "121"), _inputs(self.get("/jobs/121").text))
        answer = self.post("again", job=120)
        self.assertEqual(answer.headers["location"], "/ops/calls/121")
        self.assertEqual(self.operations.again, [120])

    def test_gone(self) -> None:
        """Otherwise the page says why not, and the order does."""
        self.assertIn("is not kept once its last attempt begins", self.get("/jobs/100").text)
        self.assertIn("no job 100 waits or runs", self.outcome("again", job=100))

    def test_by_hand(self) -> None:
        """What was called by hand is called again from what was typed."""
        self.operations.calls_document = [called(100, "Thumbnail")]
        self.assertIn('href="/ops/calls/100"', self.get("/jobs/100").text)


class ReadOnlyTests(VisitCase):
    def test_nothing(self) -> None:
        """Without --web-actions there is no form, no call, and no answer to be seen."""
        text = self.get("/commands/Thumbnail").text
        self.assertEqual(Outline(text).all("textarea"), [])
        self.assertIn("title: text, [size-of: integer]", text)
        for path in ("/calls", "/calls/138"):
            answer = self.get(path)
            self.assertEqual(answer.status, 404)
            self.assertIn("--web-actions", answer.text)
            self.assertNotIn("a cat", answer.text)
        self.assertNotIn('id="again"', self.get("/jobs/100").text)
        sent = self.send("POST /do/call", f"Origin: {HERE}", body=b"token=&command=Thumbnail")
        self.assertEqual(sent.status, 403)
        self.assertEqual(self.operations.called, [])


class TypedTests(SynchronousTestCase):
    def test_back(self) -> None:
        """What was typed is the same after it was called and told again."""
        entry = signature("Thumbnail")
        typed = Typed("Thumbnail", {"title": "a", "widths": "1\n2"}, "low", "1234567.5", True)
        words = typed.words(entry)
        document = called(1, "Thumbnail", words=words, **typed.options())
        self.assertEqual(typed_before(document), typed)

    def test_bounded(self) -> None:
        """A form with very many fields is read up to a bound."""
        sent = {f"arg.{n}".encode(): [b"x"] for n in range(1000)}
        self.assertEqual(len(read_typed(sent).fields), MOST_FIELDS)

    def test_empty(self) -> None:
        """Empty fields are empty texts and lists where these are needed, and else nothing."""
        entry = signature("x")
        for key in entry["arguments"]:
            key["optional"] = False
        fields = {key["key"]: "" for key in entry["arguments"]}
        words = Typed("x", fields).words(entry)
        self.assertEqual(words, {"title": [""], "raw": [""], "widths": [], "rows": []})
        object_lines = Typed("x", {"rows": '{"name": "a"}\n{"name": "b"}'}).words(entry)
        self.assertEqual(len(object_lines["rows"]), 2)
        one = Typed("x", {"rows": '{\n"name": "a"\n}'}).words(entry)
        self.assertEqual(len(one["rows"]), 1)


class LinesTests(SynchronousTestCase):
    def test_python(self) -> None:
        """The program is Python, and its values are the ones that were typed."""
        entry = signature("Draw")
        words = {
            "title": ['it\'s \u202e "x"'],
            "size-of": ["3"],
            "factor": ["inf"],
            "since": ["2026-11-23T14:30+01:00"],
            "raw": ["\u00e9"],
            "widths": ["1", "2"],
            "rows": ['{"name": "a"}'],
        }
        options = {"priority": "low", "deadline": 30.0, "chunks": False}
        shown = Lines(entry, words, options, "unix:x").python()
        self.assertNotIn("\u202e", shown)
        [program] = [
            each for each in ast.parse(shown).body if isinstance(each, ast.AsyncFunctionDef)
        ]
        [run] = [
            each
            for each in ast.walk(program)
            if isinstance(each, ast.Call) and getattr(each.func, "attr", "") == "run"
        ]
        given = {
            each.arg: eval(ast.unparse(each.value), {"datetime": datetime}) for each in run.keywords
        }
        expected = {**build_arguments(entry, words), "priority": "low", "deadline": 30}
        self.assertEqual(given, expected)

    def test_names(self) -> None:
        """Arguments that are named like options, or like no keyword, are given in a dict."""
        keys = [(b"priority", amp.Integer()), (b"a.b", amp.Decimal())]
        command = type("Odd", (amp.Command,), {"arguments": keys, "commandName": b"od-d"})
        entry = describe_command(command, NO_POLICY, "")
        shown = Lines(entry, {"priority": ["1"], "a.b": ["2.50"]}, {}, "").python()
        ast.parse(shown)
        self.assertIn(
            "        YourCommand,\n        {'priority': 1, 'a.b': Decimal('2.50')},\n    )", shown
        )
        self.assertIn("from decimal import Decimal", shown)

    def test_options(self) -> None:
        """The line for the shell has the options that were chosen."""
        options = {"priority": "high", "deadline": 1.5, "chunks": True}
        lines = Lines(signature("Draw"), {"title": ["x"]}, options, "unix:dangad.sock")
        line = "dangad call --priority high --deadline 1.5 --stream Draw title=x"
        self.assertEqual((lines.example, lines.shell()), (False, line))
        self.assertIn("async for part in client.stream(Draw, title='x', ", lines.python())

    def test_example(self) -> None:
        """Where nothing can be made of what was typed, there is an example."""
        for words in (None, {}, {"title": ["x"], "size-of": ["big"]}):
            lines = Lines(signature("Draw"), words, {"priority": "high"}, "")
            self.assertEqual((lines.example, lines.shell()), (True, "dangad call Draw title=hello"))

    def test_bounded(self) -> None:
        """A long text is not shown as a whole."""
        lines = Lines(signature("Draw"), {"title": ["x" * 60_000]}, {}, "")
        self.assertLess(len(lines.shell() + lines.python()), 2 * MAX_LINES + 10)


def _inputs(text: str) -> list[tuple[str | None, ...]]:
    return [
        (each.get("type"), each.get("name"), each.get("value"))
        for each in Outline(text).all("input")
    ]
