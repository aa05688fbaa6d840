"""Short stories in which tests tell what happens, and what is true then.

A story is a row of sentences, with commas or line ends between them. ``3x w answers`` is that it
does so three times. A sentence begins with a verb, as ``wait 5``, or with somebody's name, as
``w answers``. What a verb does stands in the test case's `deeds`; what is true, as words, in its
`facts`. Longer ones are methods, with ``do_`` or ``see_`` before the verb. ``ann: a b`` is that Ann
asks for `a` and then for `b`. ``a1-3`` are three names.
"""

from __future__ import annotations

import re
import shlex
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.trial.unittest import SynchronousTestCase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Deeds = dict[str, Callable[..., object]]
    """By its verb, what somebody does, or what is true; the test case comes first."""

_SENTENCE = re.compile(r'(?:[^,\n"]|"[^"]*")+')
_RANGE = re.compile(r"(\D+)(\d+)-(\d+)$")
_TIMES = re.compile(r"(\d+)x$")


def names(words: Iterable[str]) -> list[str]:
    """The names in these words, where ``a1-3`` is ``a1 a2 a3``, each with the rest of its word."""
    found = []
    for word in words:
        name, slash, rest = word.partition("/")
        if (match := _RANGE.match(name)) is None:
            found.append(word)
            continue
        stem, first, last = match.groups()
        found += [f"{stem}{n}{slash}{rest}" for n in range(int(first), int(last) + 1)]
    return found


class TellingTestCase(SynchronousTestCase):
    """A test case whose tests may be stories."""

    deeds: ClassVar[Deeds] = {}
    facts: ClassVar[Deeds] = {}

    def setUp(self) -> None:
        """Begin the first story."""
        self.begin_anew()

    def begin_anew(self) -> None:
        """Have everything new, as at the begin of a test."""
        raise NotImplementedError

    def find(self, name: str) -> Any:
        """Who is called this."""
        raise NotImplementedError

    def ask(self, name: str, word: str) -> None:
        """Have somebody ask for something."""
        raise NotImplementedError

    def see_all_is_over(self) -> None:
        """See that nothing is left of a story."""

    def tell(self, *tables: dict[str, str], prelude: str = "") -> None:
        """Tell the stories of these tables, which have what they show as their names.

        Whatever is not true in one of them keeps none of the others from being told.
        """
        wrong = []
        for shows, story in (each for stories in tables for each in stories.items()):
            try:
                self.begin_anew()
                self.play(f"{prelude}\n{story}")
                self.see_all_is_over()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is raised below
                error.add_note(f"which shows that {shows}")
                wrong.append(error)
        if wrong:
            raise ExceptionGroup("what is told is not true", wrong)

    def play(self, story: str) -> None:
        """Have happen what the story tells, and see that it is true."""
        for sentence in filter(str.strip, _SENTENCE.findall(story)):
            try:
                self.say(sentence.strip())
            except Exception as error:
                error.add_note(f"in {sentence.strip()!r} of: {story}")
                raise

    def say(self, sentence: str) -> None:
        """Have one sentence be true."""
        first, *rest = shlex.split(sentence)
        if times := _TIMES.match(first):
            for _ in range(int(times[1])):
                self.say(sentence.split(None, 1)[1])
        elif first.endswith(":"):
            for word in names(rest):
                self.ask(first[:-1], word)
        elif (verb := self.verb(first)) is not None:
            verb(*names(rest))
        else:
            verb = self.verb(rest[0])
            assert verb is not None, f"nobody knows what {rest[0]!r} is"
            verb(self.find(first), *names(rest[1:]))

    def verb(self, word: str) -> Any:
        """What is to be called for this verb; None if it is none."""
        if word in self.deeds:
            return partial(self.deeds[word], self)
        if word in self.facts:
            return partial(self.check, word)
        return getattr(self, f"do_{word}", None) or getattr(self, f"see_{word}", None)

    def check(self, fact: str, *words: Any) -> None:
        """See that a fact is what the words say; whom it is about comes before them."""
        about = [word for word in words if not isinstance(word, str)]
        found: Any = self.facts[fact](self, *about)
        found = found if isinstance(found, list) else [found]
        told = [f"{each:g}" if isinstance(each, float) else str(each) for each in found]
        self.assertEqual(told, [" ".join(word.split()) for word in words if isinstance(word, str)])
